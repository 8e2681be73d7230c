"""What must be true while anything may go wrong (facts: gossip invariants 2, 3, 6, 8).

At each frame: nobody hears of what its owner has not synced, and no head goes back. Each virtual
second: every row held is a state that its owner published, of a size that all take; a member is
shown alive exactly when a path of edges that both ends list leads to it in the viewer's own feeds;
every queue is bounded. Counted, since cuts and losses make some of it inevitable: healthy members
shown unreachable though healthy streams lead to them, in node-seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.mesh.outbox import OUTBOX_BYTES_MAX
from meshnode.core.feeds.feed import fits
from meshnode.core.feeds.forks import FORKED_SEQ
from meshnode.core.feeds.headers import Header
from meshnode.core.feeds.heads import NOTHING
from meshnode.core.feeds.snapshots import ASSEMBLIES_MAX
from meshnode.core.ids import NodeId, short_id_of
from meshnode.core.links.liveness import MemberState
from meshnode.core.links.overlay import STRANGERS_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.machine import Machine
    from sim.world import World

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.feeds.messages import Message

JUDGE_S = 0.1  # a judge is due well before
FAREWELL_BYTES = 1024  # a farewell is taken at any time
LINKS_EVER_MAX = 64
OUT = frozenset({MemberState.UNREACHABLE, MemberState.STALLED, MemberState.DEAD})


def alive_of(mesh: Mesh) -> frozenset[NodeId]:
    """Return the members that a mesh shows alive, whichever way it offers them."""
    alive = mesh.liveness.alive
    return frozenset(alive() if callable(alive) else alive)


def _length_of(owner: object, name: str) -> int:
    """Return the size of a private collection, or of the one that it wraps."""
    held = getattr(owner, name, ())
    held = held if hasattr(held, "__len__") else getattr(held, name, ())
    return len(held)


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

    def has(self, header: Header) -> bool:
        return header.signed is not None and header.signed.signature in self._marks

    def check(self, message: Message, liars: set[NodeId]) -> None:
        for header in (getattr(message, "header", None), *getattr(message, "headers", ())):
            if isinstance(header, Header) and header.origin not in liars and not self.has(header):
                raise AssertionError(f"heard of {header.head} before it was on disk")
        for origin, head in getattr(message, "positions", {}).items():
            known = (origin, head) in self._heads or head.seq == FORKED_SEQ
            if not known and origin not in liars:
                raise AssertionError(f"heard of position {head} before it was on disk")


class Invariants:
    """The checks of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.checks = 0
        self.node_seconds = 0
        self.false_node_seconds = 0  # a member, a second, shown unreachable by anybody at all
        self.false_pair_seconds = 0
        self._unreached: set[tuple[NodeId, NodeId]] = set()
        self._seen: dict[NodeId, tuple[int, list[Header | None], frozenset[NodeId]]] = {}
        self._proved: dict[NodeId, dict[NodeId, Header]] = {}

    def watch(self, source: Machine, target: Machine, message: Message) -> None:
        """Let a machine take a message, and compare before and after."""
        world = self.world
        if source.id not in world.liars:
            world.synced.check(message, world.liars)
        header = getattr(message, "header", None)
        replicas = target.running.replication.replicas
        held = replicas.get(header.origin) if isinstance(header, Header) else None
        before = held.head if held else NOTHING
        target.received(source.id, message)
        if held is not None and held.head < before:
            raise AssertionError(f"{target.name}: the head of {held.origin} went back")

    def each_second(self) -> None:
        self.checks += 1
        honest = self.world.honest
        self.node_seconds += len(honest)
        for viewer in honest:
            self._bounds(viewer)
            self._published(viewer)
            if viewer.begun and not viewer.frozen:
                self._paths(viewer, again=False)
        self._false_unreachability(honest)

    def count_false(self) -> None:
        """Count only who is shown unreachable: what a big mesh can afford each second."""
        honest = self.world.honest
        self.node_seconds += len(honest)
        self._false_unreachability(honest)

    # Queues.

    def _bounds(self, machine: Machine) -> None:
        mesh = machine.running
        for stream in machine.streams.values():
            waiting = getattr(stream.pipes[machine.id].outbox, "_bytes", 0)
            if waiting > OUTBOX_BYTES_MAX + FAREWELL_BYTES:
                raise AssertionError(f"{machine.name}: {waiting} bytes in an outbox")
        attempts = _length_of(mesh.overlay, "_attempts")
        if attempts > len(self.world.nodes) + STRANGERS_MAX:
            raise AssertionError(f"{machine.name}: {attempts} attempts")
        for peer in mesh.overlay._attempts:
            if peer in mesh.overlay._retired or not mesh.overlay.addresses_of(peer):
                raise AssertionError(f"{machine.name}: plans a dial that it will never make")
        assemblies = _length_of(mesh.replication, "_assemblies")
        if assemblies > ASSEMBLIES_MAX:
            raise AssertionError(f"{machine.name}: {assemblies} snapshots half received")
        if len(machine.streams) > LINKS_EVER_MAX:
            raise AssertionError(f"{machine.name}: {len(machine.streams)} links")

    # Rows.

    def _published(self, viewer: Machine) -> None:
        proved = self._proved.setdefault(viewer.id, {})
        for origin, replica in viewer.running.replication.replicas.items():
            header = replica.header
            if header is None or proved.get(origin) is header:
                continue
            proved[origin] = header
            if not fits(replica.rows, self.world.genesis.limits):
                raise AssertionError(f"{viewer.name}: a feed of {origin} that others refuse")
            if replica.rows.state_hash() != header.state_hash:
                raise AssertionError(f"{viewer.name}: rows that {origin} did not publish")
            sure = self.world.liars | {viewer.id}  # which has perhaps not synced it yet
            if origin not in sure and not self.world.synced.has(header):
                raise AssertionError(f"{viewer.name}: a header that {origin} did not sync")

    # Paths.

    def _paths(self, viewer: Machine, *, again: bool) -> None:
        mesh = viewer.running
        replicas = mesh.replication.replicas
        headers = [replica.header for replica in replicas.values()]
        headers += [proof[0] for proof in mesh.replication.forks]
        links = frozenset(mesh.overlay.links)
        seen = self._seen.get(viewer.id)
        same = seen is not None and seen == (viewer.life, headers, links)
        if same and not again:
            return
        reached, shown = reach(mesh), alive_of(mesh) - {viewer.id}
        if shown == reached:
            self._seen[viewer.id] = (viewer.life, headers, links)
        elif again and same:
            names = {self.world.machines[one].name for one in shown ^ reached}
            raise AssertionError(f"{viewer.name}: shows {names} other than its edges say")
        else:
            self._seen[viewer.id] = (viewer.life, headers, links)
            at_s = self.world.now_s + JUDGE_S
            self.world.at(at_s, viewer, self._paths_again, (viewer,), timer=True)

    def _paths_again(self, viewer: Machine) -> None:
        self._paths(viewer, again=True)

    # Healthy members shown unreachable.

    def _false_unreachability(self, honest: list[Machine]) -> None:
        unreached: set[tuple[NodeId, NodeId]] = set()
        accused: set[NodeId] = set()
        for component in self._components(honest):
            for viewer in component:
                mesh = self.world.machines[viewer].running
                for member in component - alive_of(mesh):
                    if mesh.liveness.state(member) in OUT:
                        unreached.add((viewer, member))
                        if (viewer, member) in self._unreached:  # for a second already
                            accused.add(member)
                            self.false_pair_seconds += 1
        self._unreached = unreached
        self.false_node_seconds += len(accused)

    def _components(self, honest: list[Machine]) -> Iterable[frozenset[NodeId]]:
        """Group healthy machines by the streams that work between them at both ends."""
        world = self.world
        healthy = {machine.id: machine for machine in honest if machine.healthy}
        left = set(healthy)
        while left:
            found = {next(iter(sorted(left)))} if len(left) < 64 else {left.pop()}
            frontier = list(found)
            while frontier:
                here = healthy[frontier.pop()]
                for peer, stream in here.streams.items():
                    other = healthy.get(peer)
                    if peer in found or other is None or other.streams.get(here.id) is not stream:
                        continue
                    if world.network.open_between(here, other):
                        found.add(peer)
                        frontier.append(peer)
            left -= found
            if len(found) > 1:
                yield frozenset(found)


def reach(mesh: Mesh) -> frozenset[NodeId]:
    """Walk the edges that both ends list from a node to all others, in the invariant's words.

    The node's new links count on its own word.
    """
    lists: dict[bytes, frozenset[bytes]] = {}
    names: dict[bytes, NodeId] = {}
    for origin in mesh.tables.origins():
        record, links = mesh.tables.node(origin), mesh.tables.links(origin)
        if record is not None and record.standing == "up":
            short = short_id_of(origin)
            names[short] = origin
            lists[short] = links.peers if links is not None else frozenset()
    own = short_id_of(mesh.self_id)
    lists[own] = frozenset(short_id_of(peer) for peer in mesh.overlay.links)
    for peer in mesh.liveness.graph.new_links:
        if short_id_of(peer) in lists:
            lists[short_id_of(peer)] |= {own}
    reached, frontier = {own}, [own]
    while frontier:
        here = frontier.pop()
        for peer in lists[here]:
            if peer in lists and peer not in reached and here in lists[peer]:
                reached.add(peer)
                frontier.append(peer)
    return frozenset(names[short] for short in reached - {own})
