"""Everything that may go wrong, each with a name, and a proof that it really happened.

Invariant: a schedule is a function of its seed and its names; every fault takes itself away again;
`proof` grew between begin and end, or the fault was vacuous and its run is no evidence.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, ClassVar

from sim.byzantine import Liar
from sim.decrees import Decrees
from sim.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.machine import Machine
    from sim.world import World

LEAST_S = 2.5  # pulses pass at least once a second on every link, so a fault meets some
WRITE_EVERY_S = 0.7


@dataclass
class Fault:
    """Something that goes wrong for a while."""

    name: ClassVar[str] = ""
    proof: ClassVar[str] = ""  # the counter that shows that it happened
    lasts_s: ClassVar[tuple[float, float]] = (LEAST_S, 12.0)
    needs: ClassVar[int] = 1  # machines that no other fault holds

    world: World
    rng: Random
    victims: list[Machine] = field(default_factory=list)

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Take it away."""


class Spike(Fault):
    name, proof = "spike", "frames delayed"

    def begin(self) -> None:
        self.world.network.spikes[self.victims[0].id] = self.rng.uniform(0.1, 2.5)

    def end(self) -> None:
        self.world.network.spikes.pop(self.victims[0].id, None)


class Loss(Fault):
    name, proof, needs, lasts_s = "loss", "frames lost", 0, (5.0, 15.0)

    def begin(self) -> None:
        self.world.network.lost = self.rng.uniform(0.15, 0.6)

    def end(self) -> None:
        self.world.network.lost = 0.0


class Doubling(Fault):
    name, proof, needs, lasts_s = "doubling", "frames doubled", 0, (5.0, 15.0)

    def begin(self) -> None:
        self.world.network.doubled = self.rng.uniform(0.2, 0.6)

    def end(self) -> None:
        self.world.network.doubled = 0.0


class Swapping(Fault):
    name, proof, needs, lasts_s = "swapping", "frames swapped", 0, (5.0, 15.0)

    def begin(self) -> None:
        self.world.network.swapped = self.rng.uniform(0.2, 0.6)

    def end(self) -> None:
        self.world.network.swapped = 0.0


class _Pair(Fault):
    """One victim, and somebody it is linked to."""

    def pair(self) -> tuple[Machine, Machine]:
        one = self.victims[0]
        peers = sorted(one.streams) or sorted(m.id for m in self.world.up if m is not one)
        return one, self.world.machines[self.rng.choice(peers)]


class OneWay(Fault):
    name, proof = "one-way", "frames dropped"

    def begin(self) -> None:
        one = self.victims[0].id
        heard = self.rng.random() < 0.5
        self.cut = {(m.id, one) if heard else (one, m.id) for m in self.world.nodes if m.id != one}
        self.world.network.cuts |= self.cut

    def end(self) -> None:
        self.world.network.cuts -= self.cut


class Silence(OneWay):
    name = "silence"

    def begin(self) -> None:
        one = self.victims[0].id
        others = (m.id for m in self.world.nodes if m.id != one)
        self.cut = {pair for other in others for pair in ((one, other), (other, one))}
        self.world.network.cuts |= self.cut


class HalfOpen(_Pair):
    name, proof = "half-open", "half resets"

    def begin(self) -> None:
        one, other = self.pair()
        if not self.world.network.reset(one, other, both=False):
            self.world.counts["half resets"] += 1  # it has no link at all


class Reset(_Pair):
    name, proof = "reset", "resets"

    def begin(self) -> None:
        one, other = self.pair()
        if not self.world.network.reset(one, other):
            self.world.counts["resets"] += 1


class Partition(Fault):
    name, proof, needs, lasts_s = "partition", "partitions", 0, (1.0, 30.0)
    silently = False

    def begin(self) -> None:
        chosen = self.rng.sample(self.world.nodes, len(self.world.nodes))
        cut = self.rng.randrange(1, len(chosen))
        self.world.network.partition(chosen[:cut], chosen[cut:], silently=self.silently)

    def end(self) -> None:
        self.world.network.groups = {}


class SilentPartition(Partition):
    name = "silent-partition"
    silently = True

    def end(self) -> None:
        self.world.network.cuts = set()


class Crash(Fault):
    name, proof, lasts_s = "crash", "crashes", (0.1, 40.0)

    def begin(self) -> None:
        self.world.counts["crashes"] += 1
        self.victims[0].stop(self.rng.choice(["reset", "closed"]))

    def end(self) -> None:
        self.again(self.victims[0])

    def again(self, machine: Machine) -> None:
        seeds = [m for m in self.world.up if m is not machine]
        if machine.mesh is None:
            machine.start(*self.rng.sample(seeds, min(1, len(seeds))))


class Leave(Crash):
    name, proof, lasts_s = "leave", "hung up by leaving", (LEAST_S, 20.0)  # then it joins again

    def begin(self) -> None:
        self.victims[0].leave()


class LostDisk(Crash):
    name, proof = "lost-disk", "disks lost"

    def begin(self) -> None:
        super().begin()
        self.world.counts["disks lost"] += 1
        self.victims[0].disk = Disk()
        self.world.notes.disk_lost(self.victims[0])


class StaleDisk(Crash):
    name, proof = "stale-disk", "disks gone back"
    lasts_s = (LEAST_S, 20.0)

    def begin(self) -> None:
        self.copy = self.victims[0].disk.copy()

    def end(self) -> None:
        machine = self.victims[0]
        self.world.counts["disks gone back"] += 1
        if machine.mesh is not None:
            machine.stop("reset")
        machine.disk = self.copy
        self.world.notes.disk_lost(machine)
        self.again(machine)


class MassRestart(Crash):
    name, proof, needs, lasts_s = "mass-restart", "mass restarts", 99, (0.2, 5.0)

    def begin(self) -> None:
        self.world.counts["mass restarts"] += 1
        for machine in self.victims:
            machine.stop("reset")

    def end(self) -> None:
        for machine in self.victims:
            self.world.after(self.rng.uniform(0.0, 3.0), None, self.again, machine)


class Starvation(Fault):
    name, proof, lasts_s = "starvation", "timers held", (5.0, 30.0)  # it runs not; its sockets fill

    def begin(self) -> None:
        self.victims[0].freeze()

    def end(self) -> None:
        self.victims[0].thaw()


class SlowInbox(Fault):
    name, proof = "slow-inbox", "frames taken late"

    def begin(self) -> None:
        self.victims[0].slow_s = self.rng.uniform(0.005, 0.05)

    def end(self) -> None:
        self.victims[0].slow_s = 0.0


class ClockStep(Fault):
    name, proof = "clock-step", "clocks stepped"

    def begin(self) -> None:
        self.world.counts["clocks stepped"] += 1
        self.victims[0].wall_offset_s = self.rng.choice((-3600.0, 3600.0))

    def end(self) -> None:
        self.victims[0].wall_offset_s = 0.0


class DiskFull(Fault):
    name, proof = "disk-full", "writes failed"

    def begin(self) -> None:
        self.victims[0].disk_full = True
        self.world.notes.write(self.victims[0], self.rng)

    def end(self) -> None:
        self.victims[0].disk_full = False


class NarrowLink(Fault):
    name, proof = "narrow", "frames squeezed"

    def begin(self) -> None:
        self.world.network.narrow[self.victims[0].id] = self.rng.uniform(300.0, 5000.0)

    def end(self) -> None:
        machine, network = self.victims[0], self.world.network
        network.narrow.pop(machine.id, None)
        for stream in list(machine.streams.values()):
            network.pump(stream.pipes[machine.id])


class Byzantine(Fault):
    name, proof, lasts_s = "byzantine", "frame_refused", (6.0, 20.0)

    def begin(self) -> None:
        self.liar = Liar(self.world, self.victims[0], self.rng)
        self.liar.remember()
        self.lying = True
        self._lie()

    def _lie(self) -> None:
        if self.lying:
            self.liar.lie()
            self.world.after(self.rng.uniform(0.2, 1.0), None, self._lie)

    def end(self) -> None:
        self.lying = False


FAULTS: dict[str, type[Fault]] = {
    kind.name: kind
    for kind in (
        Spike,
        Loss,
        Doubling,
        Swapping,
        OneWay,
        Silence,
        HalfOpen,
        Reset,
        Partition,
        SilentPartition,
        Crash,
        Leave,
        LostDisk,
        StaleDisk,
        MassRestart,
        Starvation,
        SlowInbox,
        ClockStep,
        DiskFull,
        NarrowLink,
        Byzantine,
    )
}
ALONE = frozenset({"lost-disk", "stale-disk"})  # another holder of the rows must keep its disk
KEEPERS = frozenset({"mass-restart", "byzantine"})


class Schedule:
    """Faults, chosen and timed by a seed, upon one world; and writers all along."""

    def __init__(self, world: World, seed: int, names: Iterable[str], for_s: float) -> None:
        self.world, self.rng, self.for_s = world, Random(f"{seed} faults"), for_s
        self.happened: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.vacuous: list[str] = []
        self._held: set[int] = set()
        self._until_s = world.now_s + for_s
        self._open = 0
        for number, name in enumerate(names):  # the first one finds everybody free
            at_s = self.rng.uniform(1.0, for_s / 2) if number else self.rng.uniform(0.0, 1.0)
            world.after(at_s, None, self._begin, FAULTS[name])
        Decrees(world, seed).begin(self._until_s)
        world.crowd.begin(self._until_s)
        world.registry.begin(world, seed, self._until_s)
        world.after(0.0, None, self._write)

    def _begin(self, kind: type[Fault]) -> None:
        world = self.world
        linked = [m for m in world.honest if m.healthy and m.streams]  # a fault meets frames there
        free = [m for m in linked if id(m) not in self._held]
        wanted = len(free) if kind.needs > len(world.nodes) else kind.needs
        if len(free) < max(wanted, 2):
            self.skipped[kind.name] += 1
            return
        fault = kind(world, self.rng, self.rng.sample(free, wanted))
        self._held |= {id(machine) for machine in fault.victims}
        self._open += 1
        before = world.counts[kind.proof]
        fault.begin()
        left_s = max(LEAST_S, self._until_s - world.now_s)
        lasts_s = min(self.rng.uniform(*kind.lasts_s), left_s)
        world.after(lasts_s, None, self._end, fault, before)

    def _end(self, fault: Fault, before: int) -> None:
        fault.end()
        self._open -= 1
        self._held -= {id(machine) for machine in fault.victims}
        self.happened[fault.name] += 1
        if self.world.counts[fault.proof] == before:
            self.vacuous.append(fault.name)

    def _write(self) -> None:
        if self.world.now_s < self._until_s:
            writers = [machine for machine in self.world.honest if not machine.frozen]
            if writers:
                self.world.notes.write(self.rng.choice(writers), self.rng)
            self.world.after(self.rng.expovariate(1 / WRITE_EVERY_S), None, self._write)

    def run(self) -> float:
        """Let it all happen, then heal; return how long the calm took."""
        self.world.run(self.for_s + LEAST_S)
        while self._open:
            self.world.run(1.0)
        self.world.run(3.5)  # the last restarts of a mass restart
        self.world.heal()
        return self.world.settle()


def choose(seed: int) -> tuple[int, list[str], float]:
    """Return the size, the faults and the seconds of one seed's run."""
    rng = Random(f"{seed} choice")
    names = sorted(FAULTS)
    turn = names[seed % len(names)]  # each has its turn, whatever the seed
    chosen = [turn, *rng.sample(names, rng.randrange(4))]
    if turn in ALONE:
        chosen = [turn, *(name for name in chosen[1:] if name not in ALONE | KEEPERS)]
    else:
        chosen = [name for name in chosen if name not in ALONE]
    if "byzantine" in chosen:
        size = rng.randrange(4, 9)
    else:
        size = rng.choice([12, 16]) if seed % 25 == 24 else rng.randrange(2, 10)
    return size, chosen, rng.uniform(20.0, 60.0)
