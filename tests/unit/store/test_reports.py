"""Reports of agents in the ledger: known by their id, also once their records are dropped."""

import sqlite3

import pytest
from msgspec.structs import replace

from meshnode.app.sessions.reporting import SOURCE, Tally, idem_key_of
from meshnode.core.errors import ConflictError
from meshnode.core.keys import Signed
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import Buckets, Slot, UsageRecord
from meshnode.store import checkpoints, counters, reports

DAY_S = 86400
NOW_S = 1_790_000_000.0
SESSION = "sess"


def report(name: str, at_s: float = NOW_S, model: str = "m") -> UsageRecord:
    return UsageRecord(
        idem_key=idem_key_of(SESSION, name),
        source=SOURCE,
        at_s=at_s,
        session=SESSION,
        project="",
        agent="a",
        owner="o",
        model=model,
        provider="",
        tier="standard",
        usage=Buckets(10),
    )


@pytest.fixture
def counted(connection: sqlite3.Connection) -> sqlite3.Connection:
    for number, model in enumerate(("m", "m", "n")):
        record = report(f"r{number}", NOW_S + number, model)
        reports.count(connection, record, lambda _: Charge())
    return connection


@pytest.fixture
def dropped(counted: sqlite3.Connection) -> sqlite3.Connection:
    """The same, 91 days later: all records but the last are dropped."""
    before_ms, now_ms = (int((NOW_S + days * DAY_S) * 1000) for days in (1, 91))
    signed = Signed("checkpoint", b"", b"")
    assert checkpoints.drop(counted, before_ms, now_ms, lambda *_: signed) is not None
    assert counted.execute("SELECT count(*) FROM usage_log").fetchone() == (1,)
    return counted


def total(connection: sqlite3.Connection) -> int:
    return sum(one.records for _, one in counters.counted(connection) if isinstance(one, Slot))


def test_reports_of_an_id_are_found_without_their_sessions(counted: sqlite3.Connection):
    same = report("r1", NOW_S + 9)
    other = replace(same, session="another", idem_key=idem_key_of("another", "r1"))
    reports.count(counted, other, lambda _: Charge())
    reports.count(counted, report("x:r1"), lambda _: Charge())
    found = [entry.record.idem_key for entry in reports.of_id(counted, "r1")]
    assert found == ["report:sess:r1", "report:another:r1"]
    assert reports.of_id(counted, "r") == []


def test_a_report_is_known_by_its_id_and_content(counted: sqlite3.Connection):
    assert reports.knows(counted, report("r0"))
    assert not reports.knows(counted, report("new"))
    with pytest.raises(ConflictError, match="other numbers"):
        reports.knows(counted, replace(report("r0"), usage=Buckets(11)))


def test_a_report_whose_record_was_dropped_is_known(dropped: sqlite3.Connection):
    late = report("r0", NOW_S + 91 * DAY_S)
    assert reports.knows(dropped, late)
    assert not reports.knows(dropped, report("new"))
    reports.count(dropped, late, lambda _: Charge())
    assert total(dropped) == 3


def test_models_of_dropped_records_stay_in_the_tally(dropped: sqlite3.Connection):
    other = replace(report("x", model="of a log"), source="claude", idem_key="claude:x")
    reports.count(dropped, other, lambda _: Charge())
    assert reports.tally(dropped, SESSION) == Tally(1, {"m", "n"})
    assert reports.tally(dropped, "another") == Tally(0, set())
