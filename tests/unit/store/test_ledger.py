import sqlite3
from collections.abc import Iterator
from dataclasses import replace

import pytest

from meshnode.core.errors import DamagedError
from meshnode.core.ledger import (
    Buckets,
    Diagnostics,
    ReaderState,
    Slot,
    SlotKey,
    Slots,
    UsageRecord,
)
from meshnode.store import ledger

READER = ReaderState("higress", "access.log", "00ff", b"position 1")
RECORD = UsageRecord(
    idem_key="a",
    source="higress",
    at_s=1800.5,
    session="s",
    project="p",
    agent="a",
    owner="o",
    model="m",
    provider="openai",
    tier="standard",
    usage=Buckets(1, 2, 3, 4, 5, 6, 7),
    flags=("reasoning_estimated",),
)
OTHER = replace(RECORD, idem_key="b", usage=Buckets(input=100))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.executescript(ledger.SCHEMA)
    yield connection
    connection.close()


def counts(connection: sqlite3.Connection) -> list[int]:
    tables = ("usage_records", "usage_offsets", "usage_slots")
    return [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]


def test_records_position_and_slots_are_kept_together(connection: sqlite3.Connection):
    rows = ledger.commit(connection, READER, [RECORD, OTHER], Diagnostics(quarantined=1))
    slot = Slot(2, Buckets(101, 2, 3, 4, 5, 6, 7), "a", "o", "p", "openai")
    kept = Diagnostics(records=2, quarantined=1)
    assert rows == [(SlotKey("s", "m", "standard", 1), slot), (READER.key, kept)]
    assert ledger.slots(connection) == rows
    stored = ledger.load(connection, READER.key)
    assert stored is not None
    assert (stored.position, stored.diagnostics) == (b"position 1", kept)
    assert counts(connection) == [2, 1, 1]


def test_a_record_counts_once_however_often_it_is_read(connection: sqlite3.Connection):
    ledger.commit(connection, READER, [RECORD, RECORD], Diagnostics())
    rows = ledger.commit(connection, READER, [RECORD, OTHER], Diagnostics())
    assert rows[0][1] == Slot(2, RECORD.usage + OTHER.usage, "a", "o", "p", "openai")
    assert rows[1][1] == Diagnostics(records=2, duplicates_ignored=2)


def test_counts_add_up_and_the_tail_is_the_latest(connection: sqlite3.Connection):
    ledger.commit(connection, READER, [], Diagnostics(unparsable_lines=1, partial_tail_bytes=9))
    ledger.commit(connection, READER, [], Diagnostics(unparsable_lines=2, partial_tail_bytes=4))
    stored = ledger.load(connection, READER.key)
    assert stored is not None
    assert stored.diagnostics == Diagnostics(unparsable_lines=3, partial_tail_bytes=4)


def test_a_position_that_only_moves_is_not_published(connection: sqlite3.Connection):
    assert ledger.commit(connection, READER, [], Diagnostics()) == []
    assert ledger.load(connection, READER.key) is not None


def test_a_failed_commit_changes_nothing(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
):
    ledger.commit(connection, READER, [RECORD], Diagnostics())
    before = list(connection.iterdump())

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Slots, "fold", crash)
    with pytest.raises(KeyboardInterrupt):
        ledger.commit(connection, replace(READER, position=b"2"), [OTHER], Diagnostics())
    assert list(connection.iterdump()) == before
    monkeypatch.undo()
    [(_, slot), _] = ledger.commit(connection, READER, [OTHER], Diagnostics())
    assert isinstance(slot, Slot)
    assert slot.records == 2


def test_readers_do_not_disturb_each_other(connection: sqlite3.Connection):
    ledger.commit(connection, READER, [RECORD], Diagnostics())
    ledger.commit(connection, replace(READER, path_hash="11"), [RECORD], Diagnostics())
    found = [value for _, value in ledger.slots(connection) if isinstance(value, Diagnostics)]
    assert found == [Diagnostics(records=1), Diagnostics(duplicates_ignored=1)]


def test_an_unknown_reader_has_no_position(connection: sqlite3.Connection):
    assert ledger.load(connection, READER.key) is None


@pytest.mark.parametrize("statement", ["slots SET slot", "offsets SET diagnostics"])
def test_a_damaged_row_is_named(connection: sqlite3.Connection, statement: str):
    ledger.commit(connection, READER, [RECORD], Diagnostics())
    connection.execute(f"UPDATE usage_{statement} = x'c1'")
    connection.commit()
    with pytest.raises(DamagedError, match="usage_"):
        ledger.slots(connection)
    with pytest.raises(DamagedError):
        ledger.commit(connection, READER, [OTHER], Diagnostics())
    assert counts(connection)[0] == 1


def test_the_schema_may_be_run_again(connection: sqlite3.Connection):
    ledger.commit(connection, READER, [RECORD], Diagnostics())
    connection.executescript(ledger.SCHEMA)
    assert counts(connection) == [1, 1, 1]
