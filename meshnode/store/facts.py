"""Small facts of a home that belong to no table, such as where its admitter listens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import DamagedError
from meshnode.core.packing import typed
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping


def remember(connection: sqlite3.Connection, values: Mapping[str, bytes]) -> None:
    """Keep small facts of this home, such as where its admitter listens."""
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))


def recall(connection: sqlite3.Connection, key: str) -> bytes | None:
    """Return a small fact of this home."""
    query = "SELECT CAST(value AS BLOB) FROM meta WHERE key = ?"
    found = connection.execute(query, (key,)).fetchone()
    return None if found is None or found[0] is None else bytes(found[0])


def map_of(fact: bytes | None, key: str, kind: type[str | list[str]]) -> dict[str, Any]:
    """Decode a small fact that is a JSON object of texts, or of lists of texts.

    {} if it is not known; raises DamagedError.
    """
    try:
        found = json.loads(fact or b"{}")
        for one in found.values():
            for part in typed(one, kind):
                typed(part, str)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        hint = "restore the home from a backup, or move the database away"
        raise DamagedError(f"the table meta holds a broken row: {key}", hint) from error
    return dict(found)
