"""The ports of a node under attack, and what strangers and members can do to them by hand."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import grpc.aio
import psutil
from integration.rpc.fleet import WAIT_S, Founded, Member, serving
from integration.rpc.http2 import OPENING, call_without_body, speak, streams_ended, whole_call

from meshnode.core.membership.certificates import anchor, dns_name_of
from meshnode.node.clock import SystemClock
from meshnode.rpc.enrolment import EnrolmentServicer
from meshnode.rpc.errors import error_from
from meshnode.rpc.guard import peer_of
from meshnode.rpc.servers import joiners_server, members_server
from meshnode.rpc.tls import pinned
from meshnode.v1 import command_service_pb2 as commands_pb
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import enrolment_service_pb2 as enrolment_pb
from meshnode.v1 import enrolment_service_pb2_grpc as enrolment_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshnode.core.errors import MeshError

HELLO = "/meshnode.v1.EnrolmentService/Hello"
HELLOS_AT_ONCE = 14  # on one connection: fewer than it may have streams
ELSEWHERE = "127.0.0.9"  # another machine, as far as a node on the loopback can tell


@dataclass
class Commands(commands_grpc.CommandServiceServicer):
    """Notes who calls; hangs, or fails, as a test wants."""

    peers: list[str] = field(default_factory=list)
    hangs_for: frozenset[str] = frozenset()
    error: Exception | None = None
    ended: int = 0

    async def Submit(self, request, context):
        peer = peer_of(context)
        self.peers.append(peer)
        try:
            if peer in self.hangs_for:
                await asyncio.Event().wait()
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return commands_pb.SubmitResponse()

    async def ReadLog(self, request, context):
        self.peers.append(peer_of(context))
        while True:
            yield commands_pb.ReadLogResponse(output=bytes(1000))


@asynccontextmanager
async def members_port(member: Member, commands: Commands) -> AsyncIterator[str]:
    server = await members_server(links_grpc.LinkServiceServicer(), commands)
    async with (
        serving(server, member.identity.for_members) as address,
        asyncio.timeout(3 * WAIT_S),
    ):
        yield address


@asynccontextmanager
async def joiners_port(member: Member, mesh: Founded) -> AsyncIterator[str]:
    servicer = EnrolmentServicer(None, mesh.mesh_id, member.node_id, SystemClock())
    server = await joiners_server(servicer)
    async with (
        serving(server, member.identity.for_joiners) as address,
        asyncio.timeout(3 * WAIT_S),
    ):
        yield address


async def submitted(channel: grpc.aio.Channel, **options: Any) -> MeshError | None:
    """Call Submit; returns the error that it ended with."""
    try:
        stub = commands_grpc.CommandServiceStub(channel)
        await stub.Submit(commands_pb.SubmitRequest(), **options)
    except grpc.aio.AioRpcError as failure:
        return error_from(failure, "it")
    return None


async def hello(mesh: Founded, callee: Member, address: str) -> enrolment_pb.HelloResponse:
    """Ask as an honest stranger does."""
    credentials = grpc.ssl_channel_credentials(anchor(mesh.root.public, mesh.mesh_id))
    async with grpc.aio.secure_channel(address, credentials, options=pinned(callee.node_id)) as ch:
        request = enrolment_pb.HelloRequest()
        return await enrolment_grpc.EnrolmentServiceStub(ch).Hello(request, timeout=WAIT_S)


def tls(member: Member | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Make a context that shows a member's leaf, or nothing, and believes everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the node's judgement is what is tested
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if member is not None:
        with NamedTemporaryFile() as file:
            leaf = member.identity.leaf()
            file.write(leaf.private_key + leaf.chain)
            file.flush()
            context.load_cert_chain(file.name)
    return context


async def answer_to(
    member: Member, callee: Member, address: str, context: ssl.SSLContext, session: Any = None
) -> bytes:
    """Call Submit by hand; returns what came back, nothing if TLS itself refused."""
    try:
        spoken = await asyncio.to_thread(speak, member, callee, address, context, session)
    except (ssl.SSLError, ConnectionError):
        return b""
    return spoken.answer


def flood_of_hellos(callee: Member, address: str, connections: int) -> bytes:
    """Ask again and again from elsewhere; returns all that came back."""
    host, port = address.split(":")
    name, answers = dns_name_of(callee.node_id), b""
    calls = b"".join(whole_call(name, HELLO, 2 * number + 1) for number in range(HELLOS_AT_ONCE))
    for _ in range(connections):
        with (
            socket.create_connection((host, int(port)), WAIT_S, (ELSEWHERE, 0)) as plain,
            tls(None).wrap_socket(plain, server_hostname=name) as stream,
        ):
            stream.sendall(OPENING + calls)
            answer = b""
            while streams_ended(answer) < HELLOS_AT_ONCE:
                answer += stream.recv(65536)
            answers += answer
    return answers


@dataclass
class Crowd:
    """Connections that somebody holds open."""

    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]

    async def gone(self) -> int:
        """Wait until the node has closed them all; returns how many it had answered."""
        async with asyncio.timeout(WAIT_S):
            said = await asyncio.gather(*(_said(reader) for reader, _ in self.streams))
        return sum(map(bool, said))


async def _said(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""


@asynccontextmanager
async def silent_connections(address: str, count: int) -> AsyncIterator[Crowd]:
    """Open TCP connections that say nothing at all."""
    async with _opened(address, count, None) as crowd:
        yield crowd


@asynccontextmanager
async def calls_without_body(
    address: str, callee: Member, connections: int, calls: int
) -> AsyncIterator[Crowd]:
    """Begin calls from elsewhere, and never send what they ask."""
    name = dns_name_of(callee.node_id)
    begun = OPENING
    for number in range(calls):
        begun += call_without_body(name, HELLO, 2 * number + 1)
    async with _opened(address, connections, tls(None)) as crowd:
        for _, writer in crowd.streams:
            writer.write(begun)
            await writer.drain()
        yield crowd


@asynccontextmanager
async def finished_handshakes(address: str, count: int) -> AsyncIterator[Crowd]:
    """Finish TLS as a stranger, begin HTTP/2 and call nothing; those that are let in are held."""
    host, port = address.split(":")
    context = tls(None)
    async with AsyncExitStack() as stack:
        crowd = Crowd([])
        for _ in range(count):
            with suppress(ConnectionError):
                reader, writer = await asyncio.open_connection(
                    host, int(port), ssl=context, local_addr=(ELSEWHERE, 0)
                )
                stack.callback(writer.transport.abort)
                writer.write(OPENING)
                crowd.streams.append((reader, writer))
        yield crowd


def held_at(address: str) -> int:
    """Count the connections that this process holds as the one that listens there."""
    port = int(address.split(":")[1])
    ours = psutil.Process().net_connections("tcp")
    return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in ours)


@asynccontextmanager
async def _opened(address: str, count: int, context: ssl.SSLContext | None) -> AsyncIterator[Crowd]:
    host, port = address.split(":")
    async with AsyncExitStack() as stack:
        crowd = Crowd([])
        for _ in range(count):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, local_addr=(ELSEWHERE, 0)
            )
            stack.callback(writer.close)
            crowd.streams.append((reader, writer))
        yield crowd
