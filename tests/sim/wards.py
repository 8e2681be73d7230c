"""Sessions of machines, and the standing kills that meet them, in virtual time.

What `app/commands/standing.py` does to disks and processes, with the same core.

Invariant: what was answered stays answered, whatever becomes of its machine; nothing is carried
out while its owner's own control set speaks against it.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sim.machine import WALL_S

from meshnode.app.commands.standing import LOOK_S, UNHEARD_S
from meshnode.core.commands.standing import Patience, due, objection
from meshnode.core.control.entries import (
    Body,
    Cancel,
    StandingKill,
    entry_id_of,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.ids import session_id_of
from meshnode.core.keys import Key
from meshnode.core.sessions.sessions import SessionRecord, State

if TYPE_CHECKING:
    from sim.machine import Machine
    from sim.world import World

    from meshnode.core.ids import NodeId

LIFE_S = 3600


class Wards:
    """One session a machine, and an operator who wants some of them ended."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = Random(f"{seed} wards")
        self._operator = Key.new(self.rng.randbytes)
        role = Role(self._operator.public, "operator", "", world.root.public, int(WALL_S), None)
        self._role = role_entry(world.root, world.genesis.mesh_id, role, self.rng.randbytes)
        self.sessions = {machine.id: self._session(machine.id) for machine in world.nodes}
        self.carried_out: list[tuple[NodeId, bytes]] = []
        self._done: dict[NodeId, set[tuple[bytes, str]]] = {m.id: set() for m in world.nodes}
        self._runs: dict[NodeId, tuple[int, Patience, int]] = {}
        self._look()

    def order(self, machine: Machine, kill: StandingKill) -> bytes:
        """Leave an order with a machine; returns its id."""
        return self._say(machine, kill)

    def cancel(self, machine: Machine, order_id: bytes) -> bytes:
        """Take one back."""
        return self._say(machine, Cancel(order_id))

    def kill_of(self, owner: Machine) -> StandingKill:
        """Mean the session of a machine, in one of the ways there are."""
        session = self.sessions[owner.id]
        return self.rng.choice(
            [
                StandingKill(session=session.session_id, epoch=session.session_epoch),
                StandingKill(node=owner.id),
                StandingKill(agent="a", node=owner.id),
                StandingKill(specialization="s", node=owner.id, force=True),
            ]
        )

    def _session(self, owner: NodeId) -> SessionRecord:
        at_s = WALL_S + self.world.now_s
        epoch = self.rng.getrandbits(63) + 1
        session_id = session_id_of(owner, epoch)
        return SessionRecord(
            session_id, epoch, "a", State.RUNNING, at_s, at_s, specializations=("s",)
        )

    def _say(self, machine: Machine, body: Body) -> bytes:
        now_s = int(WALL_S + self.world.now_s)
        entry = sign_entry(
            self._operator,
            self.world.genesis.mesh_id,
            body,
            self.rng.randbytes,
            issued_s=now_s,
            expires_s=now_s + LIFE_S,
        )
        for one in (self._role, entry):
            machine.do(machine.running.add_control(one, self.world.now_s))
        return entry_id_of(entry)

    def _look(self) -> None:
        for machine in self.world.honest:
            if machine.begun and not machine.frozen:
                self._look_at(machine)
        self.world.after(LOOK_S, None, self._look)

    def _look_at(self, machine: Machine) -> None:
        now_s, mesh = self.world.now_s, machine.running
        held = len(mesh.control.held(StandingKill)) + len(mesh.control.held(Cancel))
        life, patience, before = self._runs.get(machine.id, (-1, None, 0))
        if life != machine.life or patience is None:
            patience, before = Patience(now_s, UNHEARD_S), held
        if held != before:
            mesh.replication.doubt()
            patience.note(now_s)
        self._runs[machine.id] = (machine.life, patience, held)
        if patience.ready_at_s(abreast=mesh.replication.abreast) > now_s:
            return
        patience.looked()
        done, session = self._done[machine.id], self.sessions[machine.id]
        wall_s = machine.wall_s(now_s)
        for one in due(mesh.control, machine.id, [session], done, wall_s):
            if one.key in done:
                raise AssertionError(f"{machine.name}: an order is due twice")
            if objection(mesh.control, one.standing, wall_s):
                raise AssertionError(f"{machine.name}: an order is due that does not stand")
            done.add(one.key)  # the session lives on: so it would be met again
            self.carried_out.append((machine.id, one.standing.order_id))
            self.world.counts["standing kills"] += 1
