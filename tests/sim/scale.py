"""Big meshes: a thousand nodes and more, started as from disk, and measured one question at a time.

Invariant: nodes share what is equal (sharing.py), and nothing else; each runs its own Mesh. The
rest is as in small meshes, but that frames are not hashed and rows not compared at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sim.disk import Disk
from sim.invariants import alive_of
from sim.machine import WALL_S, Machine
from sim.notes import NOTES
from sim.sharing import SharedReplica
from sim.world import World

from meshnode.core.control.entries import entry_id_of
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ids import short_id_of
from meshnode.core.links.overlay import ring_neighbours
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.messages import Message
    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId

OVERHEAD_BYTES = 9 + 5 + 22 + 40  # a message: HTTP/2 frame, gRPC prefix, TLS record, TCP and IP
LOOK_S = 0.05


@dataclass
class News:
    """One write on its way: when it was made, and when each node had it."""

    origin: NodeId
    at_s: float
    arrived_s: list[float] = field(default_factory=list)


class Big:
    """A big world with its measurements."""

    def __init__(self, seed: int, count: int, *, tracing: bool = False) -> None:
        self.world = World(seed, count, tracing=tracing, checking=False, replica=SharedReplica)
        self.count = count
        self.news: dict[bytes, News] = {}
        self._written_at_s: dict[NodeId, float] = {}
        self.copies = 0
        self._found()
        self.world.on_stop = keep_shared
        self.world.on_news = self._arrived
        self.world.on_message = self._heard

    def _found(self) -> None:
        """Put onto every disk the feeds of a mesh that has long been running on its rings."""
        world = self.world
        ids = [machine.id for machine in world.nodes]
        wanted = rings(ids)
        feeds = {}
        for machine in world.nodes:
            own = OwnFeed(machine.key, world.genesis.mesh_id, world.genesis.limits, 1)
            record = NodeRecord(machine.name, (machine.address,), started_at_s=WALL_S)
            own.write(NODE, ONLY_ROW, node_to_row(record))
            peers = frozenset(short_id_of(peer) for peer in wanted[machine.id])
            own.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(peers)))
            change = own.flush(WALL_S)
            if change is None:
                raise AssertionError("nothing was written")
            feeds[machine.id] = (change.header, own.rows)
            world.synced.add(change.header)
        self.wanted = wanted
        for machine in world.nodes:
            machine.disk = SharedDisk(machine.id, feeds)

    def start_linked(self) -> None:
        """Start all nodes with their ring links in place, as if they had never been down."""
        for machine in self.world.nodes:
            machine.restore()
            machine.begun = True
        self._link(self.world.nodes)

    def _link(self, machines: Iterable[Machine]) -> None:
        """Connect every pair that wants it, then let the meshes begin."""
        world = self.world
        machines = list(machines)
        for machine in machines:
            for peer in sorted(self.wanted[machine.id]):
                if peer not in machine.streams:
                    world.network.connect(machine, world.machines[peer])
        for machine in machines:
            machine.do(machine.running.start(world.now_s))

    def restart(self, within_s: float) -> None:
        """Stop everybody, and start everybody again in some order."""
        for machine in self.world.nodes:
            machine.stop("reset")
        for machine in self.world.nodes:
            self.world.after(self.world.rng.uniform(0.0, within_s), None, machine.start)

    # News.

    def write(self, machine: Machine) -> None:
        self._written_at_s[machine.id] = self.world.now_s
        machine.write(NOTES, b"%d" % self.world.rng.randrange(50), self.world.rng.randbytes(100))

    def _arrived(self, machine: Machine, change: Change) -> None:
        signed = change.header.signed
        if signed is None or (NOTES not in {table for table, _ in change.rows}):
            return
        news = self.news.get(signed.signature)
        if news is None:
            at_s = self._written_at_s.get(change.origin, self.world.now_s)
            news = self.news[signed.signature] = News(change.origin, at_s)
        news.arrived_s.append(self.world.now_s - news.at_s)

    def _heard(self, source: Machine, target: Machine, message: Message) -> None:
        if isinstance(message, Flush) and message.header.signed is not None:
            self.copies += message.header.signed.signature in self.news or self._is_note(message)

    @staticmethod
    def _is_note(flush: Flush) -> bool:
        return NOTES.encode() in flush.delta

    # Questions.

    def until(self, done, within_s: float) -> float:
        """Run until something holds; returns how long it took, infinity if it never did."""
        began_s = self.world.now_s
        while not done():
            if self.world.now_s - began_s > within_s:
                return float("inf")
            self.world.run(LOOK_S)
        return self.world.now_s - began_s

    def shown(self, members: frozenset[NodeId]) -> int:
        """Count the running nodes that show exactly these members alive."""
        return sum(alive_of(m.mesh) | {m.id} == members for m in self.world.nodes if m.mesh)

    def all_show(self, members: Iterable[NodeId]) -> bool:
        """Whether every running node shows exactly these members alive; the first look is cheap."""
        wanted = frozenset(members)
        return all(
            len(m.mesh.liveness.alive) == len(wanted)  # type: ignore[arg-type] # asked of running ones
            and alive_of(m.mesh) == wanted
            for m in self.world.nodes
            if m.mesh is not None and m.begun
        )

    def all_agree(self) -> bool:
        """Whether all running nodes hold the same."""
        up = self.world.up
        first = up[0].running.replication.digest()
        return all(m.running.replication.digest() == first for m in up[1:])


class SharedDisk(Disk):
    """A disk of a big mesh: its own feed as synced, the others' as when its machine last stopped.

    Rows of others are shared and never changed; those of the own feed are its machine's alone.
    """

    def __init__(self, owner: NodeId, others: dict[NodeId, tuple[Header, Rows]]) -> None:
        super().__init__()
        self._owner, self.others = owner, others
        header, rows = others[owner]
        self.feeds[owner] = (header, all_rows(rows))

    def load(self) -> list[tuple[Header, Rows]]:
        others = self.others.items()
        return super().load() + [held for origin, held in others if origin != self._owner]

    def save(self, change: Change) -> None:
        if change.origin == self._owner:
            super().save(change)


def keep_shared(machine: Machine) -> None:
    """Put what a machine holds of others onto its disk as it is: nobody changes it any more."""
    mesh, disk = machine.running, machine.disk
    if isinstance(disk, SharedDisk):
        held = mesh.replication.replicas
        disk.others = {o: (one.header, one.rows) for o, one in held.items() if one.header}
        disk.control = {entry_id_of(entry): entry for entry in mesh.control.entries()}


def rings(ids: list[NodeId]) -> dict[NodeId, set[NodeId]]:
    """Return whom everybody wants, or is wanted by."""
    wanted: dict[NodeId, set[NodeId]] = {one: set() for one in ids}
    for one in ids:
        for other in ring_neighbours(one, ids):
            wanted[one].add(other)
            wanted[other].add(one)
    return wanted
