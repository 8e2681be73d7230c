"""Of two processes with one key one goes on, and it is never the copy of a home that runs."""

from random import Random

import pytest
from property.walk import Node, Walk, values


def beside(walk: Walk, rivals: list[Node], relays: list[Node], turns: int) -> None:
    """Let processes with one key take turns at their relays, each cut off somewhere."""
    for turn in range(turns):
        author = walk.rng.choice(rivals)
        walk.nodes, walk.wire = [author, *relays], []
        walk.now_s += 5.0
        if not author.own.cloned and walk.rng.random() < 0.7:
            author.own.write("notes", b"%d" % author.boot, b"%d" % turn)
            walk.flush(author)
        walk.tell(author, author.held.digest())
        walk.tell(author, author.held.ask_for_own())
        for _ in range(walk.rng.randrange(40)):
            if not walk.wire or author.own.cloned:  # who falls silent hangs up
                break
            walk.hand_over(*walk.wire.pop(0))
    for _ in range(6):
        for author in rivals:
            walk.nodes, walk.wire = [author, *relays], []
            if not author.own.cloned:
                walk.calm()


@pytest.mark.parametrize("seed", range(30))
def test_the_copy_of_a_home_that_runs_gives_way_and_never_the_original(seed):
    walk = Walk(Random(seed), 3)
    owner, *relays = walk.nodes
    owner.own.write("notes", b"1", b"mine")
    walk.flush(owner)
    walk.calm()
    copy = Node(owner.key, walk.rng.getrandbits(62) | 64, owner.saved())
    beside(walk, [owner, copy], relays, turns=20)
    assert (owner.own.cloned, copy.own.cloned) == (False, True)
    for relay in relays:
        assert values(relay.held.replicas[owner.id].rows) == values(owner.own.rows)


@pytest.mark.parametrize("seed", range(30))
def test_of_two_that_were_started_from_one_disk_one_gives_way_soon(seed):
    walk = Walk(Random(seed), 3)
    before, *relays = walk.nodes
    before.own.write("notes", b"1", b"mine")
    walk.flush(before)
    walk.calm()
    rivals = [Node(before.key, walk.rng.getrandbits(62) | 64, before.saved()) for _ in range(2)]
    beside(walk, rivals, relays, turns=20)
    assert sorted(one.own.cloned for one in rivals) == [False, True]
    assert relays[0].held.head_of(before.id).epoch <= 12
