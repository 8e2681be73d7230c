"""A file that is no database of ours is reported and left as it is."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from meshnode.core.errors import DamagedError, StorageError
from meshnode.store import database as database_module
from meshnode.store import facts
from meshnode.store.database import LOG_PAGES_MIN, PAGE_BYTES, VERSION, Database


def remembered(path: Path, count: int = 1) -> bytes:
    """Make a database with some facts; return its bytes once it is closed."""
    database = Database(path)
    for number in range(count):
        database.run_now(facts.remember, {f"fact {number}": bytes(1000)})
    database.close()
    return path.read_bytes()


def assert_refused_unchanged(path: Path, match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(DamagedError, match=match):
        Database(path)
    assert path.read_bytes() == before


def test_what_was_remembered_is_there_after_a_restart(tmp_path: Path):
    path = tmp_path / "node.db"
    remembered(path)
    database = Database(path)
    assert database.run_now(facts.recall, "fact 0") == bytes(1000)
    assert database.run_now(facts.recall, "fact 1") is None
    database.close()


def test_only_the_owner_may_read_a_new_database(tmp_path: Path):
    path = tmp_path / "node.db"
    remembered(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commits_are_synced_and_written_ahead(tmp_path: Path):
    database = Database(tmp_path / "node.db")
    (mode,) = database.run_now(lambda c: c.execute("PRAGMA journal_mode").fetchone())
    (synchronous,) = database.run_now(lambda c: c.execute("PRAGMA synchronous").fetchone())
    assert (mode, synchronous) == ("wal", 2)
    database.close()


def half_made(path: Path) -> sqlite3.Connection:
    """Begin to make a database, as another process that opens a new home at the same time."""
    maker = sqlite3.connect(path, isolation_level=None)
    maker.execute("BEGIN IMMEDIATE")
    return maker


def test_a_file_that_another_process_is_just_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "node.db"
    maker = half_made(path)
    monkeypatch.setattr(database_module, "sleep", lambda _pause_s: maker.close())
    remembered(path)
    assert path.stat().st_size > 0


def test_a_file_that_another_process_never_finishes_is_told(tmp_path: Path):
    maker = half_made(tmp_path / "node.db")
    with pytest.raises(StorageError, match="another process holds"):
        Database(tmp_path / "node.db", patience_ms=20)
    maker.close()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path):
    path = tmp_path / "node.db"
    path.write_bytes(b"these are somebody's notes, not a database\n" * 100)
    assert_refused_unchanged(path, "damaged")


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path):
    path = tmp_path / "node.db"
    remembered(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.commit()
    connection.close()
    assert_refused_unchanged(path, "newer")


@pytest.mark.parametrize("at", [0.15, 0.3, 0.5, 0.7, 0.9])
def test_a_corrupt_database_is_refused_and_left_as_it_is(tmp_path: Path, at: float):
    path = tmp_path / "node.db"
    content = bytearray(remembered(path, 200))
    place = int(len(content) * at) // 4096 * 4096
    content[place : place + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert_refused_unchanged(path, "damaged")


def test_half_a_database_is_refused_and_left_as_it_is(tmp_path: Path):
    path = tmp_path / "node.db"
    content = remembered(path, 200)
    path.write_bytes(content[: len(content) // 2])
    assert_refused_unchanged(path, "damaged")


def test_a_transaction_that_fails_leaves_everything_as_it_was(database: Database):
    database.run_now(facts.remember, {"name": b"old"})
    with pytest.raises(sqlite3.Error):
        database.run_now(facts.remember, {"name": b"new", "other": object()})  # type: ignore[dict-item] # wrong on purpose
    assert database.run_now(facts.recall, "name") == b"old"
    assert database.run_now(facts.recall, "other") is None
    database.run_now(facts.remember, {"name": b"new"})  # no transaction was left open
    assert database.run_now(facts.recall, "name") == b"new"


async def test_calls_are_made_in_order_of_arrival(database: Database):
    seen: list[int] = []
    await asyncio.gather(*(database.run(lambda _c, n=n: seen.append(n)) for n in range(50)))
    assert seen == list(range(50))


@pytest.mark.parametrize(("free_mib", "is_short"), [(0, True), (1, True), (1024, False)])
def test_the_log_of_a_small_disk_stays_short(tmp_path: Path, monkeypatch, free_mib, is_short):
    """A disk that its own log has filled takes nothing any more, and nobody can make room."""
    disk = os.statvfs(tmp_path)
    free = {"f_bavail": (free_mib << 20) // disk.f_frsize, "f_frsize": disk.f_frsize}
    free["f_blocks"] = disk.f_blocks
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**free))
    database = Database(tmp_path / "node.db")
    for number in range(100):  # a few pages each
        database.run_now(facts.remember, {f"fact {number}": bytes(5000)})
    log_bytes = (tmp_path / "node.db-wal").stat().st_size
    assert (log_bytes < 4 * LOG_PAGES_MIN * PAGE_BYTES) is is_short
    assert database.run_now(facts.recall, "fact 99") == bytes(5000)
    database.close()
