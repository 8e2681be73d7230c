"""Flushes at hand: those lately applied, for neighbours that lag, and those that came too early.

Invariant: both are bounded, by origin and in all, by what they take in memory; what is not at hand
any more is repaired by a snapshot.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.core.feeds.heads import NOTHING, Head

if TYPE_CHECKING:
    from meshnode.core.feeds.feed import Flush
    from meshnode.core.feeds.headers import Header
    from meshnode.core.ids import NodeId

FLUSHES_MAX = 256  # kept per origin, one request is answered with no more; older gaps: a snapshot
FLUSH_BYTES = 1100  # that a flush takes beside its delta: header, signature, hashes, ids
FLUSHES_BYTES_MAX = 512 << 10  # kept per origin: the largest flush that a mesh may allow is one
RECENT_BYTES_MAX = 64 << 20  # of all origins; beyond, each has an equal share
EARLY_MAX = 16  # flushes of one origin that came before one that they follow; more: pulled
EARLY_BYTES_MAX = 4 << 20  # of all origins together; more: pulled
EARLY_OF_ONE_MAX = 512 << 10  # of one, so that none leaves others no room; more: pulled


class Recent:
    """The newest flushes of each origin, without a gap between them."""

    def __init__(self) -> None:
        self._flushes: dict[NodeId, deque[Flush]] = {}  # written or shortened last: last
        self._bytes: dict[NodeId, int] = {}
        self.bytes = 0

    def add(self, flush: Flush) -> None:
        """Keep a flush, the oldest of its origin going first; of others, what is beyond a share."""
        origin = flush.header.origin
        kept = self._flushes.setdefault(origin, deque())
        kept.append(replace(flush, eager=False, flooded=False))
        self._count(origin, _bytes_of(flush))
        self._shorten(origin)
        while self.bytes > RECENT_BYTES_MAX:
            self._shorten(next(iter(self._flushes)))

    def _shorten(self, origin: NodeId) -> None:
        kept = self._flushes[origin] = self._flushes.pop(origin)
        share = min(FLUSHES_BYTES_MAX, RECENT_BYTES_MAX // len(self._flushes))
        while self._bytes[origin] > share or len(kept) > FLUSHES_MAX:
            self._count(origin, -_bytes_of(kept.popleft()))

    def _count(self, origin: NodeId, size: int) -> None:
        self._bytes[origin] = self._bytes.get(origin, 0) + size
        self.bytes += size

    def since(self, origin: NodeId, after: Head, upto: Head) -> list[Flush]:
        """Return the flushes that lead from one position to another; none if any is missing."""
        kept = [f for f in self._flushes.get(origin, ()) if f.header.head > after]
        first = kept[0].header if kept else None
        joins = first and first.epoch == after.epoch and first.first_seq == after.seq + 1
        return kept if joins and kept[-1].header.head == upto else []

    def like(self, header: Header) -> Header | None:
        """Return the header kept for the same first write, if there is one."""
        for flush in reversed(self._flushes.get(header.origin, ())):
            kept = flush.header
            if (kept.epoch, kept.first_seq) <= (header.epoch, header.first_seq):
                same = (kept.epoch, kept.first_seq) == (header.epoch, header.first_seq)
                return kept if same else None
        return None

    def drop(self, origin: NodeId) -> None:
        """Forget the flushes of an origin: they no longer join up."""
        self._flushes.pop(origin, None)
        self.bytes -= self._bytes.pop(origin, 0)


class Early:
    """Flushes that came before one that they follow."""

    def __init__(self) -> None:
        self._flushes: dict[NodeId, dict[int, Flush]] = {}  # by first seq
        self.bytes = 0

    def keep(self, flush: Flush, head: Head) -> bool:
        """Keep a flush until the one before it is here; False if it is kept, or has no room."""
        header = flush.header
        early = self._flushes.get(header.origin, {})
        size = len(flush.delta)
        theirs = size + sum(len(one.delta) for one in early.values())
        room = self.bytes + size <= EARLY_BYTES_MAX and theirs <= EARLY_OF_ONE_MAX
        room = room and len(early) < EARLY_MAX
        if head == NOTHING or header.epoch != head.epoch or header.first_seq in early or not room:
            return False
        self._flushes.setdefault(header.origin, {})[header.first_seq] = flush
        self.bytes += len(flush.delta)
        return True

    def take(self, origin: NodeId) -> dict[int, Flush]:
        """Return what waits of an origin, by first seq; it waits no longer."""
        early = self._flushes.pop(origin, {})
        self.bytes -= sum(len(flush.delta) for flush in early.values())
        return early


def _bytes_of(flush: Flush) -> int:
    return len(flush.delta) + FLUSH_BYTES
