"""Nodes that hold feeds and repair each other: messages are delivered one by one, in any order."""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from receiving import received

from meshnode.core.control.control import ControlSet
from meshnode.core.effects import Send
from meshnode.core.feeds.fetching import AGAIN_S
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.intake import Outcome
from meshnode.core.feeds.messages import (
    BucketHashes,
    Flush,
    Message,
    Vector,
)
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.reconcile import Replication
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ids import NodeId
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.core.summary import BUCKETS

chance = Random(11).randbytes
ROOT = Key.new(chance)
KEYS = [Key.new(chance) for _ in range(3)]
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16), Limits(rows_max=4000))


class Node:
    """Everything replicated that one node holds, and the time it believes in."""

    def __init__(self, key: Key, boot: int = 1) -> None:
        self.control = ControlSet(GENESIS)
        self.own = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, boot)
        self.held = Replication(GENESIS, self.own, self.control)
        self.id = self.own.origin

    def write(self, key: bytes, value: bytes | None) -> list[Flush]:
        self.own.write("notes", key, value)
        return self.flush()

    def flush(self) -> list[Flush]:
        flushes = []
        while (change := self.own.flush(1.0)) is not None and change.flush is not None:
            self.held.remember(change.flush)  # as on disk
            flushes.append(change.flush)
        return flushes

    def take(self, peer: NodeId, message: Message, now_s: float) -> Outcome:
        return received(self.held, peer, message, now_s)

    def notes(self, origin: NodeId) -> dict[bytes, bytes]:
        rows = self.held.replicas[origin].rows.tables.get("notes", {})
        return {key: row.value for key, row in rows.items()}


def nodes_of(count: int) -> list[Node]:
    return [Node(key) for key in KEYS[:count]]


Wire = list[tuple[Node, Node, Message]]


def sends(
    source: Node, outcome: Outcome, nodes: list[Node]
) -> Iterator[tuple[Node, Node, Message]]:
    by_id = {node.id: node for node in nodes}
    for effect in outcome.effects:
        if isinstance(effect, Send):
            yield source, by_id[effect.peer], effect.message
    if outcome.changes and source.own.waiting:
        source.flush()


def exchange(nodes: list[Node], pick: Callable[[int], int], now_s: float) -> int:
    """Let everybody start a reconciliation with everybody, and deliver all in any order."""
    wire: Wire = [
        (one, other, one.held.digest()) for one in nodes for other in nodes if one is not other
    ]
    delivered = 0
    while wire:
        source, target, message = wire.pop(pick(len(wire)))
        wire += sends(target, target.take(source.id, message, now_s), nodes)
        target.flush()
        delivered += 1
        if delivered > 5000:
            raise AssertionError("they never come to an end")
    return delivered


def deliver(nodes: list[Node], *begun: tuple[Node, Node, Message]) -> Counter[str]:
    """Deliver messages and all that follows from them, in order; return how many of each kind."""
    wire, kinds = list(begun), Counter[str]()
    while wire:
        source, target, message = wire.pop(0)
        kinds[type(message).__name__] += 1
        wire += sends(target, target.take(source.id, message, 0.0), nodes)
    return kinds


def settled(nodes: list[Node], pick: Callable[[int], int]) -> int:
    """Reconcile until nobody differs; return how many rounds it took."""
    for number in range(1, 12):
        exchange(nodes, pick, number * AGAIN_S)
        if len({node.held.digest() for node in nodes}) == 1:
            return number
    raise AssertionError("they do not converge")


def positions_of(node: Node) -> dict[NodeId, Head]:
    """Return what a node tells of what it holds to somebody who holds nothing."""
    nothing = BucketHashes((bytes(8),) * BUCKETS, (bytes(8),) * BUCKETS)
    outcome = node.held.on_bucket_hashes(node.id, nothing)
    (vector,) = [effect.message for effect in outcome.effects if isinstance(effect, Send)]
    assert isinstance(vector, Vector)
    return vector.positions


def assert_equal(nodes: list[Node]) -> None:
    for node in nodes:
        for owner in (node for node in nodes if node.own.header):
            assert all_rows(node.held.replicas[owner.id].rows) == all_rows(owner.own.rows)
        assert node.control.summary.root() == nodes[0].control.summary.root()
