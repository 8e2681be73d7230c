"""What must be true at rest (facts: gossip invariants 3, 6, 7): equal digests, symmetric links,
the wanted ones among them, states as expected, rows as their owner has them and never older.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.machine import WALL_S

from meshnode.app.queries.queries import Queries
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.rows import all_rows
from meshnode.core.ids import short_id_of
from meshnode.core.links.liveness import DEAD_AFTER_S, MemberState
from meshnode.core.links.overlay import FULL_MESH_MAX, LINKS_MAX, ring_neighbours
from meshnode.core.membership.members import NODE, ONLY_ROW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sim.machine import Machine
    from sim.world import World


@dataclass(frozen=True)
class Clock:
    """The world's time, as use cases see it."""

    world: World

    def steady_s(self) -> float:
        return self.world.now_s

    def wall_s(self) -> float:
        return WALL_S + self.world.now_s


class Rest:
    """Compares what machines show with what is so."""

    def __init__(self, world: World) -> None:
        self.world = world

    def differences(self) -> Iterator[str]:
        """Name everything that is not as it should be among nodes that can all talk."""
        honest = self.world.honest
        first = _roots(honest[0]) if honest else None
        for machine in honest:
            if _roots(machine) != first:
                yield f"{machine.name}: another digest than {honest[0].name}"
        for machine in honest:
            yield from self._in_links(machine)
        for machine in honest:
            for other in self.world.nodes:
                if other.start_count and other.id not in self.world.liars:
                    yield from self._about(other, machine)
            if not self.world.liars:
                yield from self._in_coverage(machine)
            yield from self.world.notes.differences(machine)
            yield from self.world.registry.differences(machine)

    def _in_links(self, machine: Machine) -> Iterator[str]:
        mesh, machines = machine.running, self.world.machines
        up = [other.id for other in self.world.honest]
        for peer in ring_neighbours(machine.id, up):
            if peer not in machine.streams and (not self.world.liars or len(up) <= FULL_MESH_MAX):
                yield f"{machine.name}: no link with {machines[peer].name}"
        if len(machine.streams) > LINKS_MAX:
            yield f"{machine.name}: {len(machine.streams)} links"
        for peer, stream in machine.streams.items():
            if machines[peer].streams.get(machine.id) is not stream:
                yield f"{machine.name}: a link that {machines[peer].name} does not have"
        if mesh.overlay.links != set(machine.streams):
            yield f"{machine.name}: the overlay differs from the streams"
        row = mesh.tables.links(machine.id)
        if row is None or row.peers != {short_id_of(peer) for peer in machine.streams}:
            yield f"{machine.name}: its links row differs from its links"

    def _about(self, other: Machine, machine: Machine) -> Iterator[str]:
        mesh = machine.running
        state, expected = mesh.liveness.state(other.id), self.expected_state(other)
        if is_hidden(other, machine):
            if other.id in mesh.liveness.members() or other.mesh is not None:
                yield f"{machine.name}: {other.name} is hidden and still a member, or up"
        elif state is not expected:
            yield f"{machine.name}: {other.name} is {state}, not {expected}"
        replica = mesh.replication.replicas.get(other.id)
        if other.mesh is None or replica is None or replica.header is None:
            return
        if all_rows(replica.rows) != all_rows(other.mesh.own.rows):
            yield f"{machine.name}: other rows of {other.name} than its own"
        if replica.header.state_hash != replica.rows.state_hash():
            yield f"{machine.name}: rows of {other.name} that its header does not prove"

    def _in_coverage(self, machine: Machine) -> Iterator[str]:
        clock = Clock(self.world)
        coverage = Queries(machine.running, None, clock).coverage()  # type: ignore[arg-type] # coverage prices nothing
        started = (other for other in self.world.nodes if other.start_count)
        known = [other for other in started if not is_hidden(other, machine)]
        heard = {MemberState.ALIVE, MemberState.LEFT}
        missing = {m.name for m in known if self.expected_state(m) not in heard}
        if coverage.nodes_known != len(known) or {m.node_name for m in coverage.missing} != missing:
            said = f"coverage {coverage}, known {len(known)}, missing {missing}"
            yield f"{machine.name}: {said}"

    def expected_state(self, machine: Machine) -> MemberState:
        if machine.standing == "left":
            return MemberState.LEFT
        if machine.mesh is not None:
            return MemberState.ALIVE
        if machine.standing == "down":
            return MemberState.DOWN
        gone_s = self.world.now_s - machine.stopped_at_s
        return MemberState.UNREACHABLE if gone_s < DEAD_AFTER_S else MemberState.DEAD


def is_hidden(other: Machine, viewer: Machine) -> bool:
    """Whether a viewer has heard that a member was forgotten, and no member record since."""
    mesh = viewer.running
    head, replica = mesh.control.forgotten.get(other.id), mesh.replication.replicas.get(other.id)
    row = None if replica is None else replica.rows.get(NODE, ONLY_ROW)
    return head is not None and row is not None and Head(row.epoch, row.seq) <= head


def _roots(machine: Machine) -> tuple[bytes, bytes]:
    digest = machine.running.replication.digest()
    return digest.feeds_root, digest.control_root
