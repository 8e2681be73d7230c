"""Asking about many rows by their keys: some hundred keys in one question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

ASKED_AT_ONCE = 500  # SQLite takes 32,766 values at most


def asked(
    connection: sqlite3.Connection, query: str, keys: Sequence[object]
) -> Iterator[tuple[Any, ...]]:
    """Yield what a query finds that says `IN (?)`, of any number of keys.

    What it says about the order holds among ASKED_AT_ONCE keys.
    """
    for start in range(0, len(keys), ASKED_AT_ONCE):
        some = keys[start : start + ASKED_AT_ONCE]
        marks = ", ".join("?" * len(some))
        yield from connection.execute(query.replace("IN (?)", f"IN ({marks})"), some)
