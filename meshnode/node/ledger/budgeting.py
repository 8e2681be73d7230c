"""Budgets of a node, put together: what it judges, holds, tells and remembers.

Invariant: each action on a session is in the audit log, with the budget's id and its signer's; what
was told in a window is not told again after a restart.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from meshnode.app.audit.auditing import Happening
from meshnode.app.budgets.budgets import BudgetDesk
from meshnode.app.budgets.withholding import Withholding, by_whom
from meshnode.app.events.things import Change, Kind, Op
from meshnode.core.errors import PeerError, StorageError
from meshnode.core.ids import b32, node_key_of, unb32
from meshnode.core.keys import key_id_of
from meshnode.core.ledger.budgets import News, Standing, Told
from meshnode.core.packing import typed
from meshnode.node.homes.books import StoredOrders
from meshnode.rpc.budgets import BudgetServicer
from meshnode.store import facts, standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.app.audit.auditing import Auditor
    from meshnode.app.cost.tally import Prices
    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import BudgetView
    from meshnode.app.sessions.done import Done
    from meshnode.core.control.settings import Budget
    from meshnode.core.effects import Announce
    from meshnode.core.ledger.budgets import Hold
    from meshnode.node.audit.eventing import Eventing
    from meshnode.node.ground import Ground
    from meshnode.node.sessions.hosting import Hosting

TOLD_FACT = "budgets_told"
_log = logging.getLogger("session_mesh.budgets")


class Budgeting:
    """Budgets, from the disk and the control set to the sessions of this node."""

    def __init__(
        self,
        ground: Ground,
        hosting: Hosting,
        queries: Queries,
        auditor: Auditor,
        prices: Prices,
        local: Sequence[Budget],
    ) -> None:
        self._ground = ground
        self._auditor = auditor
        self._agents_found = hosting.agents_found
        book = StoredOrders(ground.database)
        self._withholding = Withholding(
            hosting.sessions, book, ground.clock, ground.spawn, self._tell_hold
        )
        self.desk = BudgetDesk(
            queries, prices, ground.clock, self._withholding, hosting.sessions.live, local
        )
        hosting.sessions.check_start = self.desk.check_start
        # From the first link on: what takes a budget back may be right behind it.
        ground.world.on_entry.append(lambda _entry: self.desk.heard())
        self.servicer = BudgetServicer(self.desk, queries)

    def start(self, eventing: Eventing) -> None:
        """Begin once all that the disk remembers is there, and events are taken."""
        database, world = self._ground.database, self._ground.world
        self._withholding.restore(database.run_now(standing.done))
        self.desk.restore(*told_from(database.run_now(facts.recall, TOLD_FACT)))
        tell = eventing.follow(self.desk.shown.values)

        def tell_news(news: News, view: BudgetView) -> None:
            tell(Change(Kind.BUDGET, Op(news), view))
            self._note(news, view)
            self._remember()

        def tell_change(before: BudgetView | None, after: BudgetView | None) -> None:
            for change in _changed(before, after):
                tell(change)
            self._remember()

        self.desk.tell, self.desk.on_change = tell_news, tell_change
        others = world.on_news

        def heard(news: Announce) -> None:
            others(news)
            self.desk.take(news)

        world.on_news = heard
        self._ground.keep(self.desk.run(self._agents_found))

    def _note(self, news: News, view: BudgetView) -> None:
        self._auditor.note_some(
            Happening(
                f"budget_{news}",
                command=view.budget_id,
                actor=view.issuer or key_id_of(node_key_of(self._ground.world.mesh.self_id)),
                action=view.name,
                detail=view.reason,
            )
        )

    def _tell_hold(self, one: Hold, done: Done) -> None:
        self._auditor.note(
            Happening(
                "budget_enforced",
                one.session.session_id,
                one.session.agent_id,
                one.session.owner or "",
                command=b32(one.allowance.budget_id),
                actor=by_whom(one.allowance, self._ground.world.mesh.self_id),
                action=one.action,
                outcome=done.outcome,
                detail=f"budget {one.allowance.name}: {one.reason}; {done.detail}",
            )
        )

    def _remember(self) -> None:
        self._ground.spawn(self._keep(told_text(*self.desk.told)))

    async def _keep(self, text: bytes) -> None:
        try:
            await self._ground.database.run(facts.remember, {TOLD_FACT: text})
        except (sqlite3.Error, StorageError) as error:
            _log.warning("what was told of budgets may be told again: %s", error)


def _changed(before: BudgetView | None, after: BudgetView | None) -> list[Change]:
    if after is None:
        return [] if before is None else [Change(Kind.BUDGET, Op.REMOVED, before)]
    op = Op.ADDED if before is None else Op.CHANGED
    return [Change(Kind.BUDGET, op, after, before)]


def told_text(told: dict[bytes, Told], known: dict[str, bytes]) -> bytes:
    """Write what was told, for the disk."""
    value = {
        "told": {b32(one): [last.start_s, str(last.standing)] for one, last in told.items()},
        "known": {name: b32(one) for name, one in known.items()},
    }
    return json.dumps(value).encode()


def told_from(fact: bytes | None) -> tuple[dict[bytes, Told], dict[str, bytes]]:
    """Read what was told; nothing where that makes no sense: it is told once more then."""
    try:
        value: dict[str, Any] = json.loads(fact or b'{"told": {}, "known": {}}')
        told = {
            unb32(one): Told(typed(start_s, int), Standing(standing))
            for one, (start_s, standing) in value["told"].items()
        }
        known = {name: unb32(one) for name, one in value["known"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, PeerError):
        return {}, {}
    return told, known
