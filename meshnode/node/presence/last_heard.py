"""Until when this node heard the other members, for whoever asks its disk, or it itself later.

Invariant: what is kept is a claim about our own ears alone, as old as our last end in order; what a
member has signed since then is newer, and counts.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.client.durations import seconds_of
from meshnode.core.errors import MeshError, UsageError
from meshnode.core.ids import NodeId
from meshnode.node.presence.own_record import LAST_WRITE_S
from meshnode.store import facts
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    from meshnode.app.queries.queries import Queries
    from meshnode.store.database import Database

HEARD_FACT = "last_heard"


def last_heard(database: Database) -> dict[NodeId, float]:
    """Return when members were heard last, in seconds since 1970; raises DamagedError."""
    told = facts.map_of(database.run_now(facts.recall, HEARD_FACT), HEARD_FACT, str)
    heard: dict[NodeId, float] = {}
    for peer, moment in told.items():
        try:
            heard[NodeId(peer)] = seconds_of(moment)
        except UsageError:  # of no use, and no reason not to answer
            continue
    return heard


async def keep_last_heard(database: Database, queries: Queries) -> None:
    """Keep it, if the disk takes it: the node is about to end."""
    # Else whoever asks is told of an earlier moment; the node ends all the same.
    with suppress(sqlite3.Error, MeshError, TimeoutError):
        heard = {view.node_id: view.last_heard_s for view in queries.nodes({}) if not view.is_self}
        told = {peer: time_to_wire(at_s) for peer, at_s in heard.items() if at_s is not None}
        async with asyncio.timeout(LAST_WRITE_S):
            await database.run(facts.remember, {HEARD_FACT: json.dumps(told).encode()})
