"""What a caller learns when a handler fails: the mesh's own words, and nothing of anything else."""

import asyncio
import logging

import grpc.aio
import pytest
from integration.rpc.fleet import WAIT_S, health_of, serving

from meshnode.core.errors import BY_CODE, MeshError, NoAnswerError, NotPermittedError, PeerError
from meshnode.rpc.errors import ERROR_KEY, error_from
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2 as pb
from meshnode.v1 import command_service_pb2_grpc as pb_grpc
from meshnode.v1 import link_service_pb2 as links_pb
from meshnode.v1 import link_service_pb2_grpc as links_grpc

SUBMIT = "/meshnode.v1.CommandService/Submit"
READ_LOG = "/meshnode.v1.CommandService/ReadLog"
LINK = "/meshnode.v1.LinkService/Link"
SERVING = 1


class Failing(pb_grpc.CommandServiceServicer, links_grpc.LinkServiceServicer):
    """Fails as a test wants: before it answers, or, streaming, after two answers."""

    def __init__(self):
        self.error: Exception | None = None

    async def Submit(self, request, context):
        if self.error:
            raise self.error
        return pb.SubmitResponse()

    async def ReadLog(self, request, context):
        yield pb.ReadLogResponse(output=b"one")
        yield pb.ReadLogResponse(output=b"two")
        if self.error:
            raise self.error

    async def Link(self, request_iterator, context):
        async for request in request_iterator:
            yield links_pb.LinkResponse(frame=request.frame)
        if self.error:
            raise self.error


@pytest.fixture
def failing():
    return Failing()


@pytest.fixture
async def channel(mesh, failing):
    anna, bert = mesh.node(), mesh.node()
    server = await members_server(failing, failing)
    async with (
        serving(server, bert.identity.for_members) as address,
        anna.identity.channel(bert.node_id, address) as channel,
        asyncio.timeout(WAIT_S),
    ):
        yield channel


async def unary(channel):
    await pb_grpc.CommandServiceStub(channel).Submit(pb.SubmitRequest())


async def streamed(channel):
    call = pb_grpc.CommandServiceStub(channel).ReadLog(pb.ReadLogRequest())
    assert [answer.output async for answer in call] == [b"one", b"two"]


async def both_ways(channel):
    call = links_grpc.LinkServiceStub(channel).Link()
    await call.write(links_pb.LinkRequest())
    assert await call.read() == links_pb.LinkResponse(frame=links_pb.Frame())
    await call.done_writing()
    await call.read()


CALLS = [unary, streamed, both_ways]


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_goes_well_is_left_alone(channel, call):
    await call(channel)


@pytest.mark.parametrize("call", CALLS)
async def test_the_text_of_an_unexpected_error_stays_in_the_log(channel, failing, call, caplog):
    failing.error = ValueError("secret")
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(channel)
    error = error_from(failure.value, "it")
    assert type(error) is MeshError
    assert "secret" not in f"{failure.value!r} {failure.value.details()} {error.message}"
    assert "secret" not in str(failure.value.trailing_metadata())
    assert "secret" in caplog.text


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", BY_CODE.values(), ids=BY_CODE)
async def test_an_error_of_the_mesh_arrives_as_itself(channel, failing, call, kind):
    failing.error = kind("this is not to be: größer", "do that instead\nor not")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(channel)
    error = error_from(failure.value, "it")
    assert type(error) is kind
    assert (error.message, error.hint) == (failing.error.message, failing.error.hint)


@pytest.mark.parametrize("call", CALLS)
async def test_an_error_of_a_long_text_still_arrives(channel, failing, call):
    failing.error = NotPermittedError("x" * 20_000, "y" * 20_000)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(channel)
    error = error_from(failure.value, "it")
    assert type(error) is NotPermittedError
    assert error.message.startswith("xxx")


@pytest.mark.parametrize("path", [SUBMIT, READ_LOG])
async def test_bytes_that_are_no_request_are_the_peers_fault(channel, path, caplog):
    call = channel.unary_unary(path) if path == SUBMIT else channel.unary_stream(path)
    answered = call(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await (answered if path == SUBMIT else answered.read())
    assert type(error_from(failure.value, "it")) is PeerError
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await unary(channel)


async def test_bytes_that_are_no_request_end_a_stream_and_not_the_server(channel, caplog):
    call = channel.stream_stream(LINK)()
    await call.write(b"")
    assert await call.read() == links_pb.LinkResponse(frame=links_pb.Frame()).SerializeToString()
    await call.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call.read()
    assert type(error_from(failure.value, "it")) is PeerError
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert await health_of(channel) == SERVING


class Ended(grpc.RpcError):
    """A call that a peer ended as it likes."""

    def __init__(self, packed: bytes):
        self.packed = packed

    def trailing_metadata(self):
        return ((ERROR_KEY, self.packed),)

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return ""


@pytest.mark.parametrize(
    "packed",
    [b"", b"\xff", b"[]", b"7", b"[" * 100_000, b'{"a":' * 50_000],
    ids=["nothing", "no text", "a list", "a number", "deep lists", "deep maps"],
)
def test_an_error_that_makes_no_sense_is_the_peers_fault(packed):
    error = error_from(Ended(packed), "it")
    assert type(error) is PeerError


def test_an_error_without_a_text_is_still_an_error_of_its_kind():
    assert type(error_from(Ended(b'{"code": "not_permitted"}'), "it")) is NotPermittedError
    assert type(error_from(Ended(b"{}"), "it")) is MeshError


def test_an_error_of_a_newer_version_is_still_an_error():
    packed = b'{"code": "new", "message": "m", "hint": "h"}'
    error = error_from(Ended(packed), "it")
    assert (type(error), error.message, error.hint) == (MeshError, "m", "h")


async def test_a_call_without_an_answer_in_time_says_so(mesh, failing):
    class Hanging(pb_grpc.CommandServiceServicer):
        async def Submit(self, request, context):
            await asyncio.Event().wait()

    anna, bert = mesh.node(), mesh.node()
    server = await members_server(failing, Hanging())
    async with (
        serving(server, bert.identity.for_members) as address,
        anna.identity.channel(bert.node_id, address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await pb_grpc.CommandServiceStub(channel).Submit(pb.SubmitRequest(), timeout=0.1)
    error = error_from(failure.value, "node b")
    assert type(error) is NoAnswerError
    assert error.message == "node b did not answer in time"
