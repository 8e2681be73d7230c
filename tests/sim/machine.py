"""One node's machine: its disk, its clock, its streams, and its mesh while it runs.

Invariant: while a machine is frozen nothing of it runs; once it thaws it takes what waited in its
sockets first and its late timers after, as a node does that drains its sockets before it judges.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from sim.disk import Disk, Writer

from meshnode.app.mesh.driver import perform
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.feeds.feed import Replica
from meshnode.core.feeds.messages import Farewell, Message
from meshnode.core.ids import NodeId, node_id_of
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
    from collections.abc import Callable, Iterable

    from sim.network import Stream
    from sim.world import World

    from meshnode.core.effects import Announce, Effect
    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.keys import Key, Signed

WALL_S = 1_790_000_000.0
REPORTS_MAX = 200
TOLD_S = 0.3  # for the news that a node leaves to travel before it ends


class Machine:
    """One node's machine."""

    def __init__(self, world: World, name: str, key: Key) -> None:
        self.world, self.name, self.key = world, name, key
        self.id = node_id_of(key.public)
        self.address = f"{name}:1"
        self.disk = Disk()
        self.streams: dict[NodeId, Stream] = {}
        self.mesh: Mesh | None = None
        self.life = 0  # counts starts and ends: what was planned in an earlier one never happens
        self.boot = 0
        self.start_count = 0
        self.started_at_s = 0.0
        self.stopped_at_s = 0.0
        self.standing = "up"
        self.begun = False
        self.reports: list[str] = []
        # What faults turn.
        self.frozen = False
        self.disk_full = False
        self.wall_offset_s = 0.0
        self.slow_s = 0.0  # to take one frame
        self.busy_until_s = 0.0
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._late: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._seeds: tuple[Machine, ...] = ()
        self._writer = Writer(self)

    @property
    def running(self) -> Mesh:
        if self.mesh is None:
            raise AssertionError(f"{self.name} is not running")
        return self.mesh

    @property
    def healthy(self) -> bool:
        """Whether it runs, can publish, and nothing holds it up."""
        able = self.mesh is not None and self.begun and self.standing == "up"
        return able and not (self.frozen or self.disk_full or self.slow_s)

    def start(self, *seeds: Machine) -> None:
        """Start as a node does: what the disk holds, the member record, then the mesh."""
        self.restore()
        self._seeds = seeds
        self.declare("up")
        self.world.crowd.started(self)

    def restore(self) -> None:
        """Make a mesh of what the disk holds."""
        rng = Random(self.world.rng.random())
        self.start_count += 1
        self.life += 1
        self.boot = rng.getrandbits(63) + 1
        replica = self.world.replica or Replica
        me = Self(self.key, self.boot, rng, self.wall_s, replica)
        self.mesh = mesh = Mesh(self.world.genesis, me)
        self._writer = Writer(self)
        mesh.control.add_all(self.disk.control.values(), self.wall_s(self.world.now_s))
        for header, rows in self.disk.load():
            mesh.replication.restore(header, rows)
        for proof in self.disk.forks.values():
            mesh.replication.restore_fork(proof)
        self.world.notes.started(self)
        self.world.registry.started(self)
        self.begun = False
        self.started_at_s = self.world.now_s

    def wall_s(self, now_s: float) -> float:
        return WALL_S + now_s + self.wall_offset_s

    def declare(self, standing: str) -> None:
        """Write the member record; a node that starts goes on once it is synced."""
        self.standing = standing
        started_at_s = WALL_S + self.start_count
        record = NodeRecord(
            self.name, (self.address,), standing=standing, started_at_s=started_at_s
        )
        self.write(NODE, ONLY_ROW, node_to_row(record))

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        self.do(self.running.write(table, key, value, self.world.now_s))

    def stop(self, reason: str) -> None:
        """End at once, as a killed process does."""
        self.life += 1
        if self.mesh is not None:
            self.world.notes.stopped(self)
            self.world.keep(self)
        self.mesh = None
        self.begun = False
        self.frozen = False
        self._inbox, self._late = [], []
        self.stopped_at_s = self.world.now_s
        for stream in list(self.streams.values()):
            self.world.network.close(stream, self, reason)
        self.streams.clear()

    def leave(self) -> None:
        """Say so, let the news travel, then end."""
        self.declare("left")
        self.write(LINKS, ONLY_ROW, links_to_row(LinksRecord()))
        self.world.after(TOLD_S, self, self._left)

    def _left(self) -> None:
        self.world.counts["hung up by leaving"] += len(self.streams)
        self.stop("closed")

    def freeze(self) -> None:
        """Run nothing until `thaw`, as a stopped or starved process."""
        self.frozen = True

    def thaw(self) -> None:
        """Run on: what waited in the sockets first, then the timers that are late."""
        self.frozen = False
        life = self.life
        inbox, late = self._inbox, self._late
        self._inbox, self._late = [], []
        for call, args in inbox + late:
            if self.life == life:
                call(*args)

    def hold(self, call: Callable[..., None], args: tuple[Any, ...], *, timer: bool) -> None:
        """Put aside what would happen to a frozen machine."""
        self.world.counts["timers held" if timer else "frames held"] += 1
        (self._late if timer else self._inbox).append((call, args))

    def do(self, effects: Iterable[Effect]) -> None:
        perform(effects, self)

    # What the mesh asks for.

    def send(self, peer: NodeId, message: Message) -> None:
        stream = self.streams.get(peer)
        if stream is not None:
            pipe = stream.pipes[self.id]
            pipe.outbox.put(message)
            if not pipe.waiting:
                self.world.network.pump(pipe)

    def dial(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self.world.network.dial(self, peer, addresses)

    def hang_up(self, peer: NodeId, reason: str, *, parting: bool) -> None:
        stream = self.streams.get(peer)
        if stream is not None:
            self.world.counts[f"hung up: {reason.partition(':')[0]}"] += 1
            pipe = stream.pipes[self.id]
            if parting:
                pipe.outbox.part(Farewell(reason))
                self.world.network.pump(pipe)
            else:
                pipe.outbox.put(Farewell(reason))
            pipe.outbox.close()  # what the window does not take at once counts as too late
            self.world.network.pump(pipe)
            self.drop(stream, reason)
            self.world.network.close(stream, self, "reset")

    def wake(self, at_s: float, name: str) -> None:
        self.world.at(max(at_s, self.world.now_s), self, self._ring, (name,), timer=True)

    def _ring(self, name: str) -> None:
        self.do(self.running.woken(name, self.world.now_s))

    def persist(self, change: Change, *, ours: bool) -> None:
        if ours:
            self.world.notes.flushed(self, change)
            self.world.registry.flushed(self, change)
        else:
            self.world.news_arrived(self, change)
        self._writer.put(change, ours=ours)

    def save(self, change: Change, *, ours: bool) -> None:
        if ours:
            self.world.synced.add(change.header)
        self.disk.save(change)

    def synced(self, change: Change) -> None:
        """Go on, now that a flush of ours is on disk."""
        self.world.notes.synced(self, change)
        self.do(self.running.persisted(change, self.world.now_s))
        if not self.begun:
            self.begin()

    def begin(self) -> None:
        """Let the mesh begin."""
        self.begun = True
        self.do(self.running.start(self.world.now_s))
        for peer in self._seeds:
            self.do(self.running.learn(peer.id, (peer.address,), self.world.now_s))

    def persist_control(self, entry: Signed) -> None:
        self._writer.put_entry(entry)

    def persist_fork(self, proof: Proof) -> None:
        self._writer.put_fork(proof)

    def drop_control(self, entry_ids: tuple[bytes, ...]) -> None:
        self.world.counts["entries dropped"] += len(entry_ids)
        self._writer.drop_entries(entry_ids)

    def announce(self, news: Announce) -> None:
        self.world.announced(self, news)

    def report(self, event: str, peer: NodeId | None, detail: str) -> None:
        self.world.counts[event] += 1
        if len(self.reports) < REPORTS_MAX:
            self.reports.append(f"{self.world.now_s:.3f} {self.name}: {event}: {detail}")

    # What streams tell.

    def opened(self, stream: Stream) -> bool:
        """Take a stream into use, by the rule of rpc/links.py; False if another one stays."""
        peer = stream.other(self.id)
        present = self.streams.get(peer)
        if present is not None:
            same_boot = present.boots[peer] == stream.boots[peer]
            if same_boot and present.dialler < stream.dialler:
                return False
            self.drop(present, "replaced")
            self.world.network.close(present, self, "reset")
        self.streams[peer] = stream
        address = self.world.machines[peer].address
        self.do(self.running.learn(peer, (address,), self.world.now_s))
        self.do(self.running.linked(peer, self.world.now_s, dialled=stream.dialler == self.id))
        return True

    def drop(self, stream: Stream, reason: str) -> None:
        peer = stream.other(self.id)
        if self.streams.get(peer) is stream:
            del self.streams[peer]
            stream.pipes[self.id].outbox.close()
            self.do(self.running.unlinked(peer, reason, self.world.now_s))

    def caught_up(self, peer: NodeId) -> None:
        """Repair what an overflowing outbox has dropped, as node/world.py does."""
        self.world.counts["outboxes overflowed"] += 1
        self.do(self.running.caught_up(peer))

    def obey(self, *order: object) -> None:
        self.world.counts["orders"] += 1

    def answered(self, reply: object) -> None:
        self.world.counts["replies"] += 1

    def received(self, peer: NodeId, message: Message) -> None:
        self.do(self.running.received(peer, message, self.world.now_s))
