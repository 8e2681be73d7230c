"""A listener on a socket of loopback, and a hand that writes to it as it likes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.responses import Response

from meshnode.gateway.doorkeeper import Doorkeeper
from meshnode.gateway.listening import Listener, all_places, bound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 20.0


class Hall:
    """What is behind the door: it answers at once, `/slow` when the whole body is there."""

    def __init__(self) -> None:
        self.inside: asyncio.Queue[str] = asyncio.Queue()
        self.content = b"here"

    async def __call__(self, scope, receive, send) -> None:
        if scope["path"] == "/slow":
            await self.inside.put(scope["client"][0])
            while (await receive()).get("more_body"):
                pass
        await Response(self.content)(scope, receive, send)


class Wire:
    """A listener with a doorkeeper before `hall`."""

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.hall = Hall()
        self.port = sock.getsockname()[1]
        door = Doorkeeper(self.hall, (), (), asyncio.get_running_loop().time)
        self.listener = Listener(door, sock, tls, all_places())

    async def plug(self, source: str = "127.0.0.1", bytes_max: int | None = None) -> Plug:
        sock = socket.socket()
        if bytes_max is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, bytes_max)
        sock.setblocking(False)
        sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return Plug(sock)

    async def secure_plug(self) -> ssl.SSLSocket:
        """Return a connection over TLS that takes little unless somebody reads from it."""
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        plain.settimeout(PATIENCE_S)
        plain.connect(("127.0.0.1", self.port))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return await asyncio.to_thread(context.wrap_socket, plain)

    async def empty(self) -> None:
        """Wait until it has answered and holds no connection."""
        state = self.listener._state
        async with asyncio.timeout(PATIENCE_S):
            while state.connections or not state.total_requests:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

    async def ask(self, path: str, source: str = "127.0.0.1") -> int:
        plug = await self.plug(source)
        await plug.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return status_of(await plug.rest())


class Plug:
    """One connection to it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, text: str) -> None:
        await self._loop.sock_sendall(self._sock, text.encode())

    async def some(self, bytes_max: int = 1 << 16) -> bytes:
        """Return what comes next; nothing once the other side has ended it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._loop.sock_recv(self._sock, bytes_max)
        except ConnectionError:
            return b""

    async def rest(self) -> bytes:
        received = b""
        while piece := await self.some():
            received += piece
        self.close()
        return received

    async def answer(self) -> bytes:
        """Return an answer of this hall."""
        received = b""
        while not received.endswith(b"here"):
            piece = await self.some()
            assert piece, received
            received += piece
        return received

    def close(self) -> None:
        self._sock.close()


@asynccontextmanager
async def listening(
    tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    sock = bound(host, 0, "http")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    wire = Wire(sock, tls)
    await wire.listener.start()
    try:
        yield wire
    finally:
        await wire.listener.close()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer.split(b" ", 2)[1])
