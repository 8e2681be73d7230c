"""Flushes at hand: those lately applied, for neighbours that lag, and those that came too early.

Invariant: both are bounded, by origin and by bytes; what is not at hand any more is repaired by a
snapshot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from meshnode.core.headers import NOTHING, Head, Header

if TYPE_CHECKING:
    from meshnode.core.feed import Flush
    from meshnode.core.ids import NodeId

FLUSHES_BYTES_MAX = 256 << 10  # kept per origin; older gaps are filled by a snapshot
EARLY_MAX = 16  # flushes of one origin that came before one that they follow; more: pulled
EARLY_BYTES_MAX = 4 << 20  # of all origins together; more: pulled


class Recent:
    """The newest flushes of each origin, without a gap between them."""

    def __init__(self) -> None:
        self._flushes: dict[NodeId, deque[Flush]] = {}
        self._bytes: dict[NodeId, int] = {}

    def add(self, flush: Flush) -> None:
        """Keep a flush, the oldest going first."""
        origin = flush.header.origin
        kept = self._flushes.setdefault(origin, deque())
        kept.append(replace(flush, eager=False, flooded=False))
        size = self._bytes.get(origin, 0) + len(flush.delta)
        while size > FLUSHES_BYTES_MAX:
            size -= len(kept.popleft().delta)
        self._bytes[origin] = size

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
        self._bytes.pop(origin, None)


class Early:
    """Flushes that came before one that they follow."""

    def __init__(self) -> None:
        self._flushes: dict[NodeId, dict[int, Flush]] = {}  # by first seq
        self.bytes = 0

    def keep(self, flush: Flush, head: Head) -> bool:
        """Keep a flush until the one before it is here; False if it is kept, or has no room."""
        header = flush.header
        early = self._flushes.get(header.origin, {})
        room = self.bytes + len(flush.delta) <= EARLY_BYTES_MAX and len(early) < EARLY_MAX
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
