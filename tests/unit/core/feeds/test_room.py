"""Who may take what of a feed: the numbers that docs/protocol/feed.md and docs/ledger.md name."""

from itertools import count

import pytest

from meshnode.core.commands.audit import AUDIT
from meshnode.core.feeds.feed import TABLES_MAX
from meshnode.core.feeds.own_feed import LEDGER as LEFT_OUT_FIRST
from meshnode.core.feeds.own_feed import RECORD
from meshnode.core.feeds.room import ALWAYS, END_BYTES, LAST, Growth, Room, growth_of
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.genesis import Limits
from meshnode.core.membership.members import LINKS, NODE, ONLY_ROW
from meshnode.core.sessions.registry import REGISTRY
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.core.tables.removals import REMOVALS


def test_the_tables_are_those_that_their_owners_name():
    assert {(NODE, ONLY_ROW), (LINKS, ONLY_ROW), (AUDIT, ONLY_ROW)} == ALWAYS
    assert {SESSIONS, REMOVALS} == LAST
    assert (LEFT_OUT_FIRST, RECORD) == (LEDGER, (NODE, ONLY_ROW))


def rows_until_full(room: Room, table: str, size: int) -> int:
    """Add rows of so many bytes, the same in each bucket, until there is no room for one more."""
    for number in count():
        more = Growth(1, size, {number % 256: size + 48})
        if room.refusal(table, more):
            return number
        room.add(table, more)
    raise AssertionError


@pytest.mark.parametrize(("size", "most"), [(100, (17_998, 1000, 999)), (2600, (11_597, 645, 538))])
def test_a_ledger_leaves_room_to_others_and_all_leave_some_to_sessions(size: int, most: tuple):
    room = Room(Limits())
    tables = LEDGER, REGISTRY, SESSIONS
    assert tuple(rows_until_full(room, table, size) for table in tables) == most
    assert rows_until_full(room, REMOVALS, size) == 0
    for table, key in ALWAYS:
        assert not room.refusal(table, growth_of(table, [(key, None, 16 << 10)]))


@pytest.mark.parametrize("others", [0, 500, 4000, 19_000])
@pytest.mark.parametrize("table", [REGISTRY, SESSIONS])
def test_a_share_is_what_a_table_can_have_beside_others(others: int, table: str):
    room = Room(Limits())
    for number in range(others):
        more = Growth(1, 100, {number % 256: 148})
        if not room.refusal(table, more):
            room.add(table, more)
    told = room.share(LEDGER)
    assert rows_until_full(room, LEDGER, 100) == told.rows_max
    assert room.share(LEDGER)[:2] == (told.rows_max, 100 * told.rows_max)


def test_a_session_that_is_there_may_say_how_it_ended_and_no_other_takes_that_room():
    room = Room(Limits())
    for table in (LEDGER, REGISTRY):
        rows_until_full(room, table, 2600)
    count = rows_until_full(room, SESSIONS, 2600)
    for number in range(count):
        for table in LAST:
            assert room.refusal(table, Growth(1, 2600, {number % 256: 2648}))
        end = Growth(0, END_BYTES, {number % 256: END_BYTES})
        assert not room.refusal(SESSIONS, end)
        room.add(SESSIONS, end)


def test_what_shrinks_or_stays_is_never_refused():
    room = Room(Limits(rows_max=5, feed_bytes_max=10))
    room.add(LEDGER, Growth(9, 900, {1: 10**6}))
    for more in (Growth(), Growth(-1, -10, {1: -58}), Growth(0, -1, {1: -1})):
        assert not room.refusal(LEDGER, more)


def test_tables_of_ours_have_room_beside_as_many_others_as_there_may_be():
    room, made = Room(Limits()), 0
    while not room.refusal(f"t{made}", Growth(1)):
        room.add(f"t{made}", Growth(1))
        made += 1
    assert not any(room.refusal(table, Growth(1)) for table in LAST)
    assert made + len(LAST) + len(ALWAYS) <= TABLES_MAX
