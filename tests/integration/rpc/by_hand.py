"""Genuine members at the other end of a link, who write their bytes by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import grpc.aio
from integration.rpc.fleet import WAIT_S, Founded, Member, serving
from integration.rpc.stations import Station

from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.v1 import link_service_pb2 as pb
from meshnode.v1 import link_service_pb2_grpc as pb_grpc
from meshnode.wire.links import Introduction, introduction_to_wire

LINK = "/meshnode.v1.LinkService/Link"


@asynccontextmanager
async def raw_link(mesh: Founded, callee: Station) -> AsyncIterator[Any]:
    """Open a stream by hand, as bytes; the caller is a member."""
    caller = mesh.node()
    async with (
        caller.identity.channel(callee.node_id, callee.address) as channel,
        asyncio.timeout(WAIT_S),
    ):
        call = channel.stream_stream(LINK)()
        call.caller_id = caller.node_id
        yield call


def packed(frame: pb.Frame) -> bytes:
    return pb.LinkRequest(frame=frame).SerializeToString()


INTRODUCED = packed(introduction_to_wire(Introduction(1, ())))


@asynccontextmanager
async def linked_by_hand(mesh: Founded, callee: Station) -> AsyncIterator[Any]:
    """Open a stream as `raw_link` does, and introduce the caller: now it is a link."""
    links = len(callee.heard.all("linked"))
    async with raw_link(mesh, callee) as call:
        await call.write(INTRODUCED)
        await call.read()
        await callee.heard.heard("linked", links + 1)
        yield call


def pulse(count: int) -> bytes:
    return packed(pb.Frame(pulse=pb.Pulse(count=count)))


class Answering(pb_grpc.LinkServiceServicer):
    """Answers a caller with bytes by hand, then waits for it to go."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = answers
        self.gone = asyncio.Event()

    async def answer(self, _requests, _context):
        try:
            for one in self.answers:
                yield one
            await asyncio.Event().wait()
        finally:
            self.gone.set()


@asynccontextmanager
async def answering(member: Member, servicer: Answering) -> AsyncIterator[str]:
    server = grpc.aio.server()  # without the guard: bytes as they are
    handler = grpc.stream_stream_rpc_method_handler(servicer.answer)
    service, _, method = LINK.removeprefix("/").partition("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    async with serving(server, member.identity.for_members) as address:
        yield address


def flush_of(member: Member, mesh_id: str, seq: int, delta: bytes) -> Flush:
    digest = sha256(delta).digest()
    header = Header(mesh_id, member.node_id, 1, 1, seq, seq, digest, digest, 0.0)
    return Flush(sign_header(member.key, header), delta)
