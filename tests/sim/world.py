"""A mesh in virtual time: the same Mesh and the same driver as in a node, over invented networks.

A run is a function of its seed. Streams deliver in order after 1 to 50 ms, dials succeed or fail,
disks take a few milliseconds, and what was not synced when a node crashed is lost. What must always
be true is checked after every frame and once a virtual second (invariants.py); `settle` waits until
nothing is left that is not as it should be at rest, within a bound derived from the protocol.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING, Any

from sim.crowding import Crowd
from sim.invariants import Invariants, Synced
from sim.machine import WALL_S, Machine
from sim.network import DIAL_TIMEOUT_S, Network
from sim.notes import NOTES, Notes
from sim.registry import Registry
from sim.rest import Rest

from meshnode.app.mesh.mesh import RECONCILE_S
from meshnode.core.control.entries import role_entry
from meshnode.core.control.roles import Role
from meshnode.core.keys import Key
from meshnode.core.links.overlay import LINKS_MAX, REDIAL_S
from meshnode.core.membership.genesis import Genesis, Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.effects import Announce
    from meshnode.core.feeds.feed import Change, Replica
    from meshnode.core.feeds.messages import Message
    from meshnode.core.ids import NodeId

__all__ = ["NOTES", "Machine", "World", "boot", "calm_s"]
LASTS_S = 3.0  # what is at rest must still be so after this
NEWS_S = 2.0  # until everybody has heard what is new at rest
LOOK_S = 0.25


def calm_s(count: int) -> float:
    """Return how long a mesh may take to come to rest once nothing goes wrong any more.

    The longest pause between two dials of a pair (it backs off with the number of links, and both
    sides may have just failed), a dial, and three reconciliations.
    """
    links = min(count - 1, LINKS_MAX)
    return REDIAL_S * max(1.0, links / 8) * 1.3 + DIAL_TIMEOUT_S + 3 * RECONCILE_S * 1.2


class World:
    """Time and all machines."""

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        tracing: bool = True,
        checking: bool = True,
        replica: Callable[..., Replica] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.events = 0
        self.counts: Counter[str] = Counter()
        self.tracing = tracing
        self.checking = checking
        self.replica = replica  # sharing between nodes, in big meshes
        self.notes = Notes()
        self.registry = Registry()
        self.synced = Synced()
        self.liars: set[NodeId] = set()
        self.on_stop: Callable[[Machine], None] | None = None
        self.on_announce: Callable[[Machine, Announce], None] | None = None
        self.on_news: Callable[[Machine, Change], None] | None = None
        self.on_message: Callable[[Machine, Machine, Message], None] | None = None
        self._trace = sha256()
        self._due: list[tuple[Any, ...]] = []
        self._planned = 0
        self.root = Key.new(self.rng.randbytes)
        nonce = self.rng.randbytes(16)
        self.genesis = Genesis((self.root.public,), 1, "sim", nonce, limits or Limits())
        self.network = Network(self)
        self.machines: dict[NodeId, Machine] = {}
        for number in range(count):
            machine = Machine(self, f"n{number}", Key.new(self.rng.randbytes))
            self.machines[machine.id] = machine
        self.nodes = list(self.machines.values())
        self.invariants = Invariants(self)
        self.rest = Rest(self)
        self.crowd = Crowd(self, seed)
        if checking:
            self.after(1.0, None, self._check)

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    def trace_bytes(self, part: bytes) -> None:
        self._trace.update(part)

    @property
    def up(self) -> list[Machine]:
        return [machine for machine in self.nodes if machine.mesh is not None]

    @property
    def honest(self) -> list[Machine]:
        """Machines that run and keep to the protocol."""
        return [m for m in self.nodes if m.mesh is not None and m.id not in self.liars]

    # Time.

    def at(
        self,
        at_s: float,
        machine: Machine | None,
        call: Callable[..., None],
        args: tuple[Any, ...],
        *,
        timer: bool = False,
    ) -> None:
        """Call then, unless the machine has ended meanwhile; a frozen one gets it once it thaws."""
        self._planned = number = self._planned + 1
        life = 0 if machine is None else machine.life
        heappush(self._due, (at_s, number, machine, life, timer, call, args))

    def after(
        self, delay_s: float, machine: Machine | None, call: Callable[..., None], *args: object
    ) -> None:
        """Call later."""
        self.at(self.now_s + delay_s, machine, call, args, timer=True)

    def run(self, for_s: float) -> None:
        """Let virtual time pass."""
        until_s = self.now_s + for_s
        due, tracing = self._due, self.tracing
        while due and due[0][0] <= until_s:
            self.now_s, number, machine, life, timer, call, args = heappop(due)
            self.events += 1
            if machine is not None:
                if machine.life != life:
                    continue
                if machine.frozen:
                    machine.hold(call, args, timer=timer)
                    continue
            if tracing:
                self._trace.update(b"%d %.9f %s;" % (number, self.now_s, call.__name__.encode()))
            call(*args)
        self.now_s = until_s

    def _check(self) -> None:
        self.invariants.each_second()
        self.after(1.0, None, self._check)

    def settle(self, within_s: float | None = None) -> float:
        """Run until everything is as it should be, and stays so; raises if it does not get so."""
        within_s = calm_s(len(self.nodes)) if within_s is None else within_s
        began_s = self.now_s
        while any(self.rest.differences()):
            if self.now_s - began_s > within_s:
                raise AssertionError(self._story("not at rest"))
            self.run(LOOK_S)
        took_s = self.now_s - began_s
        self.run(LASTS_S)
        deadline_s = self.now_s + NEWS_S  # a spare link may just have been let go
        while any(self.rest.differences()):
            if self.now_s > deadline_s:
                raise AssertionError(self._story("it did not last"))
            self.run(LOOK_S)
        return took_s

    def _story(self, said: str) -> str:
        reports = sorted(line for machine in self.nodes for line in machine.reports)[-20:]
        return "\n".join([said, *list(self.rest.differences())[:20], *reports, str(self.counts)])

    # What machines tell.

    def received(self, source: Machine, target: Machine, message: Message) -> None:
        """Hand a frame's message to a mesh, watched."""
        if self.on_message is not None:
            self.on_message(source, target, message)
        if self.checking:
            self.counts[type(message).__name__] += 1
            self.invariants.watch(source, target, message)
        else:
            target.received(source.id, message)

    def announced(self, machine: Machine, news: Announce) -> None:
        if self.on_announce is not None:
            self.on_announce(machine, news)

    def news_arrived(self, machine: Machine, change: Change) -> None:
        if self.on_news is not None:
            self.on_news(machine, change)

    def keep(self, machine: Machine) -> None:
        """Let a big mesh bring to a disk what its machine holds, before it stops."""
        if self.on_stop is not None:
            self.on_stop(machine)

    # Faults that scenarios ask for by name.

    def reset(self, one: Machine, other: Machine) -> None:
        self.network.reset(one, other)

    def partition(self, *groups: list[Machine]) -> None:
        self.network.partition(*groups)

    def silence(self, one: Machine, other: Machine) -> None:
        self.network.silence(one, other)

    def heal(self) -> None:
        self.network.heal()


def boot(seed: int, count: int, **options: Any) -> World:
    """Start all nodes within half a second, each knowing the first one, and let them settle."""
    world = World(seed, count, **options)
    first = world.nodes[0]
    for machine in world.nodes:
        seeds = [] if machine is first else [first]
        world.after(world.rng.uniform(0.0, 0.5), None, machine.start, *seeds)
    world.run(0.5)
    role = Role(world.rng.randbytes(32), "operator", "", world.root.public, int(WALL_S), None)
    entry = role_entry(world.root, world.genesis.mesh_id, role, world.rng.randbytes)
    first.do(first.running.add_control(entry, world.now_s))
    world.settle()
    return world
