"""What removals name is kept row by row, costs what is written, and is the same for all."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.feeds.feed import Replica
from meshnode.core.feeds.forks import Forks
from meshnode.core.feeds.headers import sign_header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Limits
from meshnode.core.sessions.registry import Birth, Place
from meshnode.core.tables import named
from meshnode.core.tables.named import READ_MAX, Named
from meshnode.core.tables.removals import (
    REMOVALS,
    Dot,
    after_key,
    after_row,
    removal_key,
    removal_row,
)
from meshnode.core.tables.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.feeds.feed import Change
    from meshnode.core.ids import NodeId

chance = Random(53).randbytes
KEYS = [Key.new(chance) for _ in range(3)]
WRITER, OWNER, OTHER = (node_id_of(key.public) for key in KEYS)
LIMITS = Limits()


def dot(number: int) -> Dot:
    return Dot(OWNER, Head(1, 1), Birth(7, number))


def place(number: int) -> Place:
    return Place(f"a{number:05}", "docs")


class Reader:
    """Who follows the feed of WRITER, with an index."""

    def __init__(self) -> None:
        self.feed = OwnFeed(KEYS[0], "m", LIMITS, 1)
        other = OwnFeed(KEYS[2], "m", LIMITS, 1)
        self.feeds: dict[NodeId, Replica] = {WRITER: self.feed, OTHER: other}
        self.forks = Forks()
        self.tables = Tables(self.feeds, self.forks)
        self.index = Named(self.tables, self.feeds)

    def put(self, removals: dict[int, Iterable[int] | None]) -> set[Place]:
        """Let WRITER write removals in one flush: which births each names, None to delete it."""
        for number, births in removals.items():
            row = None if births is None else removal_row(map(dot, births))
            self.feed.write(REMOVALS, removal_key(place(number)), row)
        return self.flush()

    def flush(self) -> set[Place]:
        touched: set[Place] = set()
        while (change := self.feed.flush(1.0)) is not None:
            touched |= self.index.take(change)
        return touched

    def read(self) -> dict[Place, set[int]]:
        found = {}
        for one in self.index.places():
            ((origin, removal),) = self.index.at(one)
            assert origin == WRITER
            found[one] = {held.birth.number for held in removal.dots}
        return found

    def afresh(self) -> dict[Place, set[int]]:
        """Return what an index reads that takes up the whole feed at once."""
        reader = Reader()
        reader.feed, reader.feeds[WRITER] = self.feed, self.feed
        reader.index.catch_up()
        return reader.read()


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_small_flush_of_a_feed_full_of_removals_has_one_row_looked_at(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
):
    reader.put({number: [number] for number in range(900)})
    looked = []
    removal_in = Tables.removal_in
    monkeypatch.setattr(
        Tables, "removal_in", lambda self, *row: looked.append(row) or removal_in(self, *row)
    )
    assert reader.put({7: [8]}) == {place(7)}
    assert len(looked) == 1
    reader.feed.write("notes", b"", b"")
    assert reader.flush() == set()
    reader.index.catch_up()
    assert len(looked) == 1


def test_of_one_feed_the_first_removals_are_read_whatever_order_they_came_in(reader: Reader):
    numbers = list(range(READ_MAX + 50))
    Random(3).shuffle(numbers)
    for first in range(0, len(numbers), 70):
        reader.put({number: [number] for number in numbers[first : first + 70]})
    assert set(reader.read()) == {place(number) for number in range(READ_MAX)}
    assert reader.read() == reader.afresh()
    touched = reader.put({3: None, 900: None})
    assert touched == {place(number) for number in (3, 900, READ_MAX, READ_MAX + 1)}
    assert reader.read() == reader.afresh()


@settings(max_examples=100)
@given(
    st.lists(
        st.dictionaries(
            st.integers(0, 12), st.none() | st.sets(st.integers(0, 3), min_size=1), max_size=6
        ),
        max_size=12,
    )
)
def test_row_by_row_the_same_is_read_as_at_once(flushes: list[dict[int, set[int] | None]]):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(named, "READ_MAX", 5)
        reader = Reader()
        for removals in flushes:
            before = reader.read()
            touched = reader.put(dict(removals))
            after = reader.read()
            assert after == reader.afresh()
            changed = {one for one in before | after if before.get(one) != after.get(one)}
            assert changed <= touched


def test_what_was_changed_unseen_is_caught_up_with(reader: Reader):
    reader.put({1: [1]})
    reader.feed.write(REMOVALS, removal_key(place(2)), removal_row([dot(2)]))
    missed = reader.feed.flush(1.0)
    assert set(reader.read()) == {place(1)}
    reader.put({3: [3]})
    assert set(reader.read()) == {place(1), place(2), place(3)}
    assert missed is not None
    assert reader.index.take(missed) == set()
    assert set(reader.read()) == {place(1), place(2), place(3)}


def test_a_feed_that_is_replaced_is_read_as_it_is_then(reader: Reader):
    reader.put({1: [1], 2: [2]})
    replica, later = Replica(WRITER, LIMITS), Reader()
    reader.feeds[WRITER] = replica
    later.put({2: [3]})
    assert later.feed.header is not None
    change = replica.replace(later.feed.header, later.feed.rows)
    assert reader.index.take(change) == {place(1), place(2)}
    assert reader.read() == {place(2): {3}}


def test_of_a_feed_in_quarantine_nothing_is_named_until_that_ends(reader: Reader):
    reader.put({1: [1]})
    header = reader.feed.header
    assert header is not None
    reader.forks.add((header, header))
    assert list(reader.index.at(place(1))) == []
    reader.forks.clear(WRITER)
    assert len(list(reader.index.at(place(1)))) == 1


def test_an_after_asks_for_as_long_as_it_stands_there(reader: Reader):
    def write_after(change: Change | None) -> None:
        value = None if change is None else after_row(change.header)
        reader.feed.write(REMOVALS, after_key(OTHER), value)
        reader.flush()

    other = reader.feeds[OTHER]
    assert isinstance(other, OwnFeed)
    other.write("notes", b"", b"")
    change = other.flush(1.0)
    assert change is not None
    write_after(change)
    assert [after.at for after in reader.index.afters()] == [Head(1, 1)]
    write_after(None)
    assert list(reader.index.afters()) == []


def test_an_after_about_nobody_held_is_not_looked_at(reader: Reader):
    key = Key.new(chance)
    change = OwnFeed(key, "m", LIMITS, 1)
    change.write("notes", b"", b"")
    flushed = change.flush(1.0)
    assert flushed is not None
    header = sign_header(key, flushed.header)
    reader.feed.write(REMOVALS, after_key(header.origin), after_row(header))
    reader.flush()
    assert list(reader.index.afters()) == []
