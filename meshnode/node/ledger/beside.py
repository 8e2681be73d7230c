"""The ledgers of nodes whose place this one has taken: what they say, ours leaves out.

Whoever was installed anew reads again what its lost node has counted, and that node's ledger stays
in the mesh. So it is taken up as what a disk of ours has lost, and kept beside ours
(`store/elsewhere.py`).

Invariant: nothing of ours is said before it is known what to leave out; and a row that names the
nodes goes before all others, so that whoever gets our feed back, or takes our place, knows of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.core.feeds.headers import NOTHING, Head
from meshnode.core.ids import NodeId
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import key_to_row, replaced_in, replaced_to_row
from meshnode.core.ledger.regained import by_month, counters_of
from meshnode.core.ledger.rollups import plus
from meshnode.store import elsewhere, rollups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshnode.core.ledger.ledger import CounterKey, Slot
    from meshnode.node.ground import Ground

PATIENCE_S = 60.0  # with a feed that is on its way, before anybody is told
WAITING = "replaced"  # the alarm: a feed is not here
FIX = "let this node reach one that knows it: session-mesh nodes shows who is alive"
HELD_AT_ONCE = 500  # rows; then others get the database
SAID = b"\x90"  # the value of a row that names a node: an empty list
NODES_MAX = 64  # in a line of nodes that took each other's place


class Beside:
    """What one node's ledger leaves out."""

    def __init__(self, ground: Ground) -> None:
        self._database = ground.database
        self._world = ground.world
        self._clock = ground.clock
        self._alarms = ground.alarms
        self._since_s = ground.clock.steady_s()
        self._settled_at = 0  # the epoch of our feed in which all was known
        self._heads: dict[NodeId, Head] = {}  # up to which it was, of whom

    @property
    def is_settled(self) -> bool:
        """Whether it is known what to leave out, and said of whom."""
        return self._settled_at == self._world.mesh.own.epoch and not self._are_behind(self._heads)

    @property
    def is_net(self) -> bool:
        """Whether our feed says that it leaves something out."""
        return bool(self._ours())

    async def look(self) -> set[NodeId] | None:
        """Return the nodes whose ledgers are to be taken; None while one of them is not here."""
        mesh = self._world.mesh
        known = await self._database.run(elsewhere.taken, mesh.genesis.mesh_id)
        said = self._ours()
        wanted = dict.fromkeys(said, NOTHING)
        wanted |= await self._database.run(elsewhere.replaced, mesh.genesis.mesh_id)
        nodes, absent, waiting = set[NodeId](), list[NodeId](), list(wanted)
        while waiting and len(nodes) < NODES_MAX:
            node = waiting.pop()
            if node in nodes or node == mesh.self_id:
                continue
            replica = mesh.replication.replicas.get(node)
            is_here = replica is not None and replica.header is not None
            if replica is not None and is_here:
                waiting += replaced_in(replica.rows.tables.get(LEDGER, ()))
                is_here = replica.head >= wanted.get(node, NOTHING)
            if is_here or node in wanted or node in mesh.control.forgotten:  # else nobody knows it
                nodes.add(node)
            if not is_here and node in nodes:
                absent.append(node)
        is_done = nodes <= known.keys() and nodes <= set(said) and not self._are_behind(known)
        if absent and not is_done:
            self._tell(absent[0])
            return None
        self._alarms.clear(WAITING)
        self._heads = known
        return set() if is_done else nodes

    async def take(self, nodes: set[NodeId]) -> list[bytes]:
        """Keep what they have counted beside ours; return what our feed is to say no more."""
        mesh = self._world.mesh
        known = {node: mesh.replication.replicas[node] for node in nodes}
        heads = {node: replica.head for node, replica in known.items()}
        tables = [replica.rows.tables.get(LEDGER, {}) for replica in known.values()]
        feeds = [{key: row.value for key, row in rows.items()} for rows in tables]
        if not await self._database.run(elsewhere.taken, mesh.genesis.mesh_id):
            await self._database.run(elsewhere.clear)  # of a mesh that this home has left
        gone: list[bytes] = []
        for piece in await asyncio.to_thread(_months, feeds):
            said = await self._database.run(rollups.stand_beside, piece)
            gone += [key_to_row(key) for key, slot in said.items() if slot is None]
        await self._database.run(elsewhere.note_taken, mesh.genesis.mesh_id, heads)
        self._heads = heads
        return gone

    def settle(self, nodes: Iterable[NodeId]) -> None:
        """Say of whom something is left out: before all that is said without it."""
        if nodes:
            self._world.write_together(LEDGER, {replaced_to_row(node): SAID for node in nodes})
        self._settled_at = self._world.mesh.own.epoch

    def _are_behind(self, heads: Mapping[NodeId, Head]) -> bool:
        """Whether one of these has said more since, as of a feed that only some nodes had."""
        replicas = self._world.mesh.replication.replicas
        return any(node in replicas and replicas[node].head > head for node, head in heads.items())

    def _ours(self) -> list[NodeId]:
        return replaced_in(self._world.mesh.own.keys(LEDGER))

    def _tell(self, node: NodeId) -> None:
        if self._clock.steady_s() - self._since_s >= PATIENCE_S:
            said = f"what {node[:12]} has counted, whose place this node takes, is not here yet"
            self._alarms.sound(Alarm(WAITING, f"{said}: nothing of this ledger is published", FIX))


def _months(feeds: Iterable[Mapping[bytes, bytes]]) -> list[dict[CounterKey, Slot]]:
    counted: dict[CounterKey, Slot] = {}
    for feed in feeds:
        for key, slot in counters_of(feed.items()).items():
            counted[key] = plus(counted.get(key), slot)
    return list(by_month(counted, HELD_AT_ONCE))
