"""What another feed says is left out of ours: of each counter, however far it is rolled up."""

from random import Random

import pytest

from meshnode.core.errors import DamagedError
from meshnode.core.feeds.heads import Head
from meshnode.core.ledger.ledger import SLOT_S, Buckets, DiagnosticsKey, Slot, SlotKey, merged
from meshnode.core.ledger.rollups import plus, summed, way_of
from meshnode.core.periods import DAY_S
from meshnode.store import counters, elsewhere, facts, ledger, rollups

NOW_S = 1_790_000_000.0
TODAY = int(NOW_S // DAY_S)
SLOTS_A_DAY = DAY_S // SLOT_S


def key_of(days_ago, number=0, session="s"):
    return SlotKey(session, "m", "standard", (TODAY - days_ago) * SLOTS_A_DAY + number)


def used(records):
    return Slot(records, Buckets(10 * records, output=records))


def count(connection, rows):
    counters.keep_counted(connection, [(k, counters.Counted(one, 1)) for k, one in rows.items()])


def said(connection):
    rows = ledger.published(connection)
    return {k: one for k, one in rows if not isinstance(k, DiagnosticsKey) and one.records}


def roll_up(connection, now_s):
    after = b""
    while after is not None:
        piece = rollups.plan(connection, now_s, after, 1 << 20)
        rollups.apply(connection, piece.moved)
        now = said(connection)
        assert all(now.get(key, used(0)) == one for key, one in piece.said.items() if one)
        after = piece.after


def added(*sides):
    """Sum counters to months, whatever they are rolled up to."""
    found = {}
    for side in sides:
        whole = summed(side, {key: way_of(key)[-1] for key in side if way_of(key)})
        for key, one in whole.items():
            found[key] = plus(found.get(key), one)
    return found


def test_what_stands_elsewhere_is_left_out_and_what_is_more_is_said(connection):
    first, second, third = (key_of(0, number) for number in range(3))
    count(connection, {first: used(2), second: used(5)})
    rollups.stand_beside(connection, {first: used(2), second: used(3), third: used(4)})
    assert said(connection) == {second: used(2)}


def test_what_was_counted_in_days_there_and_in_half_hours_here_is_told_apart(connection):
    slots = {key_of(1, number): used(1) for number in range(4)}
    count(connection, slots)
    (day, _) = way_of(key_of(1))
    moved = rollups.stand_beside(connection, {day: used(3)})
    assert said(connection) == {day: used(1)}
    assert {key for key, one in moved.items() if one is None} == slots.keys()


def test_what_is_rolled_up_later_is_left_out_still(connection):
    mine = {key_of(1, number): used(3) for number in range(4)}
    count(connection, mine)
    rollups.stand_beside(connection, {key_of(1, number): used(2) for number in range(2)})
    before = said(connection)
    for days in (40, 500):
        roll_up(connection, NOW_S + days * DAY_S)
        assert added(said(connection)) == added(before)
    assert len(said(connection)) == 1


def test_a_feed_that_leaves_out_is_taken_back_as_such(connection):
    """Disk and logs are lost: what it counted beyond the other is in it alone."""
    theirs = {key_of(0): used(3), key_of(0, 1): used(2)}
    ours = {key_of(0): used(2), key_of(0, 2): used(1)}
    rollups.stand_beside(connection, theirs)
    assert said(connection) == {}
    assert rollups.hold(connection, ours, is_net=True) == {}
    assert said(connection) == ours


@pytest.mark.parametrize("seed", range(40))
def test_both_feeds_together_say_the_larger_of_each_count(connection, seed):
    rng = Random(seed)
    keys = [key_of(rng.randrange(80), rng.randrange(3), rng.choice("ab")) for _ in range(30)]
    mine = {key: used(rng.randrange(1, 9)) for key in keys if rng.random() < 0.7}
    theirs = {key: used(rng.randrange(1, 9)) for key in keys if rng.random() < 0.7}
    count(connection, mine)
    both = dict(mine)
    for key, one in theirs.items():
        both[key] = merged(one, both.get(key, one))
    rollups.stand_beside(connection, theirs)
    assert added(said(connection), theirs) == added(both)
    roll_up(connection, NOW_S)
    assert added(said(connection), theirs) == added(both)
    rollups.stand_beside(connection, theirs)
    assert added(said(connection), theirs) == added(both), "doing it again changes nothing"


def test_whose_place_is_taken_is_known_of_one_mesh(connection):
    facts.remember(connection, elsewhere.replacing("mesh", "berta", Head(1, 7)))
    assert elsewhere.replaced(connection, "mesh") == {"berta": Head(1, 7)}
    assert elsewhere.replaced(connection, "another") == {}
    assert not elsewhere.is_settled(connection, "mesh")
    assert elsewhere.is_settled(connection, "another")
    elsewhere.note_taken(connection, "mesh", {"berta": Head(1, 8)})
    assert elsewhere.taken(connection, "mesh") == {"berta": Head(1, 8)}
    assert elsewhere.is_settled(connection, "mesh")
    assert elsewhere.taken(connection, "another") == {}


@pytest.mark.parametrize("broken", [b"{", b"7", b'["mesh"]', b'["mesh", 7]', b'[1, "x"]'])
def test_a_broken_fact_is_damage(connection, broken):
    for fact, read in (
        (elsewhere.REPLACES, elsewhere.replaced),
        (elsewhere.TAKEN, elsewhere.taken),
    ):
        facts.remember(connection, {fact: broken})
        with pytest.raises(DamagedError, match=fact):
            read(connection, "mesh")
