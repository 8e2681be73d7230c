"""Which session of the mesh a response is told under: decided once, and only where it is known."""

import math

import pytest
from msgspec.structs import replace

from meshnode.core.ledger.ledger import (
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    UsageRecord,
)
from meshnode.core.ledger.log_sessions import LogSession, Whose
from meshnode.core.ledger.marks import session_in
from meshnode.store import counters, ledger, log_sessions, rollups, usage_log

START_S = 1_790_000_000.0
FIRST = Whose("f" * 26, "reviewer", "olga")
SECOND = Whose("s" * 26, "writer", "otto")
RECORD = UsageRecord(
    idem_key="claude:one",
    source="claude",
    at_s=START_S,
    session="log",
    project="work",
    agent="",
    owner="",
    model="m",
    provider="",
    tier="standard",
    usage=Buckets(100),
)


def tell(connection, whose, since_s=START_S, until_s=math.inf, source="claude"):
    log_sessions.keep(connection, [(whose, LogSession(source, "log", since_s, until_s))])


def count(connection, *records):
    batch = Batch(DiagnosticsKey("claude", "0"), "path", {}, records, Diagnostics())
    ledger.commit(connection, batch, int(START_S * 1000))


def told(connection):
    """Return for whom is counted what: sessions with agents, owners and tokens."""
    rows = counters.counted(connection)
    found = [
        (session_in(key.session, key.tier), slot.agent, slot.owner, slot.usage.total)
        for key, slot in rows
        if slot.records
    ]
    return sorted(found)


def test_a_response_is_told_as_the_session_that_had_its_log_then(connection):
    tell(connection, FIRST, START_S, START_S + 10)
    tell(connection, SECOND, START_S + 20)
    for number, at_s in enumerate((-1, 0, 9, 10, 19, 20, 100)):
        key = f"claude:{number}"
        count(connection, replace(RECORD, idem_key=key, at_s=START_S + at_s, usage=Buckets(1)))
    assert told(connection) == [(*FIRST, 2), ("log", "", "", 3), (*SECOND, 2)]


def test_what_was_counted_before_it_was_known_stays_nobodys(connection):
    count(connection, RECORD)
    tell(connection, FIRST)
    count(connection, RECORD, replace(RECORD, usage=Buckets(100, output=5), rank=1))
    assert told(connection) == [("log", "", "", 105)]


def test_what_a_log_says_anew_of_a_response_stays_where_it_was_first(connection):
    tell(connection, FIRST)
    count(connection, RECORD)
    tell(connection, FIRST, until_s=START_S)
    tell(connection, SECOND)
    count(connection, replace(RECORD, usage=Buckets(100, output=5), tier="batch", rank=1))
    assert told(connection) == [(*FIRST, 105)]
    count(connection, RECORD)
    assert told(connection) == [(*FIRST, 105)]


def test_a_line_that_counts_is_no_repetition_of_itself(connection):
    tell(connection, FIRST)
    count(connection, RECORD)
    count(connection, RECORD)
    ((_, _, read),) = ledger.readers(connection)
    assert (read.records, read.duplicates_ignored) == (1, 0)


def test_a_log_that_two_had_at_once_is_nobodys(connection):
    tell(connection, FIRST)
    tell(connection, SECOND)
    count(connection, RECORD)
    assert told(connection) == [("log", "", "", 100)]


def test_one_source_says_nothing_of_another(connection):
    tell(connection, FIRST, source="codex")
    count(connection, RECORD)
    assert told(connection) == [("log", "", "", 100)]


def test_records_are_found_by_both_names_and_keep_their_logs_own(connection):
    tell(connection, FIRST)
    count(connection, RECORD)
    for name in ("log", FIRST.session):
        (entry,) = usage_log.of_session(connection, name, 0, 10)
        assert (entry.record.session, entry.record.agent) == ("log", "reviewer")
        assert usage_log.seqs_of_session(connection, name) == [entry.seq]


@pytest.mark.parametrize("name", ["", "f", "f" * 25, "f" * 27, "fffffff#", "0badcafe"])
def test_records_are_found_by_no_part_of_a_name(connection, name):
    tell(connection, FIRST)
    long = replace(RECORD, idem_key="claude:long", tier="standard>200000")
    others = replace(RECORD, idem_key="others", session="other", tier="standard>#0badcafe")
    count(connection, RECORD, long, others)
    assert usage_log.of_session(connection, name, 0, 10) == []
    assert usage_log.seqs_of_session(connection, name) == []
    assert len(usage_log.of_session(connection, FIRST.session, 0, 10)) == 2


def test_a_log_that_is_read_anew_on_an_empty_disk_is_counted_as_peers_have_returned_it(connection):
    tell(connection, FIRST)
    count(connection, RECORD, replace(RECORD, idem_key="claude:two"))
    returned = dict(counters.counted(connection))
    connection.execute("DELETE FROM log_sessions")
    for table in ("usage_log", "usage_kinds", "usage_slots"):
        connection.execute(f"DELETE FROM {table}")
    counters.keep_imported(connection, returned.items())
    count(connection, RECORD)
    later = replace(RECORD, idem_key="claude:later", at_s=START_S + 7200)
    count(connection, later)
    assert told(connection) == [(*FIRST, 100), ("log", "", "", 100)]
    rows = [row for row in ledger.published(connection) if hasattr(row[1], "usage")]
    assert sum(slot.records for _, slot in rows) == 3


@pytest.mark.parametrize("ours", [[(FIRST, 0.5, math.inf)], [(FIRST, 0.5, 1.5), (SECOND, 1.5, 9)]])
@pytest.mark.parametrize("theirs", [[(FIRST, 0.5, 1.5)], [(FIRST, 0, 1.5), (SECOND, 1.5, 9)], []])
def test_what_stands_in_another_row_on_a_lost_disk_is_counted_once(connection, ours, theirs):
    """Also where both disks have the same rows, each with other responses in them."""
    assert_counted_once(connection, ours, theirs)


def test_what_was_another_sessions_on_a_lost_disk_is_counted_once(connection):
    theirs = [(FIRST, 0, 1.5), (SECOND, 1.5, 9)]
    assert_counted_once(connection, [(FIRST, 0, 0.5), (SECOND, 0.5, 9)], theirs)


def assert_counted_once(connection, ours, theirs):
    records = [replace(RECORD, idem_key=f"claude:{n}", at_s=START_S + n) for n in range(3)]
    for whose, since, until in theirs:
        tell(connection, whose, START_S + since, START_S + until)
    count(connection, *records)
    feed = dict(counters.counted(connection))
    connection.execute("DELETE FROM log_sessions")
    for table in ("usage_slots", "usage_log", "usage_kinds", "usage_readers"):
        connection.execute(f"DELETE FROM {table}")
    for whose, since, until in ours:
        tell(connection, whose, START_S + since, START_S + until)
    count(connection, *records)
    rollups.hold(connection, feed)
    said = [slot for _, slot in ledger.published(connection) if isinstance(slot, Slot)]
    assert (sum(s.records for s in said), sum(s.usage.total for s in said)) == (3, 300)


def test_what_ended_long_ago_is_forgotten_and_the_oldest_go_first(connection, monkeypatch):
    tell(connection, FIRST, until_s=START_S + 1)
    tell(connection, SECOND, START_S + 5)
    log_sessions.forget(connection, START_S + 2)
    count(connection, RECORD)
    assert told(connection) == [("log", "", "", 100)]
    assert log_sessions.still_had(connection) == {("claude", "log"): (SECOND.session, START_S + 5)}
    monkeypatch.setattr(log_sessions, "KEPT_MAX", 1)
    tell(connection, FIRST, START_S + 6, source="codex")
    assert log_sessions.still_had(connection) == {("codex", "log"): (FIRST.session, START_S + 6)}
    assert log_sessions.sources(connection) == {"codex"}


def test_what_has_ended_goes_before_what_is_still_had(connection, monkeypatch):
    monkeypatch.setattr(log_sessions, "KEPT_MAX", 2)
    tell(connection, FIRST)
    for number in range(1, 5):
        tell(connection, SECOND, START_S + number, START_S + number, source="codex")
    assert log_sessions.still_had(connection) == {("claude", "log"): (FIRST.session, START_S)}
    rows = connection.execute("SELECT since_s FROM log_sessions ORDER BY since_s").fetchall()
    assert rows == [(START_S,), (START_S + 4,)]
