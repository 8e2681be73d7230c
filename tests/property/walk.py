"""Nodes with their disks and a wire between them, beside a naive model.

A walk is a run of random steps: writes, deletions, messages delivered in any order, repeated, lost
or changed by a relay, restarts with an intact, a stale or a lost disk. The model keeps every state
that an owner ever signed, as a plain dict, and every value it ever wrote, deletions kept as
tombstones. They are compared at each step.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from copying import copied
from msgspec.structs import replace
from receiving import received

from meshnode.core.control.control import ControlSet
from meshnode.core.effects import Send
from meshnode.core.errors import PeerError
from meshnode.core.feeds.fetching import AGAIN_S
from meshnode.core.feeds.forks import Proof
from meshnode.core.feeds.headers import Header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.intake import Outcome
from meshnode.core.feeds.messages import (
    BucketRows,
    Flush,
    Fork,
    Manifest,
    Message,
    Snapshot,
    Vector,
)
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.ids import NodeId
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis

chance = Random(21).randbytes
KEYS = [Key.new(chance) for _ in range(4)]
GENESIS = Genesis((KEYS[0].public,), 1, "test", bytes(16))
STEPS = 90
BIG = bytes(3_000)  # some feeds grow beyond what is sent in one message
CALM_ROUNDS = 40

Values = dict[tuple[str, bytes], bytes]
Disk = dict[NodeId, tuple[Header, Values | Any]]


def values(rows: Rows) -> Values:
    return {place: row.value for place, row in all_rows(rows).items() if row is not None}


@dataclass
class Model:
    """What owners have ever signed and written."""

    states: dict[bytes, Values] = field(default_factory=dict)  # by the header's signature
    written: dict[tuple[NodeId, bytes], set[bytes | None]] = field(default_factory=dict)


@dataclass
class Saved:
    feeds: dict[NodeId, tuple[Header, Rows]] = field(default_factory=dict)
    forks: list[Proof] = field(default_factory=list)


class Node:
    def __init__(self, key: Key, boot: int, saved: Saved | None = None) -> None:
        self.key, self.boot = key, boot
        self.own = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, boot)
        self.held = Replication(GENESIS, self.own, ControlSet(GENESIS))
        self.id = self.own.origin
        for header, rows in (saved or Saved()).feeds.values():
            self.held.restore(header, copied(rows))
        for proof in (saved or Saved()).forks:
            self.held.restore_fork(proof)

    def saved(self) -> Saved:
        feeds = {
            origin: (replica.header, copied(replica.rows))
            for origin, replica in self.held.replicas.items()
            if replica.header is not None
        }
        return Saved(feeds, list(self.held.forks))

    def take(self, peer: NodeId, message: Message, now_s: float) -> Outcome:
        return received(self.held, peer, message, now_s)


class Walk:
    def __init__(self, rng: Random, count: int) -> None:
        self.rng, self.now_s = rng, 0.0
        self.model = Model()
        self.nodes = [Node(key, number + 1) for number, key in enumerate(KEYS[:count])]
        self.old: dict[NodeId, list[Saved]] = {node.id: [] for node in self.nodes}
        self.wire: list[tuple[NodeId, NodeId, Message]] = []
        self.happened: Counter[str] = Counter()
        self.boots = set(range(count + 1))  # no two starts are alike, and none is 0

    def other(self, node: Node) -> Node:
        return self.rng.choice([one for one in self.nodes if one is not node])

    def perform(self, node: Node, outcome: Outcome) -> None:
        for effect in outcome.effects:
            if isinstance(effect, Send):
                self.wire.append((node.id, effect.peer, effect.message))
        for proof in outcome.forks:
            self.happened["forks"] += 1
            self.tell(node, Fork(proof))
        for change in outcome.changes:
            if change.flush is not None and self.rng.random() < 0.5:
                self.wire.append((node.id, self.other(node).id, change.flush))

    def tell(self, node: Node, message: Message) -> None:
        self.wire += [(node.id, one.id, message) for one in self.nodes if one is not node]

    def flush(self, node: Node) -> None:
        while (change := node.own.flush(self.now_s)) is not None:
            if change.flush is None or change.header.signed is None:
                raise AssertionError("an owner signs and flushes")
            self.model.states[change.header.signed.signature] = values(node.own.rows)
            node.held.remember(change.flush)  # as once it is on disk
            self.tell(node, change.flush)

    # Steps.

    def write(self) -> None:
        node = self.rng.choice(self.nodes)
        key = b"%d" % self.rng.randrange(40)
        value = None if self.rng.random() < 0.3 else self.rng.choice([b"", b"x", BIG])
        value = value if value is None else value + b"%d" % self.rng.randrange(1000)
        self.model.written.setdefault((node.id, key), set()).add(value)
        node.own.write("notes", key, value)
        if self.rng.random() < 0.8:
            self.flush(node)

    def deliver(self) -> None:
        for _ in range(self.rng.randrange(1, 12)):
            if not self.wire:
                return
            place = self.rng.randrange(len(self.wire))
            source, target, message = self.wire.pop(place)
            chance_of = self.rng.random()
            if chance_of < 0.1:
                self.happened["lost"] += 1
            elif chance_of < 0.2:
                self.happened["repeated"] += 1
                self.wire.append((source, target, message))
            elif chance_of < 0.25:
                self.happened["bent"] += 1
                self.hand_over(source, target, self.bent(message))
            if chance_of >= 0.1:
                self.hand_over(source, target, message)

    def hand_over(self, source: NodeId, target: NodeId, message: Message) -> None:
        node = next(one for one in self.nodes if one.id == target)
        before = {origin: node.held.head_of(origin) for origin in node.held.replicas}
        try:
            outcome = node.take(source, message, self.now_s)
        except PeerError:
            self.happened["refused"] += 1
            outcome = Outcome()
        self.perform(node, outcome)
        self.flush(node)
        for origin, head in before.items():
            assert node.held.head_of(origin) >= head, "a head went back"

    def bent(self, message: Message) -> Message:
        """Return what a lying relay makes of a message: signatures it cannot make."""
        if isinstance(message, Flush):
            return replace(message, delta=message.delta[:-1] + b"!")
        if isinstance(message, Snapshot | BucketRows):
            return replace(message, rows=message.rows[:-1] + b"!")
        if isinstance(message, Manifest):
            tables = {t: {n: bytes(32) for n in held} for t, held in message.buckets.items()}
            return replace(message, buckets=tables)
        if isinstance(message, Vector):
            return replace(message, positions={o: Head(9, 9) for o in message.positions})
        return message

    def reconcile(self) -> None:
        node = self.rng.choice(self.nodes)
        self.wire.append((node.id, self.other(node).id, node.held.digest()))

    def keep(self) -> None:
        node = self.rng.choice(self.nodes)
        self.old[node.id].append(node.saved())

    def restart(self) -> None:
        node = self.rng.choice(self.nodes)
        disk = self.rng.choice(["intact", "stale", "lost"])
        saved = {
            "intact": node.saved(),
            "stale": self.rng.choice(self.old[node.id] or [Saved()]),
            "lost": Saved(),
        }[disk]
        self.happened[disk] += 1
        boot = self.rng.getrandbits(62)
        while boot in self.boots:
            boot += 1
        self.boots.add(boot)
        fresh = Node(node.key, boot, saved)
        self.nodes[self.nodes.index(node)] = fresh
        self.wire = [(s, t, m) for s, t, m in self.wire if node.id not in {s, t}]
        self.tell(fresh, fresh.held.ask_for_own())

    def step(self) -> None:
        self.now_s += self.rng.uniform(0.0, 1.0)
        steps = [self.write] * 4 + [self.deliver] * 8 + [self.reconcile] * 2 + [self.keep]
        self.rng.choice([*steps, self.restart] if self.rng.random() < 0.5 else steps)()
        self.compare()

    def compare(self) -> None:
        """Every replica is a state that its owner signed, and shows nothing it never wrote."""
        for node in self.nodes:
            for origin, replica in node.held.replicas.items():
                if origin == node.id or replica.header is None:
                    continue
                signed = replica.header.signed
                assert signed is not None
                assert values(replica.rows) == self.model.states[signed.signature]
                for (_, key), value in values(replica.rows).items():
                    assert value in self.model.written[origin, key]

    def calm(self) -> None:
        """Deliver everything, nothing lost, until nobody has anything to say."""
        for _ in range(CALM_ROUNDS):
            self.now_s += 2 * AGAIN_S
            for node in self.nodes:
                self.flush(node)
                self.perform(node, Outcome(node.held.tick(self.now_s)))
                self.tell(node, node.held.digest())
            while self.wire:
                self.hand_over(*self.wire.pop(0))
            if len({node.held.digest() for node in self.nodes}) == 1:
                return
        raise AssertionError("they do not converge")
