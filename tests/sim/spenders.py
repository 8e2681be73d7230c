"""Sessions of machines that spend, and the budgets that meet them: the desk of a node, in virtual
time, over a book that outlives its machine.

Invariant: nobody is killed by a machine that does not hear everybody, nor long after the mesh was
whole; nobody is held twice in a window; whoever knows that a budget is spent holds its session
within HELD_S.
"""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

from sim.machine import WALL_S

from meshnode.app.budgets.budgets import LOOK_S, BudgetDesk
from meshnode.app.queries.queries import Queries
from meshnode.core.control.entries import entry_id_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.ids import session_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey, slot_number
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sim.machine import Machine
    from sim.world import World

    from meshnode.core.effects import Announce
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.budgets import Hold

LIMIT = 1000
OWNER = "olga"
DISK_S = 0.05  # at most, to note a hold before it is carried out
HELD_S = 4.0  # a look, a hold on its way to disk, and a look at what it is by then
SEEN_S = 10.0  # after which a machine that is gone or cut off is missed by all others


class Hours:
    """A machine's clocks."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def steady_s(self) -> float:
        return self._machine.world.now_s

    def wall_s(self) -> float:
        return self._machine.wall_s(self._machine.world.now_s)


class NoPrices:
    """Budgets here are in tokens."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> None:
        del model, provider, tier, at_s

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        del model, provider, tier, day_s
        return False

    def source_text(self) -> str:
        return ""


class Book:
    """What a machine has done for budgets: on its disk before it is carried out."""

    def __init__(self, spenders: Spenders, machine: Machine) -> None:
        self._spenders = spenders
        self._machine = machine
        self.begun: set[tuple[bytes, str]] = set()
        self.carried_out: list[str] = []
        self.calls_for: Callable[[Hold], str] = lambda one: one.action
        self.judge_again: Callable[[], None] = lambda: None

    def left_s(self) -> float:
        return math.inf  # nothing fails here: what is not called for is judged anew

    def done(self) -> set[tuple[bytes, str]]:
        return set(self.begun)

    def keep_only(self, keys: Iterable[bytes]) -> None:
        current = set(keys)
        self.begun = {key for key in self.begun if key[0] in current}

    def carry_out(self, holds: Iterable[Hold]) -> None:
        for one in holds:
            if one.key in self.begun:
                raise AssertionError(f"{self._machine.name}: a session is held twice in a window")
            self.begun.add(one.key)
            world = self._machine.world
            delay_s = self._spenders.rng.uniform(0.0, DISK_S)
            world.at(world.now_s + delay_s, self._machine, self._act, (one,), timer=True)

    def interrupted(self) -> None:
        """Start anew: what was begun and not done is due again."""
        self.begun = {key for key in self.begun if key[1] in self.carried_out}

    def _act(self, hold: Hold) -> None:
        if self.calls_for(hold) != hold.action:
            self.begun.discard(hold.key)
            self.judge_again()
            return
        self._spenders.act(self._machine, hold)
        self.carried_out.append(hold.session.session_id)


class Spenders:
    """One session a machine, all of one owner, and whoever sets a budget for them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = Random(f"{seed} spenders")
        self._operator = Key.new(self.rng.randbytes)
        role = Role(self._operator.public, "operator", "", world.root.public, int(WALL_S), None)
        self._role = role_entry(world.root, world.genesis.mesh_id, role, self.rng.randbytes)
        self.sessions: dict[NodeId, SessionRecord] = {}
        self.books = {machine.id: Book(self, machine) for machine in world.nodes}
        self.acts: list[tuple[NodeId, str]] = []
        self._spent: dict[NodeId, int] = dict.fromkeys(self.books, 0)
        self._desks: dict[NodeId, tuple[int, BudgetDesk, int]] = {}
        self._caught_up: set[NodeId] = set()
        self._known_s: dict[NodeId, float] = {}
        self._whole_s = 0.0
        world.on_announce = self._announced
        self._look()

    def run_agent(self, machine: Machine) -> None:
        """Let a session begin."""
        start = self.rng.getrandbits(40) + 1
        at_s = machine.wall_s(self.world.now_s)
        session = SessionRecord(
            session_id_of(machine.id, start), 1, "a", State.RUNNING, at_s, at_s, owner=OWNER
        )
        self.sessions[machine.id] = session
        machine.write(SESSIONS, session.session_id.encode(), session_to_row(session))

    def spend(self, machine: Machine, tokens: int) -> None:
        """Let the agent of a machine have spent so much more."""
        self._spent[machine.id] += tokens
        number = slot_number(WALL_S)
        key = SlotKey(self.sessions[machine.id].session_id, "m", "standard", number)
        value = slot_to_row(Slot(1, Buckets(self._spent[machine.id]), owner=OWNER))
        machine.write(LEDGER, key_to_row(key), value)

    def set(self, machine: Machine, then: str) -> bytes:
        """Set the budget at a machine."""
        now_s = int(machine.wall_s(self.world.now_s))
        body = Budget("team", Terms(LIMIT, "tokens", "hour", then, owner=OWNER))
        mesh_id = self.world.genesis.mesh_id
        entry = sign_entry(self._operator, mesh_id, body, self.rng.randbytes, issued_s=now_s)
        for one in (self._role, entry):
            machine.do(machine.running.add_control(one, self.world.now_s))
        return entry_id_of(entry)

    def act(self, machine: Machine, hold: Hold) -> None:
        """Suspend or kill."""
        if hold.session != self.sessions[machine.id]:
            raise AssertionError(f"{machine.name}: the session of another is held")
        if hold.action == "kill":
            coverage = Queries(machine.running, NoPrices(), Hours(machine)).coverage()
            if coverage.nodes_heard < len(self.world.nodes):
                raise AssertionError(f"{machine.name}: killed on {coverage}")
            if self.world.now_s - self._whole_s > SEEN_S:
                raise AssertionError(f"{machine.name}: killed long after the mesh was whole")
        self.acts.append((machine.id, hold.action))
        self.world.counts[f"held: {hold.action}"] += 1

    def acts_of(self, machine: Machine) -> list[str]:
        return [action for owner, action in self.acts if owner == machine.id]

    def _announced(self, machine: Machine, news: Announce) -> None:
        held = self._desks.get(machine.id)
        if held is not None and held[0] == machine.life:
            held[1].take(news)

    def _look(self) -> None:
        groups = self.world.network.groups
        if len(self.world.up) == len(self.world.nodes) and not groups:
            self._whole_s = self.world.now_s
        for machine in self.world.honest:
            if machine.begun and not machine.frozen:
                self._look_at(machine)
        self.world.after(LOOK_S, None, self._look)

    def _look_at(self, machine: Machine) -> None:
        mesh, book = machine.running, self.books[machine.id]
        life, desk, entries = self._desks.get(machine.id, (-1, None, 0))
        if life != machine.life or desk is None:
            book.interrupted()
            queries = Queries(mesh, NoPrices(), Hours(machine))
            desk = BudgetDesk(
                queries,
                NoPrices(),
                Hours(machine),
                book,  # type: ignore[arg-type] # a desk asks no more of it
                lambda: [self.sessions[machine.id]] if machine.id in self.sessions else [],
            )
            entries = 0
            self._caught_up.discard(machine.id)
            self._known_s.pop(machine.id, None)
        held = len(mesh.control.held(Budget))
        if held != entries:
            desk.heard()
        self._desks[machine.id] = (machine.life, desk, held)
        while desk.look() == 0.0:
            pass
        self._check_held(machine)

    def _check_held(self, machine: Machine) -> None:
        """Hold the machine to its word, by its own ledgers read from the beginning."""
        mesh, now_s = machine.running, self.world.now_s
        rows = (row for _, (_, row) in mesh.tables.ledger())
        tokens = sum(row.usage.total for row in rows if isinstance(row, Slot))
        if mesh.replication.abreast:
            self._caught_up.add(machine.id)  # who has not compared since its start waits longer
        settled = machine.id in self._caught_up and machine.id in self.sessions
        if tokens < LIMIT or not mesh.control.held(Budget) or not settled:
            self._known_s.pop(machine.id, None)
            return
        known_s = now_s - self._known_s.setdefault(machine.id, now_s)
        if known_s > HELD_S and not self.acts_of(machine):
            raise AssertionError(f"{machine.name}: knows {tokens}, and its session runs")
