"""Everything replicated that one node holds: all feeds, and how far each is held.

Invariant: the head of a held feed only grows; nothing is held that its owner's signature does not
prove; nothing of our own is shown before it is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Flush, Replica
from meshnode.core.feeds.forks import Forks, Proof
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.recent import Early, Recent
from meshnode.core.packing import pack
from meshnode.core.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Genesis, Limits

FEEDS_MAX = 10_000  # more origins: PeerError, the link is kept
STATE_BYTES = 16  # of the state hash, beside a position; two alike in 8 are found in an hour


class Holdings:
    """All feeds, ours among them."""

    def __init__(
        self,
        genesis: Genesis,
        own: OwnFeed,
        replica: Callable[[NodeId, Limits], Replica] = Replica,
    ) -> None:
        self.own = own
        self._new_replica = replica
        self.replicas: dict[NodeId, Replica] = {own.origin: own}
        self.forks = Forks()
        self._limits = genesis.limits
        self._recent = Recent()
        self._early = Early()
        self._published: Header | None = None  # of ours, on disk: what neighbours may hear of
        self._feeds: Summary[NodeId] = Summary(self._describe)
        self._feeds.add(own.origin)

    def restore(self, header: Header, rows: Rows) -> None:
        """Take a feed from our own disk."""
        if header.origin == self.own.origin:
            self.own.restore(header, rows)
            self._published = header
        else:
            self._replica(header.origin).replace(header, rows)
        self._feeds.changed(header.origin)

    def restore_fork(self, proof: Proof) -> None:
        """Take a quarantine from our own disk, once its feed was taken.

        One of ours is ended by what we write next: its epoch is left, as when the proof is heard.
        """
        origin = proof[0].origin
        if self.head_of(origin).epoch > proof[0].epoch:
            return
        if origin == self.own.origin:
            self.own.leave_epoch(proof[0].epoch)
        elif self.forks.add(proof):
            self._feeds.changed(origin)

    def is_ours(self, origin: NodeId) -> bool:
        """Whether we write this feed; once a clone of this home does, it is one like others."""
        return origin == self.own.origin and not self.own.cloned

    def remember(self, flush: Flush) -> None:
        """Keep a flush for neighbours that lag a little."""
        self._moved(flush.header)
        self._recent.add(flush)

    def _moved(self, header: Header) -> None:
        """Note how far a feed is held now."""
        if header.origin == self.own.origin:
            self._published = header
        self._feeds.changed(header.origin)

    def head_of(self, origin: NodeId) -> Head:
        """Return how far a feed is known: of a forked epoch nothing more is taken."""
        replica = self.replicas.get(origin)
        return self.forks.head(origin) or (NOTHING if replica is None else replica.head)

    def _held(self, origin: NodeId) -> Head:
        """How far our rows go, as far as neighbours may hear of it."""
        if origin == self.own.origin:
            return NOTHING if self._published is None else self._published.head
        replica = self.replicas.get(origin)
        return NOTHING if replica is None else replica.head

    def _shown(self, origin: NodeId) -> Head:
        return self.forks.head(origin) or self._held(origin)

    def _state(self, origin: NodeId) -> bytes:
        """Return the beginning of the state hash at the position shown; none of a forked epoch."""
        ours = origin == self.own.origin
        header = self._published if ours else self.replicas[origin].header
        if header is None or self.forks.has(origin):
            return b""
        return header.state_hash[:STATE_BYTES]

    def _describe(self, origin: NodeId) -> bytes:
        head = self._shown(origin)
        state = self._state(origin)
        return b"" if head == NOTHING else pack([origin, head.epoch, head.seq, state])

    def _replica(self, origin: NodeId) -> Replica:
        replica = self.replicas.get(origin)
        if replica is None:
            if len(self.replicas) >= FEEDS_MAX:
                raise PeerError(f"more than {FEEDS_MAX} feeds")
            replica = self.replicas[origin] = self._new_replica(origin, self._limits)
            self._feeds.add(origin)
        return replica
