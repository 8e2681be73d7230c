"""Standing kills as seen from this node: which there are, and what became of them.

Invariant: what became of an order is the word of the owner of each session that it means, and of
nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.core.ids import NodeId, b32
from meshnode.core.standing import Fate, Standing, cancelled, fate_of, fits, standing_kills

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.app.queries import Queries
    from meshnode.core.sessions import SessionRecord

    Owned = tuple[NodeId, SessionRecord]

DONE = "done"
APPLIED = "applied"  # what the owner says of a session that the order has ended


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an order at one session."""

    session: SessionRecord
    node_id: NodeId
    node_name: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order, where it stands, and what became of it."""

    standing: Standing
    node_name: str | None
    state: str
    results: tuple[Result, ...]
    session_agent_id: str | None = None  # of the one session that is meant, if it is known


class Orders:
    """Answers from one node's replicas."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def listed(self) -> list[OrderView]:
        """Return every order that is held here, the newest first."""
        control = self._queries.mesh.control
        cancels = cancelled(control)
        named: dict[str, list[Owned]] = {}  # by session, and by the orders that sessions tell of
        for owner, record in self._queries.mesh.tables.sessions():
            for name in {record.session_id, *(told.split(" ", 1)[0] for told in record.orders)}:
                named.setdefault(name, []).append((owner, record))
        views = []
        for one in standing_kills(control):
            meant = [
                owned for owned in named.get(one.kill.session, ()) if fits(one, owned[1], owned[0])
            ]
            fate = fate_of(control, one, cancels)
            results = tuple(self._results(one, named.get(b32(one.order_id), ())))
            # What was taken back has done nothing, unless it had been carried out before.
            counts = fate is Fate.STANDS or any(told.outcome == APPLIED for told in results)
            is_done = counts and bool(meant) and all(record.ended for _, record in meant)
            state = DONE if is_done else str(fate)
            node = self._queries.name_of(NodeId(one.kill.node)) if one.kill.node else None
            agent = meant[0][1].agent_id if meant else None
            views.append(OrderView(one, node, state, results, agent))
        return sorted(views, key=lambda view: (-view.standing.issued_s, view.standing.order_id))

    def _results(self, standing: Standing, tellers: Iterable[Owned]) -> Iterable[Result]:
        order_id = b32(standing.order_id)
        for owner, record in tellers:
            for told in record.orders if fits(standing, record, owner) else ():
                name, outcome, detail = (*told.split(" ", 2), "", "")[:3]
                if name == order_id:
                    shown = self._queries.name_of(owner)
                    yield Result(record, owner, shown, outcome, detail)
