"""Standing kills on the wire, and the service that lists them for the user of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.pieces import in_pieces
from meshnode.core.ids import b32
from meshnode.core.keys import key_id_of
from meshnode.v1 import order_service_pb2 as pb
from meshnode.v1 import order_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    import grpc.aio

    from meshnode.app.commands.orders import Orders, OrderView, Result
    from meshnode.rpc.guard import Context


class OrderServicer(pb_grpc.OrderServiceServicer):
    """Lists orders; decides nothing."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_OrderServiceServicer_to_server(self, server)

    async def ListOrders(  # noqa: N802 - named by the proto
        self, request: pb.ListOrdersRequest, context: Context
    ) -> pb.ListOrdersResponse:
        """Return all that are held."""
        del request, context
        return pb.ListOrdersResponse(
            orders=map(order_to_wire, await in_pieces(self._orders.listed()))
        )


def order_to_wire(view: OrderView) -> pb.StandingOrder:
    """Encode an order."""
    standing, kill = view.standing, view.standing.kill
    return pb.StandingOrder(
        order_id=b32(standing.order_id),
        issuer=key_id_of(standing.issuer),
        session_id=kill.session or None,
        agent_id=kill.agent or None,
        specialization=kill.specialization or None,
        node_id=kill.node or None,
        node_name=view.node_name,
        force=kill.force,
        grace_s=kill.grace_s,
        issued_at=time_to_wire(standing.issued_s),
        expires_at=time_to_wire(standing.expires_s),
        state=view.state,
        results=map(_result_to_wire, view.results),
        session_agent_id=view.session_agent_id,
        results_more=view.results_more,
    )


def _result_to_wire(result: Result) -> pb.OrderResult:
    return pb.OrderResult(
        session_id=result.session.session_id,
        agent_id=result.session.agent_id,
        node_id=result.node_id,
        node_name=result.node_name,
        outcome=result.outcome,
        detail=result.detail,
    )
