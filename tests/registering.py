"""A few nodes with real feeds, relays and rosters, and a naive registry that forgets nothing.

Messages are late, lost, repeated and out of order; relays serve snapshots; nodes restart, also with
a disk that has gone back or is empty, and then continue from what somebody still holds of their
feed. `check` compares what each node shows with what the naive registry shows to whoever holds
what that node holds: nothing removed is shown, and all else is, but for feeds held less far than
somebody's `after` asks for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from copying import copied
from receiving import received
from removed import adds_of, all_removals, removals_of

from meshnode.core.control.control import ControlSet
from meshnode.core.effects import Send
from meshnode.core.feeds.fetching import AGAIN_S
from meshnode.core.feeds.messages import Fork, Message, Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.core.sessions.registry import Birth, Place, Specialist
from meshnode.core.tables.removals import REMOVALS, After, Removal, removals_from_row
from meshnode.core.tables.roster import Roster
from meshnode.core.tables.tables import Tables

if TYPE_CHECKING:
    from meshnode.core.feeds.feed import Change, Flush
    from meshnode.core.feeds.headers import Header

chance = Random(23).randbytes
KEYS = [Key.new(chance) for _ in range(4)]
IDS = [node_id_of(key.public) for key in KEYS]
GENESIS = Genesis((KEYS[0].public,), 1, "test", bytes(16), Limits(flush_bytes_max=400))
PLACES = [Place("a", "docs"), Place("b", "docs"), Place("a", "code")]
Add = tuple[NodeId, Place, Birth]


@dataclass(frozen=True)
class Naive:
    """What a feed would hold if nothing were ever forgotten."""

    adds: frozenset[Add] = frozenset()
    gone: frozenset[Add] = frozenset()


@dataclass
class Disk:
    """Every feed as it was synced."""

    feeds: dict[NodeId, tuple[Header, Rows]] = field(default_factory=dict)


class Node:
    """One node of the world, from a start to an end."""

    def __init__(self, world: World, key: Key, boot: int, disk: Disk) -> None:
        self.world, self.id = world, node_id_of(key.public)
        self.own = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, boot)
        self.held = Replication(GENESIS, self.own, ControlSet(GENESIS))
        for header, rows in disk.feeds.values():
            self.held.restore(header, copied(rows))
        self.tables = Tables(self.held.replicas, self.held.forks)
        self.roster = Roster(self.tables, self.held.replicas, self.own, boot)
        self.naive = world.naive_of(self.own.header)
        self.meant: set[Add] = set()  # adds of its own that its users took out or replaced
        self.own.write("node", b"", b"%d" % boot)  # every node has a member record
        self.roster.tend_all()

    def disk(self) -> Disk:
        return Disk(
            {
                origin: (replica.header, copied(replica.rows))
                for origin, replica in self.held.replicas.items()
                if replica.header is not None
            }
        )

    def shown(self) -> set[Add]:
        return {(origin, held.entry.place, held.birth) for origin, held in self.roster.entries()}

    def expected(self) -> set[Add]:
        """Return what the naive model shows to whoever holds what this node holds."""
        known = [self.world.naive_of(header) for header in self._believed()]
        adds, gone = (one.adds for one in known), (one.gone for one in known)
        return set().union(*adds).difference(*gone)

    def hidden(self) -> set[NodeId]:
        """Return the origins of which this node lacks what somebody's `after` asks for."""
        wanted = [row for row in all_removals(self.tables) if isinstance(row, After)]
        return {row.origin for row in wanted if self.held.head_of(row.origin) < row.at}

    def add(self, place: Place) -> None:
        self.meant |= {one for one in self.naive.adds if one[1] == place}  # hidden ones too
        self.roster.add(Specialist(place.agent_id, place.specialization, {}))

    def remove(self, place: Place) -> None:
        self.meant |= {one for one in self.naive.adds if one[1] == place}  # hidden ones too
        self.roster.remove(place)

    def take(self, peer: NodeId, message: Message) -> None:
        outcome = received(self.held, peer, message, self.world.now_s)
        raised = any(getattr(effect, "event", "") == "epoch_raised" for effect in outcome.effects)
        if raised and isinstance(message, Snapshot):
            returned = self.world.naive_of(message.header)
            self.meant |= returned.gone | (self.naive.adds - returned.adds)  # another history
            self.naive = Naive(self.naive.adds, self.naive.gone | returned.gone)
        for change in outcome.changes:
            self._noticed(change)
        for proof in outcome.forks:
            self.world.counts["quarantines"] += 1
            for other in self.world.others(self):
                self.world.send(self.id, other.id, Fork(proof))
        for effect in outcome.effects:
            if isinstance(effect, Send):
                self.world.send(self.id, effect.peer, effect.message)

    def _noticed(self, change: Change) -> None:
        self.world.counts["snapshots"] += change.flush is None
        before = self.removals()
        assert self.roster.tend(change) == []
        self.world.counts["removals dropped"] += max(0, before - self.removals())

    def removals(self) -> int:
        keys = list(self.own.rows.tables.get(REMOVALS, ()))
        rows = [(key, self.own.latest(REMOVALS, key)) for key in keys]
        decoded = [removals_from_row(key, row) for key, row in rows if row is not None]
        return sum(isinstance(row, Removal) for row in decoded)

    def flush(self) -> list[Flush]:
        """Publish one flush, if anything waits; returns it."""
        change = self.own.flush(1.0)
        if change is None or change.flush is None:
            return []
        self.held.remember(change.flush)  # as on disk
        present = adds_of(self.tables, self.id)
        dropped = self.naive.adds - present
        asked = self.meant.union(*(self.world.naive_of(h).gone for h in self._headers()))
        assert dropped <= asked, "an add was taken out that nobody removed"
        named = {
            (dot.origin, row.place, dot.birth)
            for row in removals_of(self.tables, self.id)
            if isinstance(row, Removal)
            for dot in row.dots
        }
        self.naive = Naive(frozenset(present), self.naive.gone | dropped | named)
        self.world.published(change.header, self.naive)
        self._noticed(change)
        return [change.flush]

    def _headers(self) -> list[Header | None]:
        held = self.held.replicas.items()
        return [replica.header for origin, replica in held if origin != self.id]

    def _believed(self) -> list[Header | None]:
        """Return the headers of what is shown: a feed with two histories is not."""
        held = self.held.replicas.items()
        return [replica.header for origin, replica in held if not self.held.forks.has(origin)]


class World:
    """All nodes, and what is under way between them."""

    def __init__(self, count: int) -> None:
        self.now_s = 0.0
        self.boots = 0
        self.cut_off: NodeId | None = None
        self.wire: list[tuple[NodeId, NodeId, Message]] = []
        self.counts: Counter[str] = Counter()
        self._naive: dict[bytes, Naive] = {}
        self._old: dict[NodeId, Disk] = {}
        self.nodes: dict[NodeId, Node] = {}
        for key in KEYS[:count]:
            self.start(key, Disk())

    def start(self, key: Key, disk: Disk) -> Node:
        self.boots += 1
        node = self.nodes[node_id_of(key.public)] = Node(self, key, self.boots, disk)
        return node

    def naive_of(self, header: Header | None) -> Naive:
        return Naive() if header is None or header.signed is None else self._naive[mark(header)]

    def published(self, header: Header, naive: Naive) -> None:
        self._naive[mark(header)] = naive

    def send(self, source: NodeId, target: NodeId, message: Message) -> None:
        if self.cut_off not in {source, target}:
            self.wire.append((source, target, message))

    def others(self, node: Node) -> list[Node]:
        return [other for other in self.nodes.values() if other is not node]

    def spread(self, node: Node) -> None:
        """Let a node publish all that waits."""
        for flush in iter(node.flush, []):
            for other in self.others(node):
                self.send(node.id, other.id, flush[0])

    def deliver(self, place: int) -> None:
        source, target, message = self.wire.pop(place)
        self.nodes[target].take(source, message)
        self.spread(self.nodes[target])

    def restart(self, node: Node, keeper: Node, kind: str) -> None:
        """End a node and start it again; what its disk has lost, the keeper returns to it."""
        if kind != "intact":
            self.talk(node, keeper)
        if keeper.held.head_of(node.id) != node.own.head:
            kind = "intact"  # nobody else holds what would be lost
        disk = node.disk()
        if kind != "intact":
            disk = Disk() if kind == "lost" else self._old.get(node.id, Disk())
        self.counts[f"{kind} restarts"] += 1
        self.wire = [one for one in self.wire if node.id not in one[:2]]
        again = self.start(KEYS[IDS.index(node.id)], disk)
        if kind != "intact":
            self.regain(again, keeper)
        self.spread(again)

    def lose_disk(self, node: Node, keeper: Node) -> None:
        """Start a node with an empty disk, while who holds its history is cut off from all."""
        self.wire = []
        self.cut_off = keeper.id
        self.spread(self.start(KEYS[IDS.index(node.id)], Disk()))

    def regain(self, node: Node, keeper: Node) -> None:
        """Let a restarted node hear what somebody holds of its feed, before it goes on."""
        aside, self.wire = self.wire, []
        self.now_s += 2 * AGAIN_S
        self.send(node.id, keeper.id, node.held.ask_for_own())
        while self.wire:
            source, target, message = self.wire.pop(0)
            self.nodes[target].take(source, message)
        self.wire = aside

    def keep(self, node: Node) -> None:
        """Copy a node's disk, for a time when it goes back to this."""
        self._old[node.id] = node.disk()

    def talk(self, one: Node, other: Node) -> None:
        """Let two nodes reconcile, undisturbed; a feed in quarantine waits for its owner."""
        if self.cut_off in {one.id, other.id}:
            return
        aside, self.wire = self.wire, []
        for _ in range(20):
            if one.held.digest() == other.held.digest():
                break
            self.now_s += 2 * AGAIN_S
            self.send(one.id, other.id, one.held.digest())
            while self.wire:
                source, target, message = self.wire.pop(0)
                if {source, target} == {one.id, other.id}:
                    self.nodes[target].take(source, message)
                    self.spread(self.nodes[target])
        self.wire = aside

    def settle(self) -> None:
        """Let everybody reconcile with everybody until nobody differs or has anything to do."""
        self.wire = []
        for _ in range(30):
            heads = [node.held.digest() for node in self.nodes.values()]
            if len(set(heads)) == 1:
                return
            for node in self.nodes.values():
                for other in self.others(node):
                    self.talk(node, other)
        raise AssertionError("they do not converge")

    def check(self) -> None:
        for node in self.nodes.values():
            shown, expected, hidden = node.shown(), node.expected(), node.hidden()
            assert shown <= expected, "something removed is shown"
            assert {one for one in expected if one[0] not in hidden} <= shown, "an add is lost"

    def check_at_rest(self) -> None:
        self.check()
        for node in self.nodes.values():
            assert not node.hidden()
            assert node.shown() == node.expected()
            for origin in self.nodes:
                replica = node.held.replicas.get(origin)
                rows = {} if replica is None else all_rows(replica.rows)
                assert rows == all_rows(self.nodes[origin].own.rows)
            for row in all_removals(node.tables):
                assert isinstance(row, After), "what everybody has seen is dropped"


def mark(header: Header) -> bytes:
    assert header.signed is not None
    return header.signed.signature
