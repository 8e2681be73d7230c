"""Budgets on the wire, and the service that lists them for the user of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.ledger.budgets import USD, amount_text
from meshnode.core.ledger.prices import usd_text
from meshnode.rpc.views import coverage_to_wire
from meshnode.v1 import budget_pb2
from meshnode.v1 import budget_service_pb2 as pb
from meshnode.v1 import budget_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    import grpc.aio

    from meshnode.app.budgets.budgets import BudgetDesk
    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import BudgetView
    from meshnode.rpc.guard import Context


class BudgetServicer(pb_grpc.BudgetServiceServicer):
    """Lists budgets; decides nothing."""

    def __init__(self, desk: BudgetDesk, queries: Queries) -> None:
        self._desk = desk
        self._queries = queries

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_BudgetServiceServicer_to_server(self, server)

    async def ListBudgets(  # noqa: N802 - named by the proto
        self, request: pb.ListBudgetsRequest, context: Context
    ) -> pb.ListBudgetsResponse:
        """Return all that count, or the one of a name."""
        del context
        return pb.ListBudgetsResponse(
            budgets=map(budget_to_wire, await self._desk.listed(request.name)),
            coverage=coverage_to_wire(self._queries.coverage()),
            issued=self._desk.issued(request.name),
            set_by=self._desk.set_by(request.name),
            ahead=[
                pb.AheadBudget(
                    name=one.name,
                    issuer=one.issuer,
                    issued_at=time_to_wire(one.issued_s),
                    removes=one.removes,
                )
                for one in self._desk.ahead(request.name)
            ],
        )


def budget_to_wire(view: BudgetView) -> budget_pb2.Budget:
    """Encode a budget."""
    terms = view.terms
    return budget_pb2.Budget(
        budget_id=view.budget_id,
        name=view.name,
        limit=amount_text(terms.limit, terms.unit),
        per=terms.per,
        then=terms.then,
        warn_percent=terms.warn_percent,
        owner=terms.owner or None,
        agent_id=terms.agent or None,
        specialization=terms.specialization or None,
        project=terms.project or None,
        spent_usd=usd_text(view.amount) if terms.unit == USD else None,
        spent_tokens=view.tokens,
        percent=view.percent,
        window_start=time_to_wire(view.start_s),
        window_end=time_to_wire(view.end_s),
        state=view.state,
        reason=view.reason,
        nodes_heard=view.nodes_heard,
        nodes_known=view.nodes_known,
        unpriced=dict(view.unpriced),
        unpriced_more=view.unpriced_more,
        unpriced_more_tokens=view.unpriced_more_tokens,
        held=[
            budget_pb2.HeldSession(
                session_id=one.session_id,
                agent_id=one.agent_id,
                node_id=one.node_id,
                node_name=one.node_name,
            )
            for one in view.held
        ],
        held_more=view.held_more,
        issuer=view.issuer or None,
        issued_at=time_to_wire(view.issued_s) if view.issuer else None,
        by_admin=view.by_admin,
    )
