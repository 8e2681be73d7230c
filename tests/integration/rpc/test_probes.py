"""What a probe makes of real listeners: whoever lets us in, and the ways to be turned away."""

import socket

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from integration.rpc.fleet import Founded, Member, now_s, serving

from meshnode.app.diagnosis.observations import Attempt, Dial
from meshnode.core.membership.certificates import from_pem
from meshnode.rpc.probes import SENSELESS, enter, hello
from meshnode.rpc.tls import Credentials, Identity
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

AT = Attempt("h:1", Dial.CONNECTED)


async def members(member: Member):
    server, health = grpc.aio.server(), HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return serving(server, member.identity.for_members)


async def test_a_member_is_let_in():
    mesh = Founded()
    anna, berta = mesh.node(), mesh.node()
    async with await members(berta) as address:
        seen = await enter(AT, address, berta.node_id, anna.identity)
    assert (seen.entered, seen.refusal) == (True, "")


async def test_a_peer_that_the_root_has_not_signed_is_named_so():
    anna, berta = Founded(1).node(), Founded(2).node()
    async with await members(berta) as address:
        seen = await enter(AT, address, berta.node_id, anna.identity)
    assert seen.entered is False
    assert "CERTIFICATE_VERIFY_FAILED" in seen.refusal


async def test_a_certificate_that_the_peer_refuses_keeps_us_out():
    mesh, other = Founded(1), Founded(2)
    berta, intruder = mesh.node(), other.node()
    mine = Credentials(intruder.key, mesh.genesis, intruder.chain, now_s, mesh.chance)
    async with await members(berta) as address:
        seen = await enter(AT, address, berta.node_id, Identity(mine))
    assert seen.entered is False
    assert seen.refusal
    assert "CERTIFICATE_VERIFY_FAILED" not in seen.refusal


async def test_nobody_there_is_a_fact_too():
    anna = Founded().node()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{held.getsockname()[1]}"
        seen = await enter(AT, target, anna.node_id, anna.identity)
        leaf = from_pem(anna.identity.leaf().chain)[0]
        greeted = await hello(AT, target, leaf, now_s)
    assert seen.entered is False
    assert greeted.greeting is None
    assert greeted.greeting_fault


class Strange(pb_grpc.EnrolmentServiceServicer):
    """Says Hello as it is told."""

    def __init__(self, at: str) -> None:
        self._at = at

    async def Hello(self, request, context):
        return pb.HelloResponse(mesh_id="m", protocol=9, at=self._at, node_id="n")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, None])
async def test_hello_is_heard_from_any_mesh_with_its_clock(seed, ahead_s):
    berta = Founded(seed).node()
    server = grpc.aio.server()
    at = "yesterday" if ahead_s is None else time_to_wire(now_s() + ahead_s)
    pb_grpc.add_EnrolmentServiceServicer_to_server(Strange(at), server)
    leaf = from_pem(berta.identity.leaf().chain)[0]
    async with serving(server, berta.identity.for_joiners) as address:
        seen = await hello(AT, address, leaf, now_s)
    if ahead_s is None:
        assert (seen.greeting, seen.greeting_fault) == (None, SENSELESS)
    else:
        assert (seen.greeting.protocol, seen.greeting.node_id) == (9, "n")
        assert seen.greeting.ahead_s == pytest.approx(ahead_s, abs=5)
