"""A disk that takes nothing for a while: nothing is lost, and nothing told too early."""

import asyncio
import logging
import sqlite3
from contextlib import asynccontextmanager

import pytest
from integration.node.writers import CHANCE, GENESIS, TABLE, Tries, values
from integration.rpc.fleet import WAIT_S
from msgspec.structs import replace

from meshnode.app.audit.alarms import DISK
from meshnode.app.ports import JournalEntry
from meshnode.core.commands.commands import RECEIPT
from meshnode.core.errors import RefusedError
from meshnode.core.feeds.feed import Change, Replica
from meshnode.core.feeds.headers import sign_header
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Row, Rows
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import pack
from meshnode.node.homes import persistence
from meshnode.node.homes.books import StoredJournal
from meshnode.store.database import Database


@asynccontextmanager
async def locked(database: Database):
    """Hold the database against everybody else, as a backup tool may do."""
    await database.run(lambda connection: connection.execute("PRAGMA busy_timeout=1"))
    holder = sqlite3.connect(database.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        holder.execute("ROLLBACK")
        holder.close()


class Failures(logging.Handler):
    """Lets a test wait for lines of a log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._changed.set()

    async def come(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.lines) < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def failures(monkeypatch):
    monkeypatch.setattr(persistence, "RETRY_S", 0.01)
    handler = Failures()
    log = logging.getLogger("session_mesh.store")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def test_a_write_that_fails_is_tried_again_and_nothing_is_told_meanwhile(writers, failures):
    tries = count_saves(writers.database)
    async with writers.running():
        async with locked(writers.database):
            first = writers.write(writers.ours, b"a", b"1")
            await tries.come(3)
            second = writers.write(writers.ours, b"b", b"2")
            await tries.come(6)
            assert writers.persisted == []
            assert not writers.writer._latest.is_set()
            assert writers.rings.said == [(DISK, True)]  # once, however often it is tried
            assert "another process holds" in writers.alarms.standing()[0].detail
        await writers.told(2)
    assert [change for change, _ in writers.persisted] == [first, second]
    assert values(writers.on_disk()[writers.ours.origin]) == {b"a": b"1", b"b": b"2"}
    assert writers.rings.said == [(DISK, True), (DISK, False)]
    assert writers.alarms.standing() == ()


def count_saves(database: Database) -> Tries:
    """Count the calls that reach the database."""
    tries, run = Tries(), database.run

    async def counted(function, *args):
        tries.more()
        return await run(function, *args)

    database.run = counted
    return tries


@asynccontextmanager
async def full(database: Database):
    """Leave a database no page more than it has, as a disk without room does."""

    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    await database.run(limit)
    try:
        yield
    finally:
        await database.run(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())


async def test_a_full_disk_stops_writes_until_there_is_room_and_loses_nothing(writers, failures):
    other = writers.feed()
    async with writers.running():
        async with full(writers.database):
            ours = [writers.write(writers.ours, b"%d" % n, bytes(9000)) for n in range(3)]
            await writers.rings.come((DISK, True))
            with pytest.raises(RefusedError, match="is full") as refused:
                writers.alarms.check_writable()
            assert "df -h" in refused.value.hint
            for number in range(50):
                writers.write(other, b"k", b"%d" % number)
            assert writers.persisted == []
        await writers.told(3)
        await writers.drained()
        writers.alarms.check_writable()
    assert [change for change, _ in writers.persisted] == ours
    disk = writers.on_disk()
    assert disk[writers.ours.origin].state_hash() == writers.ours.header.state_hash
    assert disk[other.origin].state_hash() == other.header.state_hash


async def test_a_command_is_refused_while_the_disk_is_full_and_taken_when_it_has_room(
    writers, failures
):
    journal = StoredJournal(writers.database)
    entries = [JournalEntry(bytes([n]) * 16, bytes(32), 1 << 40) for n in range(100)]
    async with writers.running():
        async with full(writers.database):
            for entry in entries[:2]:
                with pytest.raises(RefusedError, match="takes nothing new"):
                    await journal.begin(replace(entry, content_hash=bytes(20_000)), 1.0)
            await writers.rings.come((DISK, True))  # though no feed had anything to write
        await writers.rings.come((DISK, True), (DISK, False))
        assert await journal.begin(entries[-1], 1.0) is None


async def test_a_receipt_that_a_full_disk_did_not_take_is_kept_with_the_next_command(
    writers, failures
):
    journal = StoredJournal(writers.database)
    entry = JournalEntry(bytes(16), bytes(32), 1 << 40)
    said = {"command_hash": entry.content_hash, "detail": "x" * 20_000}
    receipt = Signed(RECEIPT, pack(said), bytes(64))
    async with writers.running():
        assert await journal.begin(entry, 1.0) is None
        async with full(writers.database):
            await journal.finish(entry.command_id, receipt)
            assert await journal.begin(entry, 1.0) == await journal.answered(entry) == receipt
        await writers.rings.come((DISK, True), (DISK, False))
        assert await journal.begin(replace(entry, command_id=b"n" * 16), 1.0) is None
        assert await StoredJournal(writers.database).begin(entry, 1.0) == receipt


async def test_flushes_that_wait_are_bounded_in_bytes(writers, monkeypatch):
    monkeypatch.setattr(persistence, "PENDING_BYTES_MAX", 50_000)
    other = writers.feed()
    for number in range(100):
        writers.write(other, b"k%d" % (number % 4), bytes([number]) * 10_000)
    assert len(writers.writer._changes) <= 6
    async with writers.running():
        await writers.drained()
    assert writers.on_disk()[other.origin].state_hash() == other.header.state_hash


def a_change_that_sqlite_cannot_hold() -> Change:
    """A row number that the wire carries and an INTEGER of SQLite does not."""
    key = Key.new(CHANCE)
    feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
    feed.write(TABLE, b"k", b"v")
    header = feed.flush(1.0).header
    rows = Rows()
    rows.put(TABLE, b"k", Row(1, 1 << 63, b"v"))
    return Replica(feed.origin, GENESIS.limits).replace(sign_header(key, header), rows)


async def test_a_peer_whose_rows_cannot_be_stored_stops_nobody_else(writers, failures):
    wrong = a_change_that_sqlite_cannot_hold()
    other = writers.feed()
    async with writers.running() as task:
        writers.writer.put(wrong, ours=False)
        writers.write(other, b"k", b"v")
        writers.write(writers.ours, b"k", b"v")
        await writers.told(1)
        writers.writer.put(wrong, ours=False)
        writers.write(writers.ours, b"l", b"v")
        await writers.told(2)
        assert not task.done()
    assert set(writers.on_disk()) == {other.origin, writers.ours.origin}
    assert len(failures.lines) == 1
    assert wrong.origin[:12] in failures.lines[0]
