"""Heads of other nodes' audit logs as they were seen here: a few of each node, on disk.

Invariant: of each node at most HEADS_MAX heads are kept, the first and the newest among them, the
further apart the longer ago they were seen. What proves that a log was changed is kept beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.audit.witnessing import Seen
from meshnode.core.commands.audit import AUDIT_HEAD, head_from_signed
from meshnode.core.errors import PeerError
from meshnode.core.feeds.heads import Head
from meshnode.core.keys import Signed
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from meshnode.core.ids import NodeId

HEADS_MAX = 16  # of a node: with gaps that double, from a minute to a year
TROUBLES_MAX = 8  # heads of a node kept as proofs of one kind; the first ones stay
PROOF_S = 400 * 86400.0  # as long as records are kept; older proofs are deleted with the next one


def keep(connection: sqlite3.Connection, seen: Iterable[Seen]) -> None:
    """Write heads, and drop those that lie closest together for their age."""
    with transaction(connection):
        for one in seen:
            query = "SELECT seen_s, payload FROM audit_heads WHERE node = ? AND trouble = ?"
            place = (one.head.node, one.trouble)
            if one.trouble:
                old = "DELETE FROM audit_heads WHERE trouble != '' AND seen_s < ?"
                connection.execute(old, (one.seen_s - PROOF_S,))
            held = connection.execute(f"{query} ORDER BY seen_s", place).fetchall()
            if one.trouble and len(held) >= TROUBLES_MAX:
                continue
            where = (one.head.node, one.seen_s, one.place.epoch, one.place.seq, one.trouble)
            connection.execute(
                "INSERT OR IGNORE INTO audit_heads VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*where, one.signed.payload, one.signed.signature),
            )
            if not one.trouble and len(held) >= HEADS_MAX:
                _, payload = held[spare([*(seen_s for seen_s, _ in held), one.seen_s])]
                query = "DELETE FROM audit_heads WHERE node = ? AND trouble = ? AND payload = ?"
                connection.execute(query, (*place, payload))


def drop(connection: sqlite3.Connection, node: NodeId) -> int:
    """Delete all that was kept of one node; return how much that was."""
    with transaction(connection):
        return connection.execute("DELETE FROM audit_heads WHERE node = ?", (node,)).rowcount


def spare(times: Sequence[float]) -> int:
    """Return which of some moments, the oldest first, is missed least: never the first or last."""
    now_s = times[-1]
    return min(
        range(1, len(times) - 1),
        key=lambda at: (times[at + 1] - times[at - 1]) / (now_s - times[at] + 1.0),
    )


def of_node(connection: sqlite3.Connection, node: NodeId) -> list[Seen]:
    """Return what was seen of one node's log, proofs of trouble last, else the oldest first."""
    query = "SELECT * FROM audit_heads WHERE node = ? ORDER BY trouble != '', seen_s"
    return _read(connection, query, (node,))


def newest_of_all(connection: sqlite3.Connection) -> dict[NodeId, Seen]:
    """Return the newest head that was kept of each node."""
    query = (
        "SELECT * FROM audit_heads one WHERE trouble = '' AND (epoch, seq) = (SELECT epoch, seq"
        " FROM audit_heads WHERE node = one.node AND trouble = '' ORDER BY epoch DESC, seq DESC"
        " LIMIT 1)"
    )
    return {one.head.node: one for one in _read(connection, query, ())}


def troubles(connection: sqlite3.Connection) -> list[Seen]:
    """Return all heads that prove that a log was changed."""
    return _read(connection, "SELECT * FROM audit_heads WHERE trouble != '' ORDER BY seen_s", ())


def _read(connection: sqlite3.Connection, query: str, values: tuple[str, ...]) -> list[Seen]:
    """Read heads; one that its node has not signed like that is left out."""
    found = []
    for _, seen_s, epoch, seq, trouble, payload, signature in connection.execute(query, values):
        try:
            signed = Signed(AUDIT_HEAD, bytes(payload), bytes(signature))
            head = head_from_signed(signed)
        except (PeerError, TypeError):
            continue
        found.append(Seen(head, signed, float(seen_s), Head(epoch, seq), str(trouble)))
    return found
