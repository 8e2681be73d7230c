"""What became of standing kills here: each order meets each session once, restarts included.

Invariant: an order to a session is inserted, synced, before it is carried out. One that was begun
and not finished is begun again: a kill of the same start does no more the second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import RefusedError
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

MET_MAX = 100_000  # orders met by sessions, until the orders expire; more: RefusedError
OF_ISSUER_MAX = 25_000  # of them, of one issuer: nobody may leave no room to those who stop him
KEPT_S = 86400  # after an order has expired: a clock that is set back may let it return


def done(connection: sqlite3.Connection) -> set[tuple[bytes, str]]:
    """Return which orders were answered for which sessions."""
    rows = connection.execute(
        "SELECT CAST(order_id AS BLOB), CAST(session AS TEXT) FROM standing"
        " WHERE outcome IS NOT NULL"
    )
    return {(order_id, session) for order_id, session in rows}


def begin(
    connection: sqlite3.Connection,
    key: tuple[bytes, str],
    issuer: bytes,
    expires_s: int,
    now_s: float,
) -> bool:
    """Insert an order to a session; False if it was answered before. Raises RefusedError."""
    with transaction(connection):
        connection.execute("DELETE FROM standing WHERE expires_s < ?", (int(now_s) - KEPT_S,))
        known = connection.execute(
            "SELECT outcome FROM standing WHERE order_id = ? AND session = ?", key
        ).fetchone()
        if known is not None:
            return known[0] is None
        _check_room(connection, issuer)
        connection.execute(
            "INSERT INTO standing (order_id, session, expires_s, issuer) VALUES (?, ?, ?, ?)",
            (*key, expires_s, issuer),
        )
    return True


def _check_room(connection: sqlite3.Connection, issuer: bytes) -> None:
    query = "SELECT count(*), count(CASE WHEN issuer = ? THEN 1 END) FROM standing"
    count, of_issuer = connection.execute(query, (issuer,)).fetchone()
    if count >= MET_MAX:
        raise RefusedError(f"{MET_MAX} standing kills were met here already")
    if of_issuer >= OF_ISSUER_MAX:
        raise RefusedError(f"{OF_ISSUER_MAX} standing kills of this issuer were met here already")


def finish(connection: sqlite3.Connection, key: tuple[bytes, str], outcome: str) -> None:
    """Keep what became of it."""
    with transaction(connection):
        connection.execute(
            "UPDATE standing SET outcome = ? WHERE order_id = ? AND session = ?", (outcome, *key)
        )
