"""The three listeners of a node: for members, for joiners, for its own user.

Invariant: a port that is taken is an error that names it, never a port silently shared.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from meshnode.core.errors import ConflictError, RefusedError
from meshnode.rpc.guard import Guard, anyone, check_tls, members_guard, peer_of
from meshnode.rpc.limits import Doorkeeper, Limits, room_for, source_of
from meshnode.rpc.tls import JOINERS_OPTIONS, LOCAL_OPTIONS, MEMBERS_OPTIONS
from meshnode.v1 import (
    command_service_pb2_grpc,
    enrolment_service_pb2_grpc,
    event_service_pb2_grpc,
    link_service_pb2_grpc,
    local_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from meshnode.rpc.commands import CommandServicer
    from meshnode.rpc.enrolment import EnrolmentServicer
    from meshnode.rpc.guard import Context, Membership
    from meshnode.rpc.inside import TicketGate
    from meshnode.rpc.links import LinkServicer
    from meshnode.rpc.local import LocalServicer
    from meshnode.rpc.tls import Options

CALLS_MAX = 512  # at once, of one listener; more are refused by gRPC, before anybody is asked
CHOSEN_MAX = 3  # ports that the kernel chooses, one after the other
OF_MEMBERS = Limits(
    connections_max=4096,  # each up to 100 KiB; of more that dial at once TLS would time out
    of_files=3 / 8,
    calls_max=384,
    of_one_max=48,
    per_s=1000,
    burst=2000,
    receive_s=5.0,
    answer_s=180.0,  # a command's whole life on its way, and room to say how it ended
    endless=frozenset(
        {
            "/meshnode.v1.LinkService/Link",
            "/meshnode.v1.CommandService/ReadLog",  # as fast as somebody reads; judged each piece
        }
    ),
)
OF_JOINERS = Limits(
    connections_max=1024,  # a call each, and gone in seconds; of silent ones 800 keep nobody out
    of_files=1 / 8,
    calls_max=256,
    of_one_max=16,
    per_s=50,
    burst=100,
    receive_s=2.0,
    answer_s=10.0,
)


class Service(Protocol):
    """One more service of a port."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""


async def members_server(
    links: LinkServicer,
    commands: CommandServicer,
    membership: Membership | None = None,
    more: Iterable[Service] = (),
) -> grpc.aio.Server:
    """Serve members; bind it with `bind` before starting it."""
    guard = members_guard(membership) if membership else Guard(peer_of)
    doorkeeper = Doorkeeper(OF_MEMBERS, peer_of)
    server = _server(doorkeeper, guard, options=[*MEMBERS_OPTIONS, _room_in(OF_MEMBERS)])
    link_service_pb2_grpc.add_LinkServiceServicer_to_server(links, server)
    command_service_pb2_grpc.add_CommandServiceServicer_to_server(commands, server)
    for service in more:
        service.add_to(server)
    await _add_health(server, Health())
    return server


async def joiners_server(enrolment: EnrolmentServicer) -> grpc.aio.Server:
    """Serve strangers."""
    doorkeeper = Doorkeeper(OF_JOINERS, source_of)
    options = [*JOINERS_OPTIONS, _room_in(OF_JOINERS)]
    server = _server(doorkeeper, Guard(check_tls), options=options)
    enrolment_service_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, server)
    return server


async def local_server(
    local: LocalServicer,
    events: event_service_pb2_grpc.EventServiceServicer,
    socket: Path,
    more: Iterable[Service] = (),
    gate: TicketGate | None = None,
) -> grpc.aio.Server:
    """Serve the user of this home, and the agents inside sessions. The caller holds its lock.

    Raises ConflictError for a path that no socket can have.
    """
    server = _server(Guard(anyone), *([gate] if gate else []))
    local_service_pb2_grpc.add_LocalServiceServicer_to_server(local, server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(events, server)
    for service in more:
        service.add_to(server)
    await _add_health(server, HealthServicer())
    credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    try:
        server.add_secure_port("unix:" + quote(str(socket)), credentials)  # gRPC decodes %XX in it
    except RuntimeError as error:
        raise ConflictError(
            f"cannot listen on {socket}", "name another --home, nearer to the root"
        ) from error
    return server


def bind(
    server: grpc.aio.Server, address: str, credentials: Callable[[], grpc.ServerCredentials]
) -> int:
    """Take an address; returns the port. Raises ConflictError if it is in use.

    For port 0 the kernel chooses one, which somebody may take first: then it chooses again. Each
    try has credentials of its own: those with renewal serve one port, even if that was taken.
    """
    host, _, wanted = address.rpartition(":")
    for _ in range(1 if int(wanted) else CHOSEN_MAX):
        with suppress(RuntimeError):  # as some versions say it, others return 0
            port = server.add_secure_port(address, credentials())
            if port:
                return port
    where = address if int(wanted) else f"any port of {host}"
    raise ConflictError(
        f"cannot listen on {where}: it is in use, or not an address of this machine",
        "stop what uses it, or choose another: session-mesh up --listen HOST:PORT",
    )


def _room_in(limits: Limits) -> tuple[str, int]:
    room = room_for(limits.connections_max, limits.of_files)
    return ("grpc.max_allowed_incoming_connections", room)


def _server(
    *interceptors: grpc.aio.ServerInterceptor, options: Options = LOCAL_OPTIONS
) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=interceptors, options=options, maximum_concurrent_rpcs=CALLS_MAX
    )


class Health(HealthServicer):
    """Tells members that this node serves, once a call: who watches would hold a place for ever."""

    async def Watch(  # noqa: N802 - named by the proto
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Refuse."""
        del request, context
        raise RefusedError("health is not watched over the network", "call Check now and then")


async def _add_health(server: grpc.aio.Server, health: HealthServicer) -> None:
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
