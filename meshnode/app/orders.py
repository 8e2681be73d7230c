"""Standing kills as seen from this node: which there are, and what became of them.

Invariant: what became of an order is the word of the owner of each session, read from its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.core.ids import NodeId, b32
from meshnode.core.standing import Standing, cancelled, fate_of, standing_kills

if TYPE_CHECKING:
    from meshnode.app.queries import Queries
    from meshnode.core.sessions import SessionRecord

DONE = "done"


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


class Orders:
    """Answers from one node's replicas."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def listed(self) -> list[OrderView]:
        """Return every order that is held here, the newest first."""
        control = self._queries.mesh.control
        cancels = cancelled(control)
        results: dict[str, list[Result]] = {}
        ended: set[tuple[str, int]] = set()
        for owner, record in self._queries.mesh.tables.sessions():
            if record.ended:
                ended.add((record.session_id, record.session_epoch))
            for told in record.orders:
                order_id, outcome, detail = (*told.split(" ", 2), "", "")[:3]
                name = self._queries.name_of(owner)
                result = Result(record, owner, name, outcome, detail)
                results.setdefault(order_id, []).append(result)
        orders = sorted(standing_kills(control), key=lambda one: (-one.issued_s, one.order_id))
        return [
            OrderView(
                one,
                self._queries.name_of(NodeId(one.kill.node)) if one.kill.node else None,
                DONE
                if (one.kill.session, one.kill.epoch) in ended
                else fate_of(control, one, cancels),
                tuple(results.get(b32(one.order_id), ())),
            )
            for one in orders
        ]
