"""Enrolment over gRPC: what strangers may ask, and how a device joins.

Invariant: strangers take a bounded part of a node: `HELLOS` and `JOINS` say how many calls a second
are answered, of one source and of all; beyond that they are told to come back. Who comes for the
first time in a while is let in from a share of its own, so a flood from a few sources starves
nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import msgspec

from meshnode.core.errors import (
    ExhaustedError,
    NotAuthenticatedError,
    UnreachableError,
    UsageError,
)
from meshnode.core.keys import Signed
from meshnode.core.membership.enrolment import (
    Invite,
    admit_proof,
    application_from_signed,
    join_proof,
    same,
)
from meshnode.core.pacing import Buckets
from meshnode.rpc.errors import error_from, was_closed_on_us
from meshnode.rpc.limits import source_of
from meshnode.rpc.tls import joining_channel
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc
from meshnode.wire.links import PROTOCOL
from meshnode.wire.times import time_from_wire, time_to_wire

if TYPE_CHECKING:
    from meshnode.app.membership.admission import AdmissionDesk
    from meshnode.app.ports import Clock
    from meshnode.rpc.guard import Context

JOIN_TIMEOUT_S = 8.0
NEWCOMER_CALLS = 4  # of one source, from the share of newcomers; they grow again in a minute
SOURCES_MAX = 10_000  # remembered; the longest silent is a newcomer again
ALL = ""  # all sources together


class Pace(msgspec.Struct, frozen=True):
    """Calls a second, each also the burst that is allowed after a rest."""

    of_source: float
    of_newcomers: float  # all together
    of_others: float  # all together


HELLOS = Pace(of_source=10, of_newcomers=100, of_others=50)
JOINS = Pace(of_source=5, of_newcomers=20, of_others=10)


class CrowdedError(UnreachableError):
    """The inviting node closes connections: it is full, or not there behind its address.

    Nothing changed; later it may work.
    """


class Turns:
    """Decides whose call is answered now."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._clock = clock
        self._sources: Buckets[str] = Buckets(pace.of_source, pace.of_source, SOURCES_MAX)
        self._firsts: Buckets[str] = Buckets(NEWCOMER_CALLS / 60, NEWCOMER_CALLS, SOURCES_MAX)
        self._newcomers: Buckets[str] = Buckets(pace.of_newcomers, pace.of_newcomers)
        self._others: Buckets[str] = Buckets(pace.of_others, pace.of_others)

    def check(self, source: str) -> None:
        """Raise ExhaustedError when this source, or all together, have had their calls."""
        now_s = self._clock.steady_s()
        if not self._sources.take(source, now_s):
            raise ExhaustedError("too many calls from this address", "try again in a second")
        new = self._firsts.take(source, now_s)
        if not (new and self._newcomers.take(ALL, now_s)) and not self._others.take(ALL, now_s):
            raise ExhaustedError("too many callers", "try again in a second")


class EnrolmentServicer(pb_grpc.EnrolmentServiceServicer):
    """Answers strangers."""

    def __init__(self, desk: AdmissionDesk, mesh_id: str, node_id: str, clock: Clock) -> None:
        self._desk = desk
        self._mesh_id = mesh_id
        self._node_id = node_id
        self._clock = clock
        self._hellos = Turns(HELLOS, clock)
        self._joins = Turns(JOINS, clock)

    async def Hello(  # noqa: N802 - named by the proto
        self, request: pb.HelloRequest, context: Context
    ) -> pb.HelloResponse:
        """Say which mesh this is, and the time."""
        del request
        self._hellos.check(source_of(context))
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
        self._joins.check(source_of(context))
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
            name_taken=admitted.name_taken,
            members={str(node): name for node, name in admitted.members.items()},
        )


def ask_to_join(invite: Invite, application: Signed) -> tuple[str, pb.JoinResponse]:
    """Call the admitter at the invite's addresses; returns which of them answered, and what.

    The answer is proved. Raises a MeshError: ExhaustedError when it is to come back later,
    CrowdedError when it may.
    """
    application_from_signed(application)
    request = pb.JoinRequest(
        invite_id=invite.invite_id,
        application=application.payload,
        signature=application.signature,
        proof=join_proof(invite.secret, invite.admitter, application.payload),
    )
    address, response = _call(invite, request)
    if not _is_proved(response, invite, application):
        raise NotAuthenticatedError("the answer is not from the node that made the invite")
    return address, response


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


def _call(invite: Invite, request: pb.JoinRequest) -> tuple[str, pb.JoinResponse]:
    reasons, closed = [], False
    for address in invite.addresses:
        channel = joining_channel(invite.root_key, invite.mesh_id, invite.admitter, address)
        try:
            with channel:
                stub = pb_grpc.EnrolmentServiceStub(channel)
                return address, stub.Join(request, timeout=JOIN_TIMEOUT_S)
        except grpc.RpcError as failure:
            error = error_from(failure, address)
            if not isinstance(error, UnreachableError):
                raise error from failure
            reasons.append(error.message)
            closed |= was_closed_on_us(failure)
    kind = CrowdedError if closed else UnreachableError
    raise kind(
        f"the inviting node does not answer: {'; '.join(reasons) or 'the invite has no address'}",
        "is it up, and may this machine reach it? if it has moved: join - --seed HOST:PORT",
    )
