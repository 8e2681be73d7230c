"""Who is reachable, derived from who says to be linked to whom.

Invariant: an edge counts when both ends list it, or it is a new link of ours; a member is alive
exactly when a path of such edges leads to it from here. Nobody is accused and nobody votes: a
member without edges is unreachable, reachable again as soon as an edge returns, and dead
DEAD_AFTER_S later. It is called stalled meanwhile if somebody alive lost it for that reason. What a
member says about itself (`down`, `left`) stands until it says otherwise. We are alive to ourselves,
whatever our row says.

News is collected; `judge` turns it into states, at the cost of what is new.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING

from meshnode.core.links.linkgraph import NOBODY, LinkGraph, mark_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from meshnode.core.ids import NodeId
    from meshnode.core.links.linkgraph import Standing

DEAD_AFTER_S = 30.0


class MemberState(StrEnum):
    """What one node believes about another."""

    ALIVE = "alive"
    STALLED = "stalled"
    UNREACHABLE = "unreachable"
    DEAD = "dead"
    DOWN = "down"
    LEFT = "left"
    REVOKED = "revoked"


class Liveness:
    """One node's view of all members. `now_s` is a steady clock and never goes back."""

    __slots__ = (
        "_alive",
        "_dirty",
        "_fading",
        "_heard",
        "_judged_at_s",
        "_others",
        "_self_id",
        "_stalled",
        "_told",
        "graph",
    )

    def __init__(self, self_id: NodeId) -> None:
        self.graph = LinkGraph(self_id)
        self._self_id = self_id
        self._judged_at_s = 0.0
        self._alive: dict[NodeId, None] = {}  # a set takes five times the memory
        self._others: dict[NodeId, MemberState] = {}  # states of those not alive
        self._fading: dict[NodeId, float] = {}  # unreachable or stalled since; the oldest first
        self._heard: dict[NodeId, float] = {}  # those not alive: when they last were
        self._stalled = NOBODY  # whom we lost ourselves because they stalled
        self._told: dict[bytes, tuple[NodeId, ...]] = {}  # a stalled member, and whose row says so
        self._dirty: set[NodeId] = set()

    def hear(self, peer: NodeId, standing: Standing) -> None:
        """Take what a member's own rows say. A member is known from here on."""
        before = _blames(self.graph.standing(peer))
        self.graph.hear(peer, standing)
        self._dirty.add(peer)
        self._retell(peer, before, _blames(self.graph.standing(peer)))

    def forget(self, peer: NodeId) -> bool:
        """Let somebody be no member any more, until heard again; False if it was none."""
        if self.graph.standing(peer) is None or peer == self._self_id:
            return False
        self._retell(peer, _blames(self.graph.standing(peer)), NOBODY)
        self.graph.forget(peer)
        self._dirty.discard(peer)
        for held in (self._alive, self._others, self._fading, self._heard):
            held.pop(peer, None)
        return True

    def set_stalled(self, marks: frozenset[bytes]) -> None:
        """Tell which links of our own were lost because the other end stalled."""
        for mark in self._stalled ^ marks:
            self._touch(mark)
        self._stalled = marks

    def judge(self, now_s: float) -> set[NodeId]:
        """Work out the states of whom news concerns; return the members whose state changed."""
        moved = self.graph.take_changes()
        for peer in moved:  # its word about others counts now, or no longer
            for mark in _blames(self.graph.standing(peer)):
                self._touch(mark)
        for mark in self._stalled:  # few, and whether we are linked to them is known to the graph
            self._touch(mark)
        overdue = takewhile(lambda lost: now_s >= _dead_at_s(lost[1]), self._fading.items())
        dirty = self._dirty | moved | {peer for peer, _ in overdue}
        self._dirty = set()
        self._judged_at_s = now_s
        # Sorted, so that what follows from the order of `alive` is the same in every run.
        changed = {peer for peer in sorted(dirty) if self._settle(peer, now_s)}
        for emptied in (self._others, self._fading, self._heard):
            if not emptied:
                emptied.clear()  # gives the memory back too
        return changed

    @property
    def alive(self) -> AbstractSet[NodeId]:
        """The members seen alive: a live view, which the next `judge` may change."""
        return self._alive.keys()

    def state(self, peer: NodeId) -> MemberState:
        """Return what is believed about a member."""
        if peer in self._alive:
            return MemberState.ALIVE
        return self._others.get(peer, MemberState.DEAD)

    def heard_at_s(self, peer: NodeId) -> float | None:
        """Return when a member was last seen alive since this node started, or None."""
        return self._judged_at_s if peer in self._alive else self._heard.get(peer)

    def members(self) -> list[NodeId]:
        """Return all members, in a fixed order."""
        return sorted((*self._alive, *self._others))

    def next_change_s(self, now_s: float) -> float | None:
        """Return when an unreachable or stalled member will turn dead, if one will."""
        lost_at_s = next(iter(self._fading.values()), None)
        return None if lost_at_s is None else max(now_s, _dead_at_s(lost_at_s))

    def _settle(self, peer: NodeId, now_s: float) -> bool:
        """Move a member to the state that holds now; tell whether that is another than before."""
        if self.graph.standing(peer) is None:
            return False  # ourselves, as long as our own record is not known
        before = MemberState.ALIVE if peer in self._alive else self._others.get(peer)
        state = self._state(peer, before, now_s)
        if state in _FADING:
            self._fading.setdefault(peer, now_s)
        else:
            self._fading.pop(peer, None)
        if state is before:
            return False
        if state is MemberState.ALIVE:
            self._alive[peer] = None
            self._others.pop(peer, None)
            self._heard.pop(peer, None)
            return True
        if before is MemberState.ALIVE:
            del self._alive[peer]
            self._heard[peer] = now_s  # whoever is lost now was heard until now
        self._others[peer] = state
        return True

    def _state(self, peer: NodeId, before: MemberState | None, now_s: float) -> MemberState:
        declared = self._declared(peer)
        if declared != "up":
            return MemberState(declared)
        if peer in self.graph.reached:
            return MemberState.ALIVE
        lost_at_s = self._fading.get(peer, now_s)
        if before is MemberState.DEAD or now_s >= _dead_at_s(lost_at_s):
            return MemberState.DEAD
        return MemberState.STALLED if self._has_stalled(peer) else MemberState.UNREACHABLE

    def _declared(self, peer: NodeId) -> str:
        standing = self.graph.standing(peer)
        return "up" if peer == self._self_id or standing is None else standing.declared

    def _has_stalled(self, peer: NodeId) -> bool:
        mark = mark_of(peer)
        if self.graph.named(mark) != peer:
            return False  # another member holds its short id
        if mark in self._stalled and peer not in self.graph.links:
            return True
        return any(other in self.graph.reached for other in self._told.get(mark, ()))

    def _touch(self, mark: bytes) -> None:
        peer = self.graph.named(mark)
        if peer is not None:
            self._dirty.add(peer)

    def _retell(self, peer: NodeId, before: frozenset[bytes], after: frozenset[bytes]) -> None:
        if peer == self._self_id:
            return  # `set_stalled` is fresher than our own row
        for mark in before ^ after:
            others = tuple(other for other in self._told.get(mark, ()) if other != peer)
            tellers = (*others, peer) if mark in after else others
            if tellers:
                self._told[mark] = tellers
            else:
                del self._told[mark]
            self._touch(mark)


_FADING = frozenset({MemberState.UNREACHABLE, MemberState.STALLED})


def _dead_at_s(lost_at_s: float) -> float:
    """One sum for the verdict and its announcement: a difference may round to just below."""
    return lost_at_s + DEAD_AFTER_S


def _blames(standing: Standing | None) -> frozenset[bytes]:
    """Return whom a row calls stalled, and not linked as well."""
    return NOBODY if standing is None else standing.stalled - standing.peers
