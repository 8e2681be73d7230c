"""The ledger on disk: every record once, how far each log is read, and the slots they add up to.

Invariant: records, position and slots change in one transaction, so a crash neither loses nor
repeats a record. Functions are synchronous; the caller owns the connection and its lock.
No prompt text is kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import astuple, replace
from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ledger import (
    Diagnostics,
    DiagnosticsKey,
    SlotKey,
    Slots,
    StoredReader,
    diagnostics_from_row,
    diagnostics_to_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    slot_key_of,
    slot_to_row,
)
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from meshnode.core.ledger import LedgerRow, ReaderState, Slot, UsageRecord

SCHEMA = """
CREATE TABLE IF NOT EXISTS usage_records (
    idem_key TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    at_s REAL NOT NULL,
    session TEXT NOT NULL,
    project TEXT NOT NULL,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    tier TEXT NOT NULL,
    flags TEXT NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    web_search INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS usage_offsets (
    source TEXT NOT NULL,
    path_hash TEXT NOT NULL,
    path TEXT NOT NULL,
    position BLOB NOT NULL,
    diagnostics BLOB NOT NULL,
    PRIMARY KEY (source, path_hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_slots (
    key BLOB PRIMARY KEY,
    slot BLOB NOT NULL
) WITHOUT ROWID;
"""


def commit(
    connection: sqlite3.Connection,
    reader: ReaderState,
    records: Sequence[UsageRecord],
    diagnostics: Diagnostics,
) -> list[LedgerRow]:
    """Keep what a reader read, all or nothing; return the rows to publish.

    The counts of `diagnostics` are what this reading adds, `partial_tail_bytes` is what it found.
    Records known by their key are counted as duplicates. Raises DamagedError and sqlite3.Error,
    and then nothing has changed.
    """
    with transaction(connection):
        stored = load(connection, reader.key)
        fresh = _fresh(connection, records)
        connection.executemany(_INSERT, map(_row, fresh))
        slots = Slots(_slots_of(connection, fresh)).fold(fresh)
        connection.executemany(
            "INSERT OR REPLACE INTO usage_slots VALUES (?, ?)",
            [(key_to_row(key), slot_to_row(slot)) for key, slot in slots],
        )
        before = stored.diagnostics if stored else Diagnostics()
        after = replace(
            before + diagnostics,
            records=before.records + len(fresh),
            duplicates_ignored=before.duplicates_ignored + len(records) - len(fresh),
            partial_tail_bytes=diagnostics.partial_tail_bytes,
        )
        connection.execute(
            "INSERT OR REPLACE INTO usage_offsets VALUES (?, ?, ?, ?, ?)",
            (*astuple(reader.key), reader.path, reader.position, diagnostics_to_row(after)),
        )
    changed: list[LedgerRow] = [*slots]
    if after != before:
        changed.append((reader.key, after))
    return changed


def load(connection: sqlite3.Connection, key: DiagnosticsKey) -> StoredReader | None:
    """Return how far a reader had read, None if it never has. Raises DamagedError."""
    row = connection.execute(
        "SELECT CAST(position AS BLOB), CAST(diagnostics AS BLOB) FROM usage_offsets"
        " WHERE source = ? AND path_hash = ?",
        astuple(key),
    ).fetchone()
    if row is None:
        return None
    with _ours("usage_offsets"):
        return StoredReader(bytes(row[0]), diagnostics_from_row(row[1]))


def slots(connection: sqlite3.Connection) -> list[LedgerRow]:
    """Return all that is to be published: every slot, and every reader's diagnostics."""
    rows: list[LedgerRow] = []
    with _ours("usage_slots"):
        kept = "SELECT CAST(key AS BLOB), CAST(slot AS BLOB) FROM usage_slots"
        for packed, slot in connection.execute(kept):
            key = key_from_row(packed)
            if isinstance(key, SlotKey):
                rows.append((key, slot_from_row(slot)))
    with _ours("usage_offsets"):
        found = connection.execute(
            "SELECT source, path_hash, CAST(diagnostics AS BLOB) FROM usage_offsets"
        )
        for source, path_hash, packed in found:
            rows.append((DiagnosticsKey(source, path_hash), diagnostics_from_row(packed)))
    return rows


_INSERT = "INSERT INTO usage_records VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


def _fresh(connection: sqlite3.Connection, records: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Return the records that are not kept yet, the first of each key."""
    by_key: dict[str, UsageRecord] = {}
    for record in records:
        by_key.setdefault(record.idem_key, record)
    known = "SELECT 1 FROM usage_records WHERE idem_key = ?"
    return [
        record
        for key, record in by_key.items()
        if connection.execute(known, (key,)).fetchone() is None
    ]


def _row(record: UsageRecord) -> tuple[object, ...]:
    return (
        record.idem_key,
        record.source,
        record.at_s,
        record.session,
        record.project,
        record.agent,
        record.owner,
        record.model,
        record.provider,
        record.tier,
        " ".join(record.flags),
        *record.usage.counts,
    )


def _slots_of(
    connection: sqlite3.Connection, records: Sequence[UsageRecord]
) -> dict[SlotKey, Slot]:
    known: dict[SlotKey, Slot] = {}
    for key in {slot_key_of(record) for record in records}:
        query = "SELECT CAST(slot AS BLOB) FROM usage_slots WHERE key = ?"
        row = connection.execute(query, (key_to_row(key),)).fetchone()
        if row is not None:
            with _ours("usage_slots"):
                known[key] = slot_from_row(row[0])
    return known


@contextmanager
def _ours(table: str) -> Iterator[None]:
    try:
        yield
    except PeerError as error:
        hint = "restore the home from a backup, or move the database away: logs are read again"
        raise DamagedError(
            f"the table {table} holds a broken row: {error.message}", hint
        ) from error
