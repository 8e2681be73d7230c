"""Whom to ask for which feed, a few at a time: a newcomer drowns neither itself nor a relay.

Invariant: a feed is asked of one neighbour at a time; one that sends nothing of it for AGAIN_S, or
has it for LONGEST_S, is not asked for it again until it offers it anew, and the next that offered
it is. At most IN_FLIGHT_MAX feeds are on their way from one neighbour, and OFFERED_MAX expected of
it. Neighbours queue side by side, and who was late comes last: so one that offers what it never
sends delays others, and starves none.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId

IN_FLIGHT_MAX = 16
OFFERED_MAX = 10_000  # by one neighbour, as many as there may be feeds; more are passed over
LOOK_MAX = 256  # of a neighbour's offers looked at, at once, for one that nobody is asked for
AGAIN_S = 2.0
LONGEST_S = 60.0  # for a feed from one neighbour; what has come of it by then is kept


class Fetching:
    """What neighbours hold and this node lacks."""

    def __init__(self) -> None:
        self._offers: dict[NodeId, dict[NodeId, Head]] = {}  # by origin, by neighbour
        self._queues: dict[NodeId, dict[NodeId, None]] = {}  # the latest late one last
        self._asked: dict[NodeId, tuple[NodeId, float, float]] = {}  # whom, since when, last heard

    def __len__(self) -> int:
        """Count the feeds that are wanted."""
        return len(self._offers)

    def offered(self, peer: NodeId, origin: NodeId, head: Head) -> None:
        """Note that a neighbour holds more of a feed than is held here."""
        queue = self._queues.setdefault(peer, {})
        if origin in queue or len(queue) < OFFERED_MAX:
            queue[origin] = None
            self._offers.setdefault(origin, {})[peer] = head

    def asks(self, now_s: float) -> dict[NodeId, list[NodeId]]:
        """Return whom to ask now, for what; they count as asked."""
        chosen: dict[NodeId, list[NodeId]] = {}
        if not self._queues:
            return chosen
        busy = Counter(peer for peer, _, _ in self._asked.values())
        for peer, queue in self._queues.items():
            for origin in islice(self._free(queue), max(0, IN_FLIGHT_MAX - busy[peer])):
                chosen.setdefault(peer, []).append(origin)
                self._asked[origin] = (peer, now_s, now_s)
        return chosen

    def _free(self, queue: dict[NodeId, None]) -> Iterator[NodeId]:
        return (one for one in islice(queue, LOOK_MAX) if one not in self._asked)

    def came(self, peer: NodeId, origin: NodeId, now_s: float) -> None:
        """Note that a part of a feed has come from whom it was asked: more of it is on its way."""
        asked, since_s, _ = self._asked.get(origin, (None, 0.0, 0.0))
        if asked == peer:
            self._asked[origin] = (peer, since_s, now_s)

    def held(self, origin: NodeId, head: Head) -> None:
        """Note how far a feed is held now: offers of no more are done with."""
        offers = self._offers.get(origin, {})
        for peer in [peer for peer, offered in offers.items() if offered <= head]:
            self._withdraw(peer, origin)
        self._asked.pop(origin, None)

    def forget_peer(self, peer: NodeId) -> None:
        """Expect nothing more of a lost neighbour."""
        for origin in list(self._queues.get(peer, ())):
            self._withdraw(peer, origin)
            if self._asked.get(origin, (None,))[0] == peer:
                del self._asked[origin]

    def give_up(self, now_s: float) -> None:
        """Turn to others for what was asked long ago."""
        for origin, (peer, since_s, heard_s) in list(self._asked.items()):
            if now_s - heard_s >= AGAIN_S or now_s - since_s >= LONGEST_S:
                self._withdraw(peer, origin)
                del self._asked[origin]
                if peer in self._queues:
                    self._queues[peer] = self._queues.pop(peer)

    def _withdraw(self, peer: NodeId, origin: NodeId) -> None:
        offers, queue = self._offers.get(origin, {}), self._queues.get(peer, {})
        offers.pop(peer, None)
        queue.pop(origin, None)
        if not offers:
            self._offers.pop(origin, None)
        if not queue:
            self._queues.pop(peer, None)
