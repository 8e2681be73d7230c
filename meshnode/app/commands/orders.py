"""Standing kills as seen from this node: which there are, and what became of them.

Invariant: what became of an order is the word of the owner of each session that it means, and of
nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.app.pieces import chunks
from meshnode.app.queries.crowds import some_of_each
from meshnode.core.commands.standing import Fate, Standing, cancelled, fate_of, fits, standing_kills
from meshnode.core.ids import NodeId, b32
from meshnode.core.sessions.sessions import is_proved

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from meshnode.app.queries.queries import Queries
    from meshnode.core.sessions.sessions import SessionRecord

    Owned = tuple[NodeId, SessionRecord]

RESULTS_SHOWN = 50  # of an order; others are counted
RESULTS_IN_ALL = 10_000  # of all orders: then fewer of each
TOLD_CHARS = 300  # of what a session tells of an order
DONE = "done"
APPLIED = "applied"  # what the owner says of a session that the order has ended


class Result(msgspec.Struct, frozen=True):
    """What became of an order at one session."""

    session: SessionRecord
    node_id: NodeId
    node_name: str
    outcome: str
    detail: str


class OrderView(msgspec.Struct, frozen=True):
    """An order, where it stands, and what became of it."""

    standing: Standing
    node_name: str | None
    state: str
    results: tuple[Result, ...]
    session_agent_id: str | None = None  # of the one session that is meant, if it is known
    results_more: int = 0  # beside those


class Orders:
    """Answers from one node's replicas."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def listed(self) -> Generator[None, None, list[OrderView]]:
        """Return every order that is held here, the newest first; with a pause at each yield."""
        control = self._queries.mesh.control
        cancels, orders = cancelled(control), list(standing_kills(control))
        named = yield from self._named(orders)
        most = min(RESULTS_SHOWN, RESULTS_IN_ALL // max(1, len(orders)))
        views = []
        for one in orders:
            meant = [
                owned for owned in named.get(one.kill.session, ()) if fits(one, owned[1], owned[0])
            ]
            fate = fate_of(control, one, cancels)
            results = yield from self._results(one, named.get(b32(one.order_id), ()))
            # What was taken back has done nothing, unless it had been carried out before.
            counts = fate is Fate.STANDS or any(told.outcome == APPLIED for _, told in results)
            is_done = counts and bool(meant) and all(record.ended for _, record in meant)
            state = DONE if is_done else str(fate)
            node = self._queries.name_of(NodeId(one.kill.node)) if one.kill.node else None
            agent = meant[0][1].agent_id if meant else None
            shown = tuple(told for _, told in some_of_each(results, most))
            views.append(OrderView(one, node, state, shown, agent, len(results) - len(shown)))
        return sorted(views, key=lambda view: (-view.standing.issued_s, view.standing.order_id))

    def _named(self, orders: list[Standing]) -> Generator[None, None, dict[str, list[Owned]]]:
        """Return the sessions that orders mean, and those that tell of one, by the id of each."""
        named: dict[str, list[Owned]] = {
            name: [] for one in orders for name in (one.kill.session, b32(one.order_id)) if name
        }
        for some in chunks(list(self._queries.mesh.tables.sessions())):
            for owner, record in some:
                told = (said.split(" ", 1)[0] for said in record.orders)
                names = named.keys() & {record.session_id, *told}
                for name in names if names and is_proved(owner, record) else ():
                    named[name].append((owner, record))
            yield
        return named

    def _results(
        self, standing: Standing, tellers: Iterable[Owned]
    ) -> Generator[None, None, list[tuple[NodeId, Result]]]:
        order_id = b32(standing.order_id)
        found = []
        for some in chunks(tellers):
            for owner, record in some:
                for told in record.orders if fits(standing, record, owner) else ():
                    name, outcome, detail = (*told[:TOLD_CHARS].split(" ", 2), "", "")[:3]
                    if name == order_id:
                        shown = self._queries.name_of(owner)
                        found.append((owner, Result(record, owner, shown, outcome, detail)))
            yield
        return found
