"""What a node answers its own user, over a Unix socket.

Invariant: whoever may open the socket is the user of this home (its directory is 0700), may look at
everything and start sessions; whatever commands a session needs a signature, here as anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.pieces import chunks, in_pieces
from meshnode.app.queries.crowds import some_of_each
from meshnode.app.queries.listing import page_of
from meshnode.app.queries.specialists import Specialists
from meshnode.app.queries.views import Selection
from meshnode.app.sessions.opening import ADAPTERS, Opening
from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.rpc.control import add_control, read_head
from meshnode.rpc.cost import answer_to_wire, group_to_wire, query_from_wire
from meshnode.rpc.pulses import pulsed
from meshnode.rpc.views import (
    agent_to_wire,
    coverage_to_wire,
    node_to_wire,
    session_to_wire,
    status_to_wire,
)
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1 import local_service_pb2_grpc as pb_grpc
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping

    from meshnode.app.membership.admission import AdmissionDesk
    from meshnode.app.queries.listing import MaySee
    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import Status, Stopped
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.app.sessions.tickets import TicketDesk
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.keys import Signed
    from meshnode.rpc.commands import Bringer, CommandServicer, Courier
    from meshnode.rpc.guard import Context

AGENTS_SHOWN = 1_000  # found at once, of a row of 16 KiB each; others are counted


class LocalParts(msgspec.Struct, frozen=True):
    """What the local service is made of."""

    self_id: NodeId
    queries: Queries
    sessions: OwnSessions
    tickets: TicketDesk
    bringer: Bringer
    reader: CommandServicer
    courier: Courier
    admission: AdmissionDesk
    enrolment_addresses: Callable[[], tuple[str, ...]]
    status: Callable[[], Status]
    replicas: Mapping[NodeId, Replica]
    submit_control: Callable[[Signed], Awaitable[None]]
    drop_awaited: Callable[[NodeId], Awaitable[None]]
    stop: Callable[[bool, str], Awaitable[Stopped]]


class LocalServicer(pb_grpc.LocalServiceServicer):
    """Answers the command line and every other local client."""

    def __init__(self, parts: LocalParts) -> None:
        self._parts = parts

    async def GetStatus(  # noqa: N802 - named by the proto
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """Describe the node itself."""
        del request, context
        return status_to_wire(self._parts.status(), self._parts.queries.coverage())

    async def ListSessions(  # noqa: N802 - named by the proto
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """List a page of sessions."""
        del context
        await in_pieces(self._parts.queries.settle())
        return list_sessions(self._parts.queries, request)

    async def ListNodes(  # noqa: N802 - named by the proto
        self, request: pb.ListNodesRequest, context: Context
    ) -> pb.ListNodesResponse:
        """List the members."""
        del context
        return list_nodes(self._parts.queries, request)

    async def NameMember(  # noqa: N802 - named by the proto
        self, request: pb.NameMemberRequest, context: Context
    ) -> pb.NameMemberResponse:
        """Say what a member, or a former one, calls itself."""
        del context
        return name_member(self._parts.queries, request)

    async def FindAgents(  # noqa: N802 - named by the proto
        self, request: pb.FindAgentsRequest, context: Context
    ) -> pb.FindAgentsResponse:
        """Answer who is alive with a specialization."""
        del context
        return find_agents(self._parts.queries, request)

    async def GetCost(  # noqa: N802 - named by the proto
        self, request: pb.GetCostRequest, context: Context
    ) -> pb.GetCostResponse:
        """Sum the ledgers of the whole mesh."""
        del context
        return await cost_in_pieces(self._parts.queries, request)

    async def OpenSession(  # noqa: N802 - named by the proto
        self, request: pb.OpenSessionRequest, context: Context
    ) -> pb.OpenSessionResponse:
        """Record a session that the caller is about to start."""
        del context
        if request.steer_format not in {"", "none", "text", "json"}:
            raise UsageError("the steer format is none, text or json")
        record = await self._parts.sessions.open(
            Opening(
                agent_id=request.agent_id,
                title=request.title,
                specializations=tuple(request.specializations),
                labels=dict(request.labels),
                owner=request.owner,
                cwd=request.cwd,
                adapter=request.adapter or ADAPTERS[0],
                can_steer="preempt" if request.interrupt else "queue",
            )
        )
        directory, socket = self._parts.sessions.place_of(record.session_id)
        return pb.OpenSessionResponse(
            session_id=record.session_id,
            agent_id=record.agent_id,
            node_id=self._parts.self_id,
            directory=str(directory),
            socket=str(socket),
            ticket=await self._parts.tickets.issue(record.session_id),
        )

    async def AttachSession(  # noqa: N802 - named by the proto
        self, request: pb.AttachSessionRequest, context: Context
    ) -> pb.AttachSessionResponse:
        """Wait until a session's agent runs, or has ended."""
        del context
        record = await self._parts.sessions.begun(request.session_id)
        return pb.AttachSessionResponse(session=session_to_wire(self._parts.queries.own(record)))

    async def SubmitCommand(  # noqa: N802 - named by the proto
        self, request: pb.SubmitCommandRequest, context: Context
    ) -> pb.SubmitCommandResponse:
        """Bring a signed command to its owner, and its receipt back."""
        del context
        owner, command = _owner(request.node_id), signed_from_wire(request.command)
        receipt = await self._parts.bringer.submit(
            owner, command, request.timeout_s, until_accepted=request.until_accepted
        )
        return pb.SubmitCommandResponse(receipt=signed_to_wire(receipt))

    async def ReadSessionLog(  # noqa: N802 - named by the proto
        self, request: pb.ReadSessionLogRequest, context: Context
    ) -> AsyncIterator[pb.ReadSessionLogResponse]:
        """Stream a session's output from its owner."""
        del context
        owner, command = _owner(request.node_id), signed_from_wire(request.command)
        if owner == self._parts.self_id:
            pieces = self._parts.reader.read(command, owner)
        else:
            pieces = self._parts.courier.read_log(owner, command)
        async for output in pulsed(pieces) if request.pulses else pieces:
            if output:
                yield pb.ReadSessionLogResponse(output=output)
            elif request.pulses:  # an owner that has nothing to tell lives, as this node does
                yield pb.ReadSessionLogResponse()

    async def CreateInvite(  # noqa: N802 - named by the proto
        self, request: pb.CreateInviteRequest, context: Context
    ) -> pb.CreateInviteResponse:
        """Make a secret that admits devices."""
        del context
        word = signed_from_wire(request.authorization)
        labels = dict(request.labels)
        await self._parts.admission.invite(word, request.secret, labels, request.for_key)
        return pb.CreateInviteResponse(addresses=self._parts.enrolment_addresses())

    async def ReadHead(  # noqa: N802 - named by the proto
        self, request: pb.ReadHeadRequest, context: Context
    ) -> pb.ReadHeadResponse:
        """Return the newest header of a node's feed."""
        del context
        return read_head(self._parts.replicas, request)

    async def AddControl(  # noqa: N802 - named by the proto
        self, request: pb.AddControlRequest, context: Context
    ) -> pb.AddControlResponse:
        """Take an entry into the control set."""
        del context
        return await add_control(self._parts.submit_control, request)

    async def DropAwaited(  # noqa: N802 - named by the proto
        self, request: pb.DropAwaitedRequest, context: Context
    ) -> pb.DropAwaitedResponse:
        """Wait no longer for a member of which nothing has come."""
        del context
        await self._parts.drop_awaited(NodeId(request.node_id))
        return pb.DropAwaitedResponse()

    async def Stop(  # noqa: N802 - named by the proto
        self, request: pb.StopRequest, context: Context
    ) -> pb.StopResponse:
        """End the node."""
        del context
        stopped = await self._parts.stop(request.leave, request.sessions)
        return pb.StopResponse(
            kept=stopped.kept, closed=stopped.closed, links=stopped.links, members=stopped.members
        )


def list_sessions(
    queries: Queries, request: pb.ListSessionsRequest, may_see: MaySee | None = None
) -> pb.ListSessionsResponse:
    """Answer a request for sessions, with or without a running node."""
    selection = Selection(
        filter=request.filter,
        node=request.node,
        specialization=request.specialization,
        owner=request.owner,
        agent_id=request.agent_id,
        session_id=request.session_id,
        labels=dict(request.labels),
        sort=request.sort,
        limit=request.limit,
        next=request.next,
    )
    views, following = page_of(queries, selection, may_see)
    return pb.ListSessionsResponse(
        sessions=[session_to_wire(view) for view in views],
        coverage=coverage_to_wire(queries.coverage()),
        next=following,
    )


def list_nodes(queries: Queries, request: pb.ListNodesRequest) -> pb.ListNodesResponse:
    """Answer a request for members, with or without a running node."""
    nodes = [node_to_wire(view) for view in queries.nodes(dict(request.labels))]
    return pb.ListNodesResponse(nodes=nodes, coverage=coverage_to_wire(queries.coverage()))


def name_member(queries: Queries, request: pb.NameMemberRequest) -> pb.NameMemberResponse:
    """Answer who a node is, or was, with or without a running node."""
    return pb.NameMemberResponse(name=queries.member_name(NodeId(request.node_id)))


def find_agents(queries: Queries, request: pb.FindAgentsRequest) -> pb.FindAgentsResponse:
    """Answer a request for specialists, with or without a running node."""
    specialists = Specialists(queries)
    wanted = request.specialization
    found = specialists.find(wanted) if wanted else specialists.entries()
    places = ((view.node_id, place) for place, view in enumerate(found))
    first = sorted(place for _, place in some_of_each(places, AGENTS_SHOWN))
    return pb.FindAgentsResponse(
        agents=[agent_to_wire(found[place]) for place in first],
        coverage=coverage_to_wire(queries.coverage()),
        more=len(found) - len(first),
    )


def get_cost(queries: Queries, request: pb.GetCostRequest) -> pb.GetCostResponse:
    """Answer a request for cost without a running node."""
    answer = queries.cost(query_from_wire(request, queries.node_named))
    return answer_to_wire(answer, coverage_to_wire(queries.coverage()))


def cost_steps(
    queries: Queries, request: pb.GetCostRequest
) -> Generator[None, None, pb.GetCostResponse]:
    """Answer a request for cost, with a pause at each yield."""
    answer = yield from queries.cost_steps(query_from_wire(request, queries.node_named))
    said = answer_to_wire(replace(answer, groups=()), coverage_to_wire(queries.coverage()))
    for some in chunks(answer.groups):
        said.groups.extend(map(group_to_wire, some))
        yield
    return said


async def cost_in_pieces(queries: Queries, request: pb.GetCostRequest) -> pb.GetCostResponse:
    """Answer a request for cost inside a node, which goes on with its work meanwhile."""
    return await in_pieces(cost_steps(queries, request))


def _owner(node_id: str) -> NodeId:
    try:
        node_key_of(node_id)
    except PeerError as error:
        raise UsageError(error.message) from error
    return NodeId(node_id)
