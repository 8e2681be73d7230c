"""Who links to whom: ring neighbours, and when to dial them.

Every member has a place on each of RINGS rings, and wants links with whom it sees next to it there:
about eight links at any size, and with up to FULL_MESH_MAX members everybody (k random Hamiltonian
cycles; Law and Siu: Distributed Construction of Random Expander Networks, 2003).

After a restart of everybody, the rings over all members once known lead each node to the links it
had. Dialling whoever is known instead gave 50 nodes 22 links each, and 41,000 frames a node.

Invariants: a link is let go only with the consent of both ends, and by neither that would be left
with fewer than LINKS_KEPT that others know of; a node with fewer than LINKS_MIN links, or without a
ring neighbour that it sees alive, tries again within RETRY_MAX_S and a dial's patience; of the
members that are not seen alive and have not left, all nodes together dial about one every
REDIAL_S / 8, for ever.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.effects import Dial, Effect, HangUp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from random import Random

    from meshnode.core.ids import NodeId

RINGS = 4
FULL_MESH_MAX = 9
LINKS_MIN = 3  # fewer: any known member will do
LINKS_KEPT = 4  # so few that are not new: none is let go
OLDEST_KEPT = 2  # nor are so many of the oldest, whoever asks,
NEW_S = 4.0  # a link is new: by then the rows of both ends, that list it, have come everywhere
OLD_S = 120.0  # once they are this old: the node that all others join through shall shed them
LINKS_MAX = 16  # more: callers are introduced to others, and links let go that no ring asks for
LINKS_REFUSED = 64  # so many: callers are introduced to others and refused
RETRY_S = 0.5
RETRY_MAX_S = 2.0
REDIAL_S = 20.0
SECOND_DIALLER_S = 0.25  # of two that discover each other, one gives the other time to dial
SAID_MAX = 8  # addresses that a member says of itself
DIALS_MAX = 32  # at once; the rest waits for its turn
LONELY_DIALS_MAX = 8  # at once, of a node with few links,
STRANGERS_DIALS_MAX = 4  # of them names only heard of, while there are members to find again
PART_S = 1.0  # between two requests to part, beyond LINKS_MAX links
EXTRA_S = 1.0  # between two dials of members that are not needed: hints, and who was just lost
TRIM_S = 10.0  # between two such rounds up to LINKS_MAX links; longer with more than 8 alive
HEARD_MAX = 4  # addresses that others say of it; the oldest is dropped
STRANGERS_MAX = 256  # nodes heard of that never proved to be members; the oldest is dropped
RING_SIZE = 1 << 64
ENOUGH = "links enough"  # the reason of a link that both ends can spare


@lru_cache(maxsize=1 << 14)
def ring_places(node_id: NodeId) -> tuple[int, ...]:
    """Return a node's place on each ring, 0 to RING_SIZE - 1."""
    raw = node_id.encode()
    return tuple(
        int.from_bytes(sha256(bytes([ring]) + raw).digest()[:8], "big") for ring in range(RINGS)
    )


def ring_neighbours(self_id: NodeId, members: Iterable[NodeId]) -> frozenset[NodeId]:
    """Return whom a node shall link to, given the members it sees (itself or not among them)."""
    others = set(members) - {self_id}
    if len(others) < FULL_MESH_MAX:
        return frozenset(others)
    return _nearest(self_id, others)


def _nearest(self_id: NodeId, others: AbstractSet[NodeId]) -> frozenset[NodeId]:
    nearest: set[NodeId] = set()
    for ring, place in enumerate(ring_places(self_id)):
        after = {(ring_places(peer)[ring] - place) % RING_SIZE: peer for peer in others}
        nearest |= {after[min(after)], after[max(after)]}
    return frozenset(nearest)


class _Attempt(msgspec.Struct):
    next_at_s: float
    soon_at_s: float  # the same for members that are needed: RETRY_MAX_S at most
    delay_s: float  # until the attempt after the next


class Overlay:
    """One node's links and its plans for more. `alive` is a view of the members seen alive."""

    def __init__(self, self_id: NodeId, rng: Random, alive: AbstractSet[NodeId]) -> None:
        self._self_id = self_id
        self._rng = rng
        self._alive = alive
        self._said: dict[NodeId, tuple[str, ...]] = {}  # by the member itself, signed
        self._heard: dict[NodeId, tuple[str, ...]] = {}  # from anybody: mDNS, seeds, neighbours
        self._attempts: dict[NodeId, _Attempt] = {}  # hints not tried yet, and what has failed
        self._dialling: set[NodeId] = set()
        self._retired: set[NodeId] = set()
        self._full: set[NodeId] = set()  # linked peers that would like to let go
        self._wanted: frozenset[NodeId] = frozenset()
        self._stale = True  # whether `_wanted` needs working out anew
        self._redial_at_s = 0.0
        self._extra_at_s = 0.0
        self._trim_at_s = 0.0
        self._links: dict[NodeId, float] = {}  # since when; the oldest first

    @property
    def links(self) -> AbstractSet[NodeId]:
        """The neighbours with a working link, the oldest first; a live view."""
        return self._links.keys()

    @property
    def retired(self) -> AbstractSet[NodeId]:
        """Who left for good, was forgotten or revoked, and is dialled no more; a live view."""
        return self._retired

    def linked_at_s(self, peer: NodeId) -> float:
        """Return since when there is a working link to a neighbour."""
        return self._links[peer]

    def learn(
        self, peer: NodeId, addresses: Iterable[str], now_s: float, *, said: bool = False
    ) -> None:
        """Take a hint where a member listens, or its own word; a new address is tried at once.

        Hints never push out what a member has said itself.
        """
        if peer == self._self_id:
            return
        known = self.addresses_of(peer)
        fresh = tuple(address for address in addresses if address not in known)
        if said:
            self._said[peer] = tuple(addresses)[:SAID_MAX]
            self._retired.discard(peer)  # it is back
            if not self.addresses_of(peer):
                self._attempts.pop(peer, None)
        elif fresh:
            self._heard[peer] = (fresh + self._heard.get(peer, ()))[:HEARD_MAX]
            self._forget_strangers()
        new = said and not known  # dialled when a ring asks for it
        if fresh and not new and peer not in self.links and peer not in self._retired:
            wait_s = 0.0 if self._self_id < peer else SECOND_DIALLER_S
            self._attempts[peer] = _Attempt(now_s + wait_s, now_s + wait_s, RETRY_S)

    def remember(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Take from our own disk where a member listened; it is tried when it is its turn."""
        if peer != self._self_id:
            self._said[peer] = addresses[:SAID_MAX]

    def addresses_of(self, peer: NodeId) -> tuple[str, ...]:
        """Return where a member may listen."""
        said, heard = self._said.get(peer, ()), self._heard.get(peer)
        return said if heard is None else tuple(dict.fromkeys(said + heard))

    def retire(self, peer: NodeId) -> None:
        """Stop dialling a member that left for good, was forgotten or revoked; hints do nothing."""
        self._retired.add(peer)
        self._attempts.pop(peer, None)

    def seen(self, changed: AbstractSet[NodeId]) -> None:
        """Note whose being alive has changed: the rings may ask for others now."""
        if len(self._alive) <= FULL_MESH_MAX + len(changed):
            self._stale = self._stale or bool(changed)
        for peer in changed:
            if self._stale:
                return
            if peer not in self._alive:
                self._stale = peer in self._wanted
            elif peer != self._self_id:
                # Whoever is nearest on a ring is wanted already, so only these need comparing.
                self._wanted = _nearest(self._self_id, self._wanted | {peer})

    def linked(self, peer: NodeId, now_s: float) -> None:
        """Note a working link."""
        self._links[peer] = now_s
        self._retired.discard(peer)
        self._dialling.discard(peer)
        self._attempts.pop(peer, None)
        self._full.discard(peer)

    def unlinked(self, peer: NodeId, now_s: float) -> None:
        """Note a lost link, or a dial that failed: the next attempt waits longer than the last.

        There is none for whom nobody will dial: it would take the turn of one that may be there.
        """
        self._links.pop(peer, None)
        self._full.discard(peer)
        self._dialling.discard(peer)
        if peer in self._retired or not self.addresses_of(peer):
            self._attempts.pop(peer, None)
            return
        attempt = self._attempts.setdefault(peer, _Attempt(now_s, now_s, RETRY_S))
        chance = self._rng.uniform(0.7, 1.3)
        attempt.next_at_s = now_s + attempt.delay_s * chance
        attempt.soon_at_s = now_s + min(attempt.delay_s, RETRY_MAX_S) * chance
        attempt.delay_s = min(attempt.delay_s * 2, REDIAL_S)
        if peer not in self._said:  # shouted names take turns: dead ones must not hide a live one
            self._attempts[peer] = self._attempts.pop(peer)

    def asked_to_part(self, peer: NodeId) -> None:
        """Note that a neighbour has links enough: this one goes once both ends can spare it."""
        if peer in self.links:
            self._full.add(peer)

    def wanted(self) -> frozenset[NodeId]:
        """Return whom the rings ask for."""
        if self._stale:
            self._stale = False
            self._wanted = ring_neighbours(self._self_id, self._alive)
        return self._wanted

    def dials(self, now_s: float) -> list[Effect]:
        """Return whom to dial now."""
        effects: list[Effect] = []
        for peer in self._due(now_s):
            if len(self._dialling) >= DIALS_MAX:
                break
            if peer in self.links or peer in self._dialling or peer in self._retired:
                continue
            if addresses := self.addresses_of(peer):
                self._dialling.add(peer)
                effects.append(Dial(peer, addresses))
        return effects

    def _due(self, now_s: float) -> Iterator[NodeId]:
        wanted, lonely = self.wanted(), len(self.links) < LINKS_MIN
        yield from (peer for peer in sorted(wanted - self.links) if self._may_try(peer, now_s))
        for peer, attempt in list(self._attempts.items()):
            if peer in self._alive and not lonely and peer not in wanted:
                del self._attempts[peer]  # reachable through others: nothing to try for
            elif (
                now_s >= attempt.next_at_s
                and peer not in self._dialling
                and self._may_try_more(peer, now_s, lonely=lonely)
            ):
                yield peer
        if lonely:
            yield from self._former(now_s)
        if now_s >= self._redial_at_s:
            yield from self._lost(now_s)

    def _may_try_more(self, peer: NodeId, now_s: float, *, lonely: bool) -> bool:
        if lonely:
            return len(self._dialling) < LONELY_DIALS_MAX and self._leaves_room(peer)
        if now_s < self._extra_at_s:
            return False
        self._extra_at_s = now_s + EXTRA_S * self._rng.uniform(0.7, 1.3)
        return True

    def _leaves_room(self, peer: NodeId) -> bool:
        """Whether dialling a peer leaves room for members, if it is only a name and they wait."""
        if peer in self._said or all(p in self._links or p in self._retired for p in self._said):
            return True
        return sum(p not in self._said for p in self._dialling) < STRANGERS_DIALS_MAX

    def _former(self, now_s: float) -> list[NodeId]:
        """Return the ring neighbours among all members that may be tried, alive or not.

        Names that were only heard of come after them: anybody may shout them.
        """
        room = LONELY_DIALS_MAX - len(self._dialling)
        free = {p for p in self._known() if p not in self.links and self._may_try(p, now_s)}
        known = {p for p in free if p in self._said} or free
        return sorted(_nearest(self._self_id, known))[:room] if room > 0 and known else []

    def _lost(self, now_s: float) -> list[NodeId]:
        """Return one of the members that are not seen alive."""
        pace_s = REDIAL_S * max(1.0, len(self._alive) / 8)
        self._redial_at_s = now_s + pace_s * self._rng.uniform(0.7, 1.3)
        lost = [p for p in self._known() if p not in self._alive and self._may_try(p, now_s)]
        return [self._rng.choice(lost)] if lost else []

    def _known(self) -> list[NodeId]:
        heard = (peer for peer in self._heard if peer not in self._said)
        return [peer for peer in (*self._said, *heard) if peer not in self._retired]

    def _may_try(self, peer: NodeId, now_s: float) -> bool:
        attempt = self._attempts.get(peer)
        return attempt is None or now_s >= attempt.soon_at_s

    def surplus(self, now_s: float) -> list[NodeId]:
        """Return the neighbours to be told that there are links enough: no ring asks for them.

        One in a crowd; else all at once, so that one row says that they went, and not before
        everybody is linked whom the rings ask for, and others know: they may see us by no other.
        """
        wanted = self.wanted()
        unwanted = sorted(self.links - wanted)
        crowded = len(self.links) > LINKS_MAX
        if not unwanted or now_s < self._trim_at_s:
            return []
        if not crowded and not all(self._is_settled(peer, now_s) for peer in wanted):
            return []
        pace_s = PART_S if crowded else TRIM_S * max(1.0, len(self._alive) / 8)
        self._trim_at_s = now_s + pace_s * self._rng.uniform(0.7, 1.3)
        spare = max(0, len(self.links) - LINKS_KEPT)
        return self._rng.sample(unwanted, min(1 if crowded else spare, len(unwanted)))

    def _is_settled(self, peer: NodeId, now_s: float) -> bool:
        since_s = self._links.get(peer)
        return since_s is not None and now_s - since_s >= NEW_S

    def partings(self, now_s: float) -> list[Effect]:
        """Return the ends of links that both ends can spare.

        The two oldest stay whoever asks: a node cannot be talked into keeping newcomers only.
        """
        effects: list[Effect] = []
        first = islice(self._links.items(), OLDEST_KEPT)
        oldest = [peer for peer, since_s in first if now_s - since_s >= OLD_S]
        kept = {peer for peer in self._links if self._is_settled(peer, now_s)}
        for peer in sorted(self._full - self.wanted() - set(oldest)):
            if len(kept - {peer}) >= LINKS_KEPT:
                kept.discard(peer)
                effects.append(HangUp(peer, ENOUGH, parting=True))
        return effects

    def refuses(self, peer: NodeId) -> bool:
        """Whether a caller has to try elsewhere."""
        return len(self.links) > LINKS_REFUSED and peer not in self.wanted()

    def _forget_strangers(self) -> None:
        """Drop the oldest hint about somebody who never proved to be a member, if there are many.

        Anybody on the network may shout names.
        """
        strangers = [p for p in self._heard if p not in self._said and p not in self.links]
        if len(strangers) > STRANGERS_MAX:
            self._heard.pop(strangers[0], None)
            self._attempts.pop(strangers[0], None)
