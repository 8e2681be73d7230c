"""A node of three with budgets, real but for its agents: what is spent, where, and what follows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from doubles import InBackground, ScriptedAgents, nowhere
from viewing import GENESIS, IDS, KEYS, OnePrice, Viewer

from meshnode.app.budgets.budgets import BudgetDesk
from meshnode.app.budgets.withholding import Withholding
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.standing import SETTLE_S
from meshnode.core.control.entries import Body, Revoke, entry_id_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.effects import Announce
from meshnode.core.ids import session_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey, slot_number
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.node.homes.books import StoredOrders
from meshnode.store import standing as stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.app.queries.views import BudgetView
    from meshnode.app.sessions.done import Done
    from meshnode.core.ledger.budgets import Hold, News
    from meshnode.store.database import Database

from random import Random

chance = Random(77).randbytes
ADMIN, ANNA, BERT, OSCAR, NOBODY = (Key.new(chance) for _ in range(5))
ROOT, HERE, NEAR, AWAY = KEYS[0], 0, 1, 3  # whose ledger, as `Viewer` numbers them
ROLES = ((ADMIN, "admin"), (ANNA, "operator"), (BERT, "operator"), (OSCAR, "observer"))
DAY = Terms(1000, "tokens", "day", "suspend", owner="olga")


class Budgeted(Viewer):
    """One run of a node of a mesh of four. One of the others is away, or has left if `full`."""

    def __init__(
        self, database: Database, *, full: bool = True, local: Sequence[Budget] = ()
    ) -> None:
        super().__init__()
        self.now_s = int(self.clock.now_s)
        if full:
            self.put(AWAY, NODE, ONLY_ROW, node_to_row(NodeRecord("away", standing="left")))
            self.judge()
        self.control = self.mesh.control
        for key, role in ROLES:
            said = Role(key.public, role, "", ROOT.public, 1, None)
            self.control.add(role_entry(ROOT, GENESIS.mesh_id, said, chance), self.now_s)
        self.agents = ScriptedAgents()
        self.background = InBackground()
        self.sessions = OwnSessions(
            self._publish, self.agents, self.clock, chance, nowhere, self.background
        )
        self.sessions.self_id = IDS[HERE]
        self.held: list[tuple[Hold, Done]] = []
        self.news: list[tuple[str, str]] = []
        self.withholding = Withholding(
            self.sessions,
            StoredOrders(database),
            self.clock,
            self.background,
            lambda one, done: self.held.append((one, done)),
        )
        self.withholding.restore(database.run_now(stored.done))
        self.prices = OnePrice()
        self.desk = BudgetDesk(
            self.queries, self.prices, self.clock, self.withholding, self.sessions.live, local
        )
        self.desk.tell = self._told
        self.sessions.check_start = self.desk.check_start
        self.mesh.replication.abreast = True

    def run(self, name: str = "worker", owner: str = "olga", **fields: object) -> SessionRecord:
        """Let an agent run here."""
        start = len(self.sessions.live()) + 1
        session_id = session_id_of(IDS[HERE], start)
        about: dict[str, object] = {"owner": owner, "start": start, "project": "site"} | fields
        record = SessionRecord(
            session_id,
            1,
            name,
            State.RUNNING,
            self.now_s,
            self.now_s,
            **about,  # type: ignore[arg-type] # fields by name
        )
        self.sessions.restore([*self.sessions.live(), record])
        self.row(HERE, SESSIONS, session_id.encode(), session_to_row(record))
        return record

    def use(self, number: int, session: str, tokens: int, model: str = "m", **texts: str) -> None:
        """Let a node's ledger say that so much is spent by now."""
        key = SlotKey(session, model, "standard", slot_number(self.clock.now_s))
        self.row(number, LEDGER, key_to_row(key), slot_to_row(Slot(1, Buckets(tokens), **texts)))

    def row(self, number: int, table: str, key: bytes, value: bytes | None) -> None:
        self.put(number, table, key, value)
        self.desk.take(Announce(IDS[number], [(table, key)]))

    def hear(self, *entries: Signed) -> list[bytes]:
        """Take entries as they come; returns their ids."""
        for one in entries:
            self.control.add(one, self.clock.now_s)
            self.desk.heard()
        return [entry_id_of(one) for one in entries]

    def set(self, terms: Terms | None, by: Key = ANNA, name: str = "team", ago_s: int = 9) -> bytes:
        """Set a budget, or remove it; returns its id."""
        return self.hear(word(Budget(name, terms), by, self.now_s - ago_s))[0]

    def revoke(self, key: Key) -> None:
        """Let the root revoke a key."""
        self.hear(word(Revoke("key", key.public), ROOT, self.now_s))

    async def settle(self, later_s: float = SETTLE_S) -> None:
        """Let time pass, and all that is due by then happen."""
        self.clock.now_s += later_s
        while self.desk.look() == 0.0:
            pass
        while self.background.tasks:
            await asyncio.gather(*self.background.tasks)

    async def budget(self, name: str = "team") -> BudgetView:
        return next(one for one in await self.desk.listed() if one.name == name)

    @property
    def actions(self) -> list[tuple[str, str]]:
        """What was done to whom, in order."""
        return [(one.action, one.session.agent_id) for one, done in self.held]

    def untouched(self) -> bool:
        """Whether no agent was held or ended."""
        return not (self.held or self.agents.kills or self.agents.suspended)

    def _told(self, news: News, view: BudgetView) -> None:
        self.news.append((str(news), view.name))

    async def _publish(self, table: str, key: bytes, value: bytes | None) -> None:
        await asyncio.sleep(0)
        self.row(HERE, table, key, value)


def word(body: Body, by: Key, at_s: int) -> Signed:
    """Sign an entry that stands for ever."""
    return sign_entry(by, GENESIS.mesh_id, body, chance, issued_s=at_s)
