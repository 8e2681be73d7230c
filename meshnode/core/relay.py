"""Messages for nodes that are not neighbours: along a route that the sender has chosen.

The sender knows the whole graph of links (core/linkgraph.py), so it names every node on the way,
as source routing does (RFC 4728); a relay checks its own step, passes on, and keeps nothing.

Invariant: a route visits nobody twice and has at most ROUTE_MAX nodes, so a message is passed on at
most ROUTE_MAX times whatever anybody writes into it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.messages import Routed

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId
    from meshnode.core.messages import Ask, Heard, Order, Reply

ROUTE_MAX = 17  # nodes, both ends included


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
