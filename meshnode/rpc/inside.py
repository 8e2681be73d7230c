"""What a node answers the agents inside its sessions, and what it refuses whoever bears a ticket.

Invariants: a call with a ticket reaches SessionService and two questions of LocalService, nothing
else on the socket; a ticket comes in a call's metadata and goes nowhere from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from meshnode.app.sessions.reporting import Report
from meshnode.core.errors import NotAuthenticatedError, NotPermittedError, UsageError
from meshnode.rpc.cost import buckets_from_wire
from meshnode.rpc.pulses import pulsed
from meshnode.rpc.views import session_to_wire
from meshnode.v1 import session_service_pb2 as pb
from meshnode.v1 import session_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from meshnode.app.queries.queries import Queries
    from meshnode.app.sessions.inboxes import Inboxes
    from meshnode.app.sessions.own_entries import OwnEntries
    from meshnode.app.sessions.reporting import ReportDesk
    from meshnode.app.sessions.tickets import TicketDesk
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.rpc.guard import Context

TICKET_KEY = "session-mesh-ticket"
OWN_SERVICE = "/meshnode.v1.SessionService/"
ANSWERED = frozenset(
    {"/meshnode.v1.LocalService/ListSessions", "/meshnode.v1.LocalService/FindAgents"}
)


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Answers agents about the session that their ticket is of."""

    def __init__(
        self,
        tickets: TicketDesk,
        queries: Queries,
        entries: OwnEntries,
        reports: ReportDesk,
        inboxes: Inboxes,
        on_work: Callable[[str], None],
    ) -> None:
        self._tickets = tickets
        self._queries = queries
        self._entries = entries
        self._reports = reports
        self._inboxes = inboxes
        self._on_work = on_work  # hears of a session that has registered or unregistered itself

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_SessionServiceServicer_to_server(self, server)

    async def GetSelf(  # noqa: N802 - named by the proto
        self, request: pb.GetSelfRequest, context: Context
    ) -> pb.GetSelfResponse:
        """Describe the session."""
        del request
        (view,) = self._queries.with_spent([self._queries.own(await self._admitted(context))])
        return pb.GetSelfResponse(session=session_to_wire(view))

    async def RegisterSelf(  # noqa: N802 - named by the proto
        self, request: pb.RegisterSelfRequest, context: Context
    ) -> pb.RegisterSelfResponse:
        """Enter the agent into the registry."""
        session = await self._admitted(context)
        done = await self._entries.register(
            session.agent_id, request.specialization, dict(request.attributes)
        )
        self._on_work(session.session_id)
        return pb.RegisterSelfResponse(
            agent_id=session.agent_id, outcome=done.outcome, detail=done.detail
        )

    async def UnregisterSelf(  # noqa: N802 - named by the proto
        self, request: pb.UnregisterSelfRequest, context: Context
    ) -> pb.UnregisterSelfResponse:
        """Take the agent out of the registry."""
        session = await self._admitted(context)
        done = await self._entries.unregister(session.agent_id, request.specialization)
        self._on_work(session.session_id)
        return pb.UnregisterSelfResponse(
            agent_id=session.agent_id, outcome=done.outcome, detail=done.detail
        )

    async def ReportUsage(  # noqa: N802 - named by the proto
        self, request: pb.ReportUsageRequest, context: Context
    ) -> pb.ReportUsageResponse:
        """Count what a response has used."""
        session = await self._admitted(context)
        if not request.HasField("usage"):  # else its id would count nothing for good
            raise UsageError("a report without usage", "say what was used: usage.input, output, …")
        usage = buckets_from_wire(request.usage)
        report = Report(request.id, request.model, usage, request.provider, request.tier)
        return pb.ReportUsageResponse(counted=await self._reports.take(session, report))

    async def ReadInbox(  # noqa: N802 - named by the proto
        self, request: pb.ReadInboxRequest, context: Context
    ) -> AsyncIterator[pb.ReadInboxResponse]:
        """Stream steers."""
        session = await self._admitted(context)
        after = request.after if request.HasField("after") else None
        steers = self._inboxes.read(session.session_id, after, follow=request.follow)
        async for steer in pulsed(steers) if request.pulses else steers:
            yield (
                pb.ReadInboxResponse()
                if steer is None
                else pb.ReadInboxResponse(
                    position=steer.position,
                    command_id=steer.command_id,
                    direction=steer.direction,
                    message=steer.message,
                    at=time_to_wire(steer.at_s),
                    mode=steer.mode,
                )
            )

    async def TakeSteers(  # noqa: N802 - named by the proto
        self, request: pb.TakeSteersRequest, context: Context
    ) -> pb.TakeSteersResponse:
        """Note what was dealt with."""
        session = await self._admitted(context)
        await self._inboxes.take(session.session_id, request.position)
        return pb.TakeSteersResponse()

    async def _admitted(self, context: Context) -> SessionRecord:
        ticket = ticket_in(context.invocation_metadata())
        if ticket is None:
            raise NotAuthenticatedError(
                "only an agent inside a session may ask this", "session-mesh run gives it a ticket"
            )
        return await self._tickets.admit(ticket)


class TicketGate(grpc.aio.ServerInterceptor):
    """Keeps whoever bears a ticket to what an agent may ask. A Guard stands before it."""

    def __init__(self, tickets: TicketDesk) -> None:
        self._tickets = tickets

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handler type is not public
        """Return the handler that was asked for, or one that checks first, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        ticket = ticket_in(handler_call_details.invocation_metadata)
        if ticket is None or handler is None or method.startswith(OWN_SERVICE):
            return handler
        answer = handler.unary_unary if method in ANSWERED else _refuse

        async def checked(request: Any, context: Context) -> Any:  # noqa: ANN401 - grpc is untyped here
            await self._tickets.admit(ticket)
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            checked, handler.request_deserializer, handler.response_serializer
        )


def ticket_in(metadata: Any) -> str | None:  # noqa: ANN401 - grpc's own type
    """Return the ticket that a call bears; one that is no text is one that proves nothing."""
    for key, value in metadata or ():
        if key == TICKET_KEY:
            return value if isinstance(value, str) else value.decode(errors="replace")
    return None


async def _refuse(request: object, context: Context) -> object:
    del request, context
    raise NotPermittedError(
        "a ticket does not allow this: it is for self, list, find, register, unregister, report"
        " and steer-inbox",
        "a person commands from a shell outside the session",
    )
