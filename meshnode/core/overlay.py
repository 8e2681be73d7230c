"""Who links to whom: ring neighbours, and when to dial them.

Invariant: with up to FULL_MESH_MAX members everybody wants everybody; beyond that a node wants its
successor and predecessor on each of RINGS rings, about eight links at any size. A member that has
not left is dialled again for ever, at a pace that backs off to REDIAL_S.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.effects import Dial, Effect, HangUp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from meshnode.core.ids import NodeId

RINGS = 4
FULL_MESH_MAX = 9
LINKS_MIN = 3  # fewer: every known member is wanted
LINKS_MAX = 16  # more callers are introduced to others and let go
RETRY_S = 0.5
REDIAL_S = 20.0
SECOND_DIALLER_S = 0.25  # of two that discover each other, one gives the other time to dial
SAID_MAX = 8  # addresses that a member says of itself
DIALS_MAX = 32  # at once; the rest waits for its turn
HEARD_MAX = 4  # addresses that others say of it; the oldest is dropped
STRANGERS_MAX = 256  # nodes heard of that never proved to be members; the oldest is dropped


def ring_neighbours(self_id: NodeId, members: Iterable[NodeId]) -> frozenset[NodeId]:
    """Return whom a node shall link to, given the members it sees (itself or not among them)."""
    others = set(members) - {self_id}
    if len(others) < FULL_MESH_MAX:
        return frozenset(others)
    wanted: set[NodeId] = set()
    for ring in range(RINGS):
        places = sorted((ring_place(ring, peer), peer) for peer in others)
        index = bisect_left(places, (ring_place(ring, self_id), self_id))
        wanted.add(places[index % len(places)][1])
        wanted.add(places[index - 1][1])
    return frozenset(wanted)


def ring_place(ring: int, node_id: NodeId) -> bytes:
    """Return a node's place on a ring."""
    return sha256(bytes([ring]) + node_id.encode()).digest()[:8]


@dataclass(slots=True)
class _Attempt:
    next_at_s: float
    delay_s: float
    dialling: bool = False


class Overlay:
    """One node's links and its plans for more."""

    def __init__(self, self_id: NodeId, rng: Random) -> None:
        self._self_id = self_id
        self._rng = rng
        self._said: dict[NodeId, tuple[str, ...]] = {}  # by the member itself, signed
        self._heard: dict[NodeId, tuple[str, ...]] = {}  # from anybody: mDNS, seeds, neighbours
        self._attempts: dict[NodeId, _Attempt] = {}
        self._retired: set[NodeId] = set()
        self.links: set[NodeId] = set()

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
        if not fresh and peer in self._attempts:
            return
        if not said:
            self._heard[peer] = (fresh + self._heard.get(peer, ()))[:HEARD_MAX]
            self._forget_strangers()
        wait_s = 0.0 if self._self_id < peer else SECOND_DIALLER_S
        attempt = self._attempts.get(peer)
        if attempt is None:
            self._attempts[peer] = _Attempt(now_s + wait_s, RETRY_S)
        elif not attempt.dialling:
            attempt.next_at_s = min(attempt.next_at_s, now_s + wait_s)
            attempt.delay_s = RETRY_S

    def addresses_of(self, peer: NodeId) -> tuple[str, ...]:
        """Return where a member may listen."""
        return tuple(dict.fromkeys(self._said.get(peer, ()) + self._heard.get(peer, ())))

    def retire(self, peer: NodeId) -> None:
        """Stop dialling a member that left for good."""
        self._retired.add(peer)

    def linked(self, peer: NodeId) -> None:
        """Note a working link."""
        self.links.add(peer)
        self._retired.discard(peer)
        attempt = self._attempts.setdefault(peer, _Attempt(0.0, RETRY_S))
        attempt.dialling = False
        attempt.delay_s = RETRY_S

    def unlinked(self, peer: NodeId, now_s: float) -> None:
        """Note a lost link, or a dial that failed: the next attempt waits longer than the last."""
        self.links.discard(peer)
        attempt = self._attempts.get(peer)
        if attempt is None:
            return  # a stranger that was forgotten meanwhile
        attempt.dialling = False
        attempt.next_at_s = now_s + attempt.delay_s * self._rng.uniform(0.7, 1.3)
        attempt.delay_s = min(attempt.delay_s * 2, self._redial_s())

    def dials(self, now_s: float, alive: frozenset[NodeId]) -> list[Effect]:
        """Return whom to dial now: wanted members, and every so often one of the unreachable."""
        wanted = self._wanted(alive)
        effects: list[Effect] = []
        room = DIALS_MAX - sum(attempt.dialling for attempt in self._attempts.values())
        for peer, attempt in self._attempts.items():
            if len(effects) >= room:
                break
            idle = peer not in self.links and not attempt.dialling and peer not in self._retired
            due = idle and now_s >= attempt.next_at_s
            if due and (peer in wanted or peer not in alive):
                attempt.dialling = True
                effects.append(Dial(peer, self.addresses_of(peer)))
        return effects

    def surplus(self, alive: frozenset[NodeId]) -> list[Effect]:
        """Return the end of one link beyond LINKS_MAX that no ring asks for: both ends agree.

        At boot many are dialled before it is known that others reach them.
        """
        unwanted = sorted((self.links & alive) - self._wanted(alive))
        if len(self.links) <= LINKS_MAX or not unwanted:
            return []
        return [HangUp(self._rng.choice(unwanted), "links enough")]

    def excess(self, peer: NodeId, alive: frozenset[NodeId]) -> list[Effect]:
        """Return what to do about a caller when there are links enough."""
        if len(self.links) <= LINKS_MAX or peer in self._wanted(alive):
            return []
        return [HangUp(peer, "links enough: try the members introduced")]

    def _forget_strangers(self) -> None:
        """Drop the oldest hint about somebody who never proved to be a member, if there are many.

        Anybody on the network may shout names.
        """
        strangers = [p for p in self._heard if p not in self._said and p not in self.links]
        if len(strangers) > STRANGERS_MAX:
            self._heard.pop(strangers[0], None)
            self._attempts.pop(strangers[0], None)

    def _wanted(self, alive: frozenset[NodeId]) -> frozenset[NodeId]:
        if len(self.links) < LINKS_MIN:
            return frozenset(self._attempts)
        return ring_neighbours(self._self_id, alive)

    def _redial_s(self) -> float:
        return REDIAL_S * max(1.0, len(self.links) / 8)
