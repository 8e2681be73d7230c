"""Feeds and the control set on disk: the newest header of each feed, and its rows.

Invariant: a feed's header and rows change in one transaction, so what is read back is always a
state that its owner signed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.entries import entry_id_of
from meshnode.core.headers import FLUSH, Header, parse_header
from meshnode.core.keys import Signed
from meshnode.core.rows import Row, Rows
from meshnode.store import forks
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from meshnode.core.feed import Change

SCHEMA = """
CREATE TABLE IF NOT EXISTS feeds (
    origin TEXT PRIMARY KEY, payload BLOB NOT NULL, signature BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    origin TEXT NOT NULL, tab TEXT NOT NULL, key BLOB NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (origin, tab, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control (
    id BLOB PRIMARY KEY, type TEXT NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Held:
    """Everything replicated, as the disk has it."""

    feeds: list[tuple[Header, Rows]]
    control: list[Signed]
    corrupt: list[bytes] = field(default_factory=list)  # ids of entries that are not what they were


def save(
    connection: sqlite3.Connection,
    changes: Iterable[Change],
    entries: Iterable[Signed],
    dropped: Iterable[bytes] = (),
) -> None:
    """Write changes of feeds and control entries, and delete dropped ones, in one transaction."""
    with transaction(connection):
        for change in changes:
            _save_change(connection, change)
        for entry in entries:
            connection.execute(
                "INSERT OR REPLACE INTO control VALUES (?, ?, ?, ?)",
                (entry_id_of(entry), entry.type, entry.payload, entry.signature),
            )
        connection.executemany("DELETE FROM control WHERE id = ?", [(one,) for one in dropped])


def _save_change(connection: sqlite3.Connection, change: Change) -> None:
    origin = change.origin
    if change.header.signed is None:
        raise ValueError("only signed headers are stored")
    if change.flush is None:
        connection.execute("DELETE FROM rows WHERE origin = ?", (origin,))
    connection.executemany(
        "DELETE FROM rows WHERE origin = ? AND tab = ? AND key = ?",
        [(origin, table, key) for (table, key), row in change.rows.items() if row is None],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?)",
        [
            (origin, table, key, row.epoch, row.seq, row.value)
            for (table, key), row in change.rows.items()
            if row is not None
        ],
    )
    forks.drop_cleared(connection, origin, change.header.epoch)
    signed = change.header.signed
    connection.execute(
        "INSERT OR REPLACE INTO feeds VALUES (?, ?, ?)", (origin, signed.payload, signed.signature)
    )


def load(connection: sqlite3.Connection) -> Held:
    """Read everything replicated."""
    rows: dict[str, Rows] = {}
    found = connection.execute("SELECT origin, tab, key, epoch, seq, value FROM rows")
    for origin, table, key, epoch, seq, value in found:
        rows.setdefault(origin, Rows()).put(table, key, Row(epoch, seq, value))
    held = Held([], [])
    for origin, payload, signature in connection.execute("SELECT * FROM feeds"):
        header = parse_header(Signed(FLUSH, payload, signature))
        held.feeds.append((header, rows.get(origin, Rows())))
    for entry_id, *parts in connection.execute("SELECT * FROM control"):
        entry = Signed(*parts)
        if entry_id_of(entry) == entry_id:
            held.control.append(entry)
        else:
            held.corrupt.append(entry_id)
    return held
