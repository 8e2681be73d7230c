"""Entries of the control set that come while anything may go wrong: one of every kind, again and
again, through any machine, forgotten nodes among them.

Invariant: what is entered is a function of the seed; an operator signs, and a machine takes it.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sim.machine import WALL_S

from meshnode.core.control.entries import (
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.keys import Key

if TYPE_CHECKING:
    from sim.machine import Machine
    from sim.world import World

KINDS = ("order", "cancel", "policy", "budget", "revoke", "forget")
LASTING = frozenset({"order", "cancel", "revoke"})
ORDER_S = (2.0, 40.0)  # short enough that many expire within a run
EVERY_S = 1.5


class Decrees:
    """What an operator of one world says."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self._rng = Random(f"{seed} decrees")
        self._operator = Key.new(self._rng.randbytes)
        role = Role(self._operator.public, "operator", "", world.root.public, int(WALL_S), None)
        self._role = role_entry(world.root, world.genesis.mesh_id, role, self._rng.randbytes)

    def begin(self, until_s: float) -> None:
        """Say something again and again."""
        if self.world.now_s < until_s:
            takers = [machine for machine in self.world.honest if machine.healthy]
            if takers:
                self.enter(self._rng.choice(takers))
            self.world.after(self._rng.expovariate(1 / EVERY_S), None, self.begin, until_s)

    def enter(self, machine: Machine) -> None:
        """Let a machine take an entry, after the role that it stands on."""
        now_s = int(WALL_S + self.world.now_s)
        kind, body = self._rng.choice(self._said(now_s, machine))
        lasts_s = self._rng.uniform(*ORDER_S) if kind in LASTING else None
        entry = sign_entry(
            self._operator,
            self.world.genesis.mesh_id,
            body,
            self._rng.randbytes,
            issued_s=now_s,
            expires_s=None if lasts_s is None else now_s + int(lasts_s),
        )
        for one in (self._role, entry):
            machine.do(machine.running.add_control(one, self.world.now_s))
        self.world.counts[f"entered: {kind}"] += 1

    def _said(self, now_s: int, machine: Machine) -> list[tuple[str, Body]]:
        """Return one of each kind; a forgetting if there is somebody to forget."""
        forgettings: list[tuple[str, Body]] = [
            ("forget", Forget(replica.header))
            for origin, replica in machine.running.replication.replicas.items()
            if self.world.machines[origin].mesh is None and replica.header is not None
        ]
        return [
            ("order", StandingKill(agent="a")),
            ("cancel", Cancel(self._rng.randbytes(16))),
            ("policy", Policy(self._rng.choice("pq"), {"n": now_s})),
            ("budget", Budget("b", Terms(now_s, "tokens", "day", "kill"))),
            ("revoke", Revoke("grant", self._rng.randbytes(16))),
            *forgettings,
        ]
