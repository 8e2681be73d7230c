"""The ledgers of nodes whose place this one has taken: what they say, ours leaves out.

Whoever was installed anew reads again what its lost node has counted, and that node's ledger stays
in the mesh. So it is taken up as what a disk of ours has lost, and kept beside ours
(`store/elsewhere.py`).

Invariant: nothing of ours is said before those ledgers were waited for. What is not here by then is
left out once it is, and an alarm stands until then: counted twice is better than not at all. Rows
that name the nodes go before all that is said without them, so that whoever gets our feed back, or
takes our place, knows of them; none names a node of whom nothing was here to leave out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.ids import NodeId
from meshnode.core.ledger.folding import NOWHERE, added_up, covering
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import key_to_row, replaced_in, replaced_to_row
from meshnode.core.ledger.regained import by_month, counters_of
from meshnode.core.ledger.rollups import plus
from meshnode.store import elsewhere, folds, rollups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.core.ledger.ledger import CounterKey, Slot
    from meshnode.node.ground import Ground

PATIENCE_S = 60.0  # with a feed that is on its way; then ours is said with what is here
AGAIN_S = 60.0  # before more of one of them is taken: it may be alive after all, and say more
WAITING = "replaced"  # the alarm: a feed is not here
FIX = "let this node reach one that knows it: session-mesh nodes shows who is alive"
HELD_AT_ONCE = 500  # rows; then others get the database
SAID = b"\x90"  # the value of a row that names a node: an empty list
SOMETHING = Head(0, 1)  # no feed that is here is known for less
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
        self._taken_s = -AGAIN_S

    @property
    def is_settled(self) -> bool:
        """Whether it is known what to leave out, and said of whom."""
        heads = self._heads
        if self._clock.steady_s() - self._taken_s < AGAIN_S:
            heads = {node: head for node, head in heads.items() if head == NOTHING}
        return self._settled_at == self._world.mesh.own.epoch and not self._are_behind(heads)

    @property
    def is_net(self) -> bool:
        """Whether our feed says that it leaves something out."""
        return bool(self._ours())

    async def look(self) -> set[NodeId] | None:
        """Return the nodes whose ledgers are to be taken; None while one of them is waited for."""
        mesh = self._world.mesh
        known = await self._database.run(elsewhere.taken, mesh.genesis.mesh_id)
        said = self._ours()
        wanted = dict.fromkeys(said, NOTHING)
        wanted |= await self._database.run(elsewhere.replaced, mesh.genesis.mesh_id)
        nodes = self._line_of(wanted)
        if not nodes:
            await self._database.run(elsewhere.clear)  # of a mesh that this home has left
        known = {node: head for node, head in known.items() if node in nodes}
        heads = known | self._heads_of(nodes)
        least = {node: max(head, SOMETHING) for node, head in wanted.items()}
        lacking = [n for n in wanted if n in nodes and heads.get(n, NOTHING) < least[n]]
        is_named = all(node in said for node, head in known.items() if head != NOTHING)
        is_done = nodes == known.keys() and is_named and not self._are_behind(known)
        if lacking and not is_done and self._clock.steady_s() - self._since_s < PATIENCE_S:
            return None
        self._tell(lacking)
        self._heads = known
        return set() if is_done else nodes

    def _line_of(self, wanted: Mapping[NodeId, Head]) -> set[NodeId]:
        """Return some nodes, and those whose place they have taken, as far as anybody knows."""
        mesh = self._world.mesh
        nodes, waiting = set[NodeId](), list(wanted)
        for node in waiting:  # it grows: those that one of them names come last
            if node in nodes or node == mesh.self_id or len(nodes) == NODES_MAX:
                continue
            replica = mesh.replication.replicas.get(node)
            is_here = replica is not None and replica.header is not None
            if replica is not None and is_here:
                waiting += replaced_in(replica.rows.tables.get(LEDGER, ()))
            if is_here or node in wanted or node in mesh.control.forgotten:  # else nobody knows it
                nodes.add(node)
        return nodes

    async def take(self, nodes: set[NodeId], *, was_held: bool) -> list[bytes]:
        """Keep what they have counted beside ours; return what our feed is to say no more.

        `was_held`: what our own feed says was held already, maybe without one that it names.
        """
        mesh = self._world.mesh
        heads = self._heads_of(nodes)  # one may be gone by now
        tables = [mesh.replication.replicas[node].rows.tables.get(LEDGER, {}) for node in heads]
        feeds = [{key: row.value for key, row in rows.items()} for rows in tables]
        before = {node: self._heads.get(node, NOTHING) for node in nodes}
        late = [node for node in self._ours() if node in heads and before.get(node) == NOTHING]
        known = await self._database.run(elsewhere.taken, mesh.genesis.mesh_id)
        if not known:
            await self._database.run(elsewhere.clear)  # of a mesh that this home has left
        is_late = was_held and bool(late)
        gone: list[bytes] = []
        pieces = await asyncio.to_thread(_months, feeds)
        await self._database.run(folds.take_anew, [key for piece in pieces for key in piece])
        for piece in pieces:
            said = await self._database.run(rollups.stand_beside, piece, is_late=is_late)
            gone += [key_to_row(key) for key, slot in said.items() if slot is None]
        self._heads = before | heads
        self._taken_s = self._clock.steady_s()
        await self._database.run(elsewhere.note_taken, mesh.genesis.mesh_id, self._heads)
        return gone

    def settle(self) -> None:
        """Say of whom something is left out: before all that is said without it.

        Raises ExhaustedError where that has no room: it is said at a later start.
        """
        self._settled_at = self._world.mesh.own.epoch
        named = [node for node, head in self._heads.items() if head != NOTHING]
        named += [node for node in self._ours() if node not in named]
        if named:  # each boot: what it says beside these rows is known to leave something out
            self._world.write_together(LEDGER, {replaced_to_row(node): SAID for node in named})

    def _heads_of(self, nodes: Iterable[NodeId]) -> dict[NodeId, Head]:
        """Return how far the feeds of some nodes are here, as far as they are."""
        replicas = self._world.mesh.replication.replicas
        here = {node: replicas[node] for node in nodes if node in replicas}
        return {node: one.head for node, one in here.items() if one.header is not None}

    def _are_behind(self, heads: Mapping[NodeId, Head]) -> bool:
        """Whether one of these has said more since, as of a feed that only some nodes had."""
        replicas = self._world.mesh.replication.replicas
        return any(node in replicas and replicas[node].head > head for node, head in heads.items())

    def _ours(self) -> list[NodeId]:
        return replaced_in(self._world.mesh.own.keys(LEDGER))

    def _tell(self, lacking: Sequence[NodeId]) -> None:
        if not lacking:
            self._alarms.clear(WAITING)
            return
        said = f"what {lacking[0][:12]} has counted, whose place this node takes, is not all here"
        twice = "what both have read of the same logs may count twice until it is"
        self._alarms.sound(Alarm(WAITING, f"{said}: {twice}", FIX))


def _months(feeds: Iterable[Mapping[bytes, bytes]]) -> list[dict[CounterKey, Slot]]:
    counted: dict[CounterKey, Slot] = {}
    for feed in feeds:
        for key, slot in counters_of(feed.items()).items():
            counted[key] = plus(counted.get(key), slot)
    folded = added_up(counted, covering(NOWHERE, counted))
    return list(by_month(folded, HELD_AT_ONCE))
