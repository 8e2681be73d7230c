"""Whom to ask for which feed, a few at a time: a newcomer drowns neither itself nor a relay.

Invariant: a feed is asked of one neighbour at a time; one that does not answer in AGAIN_S is not
asked for it again until it offers it anew, and the next that offered it is. At most IN_FLIGHT_MAX
feeds are on their way from one neighbour.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.core.headers import Head
    from meshnode.core.ids import NodeId

IN_FLIGHT_MAX = 16
OFFERS_MAX = 4  # neighbours remembered that hold a feed; more are passed over
LOOK_MAX = 256  # feeds looked at, at once, for one that a neighbour with room can send
AGAIN_S = 2.0


class Fetching:
    """What neighbours hold and this node lacks."""

    def __init__(self) -> None:
        self._offers: dict[NodeId, dict[NodeId, Head]] = {}
        self._waiting: dict[NodeId, None] = {}  # to be asked for, in order
        self._asked: dict[NodeId, tuple[NodeId, float]] = {}

    def __len__(self) -> int:
        """Count the feeds that are wanted."""
        return len(self._offers)

    def offered(self, peer: NodeId, origin: NodeId, head: Head, now_s: float) -> None:
        """Note that a neighbour holds more of a feed than is held here."""
        self._give_up_late(now_s)
        offers = self._offers.setdefault(origin, {})
        if peer in offers or len(offers) < OFFERS_MAX:
            offers[peer] = head
        if origin not in self._asked:
            self._waiting[origin] = None

    def asks(self, now_s: float) -> dict[NodeId, list[NodeId]]:
        """Return whom to ask now, for what; they count as asked."""
        self._give_up_late(now_s)
        busy = Counter(peer for peer, _ in self._asked.values())
        chosen: dict[NodeId, list[NodeId]] = {}
        for origin in list(islice(self._waiting, LOOK_MAX)):
            free = (peer for peer in self._offers[origin] if busy[peer] < IN_FLIGHT_MAX)
            peer = next(free, None)
            if peer is not None:
                del self._waiting[origin]
                self._asked[origin] = (peer, now_s)
                chosen.setdefault(peer, []).append(origin)
                busy[peer] += 1
        return chosen

    def came(self, origin: NodeId, now_s: float) -> None:
        """Note that a part of a feed has come: more of it is on its way."""
        if origin in self._asked:
            self._asked[origin] = (self._asked[origin][0], now_s)

    def held(self, origin: NodeId, head: Head) -> None:
        """Note how far a feed is held now: offers of no more are done with."""
        offers = self._offers.get(origin)
        if offers is None:
            return
        for peer in [peer for peer, offered in offers.items() if offered <= head]:
            del offers[peer]
        self._asked.pop(origin, None)
        self._again(origin)

    def forget_peer(self, peer: NodeId) -> None:
        """Expect nothing more of a lost neighbour."""
        for origin, offers in list(self._offers.items()):
            if offers.pop(peer, None) is not None:
                if self._asked.get(origin, (None, 0.0))[0] == peer:
                    del self._asked[origin]
                self._again(origin)

    def _give_up_late(self, now_s: float) -> None:
        """Turn to others for what was asked long ago."""
        for origin, (peer, asked_s) in list(self._asked.items()):
            if now_s - asked_s >= AGAIN_S:
                self._offers[origin].pop(peer, None)
                del self._asked[origin]
                self._again(origin)

    def _again(self, origin: NodeId) -> None:
        if not self._offers[origin]:
            del self._offers[origin]
            self._waiting.pop(origin, None)
        elif origin not in self._asked:
            self._waiting[origin] = None
