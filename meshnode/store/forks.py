"""Why epochs are in quarantine, on disk.

Invariant: one proof an origin at most, of the highest epoch; it goes once a higher epoch is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.feeds.headers import FLUSH
from meshnode.core.keys import Signed
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

    from meshnode.core.feeds.forks import Proof


def save(connection: sqlite3.Connection, proof: Proof) -> None:
    """Keep a proof."""
    one, other = (header.signed for header in proof)
    if one is None or other is None:
        raise ValueError("only signed headers are stored")
    parts = (one.payload, one.signature, other.payload, other.signature)
    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO forks VALUES (?, ?, ?, ?, ?, ?)",
            (proof[0].origin, proof[0].epoch, *parts),
        )


def load(connection: sqlite3.Connection) -> list[tuple[Signed, Signed]]:
    """Return all proofs, unverified; what is no bytes at all any more is passed over."""
    found = connection.execute(
        "SELECT CAST(payload AS BLOB), CAST(signature AS BLOB),"
        " CAST(other_payload AS BLOB), CAST(other_signature AS BLOB) FROM forks"
    )
    return [
        (Signed(FLUSH, p, s), Signed(FLUSH, q, t))
        for p, s, q, t in found
        if None not in {p, s, q, t}
    ]


def drop_cleared(connection: sqlite3.Connection, origin: str, epoch: int) -> None:
    """Forget a proof about an epoch below this one; within the caller's transaction."""
    connection.execute("DELETE FROM forks WHERE origin = ? AND epoch < ?", (origin, epoch))
