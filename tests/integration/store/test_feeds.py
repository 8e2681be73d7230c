"""Feeds and the control set on disk."""

import sqlite3
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from meshnode.core.errors import StorageError
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.store import feeds
from meshnode.store.database import Database

chance = Random(12).randbytes
KEY, OTHER = Key.new(chance), Key.new(chance)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
ENTRIES = [Signed("control", b"one", bytes(64)), Signed("control", b"two", bytes(64))]


@pytest.fixture
def feed() -> OwnFeed:
    return new_feed(KEY)


def new_feed(key: Key) -> OwnFeed:
    return OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)


def change(feed: OwnFeed, *writes: tuple[str, bytes, bytes | None]) -> Change:
    for table, key, value in writes:
        feed.write(table, key, value)
    made = feed.flush(5.0)
    assert made is not None
    return made


def loaded(database: Database, feed: OwnFeed) -> Rows:
    for header, rows in database.run_now(feeds.load).feeds:
        if header.origin == feed.origin:
            assert header == feed.header
            assert rows.state_hash() == header.state_hash
            return rows
    raise AssertionError("the feed is not there")


def test_an_empty_disk_holds_nothing(database: Database):
    assert database.run_now(feeds.load) == feeds.Held([], [])


def test_a_feed_comes_back_as_it_was_after_every_change(database: Database, feed: OwnFeed):
    for writes in (
        [("a", b"1", b"one"), ("b", b"", b"")],
        [("a", b"1", None), ("a", b"2", b"\0\xff")],
        [("a", b"2", b"again"), ("c", b"k", b"v")],
        [("b", b"", None), ("c", b"k", None), ("a", b"2", None)],
    ):
        database.run_now(feeds.save, [change(feed, *writes)], [])
        assert all_rows(loaded(database, feed)) == all_rows(feed.rows)


def test_a_snapshot_replaces_all_rows_of_its_feed_and_of_no_other(
    database: Database, feed: OwnFeed
):
    other = new_feed(OTHER)
    database.run_now(
        feeds.save, [change(feed, ("a", b"old", b"")), change(other, ("a", b"old", b""))], []
    )
    whole = new_feed(KEY)
    newer = replace(change(whole, ("a", b"new", b"")), flush=None, rows=all_rows(whole.rows))
    database.run_now(feeds.save, [newer], [])
    assert set(all_rows(loaded(database, whole))) == {("a", b"new")}
    assert set(all_rows(loaded(database, other))) == {("a", b"old")}


def test_entries_of_the_control_set_are_kept_once(database: Database):
    database.run_now(feeds.save, [], ENTRIES)
    database.run_now(feeds.save, [], ENTRIES[:1])
    held = database.run_now(feeds.load).control
    assert sorted(held, key=lambda entry: entry.payload) == ENTRIES


def test_everything_outlives_the_node(tmp_path: Path, feed: OwnFeed):
    database = Database(tmp_path / "state.db")
    database.run_now(feeds.save, [change(feed, ("a", b"1", b"one"))], ENTRIES)
    database.close()
    database = Database(tmp_path / "state.db")
    assert all_rows(loaded(database, feed)) == all_rows(feed.rows)
    assert len(database.run_now(feeds.load).control) == 2
    database.close()


class Failing:
    """A connection whose nth statement fails, as a full disk or a crash makes it fail."""

    def __init__(self, connection: sqlite3.Connection, after: int) -> None:
        self._connection = connection
        self._left = after
        self.statements = 0

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, *args: object) -> object:
        if not statement.startswith(("BEGIN", "COMMIT", "ROLLBACK")):
            self._count()
        return self._connection.execute(statement, *args)

    def executemany(self, statement: str, rows: object) -> object:
        self._count()
        return self._connection.executemany(statement, rows)  # type: ignore[arg-type] # it stands for a connection

    def _count(self) -> None:
        self.statements += 1
        if self.statements > self._left:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error


def save_failing(
    connection: sqlite3.Connection, after: int, changes: list[Change], entries: list[Signed]
) -> int:
    failing = Failing(connection, after)
    feeds.save(failing, changes, entries)  # type: ignore[arg-type] # it stands for a connection
    return failing.statements


def test_a_crash_between_any_two_statements_leaves_the_old_state(database: Database, feed: OwnFeed):
    database.run_now(feeds.save, [change(feed, ("a", b"1", b"old"), ("a", b"2", b"old"))], [])
    before = database.run_now(feeds.load)
    news = [change(feed, ("a", b"1", b"new"), ("a", b"2", None)), change(feed, ("a", b"3", b"3"))]
    crashes = 0
    while True:
        try:
            statements = database.run_now(save_failing, crashes, news, ENTRIES)
        except StorageError:
            after = database.run_now(feeds.load)
            assert after.control == []
            assert [header for header, _ in after.feeds] == [header for header, _ in before.feeds]
            assert [all_rows(r) for _, r in after.feeds] == [all_rows(r) for _, r in before.feeds]
            crashes += 1
        else:
            break
    assert crashes == statements > 4
    assert all_rows(loaded(database, feed)) == all_rows(feed.rows)
    assert len(database.run_now(feeds.load).control) == 2
