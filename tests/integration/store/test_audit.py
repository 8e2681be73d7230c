"""Audit records travel with whatever transaction comes next, and are never lost or doubled."""

import sqlite3

import pytest
from auditing import AT_MS, NODE, Log

from meshnode.app.ports import JournalEntry, Sought
from meshnode.core.commands.audit import DROPPED
from meshnode.core.commands.commands import RECEIPT
from meshnode.node.homes.books import StoredJournal
from meshnode.store import audit
from meshnode.store.transactions import transaction

DAY_MS = 86_400_000


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path / "state.db")
    yield log
    log.close()


def wait(log: Log, *kinds: str, **texts: str) -> None:
    for kind in kinds:
        log.rider.put(audit.Noted(AT_MS, {"kind": kind, **texts}))


def kinds(log: Log) -> list[str]:
    return [one.record.kind for one in log.kept()]


async def test_records_are_on_disk_with_the_command_that_they_are_about(log):
    journal = StoredJournal(log.database)
    commits = []
    log.rider.on_arrived = lambda tail: commits.append(tail.seq)
    wait(log, "command_accepted")
    await journal.begin(JournalEntry(bytes(16), bytes(32), 1 << 40), 0.0)
    wait(log, "command_executed")
    await journal.finish(bytes(16), NODE.sign(RECEIPT, {}))
    assert commits == [1, 2]
    assert kinds(log) == ["command_accepted", "command_executed"]
    assert not log.rider.waiting


def test_records_wait_when_the_transaction_fails_that_carries_them(log):
    def failing(connection: sqlite3.Connection) -> None:
        with transaction(connection):
            raise ValueError("its own mistake")

    def full(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        with transaction(connection):
            connection.execute("CREATE TABLE filler AS SELECT zeroblob(100000)")

    wait(log, "patient")
    for attempt, error in ((failing, ValueError), (full, Exception)):
        with pytest.raises(error):
            log.database.run_now(attempt)
        assert log.rider.waiting
        assert kinds(log) == []
    log.database.run_now(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
    log.database.run_now(audit.write_waiting)
    assert kinds(log) == ["patient"]
    assert log.verdict(log.head()) is None


def test_a_transaction_inside_another_carries_nothing_of_its_own(log):
    def nested(connection: sqlite3.Connection) -> list[str]:
        with transaction(connection):
            with transaction(connection):
                pass
            return [row[0] for row in connection.execute("SELECT kind FROM audit")]

    wait(log, "patient")
    assert log.database.run_now(nested) == []
    assert kinds(log) == ["patient"]


def test_a_log_goes_on_after_a_restart_where_it_was(log):
    log.note("one", "two")
    before = log.rider.tail
    log.close()
    log.number = 99  # drawn anew at each start, and used at the first
    log.open()
    assert log.rider.tail.seq == before.seq
    assert (log.rider.tail.log, log.rider.tail.hash) == (before.log, before.hash)
    log.note("three")
    assert log.verdict(log.head()) is None


def test_records_are_found_by_time_session_and_kind(log):
    log.note("a", session="s1" * 5, at_ms=AT_MS)
    log.note("b", session="s2" * 5, at_ms=AT_MS + 1000)
    log.note("a", session="s2" * 5, at_ms=AT_MS + 2000)

    def found(**fields) -> list[int]:
        sought = Sought(**{"limit": 10} | fields)
        return [one.seq for one in log.database.run_now(audit.newest, sought)]

    assert found() == [1, 2, 3]
    assert found(limit=2) == [2, 3]
    assert found(since_ms=AT_MS + 1000) == [2, 3]
    assert found(session="s2s2") == [2, 3]
    assert found(session="s2" * 5, kinds=("a", "c")) == [3]
    assert found(session="%") == []


def test_records_that_are_too_old_are_dropped_and_the_rest_still_proves_itself(log):
    log.note(*["old"] * 5, at_ms=AT_MS)
    log.note("kept", at_ms=AT_MS + 100 * DAY_MS)
    log.note("now", at_ms=AT_MS + 429 * DAY_MS)
    assert kinds(log)[0] == "old"
    late = AT_MS + 431 * DAY_MS
    log.note("later", at_ms=late)
    assert kinds(log)[0] == "old"
    log.note("as_late", at_ms=late + 1, steady_s=audit.LATE_S)
    assert kinds(log) == ["kept", "now", "later", "as_late", DROPPED]
    log.note("last", at_ms=late)
    assert log.verdict(log.head()) is None


def test_a_clock_that_is_ahead_for_a_moment_drops_nothing_and_one_that_stays_so_a_little(
    log, monkeypatch
):
    monkeypatch.setattr(audit, "DROPPED_AT_ONCE", 2)
    log.note(*["one"] * 9, at_ms=AT_MS)
    log.note("back", at_ms=0)
    for turn in range(3):  # each time for less than it takes
        log.note("ahead", at_ms=AT_MS * 10, steady_s=turn * audit.LATE_S)
        log.note("ahead", at_ms=AT_MS * 10, steady_s=(turn + 0.9) * audit.LATE_S)
        log.note("right", at_ms=AT_MS, steady_s=(turn + 0.9) * audit.LATE_S)
    assert kinds(log)[:9] == ["one"] * 9
    for turn in range(3, 6):
        log.note("ahead", "ahead", at_ms=AT_MS * 10, steady_s=turn * audit.LATE_S)
    assert kinds(log)[:6] == ["one"] * 5 + ["back"]
    assert kinds(log).count(DROPPED) == 2
    assert log.verdict(log.head()) is None


def test_a_log_that_never_began_has_no_tail(log):
    assert log.database.run_now(audit.tail_of, NODE.public) is not None
    log.database.run_now(lambda c: c.execute("DELETE FROM meta WHERE key = 'audit_log'"))
    assert log.database.run_now(audit.tail_of, NODE.public) is None
