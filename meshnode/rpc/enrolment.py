"""Enrolment over gRPC: what strangers may ask, and how a device joins.

Invariant: strangers get an answer to `Hello` at most HELLOS_PER_S times a second and to `Join` at
most JOINS_PER_S times, all together; beyond that they are told to come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from meshnode.core.enrolment import (
    Invite,
    admit_proof,
    application_from_signed,
    join_proof,
    same,
)
from meshnode.core.errors import (
    NotAuthenticatedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from meshnode.core.keys import Signed
from meshnode.rpc.errors import error_from
from meshnode.rpc.tls import joining_channel
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc
from meshnode.wire.links import PROTOCOL
from meshnode.wire.times import time_from_wire, time_to_wire

if TYPE_CHECKING:
    from meshnode.app.admission import AdmissionDesk
    from meshnode.app.ports import Clock
    from meshnode.rpc.guard import Context

HELLOS_PER_S = 50
JOINS_PER_S = 5
JOIN_TIMEOUT_S = 8.0


class Pace:
    """Lets so many calls through each second."""

    def __init__(self, per_s: int, clock: Clock) -> None:
        self._per_s = per_s
        self._clock = clock
        self._second = 0
        self._count = 0

    def check(self) -> None:
        """Raise RefusedError when this second has had its calls."""
        second = int(self._clock.steady_s())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > self._per_s:
            raise RefusedError("too many callers", "try again in a second")


class EnrolmentServicer(pb_grpc.EnrolmentServiceServicer):
    """Answers strangers."""

    def __init__(self, desk: AdmissionDesk, mesh_id: str, node_id: str, clock: Clock) -> None:
        self._desk = desk
        self._mesh_id = mesh_id
        self._node_id = node_id
        self._clock = clock
        self._hellos = Pace(HELLOS_PER_S, clock)
        self._joins = Pace(JOINS_PER_S, clock)

    async def Hello(  # noqa: N802 - named by the proto
        self, request: pb.HelloRequest, context: Context
    ) -> pb.HelloResponse:
        """Say which mesh this is, and the time."""
        del request, context
        self._hellos.check()
        return pb.HelloResponse(
            mesh_id=self._mesh_id,
            protocol=PROTOCOL,
            at=time_to_wire(self._clock.wall_s()),
            node_id=self._node_id,
        )

    async def Join(  # noqa: N802 - named by the proto
        self, request: pb.JoinRequest, context: Context
    ) -> pb.JoinResponse:
        """Admit a device that proves the secret of an outstanding invite."""
        del context
        self._joins.check()
        application = Signed("join", request.application, request.signature)
        admitted = await self._desk.join(application, request.invite_id, request.proof)
        return pb.JoinResponse(
            genesis=admitted.genesis,
            certificates=admitted.certificates,
            control=admitted.control,
            addresses=admitted.addresses,
            at=time_to_wire(admitted.at_s),
            labels=admitted.labels,
            proof=admitted.proof,
            replaced=admitted.replaced,
        )


def ask_to_join(invite: Invite, application: Signed) -> pb.JoinResponse:
    """Call the admitter at the invite's addresses; raises a MeshError. The answer is proved."""
    application_from_signed(application)
    request = pb.JoinRequest(
        invite_id=invite.invite_id,
        application=application.payload,
        signature=application.signature,
        proof=join_proof(invite.secret, invite.admitter, application.payload),
    )
    response = _call(invite, request)
    if not _is_proved(response, invite, application):
        raise NotAuthenticatedError("the answer is not from the node that made the invite")
    return response


def _is_proved(response: pb.JoinResponse, invite: Invite, application: Signed) -> bool:
    try:
        at_s = time_from_wire(response.at)
    except UsageError:
        return False  # no admitter wrote that, and the user did nothing wrong
    parts = [
        response.genesis,
        list(response.certificates),
        list(response.control),
        list(response.addresses),
        at_s,
        dict(response.labels),
        *([response.replaced] if response.replaced else []),
    ]
    return same(response.proof, admit_proof(invite.secret, application.payload, parts))


def _call(invite: Invite, request: pb.JoinRequest) -> pb.JoinResponse:
    reasons = []
    for address in invite.addresses:
        channel = joining_channel(invite.root_key, invite.mesh_id, invite.admitter, address)
        try:
            with channel:
                stub = pb_grpc.EnrolmentServiceStub(channel)
                return stub.Join(request, timeout=JOIN_TIMEOUT_S)
        except grpc.RpcError as failure:
            error = error_from(failure, address)
            if not isinstance(error, UnreachableError):
                raise error from failure
            reasons.append(error.message)
    raise UnreachableError(
        f"the inviting node does not answer: {'; '.join(reasons) or 'the invite has no address'}",
        "is it up, and may this machine reach it? if it has moved: join INVITE --seed HOST:PORT",
    )
