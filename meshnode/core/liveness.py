"""Who is reachable, derived from who says to be linked to whom.

Invariant: an edge counts when both ends list it; a member is alive exactly when a path of such
edges leads to it from here. Nobody is accused and nobody votes: a member without edges is
unreachable, reachable again as soon as an edge returns, and dead DEAD_AFTER_S later. What a member
says about itself (`down`, `left`) stands until it says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from meshnode.core.ids import NodeId, short_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEAD_AFTER_S = 30.0


class MemberState(StrEnum):
    """What one node believes about another."""

    ALIVE = "alive"
    STALLED = "stalled"
    UNREACHABLE = "unreachable"
    DEAD = "dead"
    DOWN = "down"
    LEFT = "left"


_LOST = frozenset({MemberState.UNREACHABLE, MemberState.DEAD})


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member's own rows say: `up`, `down` or `left`, and the peers it lists."""

    declared: str
    peers: frozenset[bytes]


@dataclass(slots=True)
class _Seen:
    state: MemberState
    lost_at_s: float
    heard_at_s: float | None


class Liveness:
    """One node's view of all members."""

    def __init__(self, self_id: NodeId) -> None:
        self._self_id = self_id
        self._seen: dict[NodeId, _Seen] = {}

    def update(
        self, standings: Mapping[NodeId, Standing], links: Iterable[NodeId], now_s: float
    ) -> set[NodeId]:
        """Work out all states anew; return the members whose state changed."""
        reached = _reach(self._self_id, standings, frozenset(links))
        changed = set()
        for peer, standing in standings.items():
            seen = self._seen.get(peer)
            if seen is None:
                seen = self._seen[peer] = _Seen(MemberState.UNREACHABLE, now_s, None)
                changed.add(peer)
            state = self._state(standing, seen, now_s, reached=peer in reached)
            if state is MemberState.UNREACHABLE and seen.state not in _LOST:
                seen.lost_at_s = now_s
            if MemberState.ALIVE in {state, seen.state}:
                seen.heard_at_s = now_s  # whoever is lost now was heard until now
            if state is not seen.state:
                changed.add(peer)
                seen.state = state
        return changed

    def _state(
        self, standing: Standing, seen: _Seen, now_s: float, *, reached: bool
    ) -> MemberState:
        if standing.declared == "left":
            return MemberState.LEFT
        if standing.declared == "down":
            return MemberState.DOWN
        if reached:
            return MemberState.ALIVE
        # Compared as `next_change_s` adds it: a difference may round to just below the limit.
        fresh = seen.state not in _LOST or now_s < seen.lost_at_s + DEAD_AFTER_S
        return MemberState.UNREACHABLE if fresh else MemberState.DEAD

    def state(self, peer: NodeId) -> MemberState:
        """Return what is believed about a member."""
        seen = self._seen.get(peer)
        return MemberState.DEAD if seen is None else seen.state

    def heard_at_s(self, peer: NodeId) -> float | None:
        """Return when a member was last seen alive since this node started, or None."""
        seen = self._seen.get(peer)
        return None if seen is None else seen.heard_at_s

    def members(self) -> list[NodeId]:
        """Return all members, in a fixed order."""
        return sorted(self._seen)

    def alive(self) -> frozenset[NodeId]:
        """Return the members seen alive."""
        return frozenset(p for p, seen in self._seen.items() if seen.state is MemberState.ALIVE)

    def next_change_s(self, now_s: float) -> float | None:
        """Return when an unreachable member will turn dead, if one will."""
        due = [
            seen.lost_at_s + DEAD_AFTER_S
            for seen in self._seen.values()
            if seen.state is MemberState.UNREACHABLE
        ]
        return max(now_s, min(due)) if due else None


def _reach(
    self_id: NodeId, standings: Mapping[NodeId, Standing], links: frozenset[NodeId]
) -> set[NodeId]:
    """Walk the edges that both ends list, breadth first."""
    by_short = {short_id_of(peer): peer for peer in standings}
    lists = {peer: standing.peers for peer, standing in standings.items()}
    lists[self_id] = frozenset(short_id_of(peer) for peer in links)  # fresher than our own row
    short = {peer: mark for mark, peer in by_short.items()}
    reached, frontier = {self_id}, [self_id]
    while frontier:
        here = frontier.pop()
        for mark in lists.get(here, frozenset()):
            peer = by_short.get(mark)
            if peer is None or peer in reached or standings[peer].declared != "up":
                continue
            if short.get(here, short_id_of(here)) in lists[peer]:
                reached.add(peer)
                frontier.append(peer)
    return reached
