"""Whatever happens to messages and disks, replicas show states that their owners signed, and agree.

The walks and the model beside them are in walk.py.
"""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from property.walk import STEPS, Walk, values

from meshnode.core.effects import Send
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import Manifest, Pull


@pytest.mark.parametrize("count", [2, 3, 4])
@settings(max_examples=60)
@given(rng=st.randoms(use_true_random=False))
def test_replicas_are_signed_states_at_every_step_and_equal_at_rest(count: int, rng: Random):
    walk = Walk(rng, count)
    for _ in range(STEPS):
        walk.step()
    walk.calm()
    for owner in walk.nodes:
        for node in walk.nodes:
            if owner.own.header is None:
                continue
            assert not node.held.forks.has(owner.id), "the owner lives, and has left that epoch"
            assert values(node.held.replicas[owner.id].rows) == values(owner.own.rows)


def test_the_walks_meet_every_kind_of_trouble():
    happened: Counter[str] = Counter()
    for seed in range(80):
        walk = Walk(Random(seed), 3)
        for _ in range(STEPS):
            walk.step()
        walk.calm()
        happened += walk.happened
    kinds = {"lost", "repeated", "bent", "refused", "intact", "stale", "forks"}
    assert kinds <= {kind for kind, times in happened.items() if times > 5}


def test_who_asks_while_rows_are_ahead_of_the_disk_is_answered_once_they_are_not():
    one, other = Walk(Random(1), 2).nodes
    for number in range(60):
        one.own.write("notes", b"%d" % number, bytes(10_000))  # more than is kept of flushes
    while (earlier := one.own.flush(1.0)) is not None and earlier.flush is not None:
        one.held.remember(earlier.flush)
    one.own.write("notes", b"last", b"not yet")
    change = one.own.flush(1.0)
    assert change is not None
    assert change.flush is not None
    assert one.held.on_pull(other.id, Pull({one.id: Head(0, 0)})).effects == []
    one.held.remember(change.flush)
    (owed,) = one.held.pay()
    assert isinstance(owed, Send)
    assert owed.peer == other.id
    assert isinstance(owed.message, Manifest)
    assert owed.message.header == change.header
    assert one.held.pay() == []
