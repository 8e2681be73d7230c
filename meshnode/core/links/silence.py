"""Silent links: pulses out, a deadline for anything in, and a question to another neighbour.

Any frame from a peer is a sign of life. After MISSES_MAX intervals without one, another neighbour
of the peer is asked whether it hears it (the indirect probe of SWIM; Das, Gupta, Motivala, 2002).
If nobody does within CHECK_S, or nobody can be asked, the link is silent. If somebody does, the
fault may be ours or the path's: the link is given VOUCHED_S more, and is then let go all the same,
since nothing comes over it.

Invariant: a link is silent only after MISSES_MAX intervals in which this node was able to listen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.effects import Effect, Send
from meshnode.core.feeds.messages import Pulse

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId

PULSE_S = 1.0
MISSES_MAX = 3
SILENT_S = PULSE_S * MISSES_MAX
CHECK_S = 0.5
VOUCHED_S = 3.0
LISTEN_S = 1.0  # granted to every peer once a node that was held up runs again


class _Link(msgspec.Struct):
    heard_at_s: float
    pulses: int = 0
    asked_at_s: float | None = None
    vouched: bool = False
    again_s: float = PULSE_S  # after a question: until the next, if somebody vouched


class Verdict(msgspec.Struct, frozen=True):
    """Whom to ask others about, and whose links to let go."""

    doubted: list[NodeId]
    silent: list[NodeId]


class Silences:
    """When each neighbour was last heard."""

    def __init__(self) -> None:
        self._links: dict[NodeId, _Link] = {}

    def linked(self, peer: NodeId, now_s: float) -> None:
        """Begin to listen."""
        self._links[peer] = _Link(now_s)

    def unlinked(self, peer: NodeId) -> None:
        """Stop listening."""
        self._links.pop(peer, None)

    def heard(self, peer: NodeId, now_s: float) -> bool:
        """Note a frame; False if there is no such link."""
        link = self._links.get(peer)
        if link is None:
            return False
        link.heard_at_s = now_s
        link.asked_at_s = None
        return True

    def heard_ago_s(self, peer: NodeId, now_s: float) -> float | None:
        """Return how long ago a neighbour was heard, None if it is no neighbour."""
        link = self._links.get(peer)
        return None if link is None else now_s - link.heard_at_s

    def pulses(self) -> list[Effect]:
        """Return a sign of life for each neighbour."""
        effects: list[Effect] = []
        for peer, link in self._links.items():
            link.pulses += 1
            effects.append(Send(peer, Pulse(link.pulses)))
        return effects

    def judge(self, now_s: float) -> Verdict:
        """Find the links on which nothing has come for too long."""
        verdict = Verdict([], [])
        for peer, link in self._links.items():
            silent_s = now_s - link.heard_at_s
            if silent_s <= SILENT_S:
                continue
            if link.asked_at_s is None:
                self._ask(link, peer, verdict, now_s)
                continue
            unheard = not link.vouched and now_s >= link.asked_at_s + CHECK_S
            if unheard or silent_s > SILENT_S + VOUCHED_S:
                verdict.silent.append(peer)
            elif link.vouched and now_s >= link.asked_at_s + link.again_s:
                self._ask(link, peer, verdict, now_s)
        return verdict

    @staticmethod
    def _ask(link: _Link, peer: NodeId, verdict: Verdict, now_s: float) -> None:
        link.asked_at_s, link.vouched = now_s, False
        verdict.doubted.append(peer)

    def answered(self, about: NodeId, ago_s: float | None) -> None:
        """Take the word of another neighbour of a peer; one that hears it is enough."""
        link = self._links.get(about)
        if link is None or link.asked_at_s is None or ago_s is None:
            return
        if ago_s <= SILENT_S:
            link.vouched = True
            # If it hears nothing more either, it knows so once its own patience is over.
            link.again_s = min(PULSE_S, max(CHECK_S, SILENT_S - ago_s))

    def forgive(self, now_s: float) -> None:
        """After this node was held up, judge nobody before what waits at its door was heard."""
        for link in self._links.values():
            link.heard_at_s = max(link.heard_at_s, now_s - SILENT_S + LISTEN_S)
            link.asked_at_s = None
