"""What of this home's counters another node's feed says already, and ours leaves out.

A machine that was installed anew reads again what its lost node has counted, and that node's ledger
stays in the mesh.

Invariant: each row stands beside the counter that it is a part of, and moves with it. Functions are
synchronous, and change nothing outside the caller's transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId
from meshnode.core.ledger.ledger import Diagnostics, Slot
from meshnode.core.ledger.ledger_rows import key_to_row, slot_from_row, slot_to_row
from meshnode.core.ledger.rollups import less, plus
from meshnode.core.packing import typed
from meshnode.store import counters, facts
from meshnode.store.asking import asked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from meshnode.core.ledger.ledger import CounterKey, LedgerRow

REPLACES = "replaces"  # the fact whose place this node takes in which mesh, and that one's head
TAKEN = "ledger_elsewhere"  # the fact of which mesh, of which of its nodes, and up to where


def replacing(mesh_id: str, node: str, head: Head) -> dict[str, bytes]:
    """Return the fact that this node has joined a mesh in another's place."""
    return {REPLACES: json.dumps([mesh_id, node, head.epoch, head.seq]).encode()}


def replacing_nobody() -> dict[str, bytes]:
    """Return the fact that this node has joined a mesh in nobody's place."""
    return {REPLACES: b""}


def kept(connection: sqlite3.Connection, mesh_id: str) -> dict[str, bytes]:
    """Return the fact of an earlier join, for a home that joins the same mesh again."""
    for node, head in replaced(connection, mesh_id).items():
        return replacing(mesh_id, node, head)
    return replacing_nobody()


def replaced(connection: sqlite3.Connection, mesh_id: str) -> dict[NodeId, Head]:
    """Return whose place this node has joined a mesh for, and how far that was known then."""
    try:
        known = json.loads(facts.recall(connection, REPLACES) or b'["", "", 0, 0]')
        mesh, node = (typed(part, str) for part in known[:2])
        epoch, seq = (typed(part, int) for part in known[2:])
        return {NodeId(node): Head(epoch, seq)} if mesh == mesh_id else {}
    except (ValueError, TypeError, LookupError) as error:
        raise _broken(REPLACES) from error


def taken(connection: sqlite3.Connection, mesh_id: str) -> dict[NodeId, Head]:
    """Return the nodes of a mesh whose ledgers are beside ours, and up to which head of each."""
    try:
        mesh, known = json.loads(facts.recall(connection, TAKEN) or b'["", {}]')
        heads = {}
        for node, (epoch, seq) in known.items():
            heads[NodeId(node)] = Head(typed(epoch, int), typed(seq, int))
        return heads if typed(mesh, str) == mesh_id else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise _broken(TAKEN) from error


def note_taken(connection: sqlite3.Connection, mesh_id: str, heads: Mapping[NodeId, Head]) -> None:
    """Keep whose rows these are, and up to which head of each."""
    known = {node: (head.epoch, head.seq) for node, head in heads.items()}
    facts.remember(connection, {TAKEN: json.dumps([mesh_id, known]).encode()})


def is_settled(connection: sqlite3.Connection, mesh_id: str) -> bool:
    """Whether what this node is to leave out is known, or was waited for long enough."""
    return replaced(connection, mesh_id).keys() <= taken(connection, mesh_id).keys()


def rows_of(connection: sqlite3.Connection, keys: Iterable[CounterKey]) -> dict[CounterKey, Slot]:
    """Return what stands beside some counters."""
    if connection.execute("SELECT 1 FROM usage_elsewhere LIMIT 1").fetchone() is None:
        return {}
    named = {key_to_row(key): key for key in keys}
    query = "SELECT key, CAST(slot AS BLOB) FROM usage_elsewhere WHERE key IN (?)"
    with counters.ours("usage_elsewhere"):
        rows = asked(connection, query, list(named))
        return {named[packed]: slot_from_row(slot) for packed, slot in rows}


def keep(connection: sqlite3.Connection, rows: Mapping[CounterKey, Slot]) -> None:
    """Put rows beside counters, in the place of those that are there."""
    connection.executemany(
        "INSERT OR REPLACE INTO usage_elsewhere VALUES (?, ?)",
        [(key_to_row(key), slot_to_row(slot)) for key, slot in rows.items()],
    )


def clear(connection: sqlite3.Connection) -> None:
    """Leave nothing out: the feeds that say it are of a mesh that this home has left."""
    if connection.execute("SELECT 1 FROM usage_elsewhere LIMIT 1").fetchone() is not None:
        connection.execute("DELETE FROM usage_elsewhere")


def move(connection: sqlite3.Connection, moved: Iterable[tuple[CounterKey, CounterKey]]) -> None:
    """Let rows follow the counters that they are beside."""
    moves = list(moved)
    rows = rows_of(connection, {key for pair in moves for key in pair})
    for key, into in moves:
        if key in rows:
            rows[into] = plus(rows.get(into), rows.pop(key))
            keep(connection, {into: rows[into]})
            connection.execute("DELETE FROM usage_elsewhere WHERE key = ?", (key_to_row(key),))


def beyond(connection: sqlite3.Connection, rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Return what is to be said of counters: what nobody else says."""
    told = list(rows)
    beside = rows_of(connection, (key for key, value in told if isinstance(value, Slot)))  # type: ignore[misc] # keys and values pair up
    if not beside:
        return told
    found: list[LedgerRow] = []
    for key, value in told:
        known = None if isinstance(value, Diagnostics) else beside.get(key)  # type: ignore[arg-type] # as above
        found.append((key, value if known is None else less(value, known)))  # type: ignore[arg-type] # as above
    return found


def _broken(fact: str) -> DamagedError:
    hint = "restore the home from a backup, or move the database away"
    return DamagedError(f"the table meta holds a broken row: {fact}", hint)
