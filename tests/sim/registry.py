"""What a registry that forgets nothing would show: the model of the specialization registry.

Invariant: each flush of an owner is remembered with the adds that its state holds and with all that
its writer has ever taken out, of its own and of others, as far back as its history goes. At rest
every node shows the adds of all feeds but what any of them has taken out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from removed import adds_of, removals_of

from meshnode.core.errors import ExhaustedError
from meshnode.core.sessions.registry import Birth, Place, Specialist
from meshnode.core.tables.removals import Removal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.machine import Machine
    from sim.world import World

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId

Add = tuple["NodeId", Place, Birth]
WRITE_EVERY_S = 0.7
PLACES = [Place(agent, "docs") for agent in "abc"]  # few, so that nodes get in each other's way
NOTHING: frozenset[Add] = frozenset()


@dataclass(frozen=True)
class Naive:
    """What a feed would hold if nothing were ever forgotten."""

    adds: frozenset[Add] = NOTHING
    gone: frozenset[Add] = NOTHING


class Registry:
    """Every registration and every removal, by the flush that made it known."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._at: dict[bytes, Naive] = {}
        self._gone_at: dict[tuple[NodeId, Head], frozenset[Add]] = {}
        self._now: dict[NodeId, Naive] = {}
        self._epochs: dict[NodeId, int] = {}

    def begin(self, world: World, seed: int, until_s: float) -> None:
        """Let random nodes register and take out until then."""
        rng = Random(f"{seed} registry")

        def write() -> None:
            if world.now_s < until_s:
                writers = [machine for machine in world.honest if not machine.frozen]
                if writers:
                    self.write(rng.choice(writers), rng)
                world.after(rng.expovariate(1 / WRITE_EVERY_S), None, write)

        world.after(0.0, None, write)

    def write(self, machine: Machine, rng: Random) -> None:
        """Register an agent or take one out, through any node."""
        place, roster = rng.choice(PLACES), machine.running.roster
        adds = rng.random() < 0.5
        try:
            if adds:
                writes = roster.add(Specialist(place.agent_id, place.specialization))
            else:
                writes = roster.remove(place)
                self.counts["removals"] += bool(writes)
        except ExhaustedError:
            machine.world.counts["registrations refused" if adds else "removals refused"] += 1
            return
        for write in writes:
            machine.write(*write)

    def started(self, machine: Machine) -> None:
        header = machine.running.own.header
        self._now[machine.id] = self._naive_of(header)
        self._epochs[machine.id] = machine.running.own.epoch

    def flushed(self, machine: Machine, change: Change) -> None:
        """Note what a flush makes known."""
        mesh, me = machine.running, machine.id
        before = self._now.get(me, Naive())
        adds = frozenset(adds_of(mesh.tables, me))
        named = frozenset(
            (dot.origin, row.place, dot.birth)
            for row in removals_of(mesh.tables, me)
            if isinstance(row, Removal)
            for dot in row.dots
        )
        gone = before.gone | (before.adds - adds) | named
        if change.header.epoch > self._epochs.get(me, 0):
            self._epochs[me] = change.header.epoch
            gone |= self._gone_at.get((me, mesh.own.restored), NOTHING)  # a history taken up
        naive = self._now[me] = Naive(adds, gone)
        if naive != Naive() and change.header.signed is not None:
            self._at[change.header.signed.signature] = naive
            place = (me, change.header.head)
            self._gone_at[place] = self._gone_at.get(place, NOTHING) | gone

    def _naive_of(self, header: Header | None) -> Naive:
        signed = None if header is None else header.signed
        return Naive() if signed is None else self._at.get(signed.signature, Naive())

    def differences(self, machine: Machine) -> Iterator[str]:
        """Name what a node shows that was taken out, and what it misses."""
        if machine.world.liars:
            return  # whose feeds hold what nobody knows of
        mesh = machine.running
        forgotten, forks = mesh.control.forgotten, mesh.replication.forks
        shown = {
            (origin, held.entry.place, held.birth)
            for origin, held in mesh.roster.entries()
            if origin not in forgotten  # some of its adds are hidden
        }
        held = mesh.replication.replicas.items()
        known = {o: self._naive_of(r.header) for o, r in held if not forks.has(o)}
        adds = (naive.adds for origin, naive in known.items() if origin not in forgotten)
        gone = (naive.gone for naive in known.values())
        expected: set[Add] = set().union(*adds).difference(*gone)
        for _, place, birth in sorted(shown - expected):
            yield f"{machine.name}: shows {place} of {birth}, which was taken out"
        for _, place, birth in sorted(expected - shown):
            yield f"{machine.name}: misses {place} of {birth}"
