"""Up to where this node tells its ledger without sessions, and what others say of such rows.

Invariant: the horizon only grows on disk, and is late enough for whatever peers have returned.
Functions are synchronous.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError
from meshnode.core.ledger.folding import NOWHERE, Horizon, covering, told
from meshnode.core.ledger.ledger import DiagnosticsKey
from meshnode.core.ledger.ledger_rows import key_from_row
from meshnode.core.ledger.marks import FOLDED
from meshnode.core.packing import typed
from meshnode.core.periods import DAY_S
from meshnode.store import counters, facts, ledger
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from meshnode.core.ledger.ledger import CounterKey, LedgerRow, Slot

NOTHING_NEW: Mapping[CounterKey, Slot | None] = MappingProxyType({})
HORIZON = "ledger_folded"  # the fact up to which UTC day, and month, sessions are left away


def horizon(connection: sqlite3.Connection) -> Horizon:
    """Return up to where sessions are left away; raises DamagedError."""
    try:
        day, month = json.loads(facts.recall(connection, HORIZON) or b"[0, 0]")
        known = Horizon(typed(day, int), typed(month, int))
    except (ValueError, TypeError) as error:
        hint = "restore the home from a backup, or move the database away: logs are read again"
        raise DamagedError(f"the table meta holds a broken row: {HORIZON}", hint) from error
    returned = counters.of_session(connection, FOLDED, "usage_imported")
    return covering(known, [*dict(returned), *beside(connection)])


def remember(
    connection: sqlite3.Connection,
    reached: Horizon,
    returned: Mapping[CounterKey, Slot | None] = NOTHING_NEW,
) -> None:
    """Keep up to where sessions are left away, and what then stands for what peers returned."""
    with transaction(connection):
        facts.remember(connection, {HORIZON: json.dumps([reached.day, reached.month]).encode()})
        counters.delete(connection, [key for key, slot in returned.items() if slot is None])
        kept = [(key, slot) for key, slot in returned.items() if slot is not None]
        counters.keep_imported(connection, kept)


def beside(connection: sqlite3.Connection) -> dict[CounterKey, Slot]:
    """Return what other nodes' feeds say of rows without a session, and ours leaves out."""
    return dict(counters.of_session(connection, FOLDED, "usage_elsewhere"))


def take_anew(connection: sqlite3.Connection, keys: Iterable[CounterKey]) -> None:
    """Forget what others have said of what they tell without sessions by now: `keys`, of theirs.

    It is in these rows, too.
    """
    reached = covering(NOWHERE, keys)
    with transaction(connection):
        if reached != NOWHERE:
            query = "SELECT CAST(key AS BLOB) FROM usage_elsewhere"
            held = [row for (row,) in connection.execute(query)]
            gone = [
                (row,)
                for row in held
                if (key := key_from_row(row)) is not None
                and not isinstance(key, DiagnosticsKey)
                and key.start_s < reached.day * DAY_S
            ]
            connection.executemany("DELETE FROM usage_elsewhere WHERE key = ?", gone)


def published(connection: sqlite3.Connection) -> list[LedgerRow]:
    """Return the rows of the ledger as this node says them, sessions left away where it does."""
    rows: list[LedgerRow] = []
    known: dict[CounterKey, Slot] = {}
    for key, value in ledger.published(connection):
        if isinstance(key, DiagnosticsKey):
            rows.append((key, value))  # type: ignore[arg-type] # a reader's key has a reader's row
        else:
            known[key] = value  # type: ignore[assignment] # as above
    return [*told(known.items(), beside(connection), horizon(connection)).items(), *rows]
