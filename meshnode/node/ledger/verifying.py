"""Is the ledger of a home as it was written? Its chain, its checkpoints, its sums.

Invariant: one reading of one state of the disk, whatever is written meanwhile; nothing is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.core.commands.audit import Wrong, base_from_detail
from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.ledger.checkpoints import (
    CHECKPOINT,
    ChainWalk,
    Checkpoint,
    checkpoint_from_signed,
)
from meshnode.node.homes.founding import device_key
from meshnode.store import checkpoints, usage_log
from meshnode.store.checkpoints import Adding
from meshnode.store.frozen import read_home

if TYPE_CHECKING:
    import sqlite3

    from meshnode.client.home import Home
    from meshnode.core.ids import NodeId
    from meshnode.store.database import Database

PAGE_RECORDS = 1000


def verify_ledger(database: Database, node: NodeId) -> dict[str, Any]:
    """Return `records`, `checkpoints`, `seq`, `hash` and `wrong`: `seq` and `what`, or None."""
    return database.run_now(_verified, node)


def verify_home(home: Home) -> dict[str, Any] | None:
    """Verify the ledger of a home, whether its node runs or not; None where there is no ledger."""
    if not home.database.exists() or not home.node_key.exists():
        return None
    node = node_id_of(device_key(home).public)
    return read_home(home.database, lambda disk: verify_ledger(disk, node), checked=True)


def _verified(connection: sqlite3.Connection, node: NodeId) -> dict[str, Any]:
    connection.execute("BEGIN")
    try:
        signed = [checkpoint_from_signed(one, node) for one in checkpoints.kept(connection)]
        first = connection.execute("SELECT min(seq) FROM usage_log").fetchone()[0] or 1
        base = next((one for one in signed if one.dropped and one.seq == first - 1), None)
        walk = ChainWalk(base, _said(connection, signed, base))
        whole = [one for one in signed if one.totals]
        added = Adding(whole[-1] if whole else None)
        _walk(connection, walk, added)
        wrong = walk.end() or _compared(connection, added)
    except PeerError as error:
        walk, signed = ChainWalk(None, {}), []
        wrong = Wrong(1, f"a checkpoint was edited, or is another node's: {error.message}")
    finally:
        connection.execute("ROLLBACK")
    return {
        "ok": wrong is None,
        "records": walk.count,
        "checkpoints": len(signed),
        "seq": walk.seq,
        "hash": walk.hash.hex(),
        "wrong": None if wrong is None else {"seq": wrong.seq, "what": wrong.what},
    }


def _said(
    connection: sqlite3.Connection, signed: list[Checkpoint], base: Checkpoint | None
) -> dict[int, bytes]:
    """Return the hashes that checkpoints, and the audit log about them, say of what is kept."""
    query = "SELECT detail FROM audit WHERE kind = ?"
    details = [base_from_detail(detail) for (detail,) in connection.execute(query, (CHECKPOINT,))]
    said = {one.seq: one.hash for one in details if one is not None}
    said.update((one.seq, one.hash) for one in signed)
    return {seq: hash_ for seq, hash_ in said.items() if base is None or seq > base.seq}


def _walk(connection: sqlite3.Connection, walk: ChainWalk, added: Adding) -> None:
    try:
        while walk.wrong is None:
            page = usage_log.page(connection, walk.seq, PAGE_RECORDS)
            for entry, hash_ in page:
                walk.take(entry, hash_)
                added.take(connection, entry)
            if len(page) < PAGE_RECORDS:
                return
    except DamagedError:
        walk.broken()


def _compared(connection: sqlite3.Connection, added: Adding) -> Wrong | None:
    """Hold what was added up against the counters of now."""
    if added.since is None or added.totals in {None, checkpoints.totals(connection)}:
        return None
    return Wrong(added.since.seq + 1, "the counters do not add up to what was recorded")
