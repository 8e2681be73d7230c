"""Whom this home was told of when it joined, kept on its disk until it need not wait for them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.app.membership.introduced import INTRODUCED_MAX, Introduced
from meshnode.core.errors import DamagedError, NotFoundError, PeerError, StorageError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.membership.members import NAME_CHARS_MAX
from meshnode.store import facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.store.database import Database

INTRODUCED_FACT = "introduced"
SEEDS_FACT = "seeds"  # where those are that an invite named


def checked(told: Mapping[str, str]) -> dict[NodeId, str]:
    """Return of what an admitter said what can be members, as many as there is room for."""
    members: dict[NodeId, str] = {}
    for node, name in sorted(told.items())[:INTRODUCED_MAX]:
        try:
            node_key_of(NodeId(node))
        except PeerError:  # advice: what is no id is nobody to wait for
            continue
        members[NodeId(node)] = name[:NAME_CHARS_MAX]
    return members


def introduced_in(database: Database, mesh: Mesh) -> Introduced:
    """Take up whom a home waits for, and where those are; what is broken of that says nothing."""
    told, seeds = {}, {}
    with suppress(DamagedError):  # advice: no home is lost for it
        told = facts.map_of(database.run_now(facts.recall, INTRODUCED_FACT), INTRODUCED_FACT, str)
        seeds = seeds_in(database)
    return Introduced(mesh, checked(told), seeds)


def seeds_in(database: Database) -> dict[NodeId, tuple[str, ...]]:
    """Return where the members are that an invite named; raises DamagedError."""
    told = facts.map_of(database.run_now(facts.recall, SEEDS_FACT), SEEDS_FACT, list)
    return {NodeId(peer): tuple(addresses) for peer, addresses in told.items()}


def fact_of(members: Mapping[NodeId, str]) -> dict[str, bytes]:
    """Return what the disk is to remember of whom a home waits for."""
    return {INTRODUCED_FACT: json.dumps(members).encode()}


async def dismiss(database: Database, introduced: Introduced, node: NodeId) -> None:
    """Wait for a member no longer, at the next start neither; raises NotFoundError.

    StorageError: the disk does not take it, and it is waited for as before.
    """
    name = introduced.drop(node)
    if name is None:
        raise NotFoundError(
            f"nobody waits for node {node[:60]}", "session-mesh nodes lists who is known"
        )
    try:
        await database.run(facts.remember, fact_of(introduced.kept()))
    except StorageError:
        introduced.wait_again(node, name)
        raise
