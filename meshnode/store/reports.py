"""Usage that agents report, in the ledger: known by its id, and counted a session.

Invariant: a report that is known is never counted again, nor replaced. Functions are synchronous;
the caller owns the connection, and does not let another write between `knows` and `count`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.sessions.reporting import SOURCE, Tally, idem_key_of
from meshnode.core.errors import ConflictError
from meshnode.core.ledger.ledger import Batch, Diagnostics, DiagnosticsKey
from meshnode.store import ledger, usage_log

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from meshnode.core.ledger.charges import Charge
    from meshnode.core.ledger.ledger import LedgerRow, UsageRecord
    from meshnode.core.ledger.usage_log import Entry

READER = DiagnosticsKey(SOURCE, "")  # what all sessions of a node report, together


def knows(connection: sqlite3.Connection, record: UsageRecord) -> bool:
    """Whether a report is counted; raises ConflictError if its id is counted with other content.

    Once its record is dropped nobody can say with which: then it is counted, whatever it says.
    """
    entry = usage_log.latest(connection, [record.idem_key]).get(record.idem_key)
    if entry is None:
        return bool(usage_log.dropped(connection, [record.idem_key]))
    known = entry.record
    said = (record.model, record.provider, record.tier, record.usage)
    if (known.model, known.provider, known.tier, known.usage) != said:
        raise ConflictError(
            "this id was reported with other numbers, and those stay counted",
            "give each response of a provider an id of its own",
        )
    return True


def count(
    connection: sqlite3.Connection, record: UsageRecord, price: Callable[[UsageRecord], Charge]
) -> list[LedgerRow]:
    """Keep a report with what it costs now, synced; returns the rows to publish."""
    batch = Batch(READER, "", {}, [record], Diagnostics())
    return ledger.commit(connection, batch, int(record.at_s * 1000), price)


def of_id(connection: sqlite3.Connection, report_id: str) -> list[Entry]:
    """Return what counts of reports of this id, of all sessions, in the order of their coming."""
    query = "SELECT DISTINCT session FROM usage_kinds WHERE source = ?"
    keys = [idem_key_of(session, report_id) for (session,) in connection.execute(query, (SOURCE,))]
    return sorted(usage_log.latest(connection, keys).values(), key=lambda entry: entry.seq)


def tally(connection: sqlite3.Connection, session_id: str) -> Tally:
    """Count what a session has reported: of its responses those whose records are kept."""
    begin = idem_key_of(session_id, "")
    end = begin[:-1] + chr(ord(begin[-1]) + 1)
    ((reports,),) = connection.execute(
        "SELECT count(*) FROM usage_log WHERE idem_key >= ? AND idem_key < ? AND revision = 0",
        (begin, end),
    )
    models = connection.execute(  # also of records that are dropped
        "SELECT DISTINCT model FROM usage_kinds WHERE session = ? AND source = ?",
        (session_id, SOURCE),
    )
    return Tally(reports, {model for (model,) in models})
