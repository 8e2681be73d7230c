"""Which core a neighbour's message is for.

Invariant: every kind of message has one place, and the type checker knows if one has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from meshnode.core.effects import HangUp
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.intake import Outcome
from meshnode.core.feeds.messages import (
    BucketHashes,
    BucketPull,
    BucketRows,
    Digest,
    Farewell,
    Fork,
    Have,
    Known,
    Manifest,
    Members,
    Message,
    Prune,
    Pull,
    Pulse,
    Routed,
    Snapshot,
    Vector,
)
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.mesh.neighbours import Neighbours
    from meshnode.core.feeds.reconcile import Replication
    from meshnode.core.ids import NodeId
    from meshnode.core.links.broadcast import Broadcast


class Incoming:
    """Hands messages to the cores of one node."""

    def __init__(
        self,
        replication: Replication,
        neighbours: Neighbours,
        broadcast: Broadcast,
        wall: Callable[[float], float],
    ) -> None:
        self._replication = replication
        self._wall = wall
        self._neighbours = neighbours
        self._broadcast = broadcast

    def __call__(  # noqa: C901, PLR0911, PLR0912 - one case a message
        self, peer: NodeId, message: Message | Known, now_s: float
    ) -> Outcome:
        """Return what follows from a message; raises PeerError if it breaks the protocol."""
        match message:
            case Flush():
                return self._replication.on_flush(peer, message, now_s)
            case Known():
                return self._replication.on_known(message)
            case Snapshot():
                return self._replication.on_snapshot(peer, message, now_s)
            case Manifest():
                return self._replication.on_manifest(peer, message, now_s)
            case BucketPull():
                return self._replication.on_bucket_pull(peer, message)
            case BucketRows():
                return self._replication.on_bucket_rows(peer, message, now_s)
            case Fork():
                return self._replication.on_fork(peer, message, now_s)
            case Digest():
                return self._replication.on_digest(peer, message)
            case BucketHashes():
                return self._replication.on_bucket_hashes(peer, message)
            case Vector():
                return self._replication.on_vector(peer, message, now_s)
            case Have():
                return self._replication.on_have(message)
            case Pull():
                if message.graft:
                    self._broadcast.grafted(peer, message.after)
                return self._replication.on_pull(peer, message)
            case Prune():
                return Outcome(self._broadcast.pruned(peer, message.origins))
            case Signed():
                return self._replication.on_control(message, self._wall(now_s))
            case Members():
                return Outcome(self._neighbours.introduced(peer, message, now_s))
            case Routed():
                return Outcome(self._neighbours.routed(peer, message, now_s))
            case Farewell():
                return Outcome([HangUp(peer, message.reason)])
            case Pulse():
                return Outcome()  # being heard is all it is for
            case _:
                assert_never(message)
