"""What a stranger, and what a member, can do to the ports of a node before it is even asked."""

import asyncio
import gzip
import ssl
from datetime import timedelta
from itertools import islice

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from integration.attacks.ports import (
    HELLO,
    Commands,
    answer_to,
    calls_without_body,
    flood_of_hellos,
    hello,
    joiners_port,
    members_port,
    silent_connections,
    submitted,
    tls,
)
from integration.rpc.fleet import (
    Claim,
    Founded,
    handmade_leaf,
    now_s,
)
from integration.rpc.http2 import speak
from msgspec.structs import replace

from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    RefusedError,
    UnreachableError,
)
from meshnode.core.membership.certificates import anchor, dns_name_of
from meshnode.rpc import servers
from meshnode.rpc.servers import CALLS_MAX, OF_JOINERS, OF_MEMBERS, bind, members_server
from meshnode.rpc.tls import MESSAGE_BYTES_MAX, METADATA_BYTES_MAX, pinned
from meshnode.v1 import link_service_pb2_grpc as links_grpc

SUBMIT = "/meshnode.v1.CommandService/Submit"
READ_LOG = "/meshnode.v1.CommandService/ReadLog"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(5)


@pytest.fixture
def commands() -> Commands:
    return Commands()


async def raw(channel: grpc.aio.Channel, path: str, request: bytes, **options) -> grpc.StatusCode:
    """Call with bytes by hand; returns how it ended."""
    try:
        await channel.unary_unary(path)(request, **options)
    except grpc.aio.AioRpcError as failure:
        return failure.code()
    return grpc.StatusCode.OK


async def test_tls_1_2_is_answered_on_the_members_port_with_a_refusal_only(mesh, commands):
    anna, bert = mesh.node(), mesh.node()
    async with members_port(bert, commands) as address:
        context = tls(anna, ssl.TLSVersion.TLSv1_2)
        spoken = await asyncio.to_thread(speak, anna, bert, address, context)
    assert spoken.version == "TLSv1.2"
    assert b"only TLS 1.3 is served" in spoken.answer
    assert commands.peers == []


async def test_tls_1_2_is_answered_on_the_joiners_port_with_a_refusal_only(mesh):
    bert = mesh.node()
    async with joiners_port(bert, mesh) as address:
        old = tls(None, ssl.TLSVersion.TLSv1_2)
        spoken = await asyncio.to_thread(speak, bert, bert, address, old, None, HELLO)
        today = await asyncio.to_thread(speak, bert, bert, address, tls(None), None, HELLO)
    assert b"only TLS 1.3 is served" in spoken.answer
    assert mesh.mesh_id.encode() not in spoken.answer
    assert mesh.mesh_id.encode() in today.answer


@pytest.mark.parametrize("port", ["members", "joiners"])
async def test_a_resumed_session_is_served_on_no_port(mesh, commands, port: str):
    anna, bert = mesh.node(), mesh.node()
    members = port == "members"
    context = tls(anna if members else None)
    path = SUBMIT if members else HELLO
    opened = members_port(bert, commands) if members else joiners_port(bert, mesh)
    async with opened as address:
        first = await asyncio.to_thread(speak, anna, bert, address, context, None, path)
        again = await asyncio.to_thread(speak, anna, bert, address, context, first.session, path)
    assert again.reused
    assert b"resumed TLS sessions are not served" in again.answer
    assert len(commands.peers) == members


async def test_an_expired_leaf_gets_nowhere_on_the_session_that_it_left(mesh, commands):
    """The session is resumed without looking at the certificate: so nothing is served on it."""
    anna, bert = mesh.node(), mesh.node()
    name = dns_name_of(anna.node_id)
    short = mesh.showing(anna, handmade_leaf(anna, Claim([name], lives=timedelta(seconds=2))))
    context = tls(short)
    async with members_port(bert, commands) as address:
        first = await asyncio.to_thread(speak, short, bert, address, context)
        assert commands.peers == [anna.node_id]
        expired_at_s = now_s() + 2
        await asyncio.sleep(expired_at_s - now_s())  # TLS goes by this machine's clock
        again = await answer_to(short, bert, address, context, first.session)
        anew = await answer_to(short, bert, address, tls(short))
    assert b"resumed TLS sessions are not served" in again
    assert anew == b""
    assert commands.peers == [anna.node_id]


async def test_without_a_certificate_nobody_is_served_on_the_members_port(mesh, commands):
    bert = mesh.node()
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with members_port(bert, commands) as address:
        options = pinned(bert.node_id)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            assert await raw(channel, SUBMIT, b"") is UNAVAILABLE
    assert commands.peers == []


async def test_a_member_of_a_foreign_root_is_not_served(mesh, commands):
    bert, stranger = mesh.node(), Founded(6).node()
    async with members_port(bert, commands) as address:
        assert await answer_to(stranger, bert, address, tls(stranger)) == b""
    assert commands.peers == []


@pytest.mark.parametrize("trick", ["two names", "a URI", "a common name", "no name"])
async def test_a_member_cannot_pass_for_another(mesh, commands, trick: str):
    anna, bert, mallory = mesh.node(), mesh.node(), mesh.node()
    mine, hers = dns_name_of(mallory.node_id), dns_name_of(anna.node_id)
    claim = {
        "two names": Claim([mine, f"www.{mine}"]),
        "a URI": Claim([mine], uris=[f"https://{hers}"]),
        "a common name": Claim([mine], common_name=anna.node_id),
        "no name": Claim([], common_name=anna.node_id),
    }[trick]
    forged = mesh.showing(mallory, handmade_leaf(mallory, claim))
    async with (
        members_port(bert, commands) as address,
        forged.identity.channel(bert.node_id, address) as channel,
    ):
        error = await submitted(channel)
    passes_as_itself = trick in {"a URI", "a common name"}
    assert commands.peers == ([mallory.node_id] if passes_as_itself else [])
    assert (error is None) is passes_as_itself
    assert error is None or isinstance(error, NotAuthenticatedError | UnreachableError)


NONSENSE = {
    "no protobuf": b"\xff" * 100,
    "a length beyond the end": b"\x0a\xff\xff\xff\x7f",
    "ten thousand levels": b"\x0b" * 10_000,
    "groups without an end": b"\x1b\x23" * 500,
    "a field number of zero": b"\x00\x01",
}


@pytest.mark.parametrize("request_", NONSENSE.values(), ids=NONSENSE.keys())
async def test_bytes_that_are_no_request_end_the_call_and_nothing_else(mesh, commands, request_):
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        assert await raw(channel, SUBMIT, request_) is grpc.StatusCode.INVALID_ARGUMENT
        assert commands.peers == []
        assert await submitted(channel) is None


async def test_a_message_that_is_too_large_is_not_read(mesh, commands):
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        assert await raw(channel, SUBMIT, bytes(MESSAGE_BYTES_MAX + 1)) is EXHAUSTED
        assert commands.peers == []
        assert await submitted(channel) is None


async def test_strangers_may_send_less_than_members(mesh):
    bert = mesh.node()
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with joiners_port(bert, mesh) as address:
        options = pinned(bert.node_id)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            assert await raw(channel, HELLO, bytes(65 << 10)) is EXHAUSTED
            assert await raw(channel, HELLO, b"") is grpc.StatusCode.OK


async def test_a_bomb_of_gzip_does_not_unfold(mesh, commands):
    anna, bert = mesh.node(), mesh.node()
    bomb = bytes(64 << 20)
    assert len(gzip.compress(bomb[: 1 << 20])) < 2000
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        assert await raw(channel, SUBMIT, bomb, compression=grpc.Compression.Gzip) is EXHAUSTED
        assert commands.peers == []
        assert await submitted(channel) is None


async def test_metadata_that_are_too_large_end_the_call(mesh, commands):
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        much = (("x", "y" * (METADATA_BYTES_MAX + 1)),)
        assert await raw(channel, SUBMIT, b"", metadata=much) is EXHAUSTED
        assert commands.peers == []
        assert await submitted(channel) is None


SECRET = "the path /var/anna/secret and a key"


async def test_what_a_handler_raises_is_for_the_log_and_not_for_the_caller(mesh, commands, caplog):
    anna, bert = mesh.node(), mesh.node()
    commands.error = ValueError(SECRET)
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(SUBMIT)(b"")
    told = f"{failure.value.details()} {failure.value.trailing_metadata()}"
    assert "secret" not in told
    assert "internal error" in told
    assert any(SECRET in str(record.exc_info) for record in caplog.records)


async def test_what_the_check_of_a_caller_raises_is_not_told_either(mesh, commands, monkeypatch):
    def broken(_context):
        raise ValueError(SECRET)

    monkeypatch.setattr(servers, "peer_of", broken)
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        error = await submitted(channel)
    assert type(error) is MeshError
    assert "secret" not in str(error)
    assert commands.peers == []


async def test_a_second_node_cannot_share_a_port(mesh, commands):
    bert, mallory = mesh.node(), mesh.node()
    async with members_port(bert, commands) as address:
        other = await members_server(links_grpc.LinkServiceServicer(), Commands())
        with pytest.raises(ConflictError, match="in use"):
            bind(other, address, mallory.identity.for_members)


# Crowds.


async def test_connections_that_say_nothing_are_closed_and_others_answered(mesh):
    bert = mesh.node()
    async with joiners_port(bert, mesh) as address, silent_connections(address, 100) as crowd:
        answered = await hello(mesh, bert, address)
        assert answered.node_id == bert.node_id
        await crowd.gone()


async def test_calls_without_a_request_do_not_keep_strangers_out(mesh):
    bert = mesh.node()
    async with (
        joiners_port(bert, mesh) as address,
        calls_without_body(address, bert, 40, 15) as crowd,  # more than room
    ):
        assert len(crowd.streams) * 15 > CALLS_MAX
        answered = await hello(mesh, bert, address)
    assert answered.node_id == bert.node_id


async def test_a_call_whose_request_does_not_come_ends(mesh, commands, monkeypatch):
    monkeypatch.setattr(servers, "OF_MEMBERS", replace(OF_MEMBERS, receive_s=0.1))
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        call = channel.stream_unary(SUBMIT)()
        with pytest.raises(grpc.aio.AioRpcError, match="no request came"):
            await call
        assert commands.peers == []
        assert await submitted(channel) is None


async def test_a_stranger_that_sends_no_request_is_told_and_let_go(mesh, monkeypatch):
    monkeypatch.setattr(servers, "OF_JOINERS", replace(OF_JOINERS, receive_s=0.1))
    bert = mesh.node()
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with joiners_port(bert, mesh) as address:
        options = pinned(bert.node_id)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="no request came"):
                await channel.stream_unary(HELLO)()


async def test_a_call_that_hangs_is_ended_and_its_place_free(mesh, commands, monkeypatch):
    monkeypatch.setattr(servers, "OF_MEMBERS", replace(OF_MEMBERS, answer_s=0.1, endless=()))
    anna, bert = mesh.node(), mesh.node()
    commands.hangs_for = frozenset({anna.node_id})
    async with (
        members_port(bert, commands) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        assert isinstance(await submitted(channel), UnreachableError)
        call = channel.unary_stream(READ_LOG)(b"")
        with pytest.raises(grpc.aio.AioRpcError, match="it took more than"):
            async for _ in call:
                pass
    assert commands.ended == 1


async def test_a_member_with_as_many_calls_as_it_likes_keeps_nobody_out(mesh, commands):
    anna, bert, carl = mesh.node(), mesh.node(), mesh.node()
    commands.hangs_for = frozenset({carl.node_id})
    async with (
        members_port(bert, commands) as address,
        carl.identity.channel(bert.node_id, address) as greedy,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        calls = [asyncio.create_task(submitted(greedy)) for _ in range(200)]
        refused = OF_MEMBERS.of_one_max
        for ended in islice(asyncio.as_completed(calls), 200 - refused):
            await ended
        assert await submitted(channel) is None
        told = [call.result() for call in calls if call.done()]
        assert len(told) == 200 - refused
        assert all(isinstance(error, RefusedError) for error in told)
        assert commands.peers.count(carl.node_id) == refused
        for call in calls:
            call.cancel()


async def test_six_hundred_watches_of_health_are_refused_and_another_is_served(mesh, commands):
    anna, bert, carl = mesh.node(), mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        carl.identity.channel(bert.node_id, address) as greedy,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(greedy)
        watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(600)]
        assert await submitted(channel) is None
        ended = {await watch.code() for watch in watches}
        assert ended <= {grpc.StatusCode.FAILED_PRECONDITION, EXHAUSTED, UNAVAILABLE}
        assert await submitted(channel) is None


async def test_a_member_that_calls_without_end_is_slowed(mesh, commands, monkeypatch):
    monkeypatch.setattr(servers, "OF_MEMBERS", replace(OF_MEMBERS, per_s=1, burst=20))
    anna, bert, carl = mesh.node(), mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as address,
        carl.identity.channel(bert.node_id, address) as greedy,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        errors = [await submitted(greedy) for _ in range(40)]
        assert errors[:20] == [None] * 20
        assert all(isinstance(error, RefusedError) for error in errors[25:])
        assert await submitted(channel) is None


async def test_a_flood_of_calls_from_one_machine_leaves_room_for_others(mesh):
    bert = mesh.node()
    async with joiners_port(bert, mesh) as address:
        answers = await asyncio.to_thread(flood_of_hellos, bert, address, 5)
        assert b"too many calls from this address" in answers
        assert (await hello(mesh, bert, address)).node_id == bert.node_id


def test_every_port_says_how_much_of_it_one_caller_may_use():
    for limits in (OF_MEMBERS, OF_JOINERS):
        assert 2 * limits.of_one_max < limits.calls_max < CALLS_MAX
        assert limits.receive_s < limits.answer_s
    assert not OF_JOINERS.endless
