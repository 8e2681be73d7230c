"""A mesh in virtual time: the same Mesh and the same driver as in a node, over invented networks.

A run is a function of its seed. Streams deliver in order after 1 to 50 ms, dials succeed or fail,
disks take a few milliseconds, and what was not synced when a node crashed is lost. The world checks
after every frame what must always be true; `differences` says what is not as it should be at rest.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING

from meshnode.app.driver import perform
from meshnode.app.mesh import Mesh, Self
from meshnode.app.queries import Queries
from meshnode.core.control import Role, role_entry
from meshnode.core.feed import NOTHING, Change, Header
from meshnode.core.genesis import Genesis
from meshnode.core.ids import NodeId, node_id_of, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.liveness import DEAD_AFTER_S, MemberState
from meshnode.core.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)
from meshnode.core.messages import Flush, Message, SnapshotChunk, Vector
from meshnode.core.overlay import LINKS_MAX, REDIAL_S, ring_neighbours
from meshnode.core.rows import Row, Rows, all_rows
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.links import message_from_wire, message_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshnode.core.effects import Effect

LATENCY_S = (0.001, 0.05)
DISK_S = (0.001, 0.005)
DIAL_TIMEOUT_S = 4.0
WALL_S = 1_790_000_000.0
NOTES = "notes"  # a table that no reader knows
# The longest pause between dials of both sides, a dial, and three reconciliations.
CALM_S = REDIAL_S * 1.3 + DIAL_TIMEOUT_S + 3 * 12.0


@dataclass(eq=False)
class Stream:
    """One stream; each end holds it until it notices that it broke."""

    dialler: NodeId
    acceptor: NodeId
    arrived_s: dict[NodeId, float] = field(default_factory=dict)

    def other(self, end: NodeId) -> NodeId:
        return self.acceptor if end == self.dialler else self.dialler


@dataclass
class Disk:
    """What is synced: headers with their rows, and control entries."""

    feeds: dict[NodeId, tuple[Header, dict[tuple[str, bytes], Row]]] = field(default_factory=dict)
    control: list[Signed] = field(default_factory=list)

    def save(self, change: Change) -> None:
        held = self.feeds.get(change.origin)
        rows = dict(held[1]) if held and change.flush else {}
        for place, row in change.rows.items():
            if row is None:
                rows.pop(place, None)
            else:
                rows[place] = row
        self.feeds[change.origin] = (change.header, rows)

    def copy(self) -> Disk:
        return Disk(
            {o: (header, dict(rows)) for o, (header, rows) in self.feeds.items()},
            list(self.control),
        )


class Place:
    """One node's machine: its disk, its streams, and its mesh while it runs."""

    def __init__(self, world: World, name: str, key: Key) -> None:
        self.world, self.name, self.key = world, name, key
        self.id = node_id_of(key.public)
        self.disk = Disk()
        self.streams: dict[NodeId, Stream] = {}
        self.mesh: Mesh | None = None
        self.start_count = 0
        self.stopped_at_s = 0.0
        self.standing = "up"
        self.reports: list[str] = []
        self._synced_s = 0.0
        self._seeds: tuple[Place, ...] = ()
        self._begun = False

    @property
    def running(self) -> Mesh:
        if self.mesh is None:
            raise AssertionError(f"{self.name} is not running")
        return self.mesh

    def start(self, *seeds: Place) -> None:
        """Start as a node does: what the disk holds, the member record, then the mesh."""
        rng = Random(self.world.rng.random())
        self.start_count += 1
        me = Self(self.key, rng.getrandbits(63) + 1, rng, lambda now_s: WALL_S + now_s)
        self.mesh = mesh = Mesh(self.world.genesis, me)
        for entry in self.disk.control:
            mesh.control.add(entry)
        for header, places in self.disk.feeds.values():
            rows = Rows()
            for (table, key), row in places.items():
                rows.put(table, key, row)
            mesh.replication.restore(header, rows)
        self._seeds, self._begun = seeds, False
        self._synced_s = self.world.now_s
        self.declare("up")

    def declare(self, standing: str) -> None:
        """Write the member record; a node that starts goes on once it is synced."""
        self.standing = standing
        record = NodeRecord(
            self.name,
            (f"{self.name}:1",),
            standing=standing,
            started_at_s=WALL_S + self.start_count,
        )
        self.write(NODE, ONLY_ROW, node_to_row(record))

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        self.do(self.running.write(table, key, value, self.world.now_s))

    def stop(self, reason: str) -> None:
        """End at once, as a killed process does."""
        self.mesh = None
        self.stopped_at_s = self.world.now_s
        for stream in list(self.streams.values()):
            self.world.close(stream, self, reason)
        self.streams.clear()

    def leave(self) -> None:
        """Say so, let the news travel, then end."""
        self.declare("left")
        self.write(LINKS, ONLY_ROW, links_to_row(LinksRecord()))
        self.world.after(0.3, self, partial(self.stop, "closed"))

    def do(self, effects: Iterable[Effect]) -> None:
        perform(effects, self)

    # What the mesh asks for.

    def send(self, peer: NodeId, message: Message) -> None:
        stream = self.streams.get(peer)
        if stream is not None:
            self.world.transmit(stream, self, self.world.encoded(message))

    def dial(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        self.world.dial(self, peer, addresses)

    def hang_up(self, peer: NodeId, reason: str) -> None:
        stream = self.streams.get(peer)
        if stream is not None:
            self.world.counts[f"hung up: {reason.partition(':')[0]}"] += 1
            self.drop(stream, reason)
            self.world.close(stream, self, "reset")

    def wake(self, at_s: float, name: str) -> None:
        def ring() -> None:
            self.do(self.running.woken(name, self.world.now_s))

        self.world.after(max(0.0, at_s - self.world.now_s), self, ring)

    def persist(self, change: Change, *, ours: bool) -> None:
        self._synced_s = max(self._synced_s, self.world.now_s) + self.world.rng.uniform(*DISK_S)
        self.world.counts["writes begun"] += 1

        def synced() -> None:
            self.world.counts["writes synced"] += 1
            self.disk.save(change)
            if ours:
                self.world.synced.add(change.header)
                self.do(self.running.persisted(change, self.world.now_s))
                self._begin()

        self.world.after(self._synced_s - self.world.now_s, self, synced)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        self.do(self.running.start(self.world.now_s))
        for peer in self._seeds:
            self.do(self.running.learn(peer.id, (f"{peer.name}:1",), self.world.now_s))

    def persist_control(self, entry: Signed) -> None:
        self.world.after(
            self.world.rng.uniform(*DISK_S), self, partial(self.disk.control.append, entry)
        )

    def announce(self, tables: frozenset[str]) -> None:
        self.world.counts[f"announced {min(tables, default='')}"] += 1

    def report(self, event: str, peer: NodeId | None, detail: str) -> None:
        self.world.counts[event] += 1
        self.reports.append(f"{self.world.now_s:.3f} {self.name}: {event}: {detail}")

    # What streams tell.

    def opened(self, stream: Stream) -> bool:
        """Take a stream into use, by the rule of rpc/links.py; False if another one stays."""
        peer = stream.other(self.id)
        present = self.streams.get(peer)
        if present is not None:
            if present.dialler != stream.dialler and present.dialler < stream.dialler:
                return False
            self.drop(present, "replaced")
            self.world.close(present, self, "reset")
        self.streams[peer] = stream
        self.do(self.running.learn(peer, (f"{self.world.places[peer].name}:1",), self.world.now_s))
        self.do(self.running.linked(peer, self.world.now_s, dialled=stream.dialler == self.id))
        return True

    def drop(self, stream: Stream, reason: str) -> None:
        peer = stream.other(self.id)
        if self.streams.get(peer) is stream:
            del self.streams[peer]
            self.do(self.running.unlinked(peer, reason, self.world.now_s))


class World:
    """Time, the network, and all machines."""

    def __init__(self, seed: int, count: int) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.counts: Counter[str] = Counter()
        self.synced = Synced()
        self.places: dict[NodeId, Place] = {}
        self._trace = sha256()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._groups: dict[NodeId, int] = {}
        self._silent: set[frozenset[NodeId]] = set()
        self._decoded: dict[bytes, Message | None] = {}
        self._encoded: dict[bytes, bytes] = {}
        self.root = Key.new(self.rng.randbytes)
        self.genesis = Genesis((self.root.public,), 1, "sim", self.rng.randbytes(16))
        for number in range(count):
            place = Place(self, f"n{number}", Key.new(self.rng.randbytes))
            self.places[place.id] = place
        self.nodes = list(self.places.values())

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    @property
    def up(self) -> list[Place]:
        return [place for place in self.nodes if place.mesh is not None]

    # Time.

    def after(self, delay_s: float, place: Place, call: Callable[[], None]) -> None:
        """Call later, unless the node has ended meanwhile."""
        mesh = place.mesh

        def guarded() -> None:
            if place.mesh is mesh and mesh is not None:
                call()

        self._later(delay_s, guarded)

    def run(self, for_s: float) -> None:
        until_s = self.now_s + for_s
        while self._due and self._due[0][0] <= until_s:
            self.now_s, number, call = heappop(self._due)
            self._trace.update(b"%d %.9f;" % (number, self.now_s))
            call()
        self.now_s = until_s

    def settle(self, within_s: float = CALM_S) -> float:
        """Run until everything is as it should be, and stays so; raises if it does not get so."""
        began_s = self.now_s
        while any(self.differences()):
            if self.now_s - began_s > within_s:
                raise AssertionError(self._story())
            self.run(0.25)
        took_s = self.now_s - began_s
        self.run(3.0)
        if any(self.differences()):
            raise AssertionError("it did not last\n" + self._story())
        return took_s

    def _story(self) -> str:
        reports = [line for place in self.nodes for line in place.reports][-20:]
        return "\n".join([*list(self.differences())[:20], *reports, str(self.counts)])

    # The network.

    def dial(self, source: Place, peer: NodeId, addresses: tuple[str, ...]) -> None:
        target = self.places[peer]
        delay_s = self.rng.uniform(*LATENCY_S)
        self.counts["dials"] += 1

        def arrive() -> None:
            if self.pair(source, target) in self._silent:
                self.after(DIAL_TIMEOUT_S, source, partial(self._failed, source, peer))
            elif not self._answers(source, target, addresses):
                self.after(delay_s, source, partial(self._failed, source, peer))
            else:
                stream = Stream(source.id, target.id)
                target.opened(stream)
                answer = partial(self._answered, stream, source, target)
                self.after(self._pace(stream, source.id), source, answer)

        self.after(delay_s, source, arrive)

    def _answered(self, stream: Stream, source: Place, target: Place) -> None:
        if self.pair(source, target) in self._silent:
            self.after(DIAL_TIMEOUT_S, source, partial(self._failed, source, target.id))
        elif not self._joined(source, target):
            self._failed(source, target.id)
            self.close(stream, source, "reset")
        elif not source.opened(stream):
            self.close(stream, source, "reset")
        elif target.streams.get(source.id) is not stream:
            source.drop(stream, "reset")

    def _failed(self, source: Place, peer: NodeId) -> None:
        self.counts["dials failed"] += 1
        source.do(source.running.dial_failed(peer, self.now_s))

    def encoded(self, message: Message) -> bytes:
        """Encode for the wire; a flush goes to many neighbours and is encoded once."""
        if not isinstance(message, Flush):
            return message_to_wire(message).SerializeToString()
        mark = message.header.signed.signature if message.header.signed else b""
        if mark not in self._encoded:
            self._encoded[mark] = message_to_wire(message).SerializeToString()
        return self._encoded[mark]

    def transmit(self, stream: Stream, source: Place, frame: bytes) -> None:
        target = self.places[stream.other(source.id)]
        self.counts["frames"] += 1

        def arrive() -> None:
            if self.pair(source, target) in self._silent:
                self.counts["frames dropped"] += 1
            elif target.streams.get(source.id) is stream:
                self._deliver(source, target, frame)

        self.after(self._pace(stream, target.id), target, arrive)

    def close(self, stream: Stream, source: Place, reason: str) -> None:
        """Let the other end notice, after the frames under way, that a stream has ended."""
        target = self.places[stream.other(source.id)]

        def arrive() -> None:
            if self.pair(source, target) in self._silent:
                self.counts["resets dropped"] += 1
            else:
                target.drop(stream, reason)

        if target.mesh is not None:
            self.after(self._pace(stream, target.id), target, arrive)

    def reset(self, one: Place, other: Place) -> None:
        """Break the stream of a pair at both ends."""
        for end, far in ((one, other), (other, one)):
            stream = end.streams.get(far.id)
            if stream is not None:
                self.counts["resets"] += 1
                self.close(stream, far, "reset")

    def partition(self, *groups: Iterable[Place]) -> None:
        self._groups = {p.id: n for n, group in enumerate(groups) for p in group}
        self.counts["partitions"] += 1
        for one in self.up:
            for other in self.up:
                if one.id < other.id and not self._joined(one, other):
                    self.reset(one, other)

    def heal(self) -> None:
        self._groups = {}
        self._silent = set()

    def silence(self, one: Place, other: Place) -> None:
        """From now on frames between two nodes vanish; nobody is told."""
        self._silent.add(self.pair(one, other))

    def _pace(self, stream: Stream, receiver: NodeId) -> float:
        at_s = max(self.now_s + self.rng.uniform(*LATENCY_S), stream.arrived_s.get(receiver, 0.0))
        stream.arrived_s[receiver] = at_s
        return at_s - self.now_s

    @staticmethod
    def pair(one: Place, other: Place) -> frozenset[NodeId]:
        return frozenset({one.id, other.id})

    def _answers(self, source: Place, target: Place, addresses: tuple[str, ...]) -> bool:
        listens = target.mesh is not None and f"{target.name}:1" in addresses
        return listens and self._joined(source, target)

    def _joined(self, one: Place, other: Place) -> bool:
        return self._groups.get(one.id) == self._groups.get(other.id)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._due, (self.now_s + delay_s, self._count, call))

    def _deliver(self, source: Place, target: Place, frame: bytes) -> None:
        self._trace.update(frame)
        if frame not in self._decoded:  # equal bytes mean equal values, and were verified once
            self._decoded[frame] = message_from_wire(
                pb.Frame.FromString(frame), self.genesis.mesh_id
            )
        message = self._decoded[frame]
        if message is None:
            raise AssertionError("a frame of an unknown kind")
        self.counts[type(message).__name__] += 1
        self.synced.check(message)
        held = None
        if isinstance(message, Flush | SnapshotChunk):
            held = target.running.replication.replicas.get(message.header.origin)
        before = held.head if held else NOTHING
        target.do(target.running.received(source.id, message, self.now_s))
        if held is not None and held.head < before:
            raise AssertionError(f"{target.name}: the head of {held.origin} went back")

    # What must be true at rest.

    def differences(self) -> Iterator[str]:
        """Name everything that is not as it should be among nodes that can all talk."""
        for place in self.up:
            yield from self._differences_in_links(place)
            if place.running.replication.digest() != self.up[0].running.replication.digest():
                yield f"{place.name}: another digest than {self.up[0].name}"
        for place in self.up:
            for other in self.nodes:
                if other.start_count:
                    yield from self._differences_about(other, place)
            yield from self._differences_in_coverage(place)

    def _differences_in_links(self, place: Place) -> Iterator[str]:
        mesh = place.running
        for peer in ring_neighbours(place.id, [other.id for other in self.up]):
            if peer not in place.streams:
                yield f"{place.name}: no link with {self.places[peer].name}"
        if len(place.streams) > LINKS_MAX:
            yield f"{place.name}: {len(place.streams)} links"
        for peer, stream in place.streams.items():
            if self.places[peer].streams.get(place.id) is not stream:
                yield f"{place.name}: a link that {self.places[peer].name} does not have"
        if mesh.overlay.links != set(place.streams):
            yield f"{place.name}: the overlay differs from the streams"
        row = mesh.tables.links(place.id)
        if row is None or row.peers != {short_id_of(peer) for peer in place.streams}:
            yield f"{place.name}: its links row differs from its links"

    def _differences_about(self, other: Place, place: Place) -> Iterator[str]:
        mesh = place.running
        state, expected = mesh.liveness.state(other.id), self.expected_state(other)
        if state is not expected:
            yield f"{place.name}: {other.name} is {state}, not {expected}"
        replica = mesh.replication.replicas.get(other.id)
        if other.mesh is None or replica is None or replica.header is None:
            return
        if all_rows(replica.rows) != all_rows(other.mesh.own.rows):
            yield f"{place.name}: other rows of {other.name} than its own"
        if replica.header.state_hash != replica.rows.state_hash():
            yield f"{place.name}: rows of {other.name} that its header does not prove"

    def _differences_in_coverage(self, place: Place) -> Iterator[str]:
        coverage = Queries(place.running, None, Clock(self)).coverage()  # type: ignore[arg-type]
        known = [other for other in self.nodes if other.start_count]
        heard = {MemberState.ALIVE, MemberState.LEFT}
        missing = {p.name for p in known if self.expected_state(p) not in heard}
        if coverage.nodes_known != len(known) or {m.node_name for m in coverage.missing} != missing:
            yield f"{place.name}: coverage {coverage}, known {len(known)}, missing {missing}"

    def expected_state(self, place: Place) -> MemberState:
        if place.standing == "left":
            return MemberState.LEFT
        if place.mesh is not None:
            return MemberState.ALIVE
        if place.standing == "down":
            return MemberState.DOWN
        gone_s = self.now_s - place.stopped_at_s
        return MemberState.UNREACHABLE if gone_s < DEAD_AFTER_S else MemberState.DEAD


@dataclass(frozen=True)
class Clock:
    """The world's time, as use cases see it."""

    world: World

    def steady_s(self) -> float:
        return self.world.now_s

    def wall_s(self) -> float:
        return WALL_S + self.world.now_s


class Synced:
    """Every header that was ever synced by its owner: nobody may hear of another."""

    def __init__(self) -> None:
        self._marks: set[bytes] = set()
        self._heads: set[tuple[NodeId, object]] = set()

    def add(self, header: Header) -> None:
        if header.signed is None:
            raise AssertionError("an unsigned header was written")
        self._marks.add(header.signed.signature)
        self._heads.add((header.origin, header.head))

    def check(self, message: Message) -> None:
        if isinstance(message, Flush | SnapshotChunk):
            signed = message.header.signed
            if signed is None or signed.signature not in self._marks:
                raise AssertionError(f"heard of {message.header.head} before it was on disk")
        elif isinstance(message, Vector):
            for origin, head in message.positions.items():
                if (origin, head) not in self._heads:
                    raise AssertionError(f"heard of position {head} before it was on disk")


def boot(seed: int, count: int) -> World:
    """Start all nodes within half a second, each knowing the first one, and let them settle."""
    world = World(seed, count)
    for place in world.nodes:
        delay_s = world.rng.uniform(0.0, 0.5)
        world._later(
            delay_s, partial(place.start, *([] if place is world.nodes[0] else world.nodes[:1]))
        )
    world.run(0.5)
    role = Role(world.rng.randbytes(32), "operator", "", world.root.public, int(WALL_S), None)
    first = world.nodes[0]
    first.do(
        first.running.add_control(
            role_entry(world.root, world.genesis.mesh_id, role, world.rng.randbytes)
        )
    )
    world.settle()
    return world
