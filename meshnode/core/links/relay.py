"""Messages for nodes that are not neighbours: along a route that the sender has chosen.

The sender knows the whole graph of links (core/links/linkgraph.py), so it names every node on the
way, as source routing does (RFC 4728); a relay checks its own step, passes on, and keeps nothing.

Invariants: a route visits nobody twice and has at most ROUTE_MAX nodes, so a message is passed on
at most ROUTE_MAX times whatever anybody writes into it. Of the orders that one neighbour brings, a
node takes at most a share (`Turnstile`), so that nobody uses up what there is for all.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.core.errors import PeerError
from meshnode.core.feeds.messages import Routed
from meshnode.core.pacing import Buckets

if TYPE_CHECKING:
    from meshnode.core.feeds.messages import Ask, Heard, Order, Reply
    from meshnode.core.ids import NodeId

ROUTE_MAX = 17  # nodes, both ends included
ORDERS_MAX = 256  # unanswered that came over links; more: refused
ORDERS_OF_NEIGHBOUR_MAX = 96  # of them, brought by one neighbour, whomever it names as senders
ORDERS_OF_SENDER_MAX = 32  # of them, of one sender, by the word of the neighbour that brings them
ORDERS_PER_S, ORDERS_BURST = 500, 1000  # by one neighbour
ORDERS_OF_SENDER_PER_S, ORDERS_OF_SENDER_BURST = 250, 500  # of one sender, by one neighbour
ANSWERED_WITHIN_S = 120.0  # as long as anybody waits; then an order no longer counts


def sent(self_id: NodeId, path: tuple[NodeId, ...], body: Ask | Order) -> Routed:
    """Put something on its way; `path` leads from the first neighbour to the target."""
    return Routed((self_id, *path), 1, body)


def next_hop(self_id: NodeId, peer: NodeId, routed: Routed) -> NodeId | None:
    """Return whom to pass a message on to, None if it is for this node; raises PeerError."""
    route, at = routed.route, routed.at
    if not 0 < at < len(route) <= ROUTE_MAX or len(set(route)) < len(route):
        raise PeerError("a route that is too long, or leads anywhere twice")
    if route[at] != self_id or route[at - 1] != peer:
        raise PeerError("a route on which this is not the next step")
    return route[at + 1] if at + 1 < len(route) else None


def onward(routed: Routed) -> Routed:
    """Return the message as the next hop gets it."""
    return replace(routed, at=routed.at + 1)


def back(routed: Routed) -> tuple[NodeId, ...]:
    """Return the way from here back to the sender, this node first."""
    return routed.route[routed.at :: -1]


def answer(route: tuple[NodeId, ...], body: Heard | Reply) -> Routed:
    """Put an answer on its way back."""
    return Routed(route, 1, body)


Passing = tuple["NodeId", "NodeId", int]  # neighbour that brought it, sender that it names, number


class Turnstile:
    """Counts the orders of others that are under way through this node, or being obeyed by it.

    Only the neighbour that brings an order is proved by TLS; the sender is its word. So a sender
    has a share within each neighbour's, and nobody can use up another's share by naming it.
    """

    def __init__(self) -> None:
        self._under_way: dict[Passing, float] = {}  # since when; the oldest first
        self._of_neighbour: Counter[NodeId] = Counter()
        self._of_sender: Counter[tuple[NodeId, NodeId]] = Counter()
        self._neighbour_pace: Buckets[NodeId] = Buckets(ORDERS_PER_S, ORDERS_BURST)
        self._sender_pace: Buckets[tuple[NodeId, NodeId]] = Buckets(
            ORDERS_OF_SENDER_PER_S, ORDERS_OF_SENDER_BURST
        )

    def refusal(self, peer: NodeId, sender: NodeId, number: int, now_s: float) -> str:
        """Count an order that a neighbour brings, or say why it must not pass."""
        self._forget_old(now_s)
        why = self._full(peer, sender, number) or self._too_fast(peer, sender, now_s)
        if not why:
            self._under_way[peer, sender, number] = now_s
            self._of_neighbour[peer] += 1
            self._of_sender[peer, sender] += 1
        return why

    def _full(self, peer: NodeId, sender: NodeId, number: int) -> str:
        if (peer, sender, number) in self._under_way:
            return "this number is under way already"
        if self._of_sender[peer, sender] >= ORDERS_OF_SENDER_MAX:
            return f"{ORDERS_OF_SENDER_MAX} of one sender are under way"
        if self._of_neighbour[peer] >= ORDERS_OF_NEIGHBOUR_MAX:
            return f"{ORDERS_OF_NEIGHBOUR_MAX} from one neighbour are under way"
        return f"{ORDERS_MAX} are under way" if len(self._under_way) >= ORDERS_MAX else ""

    def _too_fast(self, peer: NodeId, sender: NodeId, now_s: float) -> str:
        if not self._sender_pace.take((peer, sender), now_s):
            return f"more than {ORDERS_OF_SENDER_PER_S} a second of one sender"
        if not self._neighbour_pace.take(peer, now_s):
            return f"more than {ORDERS_PER_S} a second from one neighbour"
        return ""

    def answered(self, peer: NodeId, sender: NodeId, number: int) -> None:
        """Note that an answer goes back by the neighbour that brought the order."""
        if self._under_way.pop((peer, sender, number), None) is not None:
            _less(self._of_neighbour, peer)
            _less(self._of_sender, (peer, sender))

    def _forget_old(self, now_s: float) -> None:
        while self._under_way:
            oldest, since_s = next(iter(self._under_way.items()))
            if now_s - since_s < ANSWERED_WITHIN_S:
                return
            self.answered(*oldest)


def _less(counts: Counter[Any], name: object) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
