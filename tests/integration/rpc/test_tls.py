"""Who gets through to whom: real TLS on loopback, honest and forged certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.rpc.fleet import (
    DAY_S,
    WAIT_S,
    Claim,
    Founded,
    Member,
    handmade_leaf,
    health_of,
    leaf_under_a_leaf,
    now_s,
    serving,
)
from integration.rpc.http2 import speak

from meshnode.core.errors import NotAuthenticatedError
from meshnode.core.membership.certificates import anchor, dns_name_of
from meshnode.node.clock import SystemClock
from meshnode.rpc.enrolment import EnrolmentServicer
from meshnode.rpc.errors import error_from
from meshnode.rpc.guard import peer_of
from meshnode.rpc.servers import joiners_server, local_server, members_server
from meshnode.rpc.tls import joining_channel, pinned
from meshnode.v1 import command_service_pb2 as commands_pb
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import enrolment_service_pb2 as enrolment_pb
from meshnode.v1 import enrolment_service_pb2_grpc as enrolment_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc
from meshnode.v1.event_service_pb2_grpc import EventServiceServicer
from meshnode.v1.local_service_pb2_grpc import LocalServiceServicer

SERVING = health_pb2.HealthCheckResponse.SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@dataclass
class Callers(commands_grpc.CommandServiceServicer):
    """Notes who calls, and what TLS says about them."""

    peers: list[str] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)

    async def Submit(self, request, context):
        self.peers.append(peer_of(context))
        self.facts.append(dict(context.auth_context()))
        return commands_pb.SubmitResponse()


@asynccontextmanager
async def members_port(member: Member, callers: Callers | None = None) -> AsyncIterator[str]:
    server = await members_server(links_grpc.LinkServiceServicer(), callers or Callers())
    async with serving(server, member.identity.for_members) as address:
        yield address


@asynccontextmanager
async def joiners_port(member: Member, mesh: Founded) -> AsyncIterator[str]:
    servicer = EnrolmentServicer(None, mesh.mesh_id, member.node_id, SystemClock())
    server = await joiners_server(servicer)
    async with serving(server, member.identity.for_joiners) as address:
        yield address


async def submit(channel: grpc.aio.Channel) -> None:
    async with asyncio.timeout(WAIT_S), channel:
        await commands_grpc.CommandServiceStub(channel).Submit(commands_pb.SubmitRequest())


async def is_refused(caller: Member, callee: Member) -> bool:
    """Whether TLS itself refuses, so that no handler runs."""
    callers = Callers()
    async with members_port(callee, callers) as address:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await submit(caller.identity.channel(callee.node_id, address))
    return failure.value.code() is UNAVAILABLE and not callers.peers


async def refused_by_the_guard(caller: Member, callee: Member) -> str:
    """Return why a caller that passes TLS is refused all the same."""
    callers = Callers()
    async with members_port(callee, callers) as address:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await submit(caller.identity.channel(callee.node_id, address))
    error = error_from(failure.value, "it")
    assert isinstance(error, NotAuthenticatedError)
    assert not callers.peers
    return error.message


async def test_a_member_reaches_a_member_and_is_known_by_its_node_id(mesh):
    anna, bert = mesh.node(), mesh.node()
    callers = Callers()
    async with members_port(bert, callers) as address:
        await submit(anna.identity.channel(bert.node_id, address))
    (facts,) = callers.facts
    assert callers.peers == [anna.node_id]
    assert list(facts["peer_dns"]) == [dns_name_of(anna.node_id).encode()]
    assert list(facts["ssl_tls_version"]) == [b"TLSv1.3"]
    assert list(facts["ssl_session_reused"]) == [b"false"]


async def test_members_and_joiners_pass_by_the_proxy_that_is_there_for_the_web(mesh, monkeypatch):
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    anna, bert = mesh.node(), mesh.node()
    async with proxy, asyncio.timeout(WAIT_S):
        async with members_port(bert) as address:
            channel = anna.identity.channel(bert.node_id, address)
            assert await health_of(channel) == SERVING
        async with joiners_port(bert, mesh) as address:
            root = mesh.root.public
            with joining_channel(root, mesh.mesh_id, bert.node_id, address) as joining:
                hello = enrolment_grpc.EnrolmentServiceStub(joining).Hello
                said = await asyncio.to_thread(hello, enrolment_pb.HelloRequest())
    assert said.node_id == bert.node_id
    assert asked == []


async def test_another_member_than_the_one_dialled_is_refused(mesh):
    anna, bert, carl = mesh.node(), mesh.node(), mesh.node()
    callers = Callers()
    async with members_port(bert, callers) as address:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await submit(anna.identity.channel(carl.node_id, address))
    assert failure.value.code() is UNAVAILABLE
    assert callers.peers == []


async def test_nobody_without_a_certificate_is_served_on_the_members_port(mesh):
    bert = mesh.node()
    callers = Callers()
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with members_port(bert, callers) as address:
        channel = grpc.aio.secure_channel(address, credentials, options=pinned(bert.node_id))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await submit(channel)
    assert failure.value.code() is UNAVAILABLE
    assert callers.peers == []


async def test_a_node_of_another_mesh_is_refused_as_caller_and_as_callee(mesh, foreign):
    assert await is_refused(foreign.node(), mesh.node())
    assert await is_refused(mesh.node(), foreign.node())


async def test_the_same_identity_admitted_into_another_mesh_is_refused_here(mesh, foreign):
    twin = foreign.node(key=mesh.node().key)
    assert await is_refused(twin, mesh.node())


async def test_an_expired_leaf_is_refused_as_caller_and_as_callee(mesh):
    past_s = now_s() - 8 * DAY_S
    late = mesh.node(wall_s=lambda: past_s, admitted_at_s=past_s)
    assert await is_refused(late, mesh.node())
    assert await is_refused(mesh.node(), late)


async def test_a_valid_leaf_under_an_expired_authority_is_refused(mesh):
    expired = mesh.node(admitted_at_s=now_s() - 731 * DAY_S)
    claim = Claim([dns_name_of(expired.node_id)])
    fresh = mesh.showing(expired, handmade_leaf(expired, claim))
    assert await is_refused(fresh, mesh.node())
    assert await is_refused(mesh.node(), fresh)


async def test_a_leaf_that_is_fine_by_hand_is_accepted(mesh):
    member = mesh.node()
    claim = Claim([dns_name_of(member.node_id)])
    shown = mesh.showing(member, handmade_leaf(member, claim))
    async with members_port(mesh.node()) as _, members_port(shown) as address:
        channel = mesh.node().identity.channel(shown.node_id, address)
        assert await health_of(channel) == SERVING


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0, -1.5 * DAY_S, -20_000 * DAY_S])
async def test_a_device_whose_clock_is_off_still_speaks_to_the_others(mesh, off_s):
    off = mesh.node(wall_s=lambda: now_s() + off_s)
    other = mesh.node()
    async with members_port(off) as off_address, members_port(other) as address:
        assert await health_of(off.identity.channel(other.node_id, address)) == SERVING
        assert await health_of(other.identity.channel(off.node_id, off_address)) == SERVING


async def test_a_node_cannot_forge_the_name_of_another(mesh):
    mallory, victim = mesh.node(), mesh.node()
    leaf = handmade_leaf(mallory, Claim([dns_name_of(victim.node_id)]))
    forger = mesh.showing(mallory, leaf)
    assert await is_refused(forger, mesh.node())
    posing = Member(mallory.key, victim.node_id, mallory.chain, forger.identity)
    assert await is_refused(mesh.node(), posing)


@pytest.mark.parametrize("first", ["own", "victim"])
async def test_a_node_cannot_put_the_name_of_another_beside_its_own(mesh, first):
    mallory, victim = mesh.node(), mesh.node()
    names = [dns_name_of(mallory.node_id), dns_name_of(victim.node_id)]
    leaf = handmade_leaf(mallory, Claim(names if first == "own" else names[::-1]))
    forger = mesh.showing(mallory, leaf)
    assert await is_refused(forger, mesh.node())
    posing = Member(mallory.key, victim.node_id, mallory.chain, forger.identity)
    assert await is_refused(mesh.node(), posing)


async def test_a_leaf_with_two_names_of_its_own_is_refused_by_the_guard(mesh):
    mallory = mesh.node()
    own = dns_name_of(mallory.node_id)
    two = mesh.showing(mallory, handmade_leaf(mallory, Claim([own, f"other.{own}"])))
    assert "exactly one DNS name" in await refused_by_the_guard(two, mesh.node())


async def test_a_leaf_for_a_name_beneath_its_own_is_refused_by_the_guard(mesh):
    mallory = mesh.node()
    leaf = handmade_leaf(mallory, Claim([f"other.{dns_name_of(mallory.node_id)}"]))
    said = await refused_by_the_guard(mesh.showing(mallory, leaf), mesh.node())
    assert "outside the mesh" in said


async def test_a_leaf_without_any_dns_name_is_refused_by_the_guard(mesh):
    mallory, victim = mesh.node(), mesh.node()
    claim = Claim([], uris=[f"spiffe://{dns_name_of(victim.node_id)}"])
    leaf = handmade_leaf(mallory, claim)
    said = await refused_by_the_guard(mesh.showing(mallory, leaf), mesh.node())
    assert "exactly one DNS name" in said


async def test_a_common_name_and_uris_say_nothing_about_the_caller(mesh):
    mallory, victim, bert = mesh.node(), mesh.node(), mesh.node()
    claim = Claim(
        [dns_name_of(mallory.node_id)],
        uris=[f"spiffe://{dns_name_of(victim.node_id)}", dns_name_of(victim.node_id)],
        common_name=f"n {victim.node_id}"[:64],
    )
    callers = Callers()
    async with members_port(bert, callers) as address:
        liar = mesh.showing(mallory, handmade_leaf(mallory, claim))
        await submit(liar.identity.channel(bert.node_id, address))
    assert callers.peers == [mallory.node_id]


@pytest.mark.parametrize("as_authority", [False, True])
async def test_a_leaf_is_no_authority_whatever_it_says(mesh, as_authority):
    mallory = mesh.node()
    claim = Claim([dns_name_of(mallory.node_id)])
    below = leaf_under_a_leaf(mallory, claim, as_authority=as_authority)
    assert await is_refused(mesh.showing(mallory, below), mesh.node())


@pytest.fixture
def context(mesh, tmp_path: Path):
    """Make a context for a member; TLS libraries want its key in a file."""

    def made(member: Member, version: ssl.TLSVersion) -> ssl.SSLContext:
        leaf = member.identity.leaf()
        path = tmp_path / "leaf.pem"
        path.write_bytes(leaf.private_key + leaf.chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the server's judgement is what is tested
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(path)
        return context

    return made


async def test_a_client_by_hand_is_served_over_tls_1_3(mesh, context):
    anna, bert = mesh.node(), mesh.node()
    callers = Callers()
    async with members_port(bert, callers) as address:
        made = context(anna, ssl.TLSVersion.TLSv1_3)
        spoken = await asyncio.to_thread(speak, anna, bert, address, made)
    assert spoken.version == "TLSv1.3"
    assert callers.peers == [anna.node_id]


async def test_nothing_is_served_over_tls_1_2(mesh, context):
    anna, bert = mesh.node(), mesh.node()
    callers = Callers()
    async with members_port(bert, callers) as address:
        made = context(anna, ssl.TLSVersion.TLSv1_2)
        try:
            spoken = await asyncio.to_thread(speak, anna, bert, address, made)
        except (ssl.SSLError, ConnectionError):
            spoken = None  # not even a handshake: as good
    assert spoken is None or b"only TLS 1.3 is served" in spoken.answer
    assert callers.peers == []


async def test_a_resumed_session_is_not_served(mesh, context):
    anna, bert = mesh.node(), mesh.node()
    callers = Callers()
    async with members_port(bert, callers) as address:
        made = context(anna, ssl.TLSVersion.TLSv1_3)
        first = await asyncio.to_thread(speak, anna, bert, address, made)
        assert first.session is not None  # a ticket was given out
        again = await asyncio.to_thread(speak, anna, bert, address, made, first.session)
    if again.reused:
        assert b"resumed TLS sessions are not served" in again.answer
        assert len(callers.peers) == 1
    else:
        assert len(callers.peers) == 2  # a handshake of its own


async def test_joiners_get_an_answer_without_a_certificate_and_nothing_else(mesh):
    bert = mesh.node()
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with joiners_port(bert, mesh) as address, asyncio.timeout(WAIT_S):
        channel = grpc.aio.secure_channel(address, credentials, options=pinned(bert.node_id))
        async with channel:
            stub = enrolment_grpc.EnrolmentServiceStub(channel)
            hello = await stub.Hello(enrolment_pb.HelloRequest())
            assert (hello.mesh_id, hello.node_id) == (mesh.mesh_id, bert.node_id)
            commands = commands_grpc.CommandServiceStub(channel)
            link = links_grpc.LinkServiceStub(channel).Link()
            health = health_pb2_grpc.HealthStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as submitted:
                await commands.Submit(commands_pb.SubmitRequest())
            with pytest.raises(grpc.aio.AioRpcError) as asked:
                await health.Check(health_pb2.HealthCheckRequest())
            assert await link.code() is grpc.StatusCode.UNIMPLEMENTED
    for failure in (submitted, asked):
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_members_may_ask_for_health_and_not_watch_it(mesh):
    anna, bert = mesh.node(), mesh.node()
    async with members_port(bert) as address, asyncio.timeout(WAIT_S):
        assert await health_of(anna.identity.channel(bert.node_id, address)) == SERVING
        async with anna.identity.channel(bert.node_id, address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await watch.read()
    assert error_from(failure.value, "it").hint == "call Check now and then"


async def test_the_unix_socket_serves_health(mesh):
    with TemporaryDirectory(prefix="smesh") as directory:
        path = Path(directory) / "s.sock"
        server = await local_server(_NoLocalService(), EventServiceServicer(), path)
        await server.start()
        try:
            credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
            assert await health_of(grpc.aio.secure_channel(f"unix:{path}", credentials)) == SERVING
        finally:
            await server.stop(None)


class _NoLocalService(LocalServiceServicer):
    """Only there to be registered."""
