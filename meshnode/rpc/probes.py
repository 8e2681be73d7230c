"""Asking a peer what it says to strangers, and whether it lets us in.

Invariant: what goes wrong is a fact in words, never an exception; nothing is changed anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec.structs import replace

from meshnode.app.diagnosis.observations import Attempt, Greeting
from meshnode.core.errors import MeshError, UsageError
from meshnode.core.membership.certificates import UNREADABLE, hints_in
from meshnode.rpc.errors import error_from
from meshnode.rpc.tls import pinned
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc
from meshnode.wire.links import PROTOCOL
from meshnode.wire.times import time_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.ids import NodeId
    from meshnode.rpc.tls import Identity

HELLO_S = 1.5
ENTER_S = 2.0
OURS = PROTOCOL  # the version of the protocol that this installation speaks
SAID_CHARS_MAX = 200  # of a peer's own words
SENSELESS = "its answer makes no sense"


async def hello(
    attempt: Attempt, target: str, leaf_der: bytes, wall_s: Callable[[], float]
) -> Attempt:
    """Ask for a Hello at `target`, believing the certificate that was seen there.

    Nobody vouches for it, and nothing secret is sent: whoever answers only explains itself.
    """
    try:
        node_id, _ = hints_in(leaf_der)
        leaf = x509.load_der_x509_certificate(leaf_der).public_bytes(Encoding.PEM)
        credentials = grpc.ssl_channel_credentials(leaf)
        async with grpc.aio.secure_channel(target, credentials, options=pinned(node_id)) as channel:
            asked_s = wall_s()
            stub = pb_grpc.EnrolmentServiceStub(channel)
            answer = await stub.Hello(pb.HelloRequest(), timeout=HELLO_S)
            heard_s = wall_s()
        ahead_s = time_from_wire(answer.at) - (asked_s + heard_s) / 2
    except grpc.aio.AioRpcError as error:
        return replace(attempt, greeting_fault=_said(error))
    except (UsageError, OverflowError, *UNREADABLE):
        return replace(attempt, greeting_fault=SENSELESS)
    except MeshError as error:
        return replace(attempt, greeting_fault=error.message)
    greeting = Greeting(answer.node_id, answer.mesh_id, answer.protocol, ahead_s)
    return replace(attempt, greeting=greeting)


async def enter(attempt: Attempt, target: str, peer: NodeId, identity: Identity) -> Attempt:
    """Open the members' port with our certificate, pinned to the peer, and ask for its health."""
    try:
        async with identity.channel(peer, target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = stub.Check(health_pb2.HealthCheckRequest(), timeout=ENTER_S)  # type: ignore[attr-defined] # its stubs are off
            await asked
    except grpc.aio.AioRpcError as error:
        return replace(attempt, entered=False, refusal=_said(error))
    return replace(attempt, entered=True)


def _said(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "it does not know this call"
    return error_from(error, "it").message[:SAID_CHARS_MAX]
