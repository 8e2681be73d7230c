"""The three listeners of a node: for members, for joiners, for its own user.

Invariant: a port that is taken is an error that names it, never a port silently shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from meshnode.core.errors import ConflictError
from meshnode.rpc.guard import Guard, anyone, members_guard, peer_of
from meshnode.rpc.tls import SERVER_OPTIONS
from meshnode.v1 import (
    audit_service_pb2_grpc,
    command_service_pb2_grpc,
    enrolment_service_pb2_grpc,
    event_service_pb2_grpc,
    key_service_pb2_grpc,
    link_service_pb2_grpc,
    local_service_pb2_grpc,
)

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.rpc.audit import AuditServicer
    from meshnode.rpc.commands import CommandServicer
    from meshnode.rpc.enrolment import EnrolmentServicer
    from meshnode.rpc.guard import Membership
    from meshnode.rpc.links import LinkServicer
    from meshnode.rpc.local import LocalServicer

CALLS_MAX = 512  # at once, of one listener; more are refused by gRPC


async def members_server(
    links: LinkServicer,
    commands: CommandServicer,
    membership: Membership | None = None,
    audit: AuditServicer | None = None,
) -> grpc.aio.Server:
    """Serve members; bind it with `bind` before starting it."""
    server = _server(members_guard(membership) if membership else Guard(peer_of))
    link_service_pb2_grpc.add_LinkServiceServicer_to_server(links, server)
    command_service_pb2_grpc.add_CommandServiceServicer_to_server(commands, server)
    _add_audit(audit, server)
    await _add_health(server)
    return server


async def joiners_server(enrolment: EnrolmentServicer) -> grpc.aio.Server:
    """Serve strangers."""
    server = _server(Guard(anyone))
    enrolment_service_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, server)
    return server


async def local_server(
    local: LocalServicer,
    events: event_service_pb2_grpc.EventServiceServicer,
    socket: Path,
    keys: key_service_pb2_grpc.KeyServiceServicer | None = None,
    audit: AuditServicer | None = None,
) -> grpc.aio.Server:
    """Serve the user of this home. The caller holds the home's lock."""
    server = _server(Guard(anyone))
    local_service_pb2_grpc.add_LocalServiceServicer_to_server(local, server)
    event_service_pb2_grpc.add_EventServiceServicer_to_server(events, server)
    if keys is not None:
        key_service_pb2_grpc.add_KeyServiceServicer_to_server(keys, server)
    _add_audit(audit, server)
    await _add_health(server)
    credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    server.add_secure_port(f"unix:{socket}", credentials)
    return server


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> int:
    """Take an address; returns the port. Raises ConflictError if it is in use."""
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _in_use(address) from error
    if port == 0:
        raise _in_use(address)
    return port


def _in_use(address: str) -> ConflictError:
    return ConflictError(
        f"cannot listen on {address}: it is in use, or not an address of this machine",
        "stop what uses it, or choose another: session-mesh up --listen HOST:PORT",
    )


def _server(guard: Guard) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=[guard], options=SERVER_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX
    )


def _add_audit(audit: AuditServicer | None, server: grpc.aio.Server) -> None:
    if audit is not None:
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)


async def _add_health(server: grpc.aio.Server) -> None:
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
