"""Spreading news: along one tree an origin, announced on all other links, asked for when missing.

Plumtree (Leitao, Pereira, Rodrigues: Epidemic Broadcast Trees, 2007), with a tree for each origin.
A link is *eager* for an origin until a duplicate of its news came over it; then it is *lazy* and
only carries announcements (`Have`), batched. Who hears an announcement and not the news within
GRAFT_S asks the announcer for it, which makes that link eager again.

Invariant: whoever has news of an origin has sent or announced it to every neighbour that has not
said to have it; so in a connected mesh everybody who hears anything learns what exists, and asks
for it.
News that must not wait for a repair (control entries, `links` rows) are flooded: `spread`.

One tree for all origins, or 16 for groups of them, needs 0.57 s for 99 of 100 deliveries among
1,000 nodes; the tree that an origin's own first news leaves behind needs 0.31 s (docs/decisions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.effects import Effect, Send
from meshnode.core.feeds.messages import Have, Prune, Pull, Vector

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from random import Random

    from meshnode.core.feeds.heads import Head
    from meshnode.core.feeds.messages import Message
    from meshnode.core.ids import NodeId

HAVE_DELAY_S = 0.1  # on the average: announcements that come together travel together,
SOON = 3  # neighbours to whom they do: all others hear of it with the next pulse
HAVE_SPREAD = 0.5  # so much sooner or later: of two neighbours the first spares the other its own
SOURCES = 2  # neighbours that send a node everything, until it has it from elsewhere first
PARENTS = 2  # asked for news whose bringer was lost: the slower one is let go with the first news
GRAFT_S = 0.3  # how long announced news may take before it is asked for
ANNOUNCERS_MAX = 4  # remembered for missing news; when all have failed, reconciliation repairs
MISSING_MAX = 10_000  # origins with missing news; more: left to reconciliation,
MISSING_OF_ONE_MAX = (
    2_500  # as is what one neighbour alone announces beyond this: it may be made up
)


def spread(message: Message, links: Iterable[NodeId], source: NodeId | None) -> list[Effect]:
    """Return the sends that flood a message; `source` is None for our own."""
    return [Send(peer, message) for peer in sorted(links) if peer != source]


class _Missing(msgspec.Struct):
    head: Head
    announcers: list[NodeId]
    due_s: float
    first: NodeId  # who announced it first, and answers for its place
    asked: Head | None = None  # what was announced when somebody was asked last


class _Neighbour(msgspec.Struct):
    bit: int  # of this link in the masks of lazy links
    haves: dict[NodeId, Head] = msgspec.field(default_factory=dict)
    offers: dict[NodeId, Head] = msgspec.field(default_factory=dict)


class Broadcast:
    """One node's branches of all trees."""

    def __init__(self, self_id: NodeId, head_of: Callable[[NodeId], Head]) -> None:
        """`head_of` says what is held of an origin."""
        self._self_id = self_id
        self._head_of = head_of
        self._neighbours: dict[NodeId, _Neighbour] = {}
        self._lazy: dict[NodeId, int] = {}  # by origin; a link without its bit is eager
        self._parents: dict[NodeId, NodeId] = {}  # by origin: who brought its last news
        self._sources: set[NodeId] = set()  # neighbours asked for all news unasked
        self._missing: dict[NodeId, _Missing] = {}
        self._missing_of: dict[NodeId, int] = {}  # by who announced them first
        self._due_s: float | None = None  # the first of what is missing
        self.queued = False  # whether announcements wait to be sent

    def linked(self, peer: NodeId) -> list[Effect]:
        """Take a new link into use, as a lazy one where there are trees: both ends have others.

        A node without others says so by grafting everything (`Pull` without origins).
        """
        self._forget(peer)
        taken = {neighbour.bit for neighbour in self._neighbours.values()}
        bit = next(1 << n for n in range(len(taken) + 1) if 1 << n not in taken)
        self._neighbours[peer] = _Neighbour(bit)
        for origin in self._lazy:
            if origin != self._self_id:  # our own news have no other way to begin with
                self._lazy[origin] |= bit
        return self._ask_for_all(peer) if len(self._sources) < SOURCES else []

    def unlinked(self, peer: NodeId) -> list[Effect]:
        """Forget a link, and ask others for the news that came over it."""
        self._forget(peer)
        orphans = [origin for origin, parent in self._parents.items() if parent == peer]
        asks: dict[NodeId, dict[NodeId, Head]] = {}
        for origin in orphans:
            del self._parents[origin]
            for found in self._not_below(origin):
                asks.setdefault(found, {})[origin] = self._head_of(origin)
                self._make_eager(found, origin)
        effects: list[Effect] = [Send(to, Pull(after, graft=True)) for to, after in asks.items()]
        others = [other for other in self._neighbours if other not in self._sources]
        if len(self._sources) < SOURCES and others:
            effects += self._ask_for_all(others[-1])
        return effects

    def _ask_for_all(self, peer: NodeId) -> list[Effect]:
        self._sources.add(peer)
        return [Send(peer, Pull({}, graft=True))]

    def _not_below(self, origin: NodeId) -> list[NodeId]:
        """Return neighbours that most likely have news of an origin from elsewhere than here.

        More than one, since any may hang below us on a branch that we do not see.
        """
        lazy = self._lazy.get(origin, 0)
        others = [peer for peer, one in self._neighbours.items() if lazy & one.bit]
        return (others or list(self._neighbours)[-1:])[:PARENTS]

    def _forget(self, peer: NodeId) -> None:
        self._sources.discard(peer)
        gone = self._neighbours.pop(peer, None)
        if gone is None:
            return
        for origin, mask in self._lazy.items():
            if mask & gone.bit:
                self._lazy[origin] = mask & ~gone.bit
        for missing in self._missing.values():
            if peer in missing.announcers:
                missing.announcers.remove(peer)

    def forward(
        self,
        message: Message,
        origin: NodeId,
        head: Head,
        source: NodeId | None,
        *,
        waited: bool = False,
    ) -> list[Effect]:
        """Pass news on: at once over eager links, as announcements over lazy ones.

        `waited`: they were here before what source has brought, and who brought them is not known.
        """
        effects = [] if source is None or waited else self._brought(origin, head, source)
        lazy = self._lazy.setdefault(origin, 0)
        for peer, neighbour in self._neighbours.items():
            if peer == source and not waited:
                continue
            if lazy & neighbour.bit or peer == source:  # it has what is before them, no more
                neighbour.haves[origin] = head
                self.queued = True
            else:
                effects.append(Send(peer, message))
        return effects

    def _brought(self, origin: NodeId, head: Head, source: NodeId) -> list[Effect]:
        """Note who brings news of an origin. If it was told to stop meanwhile, it shall go on."""
        self._parents[origin] = source
        return self._go_on(source, origin, head)

    def _go_on(self, peer: NodeId, origin: NodeId, head: Head) -> list[Effect]:
        if not self._make_eager(peer, origin):
            return []
        return [Send(peer, Pull({origin: head}, graft=True))]

    def _make_eager(self, peer: NodeId, origin: NodeId) -> bool:
        """Let news of an origin go to a neighbour at once; tells whether they did not."""
        neighbour, lazy = self._neighbours.get(peer), self._lazy.get(origin, 0)
        if neighbour is None or not lazy & neighbour.bit:
            return False
        self._lazy[origin] = lazy & ~neighbour.bit
        return True

    def offer(self, origin: NodeId, head: Head, source: NodeId | None) -> None:
        """Tell neighbours soon of a feed that was replaced as a whole: they ask for what it is."""
        for peer, neighbour in self._neighbours.items():
            if peer != source:
                neighbour.offers[origin] = head
                self.queued = True

    def told(self, peer: NodeId, theirs: Mapping[NodeId, Head]) -> None:
        """Announce nothing to a neighbour that it has: it has just said so itself."""
        neighbour = self._neighbours.get(peer)
        for waiting in (neighbour.haves, neighbour.offers) if neighbour else ():
            for origin in waiting.keys() & theirs.keys():
                if waiting[origin] <= theirs[origin]:
                    del waiting[origin]

    def soon(self, rng: Random) -> list[Effect]:
        """Return what waits for a few neighbours; the others are told with their next pulse.

        Each hears of it soon from somebody: all those who have it choose.
        """
        self.queued = False
        waiting = [peer for peer, one in self._neighbours.items() if one.haves or one.offers]
        few = len(waiting) <= SOON
        return self._announcements(waiting if few else rng.sample(waiting, SOON))

    def take_queued(self) -> list[Effect]:
        """Return the announcements that wait."""
        self.queued = False
        return self._announcements(self._neighbours)

    def _announcements(self, peers: Iterable[NodeId]) -> list[Effect]:
        effects: list[Effect] = []
        for peer in peers:
            neighbour = self._neighbours[peer]
            if neighbour.haves:
                effects.append(Send(peer, Have(neighbour.haves)))
                neighbour.haves = {}
            if neighbour.offers:
                effects.append(Send(peer, Vector(neighbour.offers)))
                neighbour.offers = {}
        return effects

    def duplicate(self, peer: NodeId, origin: NodeId) -> list[Effect]:
        """Leave the tree of an origin on a link that brought what was here already.

        Not on the one that brings its news: a repair was faster once, and sends nothing next time.
        Nor on any while none is known to bring its news: the next ones will show who does.
        """
        self._lazy.setdefault(origin, 0)
        parent = self._parents.get(origin)
        if parent is None and origin != self._self_id:
            return self._go_on(peer, origin, self._head_of(origin))
        if parent == peer:
            return []
        self._make_lazy(peer, (origin,))
        return [Send(peer, Prune(frozenset({origin})))]

    def pruned(self, peer: NodeId, origins: Collection[NodeId]) -> list[Effect]:
        """Make a link lazy for these origins. Origins of which nothing is known are passed over.

        A link is lazy both ways, so if it is this neighbour that brings their news, it is asked to
        go on: it had from elsewhere what we sent it, and hangs not below us.
        """
        self._make_lazy(peer, origins)
        brought = [origin for origin in origins if self._parents.get(origin) == peer]
        if not brought or peer not in self._neighbours:
            return []
        for origin in brought:
            self._make_eager(peer, origin)
        after = {origin: self._head_of(origin) for origin in brought}
        return [Send(peer, Pull(after, graft=True))]

    def _make_lazy(self, peer: NodeId, origins: Iterable[NodeId]) -> None:
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            for origin in origins:
                if origin in self._lazy:
                    self._lazy[origin] |= neighbour.bit

    def grafted(self, peer: NodeId, origins: Collection[NodeId]) -> None:
        """Make a link eager again for these origins, or for all if none is named."""
        neighbour = self._neighbours.get(peer)
        if neighbour is not None:
            for origin in origins or self._lazy:
                if origin in self._lazy:
                    self._lazy[origin] &= ~neighbour.bit

    def announced(self, peer: NodeId, missing: Mapping[NodeId, Head], now_s: float) -> None:
        """Remember what a neighbour has and this node lacks: the news may be on their way."""
        for origin, head in missing.items():
            known = self._missing.get(origin)
            if known is None:
                of_peer = self._missing_of.get(peer, 0)
                if len(self._missing) < MISSING_MAX and of_peer < MISSING_OF_ONE_MAX:
                    wait_s = GRAFT_S if origin in self._parents else 0.0  # nobody may be sending it
                    self._missing[origin] = _Missing(head, [peer], now_s + wait_s, peer)
                    self._missing_of[peer] = of_peer + 1
                    self._due_by(now_s + wait_s)
                continue
            if known.asked is not None and head > max(known.asked, known.head):
                known.due_s = min(known.due_s, now_s + GRAFT_S)  # no answer to that ask brings it
                self._due_by(known.due_s)
            known.head = max(known.head, head)
            if peer not in known.announcers and len(known.announcers) < ANNOUNCERS_MAX:
                known.announcers.append(peer)

    def next_graft_s(self) -> float | None:
        """Return when missing news will be asked for, if any is missing.

        That is asked at every frame that announces anything: they are not walked for it.
        """
        return self._due_s

    def _due_by(self, at_s: float) -> None:
        self._due_s = at_s if self._due_s is None else min(self._due_s, at_s)

    def grafts(self, now_s: float) -> dict[NodeId, list[NodeId]]:
        """Return whom to ask for which origins now."""
        asks: dict[NodeId, list[NodeId]] = {}
        for origin, missing in list(self._missing.items()):
            if self._head_of(origin) >= missing.head:
                self._found(origin)
            elif now_s >= missing.due_s:
                if missing.announcers:
                    announcer = missing.announcers.pop(0)
                    asks.setdefault(announcer, []).append(origin)
                    self._make_eager(announcer, origin)
                    missing.due_s = now_s + 2 * GRAFT_S
                    missing.asked = missing.head
                else:
                    self._found(origin)
        self._due_s = min((missing.due_s for missing in self._missing.values()), default=None)
        return asks

    def _found(self, origin: NodeId) -> None:
        """Look for news of an origin no longer."""
        first = self._missing.pop(origin).first
        self._missing_of[first] -= 1
        if not self._missing_of[first]:
            del self._missing_of[first]
