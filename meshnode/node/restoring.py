"""Taking up what the disk holds: our own feed and everybody's replicas.

Invariant: rows that are not the ones their owner signed are never taken up, and never sent on.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from meshnode.core.entries import entry_id_of
from meshnode.core.errors import PeerError
from meshnode.core.forks import proof_of
from meshnode.core.headers import header_from_signed
from meshnode.core.ledger import LEDGER
from meshnode.core.members import NODE, ONLY_ROW, node_from_row
from meshnode.core.rows import all_rows
from meshnode.core.sessions import SESSIONS
from meshnode.store import feeds, forks
from meshnode.store.database import damaged

if TYPE_CHECKING:
    from meshnode.app.mesh import Mesh
    from meshnode.core.rows import Rows
    from meshnode.store.database import Database
    from meshnode.store.feeds import Held

_log = logging.getLogger("session_mesh.store")
CARRIED = frozenset({LEDGER, SESSIONS})  # what a home keeps when it joins another mesh


def restore(mesh: Mesh, database: Database, wall_s: float) -> list[bytes]:
    """Fill a mesh from the disk; rows signed for an earlier mesh of this home are signed anew.

    Returns the ids of control entries that the disk need not keep: expired, corrupt, or of a mesh
    that this home has left. What is corrupt here comes back from peers.
    """
    held = _loaded(database, mesh.self_id)
    mesh.control.add_all(held.control, wall_s)
    for header, rows in held.feeds:
        if header.mesh == mesh.genesis.mesh_id:
            mesh.replication.restore(header, rows)
        elif header.origin == mesh.self_id:
            _carry_over(mesh, rows)
    for one, other in database.run_now(forks.load):
        with suppress(PeerError):  # of an earlier mesh, or damaged: peers return it
            headers = [header_from_signed(signed, mesh.genesis.mesh_id) for signed in (one, other)]
            mesh.replication.restore_fork(proof_of(tuple(headers)))
    if held.corrupt:
        _log.warning("control entries not as signed, which peers return: %d", len(held.corrupt))
    entry_ids = map(entry_id_of, held.control)
    return held.corrupt + [one for one in entry_ids if mesh.control.get(one) is None]


def _loaded(database: Database, self_id: str) -> Held:
    try:
        held = database.run_now(feeds.load)
    except PeerError as error:
        raise damaged(database.path, error.message) from error
    sound = []
    for header, rows in held.feeds:
        if rows.state_hash() == header.state_hash:
            sound.append((header, rows))
        elif header.origin == self_id:
            raise damaged(database.path, "this node's own rows are not as signed")
        else:
            _log.warning("the rows of %s are not as signed: peers return them", header.origin[:12])
    return replace(held, feeds=sound)


def has_left(held: feeds.Held, self_id: str) -> bool:
    """Whether the node of this home has withdrawn from its mesh for good."""
    for header, rows in held.feeds:
        row = rows.get(NODE, ONLY_ROW)
        if header.origin == self_id and row is not None:
            return node_from_row(row.value).standing == "left"
    return False


def _carry_over(mesh: Mesh, rows: Rows) -> None:
    for (table, key), row in all_rows(rows).items():
        if row is not None and table in CARRIED:
            mesh.own.write(table, key, row.value)
