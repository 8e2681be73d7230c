import sqlite3
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.core.ledger.ledger import (
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    UsageRecord,
)
from meshnode.store import ledger, usage_log

READER = DiagnosticsKey("codex", "0")
NAMED = usage_record("codex:resp_1", source="codex", rank=1)
COPY = replace(NAMED, idem_key="codex:s:totals", rank=0)
OLD = usage_record(
    "codex:parent:totals", source="codex", session="one", rank=1, file="/s/one.jsonl"
)
NEW = replace(OLD, idem_key="codex:one:totals", formerly=OLD.idem_key)


def keep(
    connection: sqlite3.Connection, records: Sequence[UsageRecord], superseded: Sequence[str] = ()
) -> Diagnostics:
    batch = Batch(READER, "/x", {}, records, Diagnostics(), superseded=superseded)
    ledger.commit(connection, batch, 0)
    stored = ledger.load(connection, READER)
    assert stored is not None
    return stored.diagnostics


def total(connection: sqlite3.Connection) -> Buckets:
    slots = [value for _, value in ledger.slots(connection) if isinstance(value, Slot)]
    return sum((slot.usage for slot in slots), Buckets())


@pytest.mark.parametrize("pieces", ["n|k|c", "n|c|k", "k|n|c", "k|c|n", "c|n|k", "c|k|n", "nkc"])
def test_what_is_superseded_counts_nothing_in_whatever_order_it_is_told(
    connection: sqlite3.Connection, pieces: str
):
    """A name, a copy without it, and the key of the copy."""
    for piece in pieces.split("|") * 2:
        records = [{"n": NAMED, "c": COPY}[one] for one in piece if one != "k"]
        keep(connection, records, [COPY.idem_key] if "k" in piece else [])
    assert total(connection) == NAMED.usage


def test_a_copy_that_is_superseded_is_a_duplicate(connection: sqlite3.Connection):
    counted = keep(connection, [NAMED, COPY], [COPY.idem_key])
    assert counted == Diagnostics(records=1, duplicates_ignored=1)
    assert keep(connection, [COPY], [COPY.idem_key]).duplicates_ignored == 2


def test_a_superseded_record_is_taken_back_once(connection: sqlite3.Connection):
    keep(connection, [COPY])
    for _ in range(3):
        keep(connection, [], [COPY.idem_key] * 2)
    revisions = usage_log.revisions(connection, COPY.idem_key)
    assert [entry.record.usage for entry in revisions] == [COPY.usage, Buckets()]


def test_what_an_older_version_has_counted_keeps_its_key(connection: sqlite3.Connection):
    keep(connection, [OLD])
    assert keep(connection, [NEW]).records == 1
    assert list(usage_log.latest(connection, [OLD.idem_key, NEW.idem_key])) == [OLD.idem_key]


def test_what_an_older_version_took_for_a_copy_keeps_its_key_and_gets_its_session(
    connection: sqlite3.Connection,
):
    keep(connection, [replace(OLD, session="parent", rank=0)])
    read_again = replace(NEW, file="/archived/one.jsonl")
    assert keep(connection, [read_again]).records == 1
    [entry] = usage_log.latest(connection, [OLD.idem_key, NEW.idem_key]).values()
    assert (entry.record.session, total(connection)) == ("one", NEW.usage)


def test_another_session_that_had_the_same_key_counts_beside_it(connection: sqlite3.Connection):
    keep(connection, [OLD])
    other = replace(NEW, idem_key="codex:two:totals", session="two", file="/s/two.jsonl")
    assert keep(connection, [other]).records == 2
    assert keep(connection, [other, NEW]).records == 2


def test_what_an_older_version_has_counted_is_known_also_when_its_record_is_dropped(
    connection: sqlite3.Connection,
):
    mark = usage_log.mark_of(OLD.idem_key)  # all that is left
    connection.execute("INSERT INTO usage_dropped VALUES (?)", (mark,))
    assert keep(connection, [NEW]).records == 0


@pytest.mark.parametrize("older", [[], [OLD], [replace(OLD, session="parent", rank=0)]])
def test_what_its_parent_names_takes_nothing_from_a_session_with_the_same_totals(
    connection: sqlite3.Connection, older: list[UsageRecord]
):
    keep(connection, older)
    keep(connection, [NAMED], [OLD.idem_key])
    for _ in range(2):
        keep(connection, [NEW])
        assert total(connection) == NAMED.usage + NEW.usage
