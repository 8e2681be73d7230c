"""A mesh with little room in each feed, and writers of ledgers that want more than there is.

Invariant: what is written is a function of the seed. Other tables stay small enough that nothing of
them is ever left out; what they are refused meanwhile was never said.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.genesis import Limits

if TYPE_CHECKING:
    from sim.machine import Machine
    from sim.world import World

TIGHT = Limits(
    rows_max=120, row_bytes_max=4 << 10, flush_bytes_max=12 << 10, feed_bytes_max=64 << 10
)
PART = 0.4  # of all seeds
EVERY_S = 1.5
KEYS = 200  # more than there is room for
BURST_MAX = 80  # writes before anything is flushed
TOGETHER_MAX = 8
OURS = 60  # rows written at a start


def limits_of(seed: int) -> Limits:
    """Return the limits of the mesh of a seed."""
    return TIGHT if Random(f"{seed} limits").random() < PART else Limits()


class Crowd:
    """Writers of ledgers in one world; in one with much room there are none."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self._rng = Random(f"{seed} crowd")

    @property
    def is_tight(self) -> bool:
        """Whether this world has little room."""
        return self.world.genesis.limits == TIGHT

    def begin(self, until_s: float) -> None:
        """Let some machine write a lot at once, again and again."""
        if self.world.now_s < until_s and self.is_tight:
            writers = [machine for machine in self.world.honest if not machine.frozen]
            if writers:
                self._write(self._rng.choice(writers))
            self.world.after(self._rng.expovariate(1 / EVERY_S), None, self.begin, until_s)

    def started(self, machine: Machine) -> None:
        """Let a machine say what peers do not know of, before they return what its disk lost."""
        for number in range(OURS if self.is_tight else 0):
            key = b"%d of start %d" % (number, machine.start_count)
            self._put(machine, {key: bytes(700)}, together=False)

    def _write(self, machine: Machine) -> None:
        for _ in range(self._rng.randrange(BURST_MAX)):
            together = self._rng.random() < 0.2
            count = self._rng.randrange(TOGETHER_MAX) if together else 1
            values = {b"%d" % self._rng.randrange(KEYS): self._value() for _ in range(count)}
            self._put(machine, values, together=together)

    def _put(self, machine: Machine, values: dict[bytes, bytes | None], *, together: bool) -> None:
        self.world.counts["ledger writes"] += 1
        try:
            if together:
                now_s = self.world.now_s
                machine.do(machine.running.write_together(LEDGER, values, now_s))
            else:
                machine.write(LEDGER, *next(iter(values.items())))
        except ExhaustedError:
            self.world.counts["ledger writes refused"] += 1

    def _value(self) -> bytes | None:
        if self._rng.random() < 0.2:
            return None
        return bytes(self._rng.choice([0, 100, 700, 1400]))


def overfull(machine: Machine) -> None:
    """Leave on a stopped machine's disk a feed that no peer takes, as an earlier version might."""
    world = machine.world
    feed = OwnFeed(machine.key, world.genesis.mesh_id, Limits(), machine.boot)
    feed.restore(*next(held for held in machine.disk.load() if held[0].origin == machine.id))
    for number in range(KEYS):
        feed.write(LEDGER, b"%d" % number, bytes(1400))
    while (change := feed.flush(world.now_s)) is not None:
        machine.save(change, ours=True)
