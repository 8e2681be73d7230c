"""A node that is back, with its sessions and its disk, and what people have said meanwhile."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from doubles import InBackground, ManualClock, Published, ScriptedAgents, nowhere

from meshnode.app.commands.standing import StandingKills
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.sessions.sessions import Done, OwnSessions
from meshnode.core.commands.standing import REVOKED, SETTLE_S, Standing
from meshnode.core.control.entries import Body, Revoke, entry_id_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.ids import node_id_of, session_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.links.linkgraph import NOBODY, standing_of
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.node.homes.books import StoredOrders
from meshnode.store import standing as stored

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from meshnode.store.database import Database

chance = Random(31).randbytes
ROOT, ADMIN, ANNA, BERT, OSCAR, NODE, OTHER = (Key.new(chance) for _ in range(7))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
HERE, THERE = node_id_of(NODE.public), node_id_of(OTHER.public)
NOW_S = int(ManualClock().now_s)
DAY_S = 86400
SESSION = SessionRecord(
    session_id_of(HERE, 42),
    42,
    "builder",
    State.RUNNING,
    NOW_S - 10.0 * DAY_S,
    NOW_S - 5.0 * DAY_S,
    specializations=("docs",),
)
ROLES = ((ANNA, "operator"), (BERT, "operator"), (OSCAR, "observer"), (ADMIN, "admin"))


def entry(
    body: Body, by: Key = ANNA, at_s: int = NOW_S - 3 * DAY_S, for_s: int = 6 * DAY_S
) -> Signed:
    """Sign what somebody said three days ago."""
    return sign_entry(by, GENESIS.mesh_id, body, chance, issued_s=at_s, expires_s=at_s + for_s)


class Returned:
    """One run of a node; a later run takes its disk over, and its sessions as they are by then."""

    def __init__(self, database: Database, sessions: Iterable[SessionRecord] = (SESSION,)) -> None:
        self.database = database
        self.clock = ManualClock()
        self.agents = ScriptedAgents()
        self.published = Published()
        self.told: list[tuple[SessionRecord, Done]] = []
        self.void: list[Standing] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.mesh = Mesh(GENESIS, Self(NODE, 1, Random(1)))
        self.control = self.mesh.control
        self.sessions = OwnSessions(
            self.published, self.agents, self.clock, chance, nowhere, InBackground()
        )
        self.sessions.restore(sessions)
        for key, role in ROLES:
            said = Role(key.public, role, "", ROOT.public, NOW_S, None)
            self.control.add(role_entry(ROOT, GENESIS.mesh_id, said, chance), NOW_S)
        book = StoredOrders(database)
        self.kills = StandingKills(
            self.mesh, self.sessions, book, self.clock, self._spawn, self._tell
        )
        self.kills.restore(database.run_now(stored.done))
        self.mesh.liveness.hear(THERE, standing_of("up", NOBODY, frozenset()))
        self.mesh.liveness.judge(0.0)

    def hear(self, *entries: Signed) -> list[bytes]:
        """Take entries as they come, in their order; returns their ids."""
        for one in entries:
            self.control.add(one, self.clock.now_s)
            self.kills.heard()
        return [entry_id_of(one) for one in entries]

    def revoke(self, key: Key) -> None:
        """Let the root revoke a key."""
        body = Revoke("key", key.public)
        self.hear(sign_entry(ROOT, GENESIS.mesh_id, body, chance, issued_s=NOW_S))

    def meet(self) -> None:
        """Complete a reconciliation with a neighbour."""
        self.mesh.replication.abreast = True

    async def settle(self, later_s: float = SETTLE_S) -> None:
        """Let time pass, and all that is due by then happen."""
        self.clock.now_s += later_s
        self.kills.look()
        await asyncio.gather(*self.tasks)

    @property
    def killed(self) -> list[str]:
        return self.agents.kills

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(done.outcome, done.detail) for _, done in self.told]

    def rows(self) -> list[tuple[Any, ...]]:
        """Return what the disk remembers of orders."""
        asked = "SELECT session, outcome FROM standing"
        return self.database.run_now(lambda connection: connection.execute(asked).fetchall())

    def untouched(self) -> bool:
        """Whether nothing has changed: no session, no row, no word."""
        record = self.sessions.get(SESSION.session_id)
        silent = not (self.told or self.void or self.published.rows or self.rows())
        return record == SESSION and silent and not self.killed

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _tell(self, order: Standing, session: SessionRecord | None, done: Done) -> None:
        if session is None:
            assert (done.outcome, done.detail) == ("refused", REVOKED)
            self.void.append(order)
        else:
            self.told.append((session, done))
