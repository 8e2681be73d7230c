"""The front door of a node: what HTTP and metrics have together."""

import asyncio

import pytest
from integration.client.service import short_home
from integration.node.test_ending import running
from integration.rpc.fleet import WAIT_S

from meshnode.discovery.seeds import parse_address
from meshnode.gateway import listening
from meshnode.node.configuration.http_options import HttpOptions
from meshnode.node.homes.founding import found

pytestmark = pytest.mark.integration
STAYS = b"GET /alive HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
GOES = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def asked(place: str, source: str, request: bytes) -> tuple[bytes, asyncio.StreamWriter]:
    """Return the first line of an answer, empty if the connection is cut."""
    reader, writer = await asyncio.open_connection(*parse_address(place), local_addr=(source, 0))
    try:
        writer.write(request)
        return await reader.readline(), writer
    except ConnectionError:
        return b"", writer


async def test_metrics_take_no_connections_beyond_those_of_http(monkeypatch):
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 2)
    http = HttpOptions("127.0.0.1:0", metrics="127.0.0.1:0")
    with short_home() as home:
        found(home, None, "anna", None)
        async with asyncio.timeout(WAIT_S), running(home, http=http) as node:
            front = node._front
            held = [await asked(front.bound, f"127.0.0.{one}", STAYS) for one in (2, 3)]
            assert all(said for said, _ in held)
            said, writer = await asked(front.metrics, "127.0.0.4", GOES)
            assert said == b""
            writer.close()
            held[0][1].close()
            while not said:
                said, writer = await asked(front.metrics, "127.0.0.4", GOES)
                writer.close()
            assert b" 200 " in said
            held[1][1].close()
            node.ask_to_stop()
