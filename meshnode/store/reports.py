"""Usage that agents report, in the ledger: known by its id, and counted a session.

Invariant: a report that is known is never counted again, nor replaced. Functions are synchronous;
the caller owns the connection, and does not let another write between `knows` and `count`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.reporting import SOURCE, Tally, idem_key_of
from meshnode.core.errors import ConflictError
from meshnode.core.ledger import Diagnostics, ReaderState
from meshnode.store import ledger

if TYPE_CHECKING:
    import sqlite3

    from meshnode.core.ledger import LedgerRow, UsageRecord

READER = ReaderState(SOURCE, "", "", b"")  # what all sessions of a node report, together
_BUCKETS = "input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, web_search"


def knows(connection: sqlite3.Connection, record: UsageRecord) -> bool:
    """Whether a report is counted; raises ConflictError if its id is counted with other content."""
    known = connection.execute(
        f"SELECT model, provider, tier, {_BUCKETS} FROM usage_records WHERE idem_key = ?",  # noqa: S608 - our own names
        (record.idem_key,),
    ).fetchone()
    if known is None:
        return False
    if tuple(known) != (record.model, record.provider, record.tier, *record.usage.counts):
        raise ConflictError(
            "this id was reported with other numbers, and those stay counted",
            "give each response of a provider an id of its own",
        )
    return True


def count(connection: sqlite3.Connection, record: UsageRecord) -> list[LedgerRow]:
    """Keep a report, synced; returns the rows to publish."""
    return ledger.commit(connection, READER, [record], Diagnostics())


def tally(connection: sqlite3.Connection, session_id: str) -> Tally:
    """Count what a session has reported."""
    begin = idem_key_of(session_id, "")
    end = begin[:-1] + chr(ord(begin[-1]) + 1)
    found = connection.execute(
        "SELECT model, count(*) FROM usage_records WHERE idem_key >= ? AND idem_key < ?"
        " GROUP BY model",
        (begin, end),
    ).fetchall()
    return Tally(sum(number for _, number in found), {model for model, _ in found})
