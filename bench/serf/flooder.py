"""One process of a bare flood: what it sees first goes to all its links but the one it came by.

It verifies nothing, unless it is given a key, parses nothing, writes nothing to a disk and speaks
without TLS. So it takes as long as news over gRPC in Python take whoever floods them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Context = grpc.aio.ServicerContext[bytes, bytes]

SERVICE = "bench.Flood"
LINK, PUBLISH = f"/{SERVICE}/Link", f"/{SERVICE}/Publish"
SIGNATURE_BYTES = 64  # of Ed25519, over all that follows:
ABOUT_BYTES = 16  # the item's name, and anything


class Flooder:
    """The links of one process, and what it has seen."""

    def __init__(self, links: int, key: Ed25519PublicKey | None) -> None:
        self._links = links  # once there are so many, it is ready
        self._key = key
        self._outboxes: list[asyncio.Queue[bytes]] = []
        self._seen: set[bytes] = set()

    async def publish(self, payload: bytes, _context: Context) -> bytes:
        """Take what begins here."""
        self._take(payload)
        return b""

    async def serve(self, _payloads: object, context: Context) -> None:
        """Keep the link that a neighbour dialled."""
        await context.send_initial_metadata(())  # so that it knows
        await self._link(context.read, context.write)

    async def dial(self, port: str) -> None:
        """Keep a link to a neighbour, once it listens."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(LINK)(wait_for_ready=True)
            await call.wait_for_connection()
            await self._link(call.read, call.write)

    async def _link(
        self, read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._outboxes.append(outbox)
        if len(self._outboxes) == self._links:
            tell("ready")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(read, outbox))
            while True:
                await write(await outbox.get())

    async def _read(
        self, read: Callable[[], Awaitable[bytes]], outbox: asyncio.Queue[bytes]
    ) -> None:
        while (payload := await read()) is not grpc.aio.EOF:
            self._take(payload, outbox)

    def _take(self, payload: bytes, source: asyncio.Queue[bytes] | None = None) -> None:
        if payload in self._seen:
            return
        if self._key is not None:
            self._key.verify(payload[:SIGNATURE_BYTES], payload[SIGNATURE_BYTES:])
        self._seen.add(payload)
        tell("news", about=payload[SIGNATURE_BYTES:][:ABOUT_BYTES].decode())
        for outbox in self._outboxes:
            if outbox is not source:
                outbox.put_nowait(payload)


def tell(event: str, **more: str) -> None:
    """Write a line as the observer in a node of ours does."""
    line = json.dumps({"event": event, **more, "at_s": time.perf_counter()}) + "\n"
    os.write(1, line.encode())


async def main() -> None:
    """Listen, dial, and pass on until killed, or until stdin ends: whoever started us has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", help="to listen on")
    parser.add_argument("dialled", nargs="*", help="ports of neighbours")
    parser.add_argument("--links", type=int, required=True, help="dialled and accepted ones")
    parser.add_argument("--key", help="verify what comes with this one, in hexadecimal")
    chosen = parser.parse_args()
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(chosen.key)) if chosen.key else None
    asyncio.get_running_loop().add_reader(0, os._exit, 0)
    flooder = Flooder(chosen.links, key)
    methods = {
        "Link": grpc.stream_stream_rpc_method_handler(flooder.serve),
        "Publish": grpc.unary_unary_rpc_method_handler(flooder.publish),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"127.0.0.1:{chosen.port}")
    await server.start()
    async with asyncio.TaskGroup() as tasks:
        for port in chosen.dialled:
            tasks.create_task(flooder.dial(port))
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
