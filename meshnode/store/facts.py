"""Small facts of a home that belong to no table, such as where its admitter listens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


def remember(connection: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    """Keep small facts of this home, such as where its admitter listens."""
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def recall(connection: sqlite3.Connection, key: str) -> bytes | None:
    """Return a small fact of this home."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if found is None else bytes(found[0])
