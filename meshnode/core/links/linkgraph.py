"""Who lists whom, and what can be reached from here.

Invariant: an edge is up when both ends list it and both call themselves `up` (we always do); a new
link of ours counts as listed by a member that calls itself `up`, whose row may be under way; a
member is in `reached` exactly when a path of such edges leads to it from here. News costs what it
changes: reachability hangs on a spanning tree of parent pointers, so an edge beside the tree goes
for nothing, and an edge of the tree moves only the members below it.

A member's children are found among the peers it lists, so a member costs three dictionary entries
and no object. Two members whose short ids are equal: the one known first keeps the id, the other is
treated as having none, so no edge of its own counts, and it is never reached.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import nsmallest
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import force_setattr, replace

from meshnode.core.ids import short_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from meshnode.core.ids import NodeId

PEERS_MAX = 64  # of a row that lists more, the lexicographically first are read, the others not
HOPS_MAX = 16  # a member further away has no path, though it may be alive
MARKS_MAX = 1 << 16  # short ids remembered; beyond, the longest unused are hashed again

mark_of = lru_cache(maxsize=MARKS_MAX)(short_id_of)  # one bytes object for all graphs
NOBODY: frozenset[bytes] = frozenset()


class Standing(msgspec.Struct, frozen=True, weakref=True):
    """What a member's own rows say: `up`, `down` or `left`, and of its peers, by short id.

    `peers` are the working links, `stalled` those it lost because they stalled. Both are cut to
    PEERS_MAX here. One object serves all graphs of a process; equal ones need not exist twice.
    """

    declared: str
    peers: frozenset[bytes]
    stalled: frozenset[bytes] = NOBODY

    listed: frozenset[bytes] = NOBODY
    """`peers` as far as they count, which is worked out: whoever is not `up` has no edges."""

    def __post_init__(self) -> None:
        for name in ("peers", "stalled"):
            marks = getattr(self, name)
            if len(marks) > PEERS_MAX:
                force_setattr(self, name, frozenset(nsmallest(PEERS_MAX, marks)))
        force_setattr(self, "listed", self.peers if self.declared == "up" else NOBODY)


_standings: WeakValueDictionary[object, Standing] = WeakValueDictionary()


def standing_of(
    declared: str, peers: frozenset[bytes], stalled: frozenset[bytes] = NOBODY
) -> Standing:
    """Return one object for equal ones, for as long as anybody holds it.

    Others would be what members have once said: each may say something new every 10 ms.
    """
    said = Standing(declared, peers, stalled)
    return _standings.setdefault((said.declared, said.peers, said.stalled), said)


class LinkGraph:
    """The links of all members as one node knows them."""

    __slots__ = (
        "_changed",
        "_fallen",
        "_links",
        "_named",
        "_new",
        "_parents",
        "_self_id",
        "_standings",
    )

    def __init__(self, self_id: NodeId) -> None:
        self._self_id = self_id
        self._standings: dict[NodeId, Standing] = {}
        self._named: dict[bytes, NodeId] = {mark_of(self_id): self_id}
        self._links: set[NodeId] = set()
        self._new: set[NodeId] = set()  # of our links
        self._parents: dict[NodeId, NodeId] = {self_id: self_id}  # of those reached
        self._changed: set[NodeId] = set()
        self._fallen = 0  # members since the tree was last grown anew

    @property
    def reached(self) -> AbstractSet[NodeId]:
        """Whom a path of up edges leads to, ourselves included; a live view."""
        return self._parents.keys()

    @property
    def links(self) -> AbstractSet[NodeId]:
        """Our own working links; a live view."""
        return self._links

    @property
    def new_links(self) -> AbstractSet[NodeId]:
        """Those that count on our word alone; a live view."""
        return self._new

    def standing(self, peer: NodeId) -> Standing | None:
        """Return what a member last said of itself, or None if it is not known."""
        return self._standings.get(peer)

    def named(self, mark: bytes) -> NodeId | None:
        """Return the member that holds this short id."""
        return self._named.get(mark)

    def neighbours(self, peer: NodeId) -> list[NodeId]:
        """Return the other ends of a member's up edges, in a fixed order."""
        return sorted(self._neighbours(peer))

    def listed_by_both(self, peer: NodeId) -> int:
        """Return how many edges of a member, or of ours, both ends list."""
        ends = set(self._listed(peer)) - {peer}
        return sum(self._says(peer, end) and self._says(end, peer) for end in ends)

    def take_changes(self) -> set[NodeId]:
        """Return who came into reach or fell out of it since this was last asked."""
        changed, self._changed = self._changed, set()
        return changed

    def hear(self, peer: NodeId, standing: Standing) -> None:
        """Take what a member's own rows say. Of our own, the peers are passed over for `links`."""
        old = self._edges_said(peer, self._standings.get(peer))
        if self._named.setdefault(mark_of(peer), peer) != peer:
            standing = replace(standing, peers=NOBODY)
        self._standings[peer] = standing
        now = self._edges_said(peer, standing)
        if peer == self._self_id or old == now:
            return
        gone = {self._named[mark] for mark in old - now if mark in self._named}
        self._settle(self._cut_off(peer, gone), [peer] if now - old else [])

    def forget(self, peer: NodeId) -> None:
        """Take a member out as if it had never been heard; a link of ours to it stays ours."""
        if peer not in self._standings or peer == self._self_id:
            return
        self.hear(peer, Standing("left", NOBODY))
        del self._standings[peer]
        if self._named.get(mark_of(peer)) == peer:
            del self._named[mark_of(peer)]

    def add_link(self, peer: NodeId) -> None:
        """Take a working link of ours into account: a new one, until `age_link`."""
        if peer not in self._links:
            self._links.add(peer)
            self._new.add(peer)
            self._settle([], [peer])

    def age_link(self, peer: NodeId) -> None:
        """From here on a link of ours counts only if the other end lists it too."""
        if peer in self._new:
            self._new.discard(peer)
            if not self._lists(peer, self._self_id):
                self._settle(self._cut_off(self._self_id, {peer}), [])

    def drop_link(self, peer: NodeId) -> None:
        """Take away a link of ours that broke."""
        if peer in self._links:
            self._links.discard(peer)
            self._new.discard(peer)
            self._settle(self._cut_off(self._self_id, {peer}), [])

    def path(self, target: NodeId, avoid: AbstractSet[NodeId] = frozenset()) -> tuple[NodeId, ...]:
        """Return the members on a shortest way to target, which is the last; or nothing.

        None of them is in `avoid`, target excepted. The same graph gives the same way.
        """
        return self._search({target}, avoid - {target})

    def path_to_neighbour_of(
        self, target: NodeId, avoid: AbstractSet[NodeId] = frozenset()
    ) -> tuple[NodeId, ...]:
        """Return a shortest way to another member with an up edge to target, not through target.

        Target need not be reached. The last member is not we, and none on the way is in `avoid`.
        """
        ends = {end for end in self._neighbours(target) if end not in avoid}
        return self._search(ends - {self._self_id}, avoid | {target})

    def _lists(self, here: NodeId, other: NodeId) -> bool:
        if here == self._self_id:
            return other in self._links
        return mark_of(other) in self._edges_said(here, self._standings.get(here))

    def _listed(self, here: NodeId) -> Iterable[NodeId]:
        if here == self._self_id:
            return self._links
        named = self._named
        said = self._edges_said(here, self._standings.get(here))
        return [named[mark] for mark in said if mark in named]

    def _says(self, here: NodeId, other: NodeId) -> bool:
        """Whether a member's own row lists another; of us, whether there is a link."""
        if here == self._self_id:
            return other in self._links
        standing = self._standings.get(here)
        return standing is not None and mark_of(other) in standing.listed

    def _edges_said(self, here: NodeId, standing: Standing | None) -> frozenset[bytes]:
        """Return whom another member lists, and us if our link to it is new and it is up."""
        if standing is None:
            return NOBODY
        if here not in self._new or standing.declared != "up":
            return standing.listed
        mine = self._named.get(mark_of(here)) == here
        return standing.listed | {mark_of(self._self_id)} if mine else standing.listed

    def _neighbours(self, here: NodeId) -> Iterator[NodeId]:
        for other in self._listed(here):
            if other != here and self._lists(other, here):
                yield other

    def _cut_off(self, here: NodeId, gone: AbstractSet[NodeId]) -> list[NodeId]:
        """Return the roots of the branches that fall when these edges of `here` are gone."""
        roots = [peer for peer in gone if peer != here and self._parents.get(peer) == here]
        parent = self._parents.get(here, here)
        return [*roots, here] if parent != here and parent in gone else roots

    def _settle(self, roots: list[NodeId], loose: Iterable[NodeId]) -> None:
        """Let branches fall, and tie them and the loose to the tree wherever an edge is up."""
        fallen = self._fell(roots)
        if self._fallen > len(self._parents):  # paid for by what fell: the tree is flat again
            self._fell(self._cut_off(self._self_id, self._links))
            self._fallen = 0
            self._grow([self._self_id])
            return
        tied = []
        for here in (*fallen, *loose):
            if here not in self._parents:
                if (parent := self._foothold(here)) is None:
                    continue
                self._tie(here, parent)
            tied.append(here)
        self._grow(tied)

    def _fell(self, roots: list[NodeId]) -> list[NodeId]:
        """Take whole branches from the tree; return their members."""
        fallen = list(roots)
        for here in fallen:  # grows as we walk
            fallen += [peer for peer in self._listed(here) if self._parents.get(peer) == here]
        for peer in fallen:
            del self._parents[peer]
            self._changed ^= {peer}
        self._fallen += len(fallen)
        return fallen

    def _foothold(self, here: NodeId) -> NodeId | None:
        for peer in self._listed(here):
            if peer in self._parents and self._lists(peer, here):
                return peer
        return None

    def _grow(self, tied: list[NodeId]) -> None:
        """Tie whoever can be reached through these."""
        for here in tied:  # grows as we walk: breadth first
            for peer in self._listed(here):
                if peer not in self._parents and self._lists(peer, here):
                    self._tie(peer, here)
                    tied.append(peer)

    def _tie(self, peer: NodeId, parent: NodeId) -> None:
        self._parents[peer] = parent
        self._changed ^= {peer}  # twice changed is not changed

    def _search(self, ends: AbstractSet[NodeId], avoid: AbstractSet[NodeId]) -> tuple[NodeId, ...]:
        """Search breadth first from both sides, always a whole step of the narrower one.

        So the first step on which they meet closes a shortest way (Pohl 1971).
        """
        near, far = _Wave({self._self_id}), _Wave(ends - {self._self_id})
        for _ in range(HOPS_MAX):
            narrower, wider = (near, far) if len(near.front) <= len(far.front) else (far, near)
            self._widen(narrower, avoid)
            met = min((peer for peer in narrower.front if peer in wider.towards), default=None)
            if met is not None:
                return (*near.trail(met)[-2::-1], *far.trail(met)[1:])
            if not narrower.front:
                break
        return ()

    def _widen(self, wave: _Wave, avoid: AbstractSet[NodeId]) -> None:
        front, wave.front = wave.front, []
        for here in front:
            for peer in self.neighbours(here):
                if peer not in wave.towards and peer not in avoid:
                    wave.towards[peer] = here
                    wave.front.append(peer)


class _Wave:
    """One side of a search: who was found, from whom, and the outermost of them."""

    __slots__ = ("front", "towards")

    def __init__(self, origins: AbstractSet[NodeId]) -> None:
        self.front = sorted(origins)
        self.towards: dict[NodeId, NodeId | None] = dict.fromkeys(self.front)

    def trail(self, peer: NodeId) -> list[NodeId]:
        """Return the way from a member back to where the wave began, both included."""
        trail, here = [peer], self.towards[peer]
        while here is not None:
            trail.append(here)
            here = self.towards[here]
        return trail
