"""What an address does when somebody looks: on the loopback, with listeners of every manner."""

import asyncio
import socket

import pytest
from integration.discovery.places import BOTH, NAME, black_hole, stand_for
from integration.discovery.test_mdns import multicast_reaches_us

from meshnode.app.diagnosis.observations import Dial
from meshnode.discovery.multicast import hear_ourselves
from meshnode.discovery.probes import FULL, MUTE, NO_TLS, accepts, attempt_at


async def test_a_port_where_nobody_listens_refuses():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        attempt = await attempt_at(f"127.0.0.1:{held.getsockname()[1]}")
    assert attempt.dial is Dial.REFUSED
    assert "no node listens there" in attempt.detail


async def test_a_listener_that_never_speaks_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        attempt = await attempt_at(f"127.0.0.1:{mute.getsockname()[1]}")
    assert (attempt.dial, attempt.silence, attempt.shown) == (Dial.CONNECTED, MUTE, None)


async def test_a_listener_that_is_no_node_is_told():
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 welcome\r\n")
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        attempt = await attempt_at(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert attempt.silence == NO_TLS


async def test_a_listener_that_takes_connections_and_closes_them_may_be_full():
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        attempt = await attempt_at(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert (attempt.dial, attempt.silence, attempt.shown) == (Dial.CONNECTED, FULL, None)


async def test_a_name_is_looked_at_where_it_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        stand_for(monkeypatch, *BOTH)
        with black_hole("127.0.0.2", port):
            attempt = await attempt_at(f"{NAME}:{port}")
    assert (attempt.dial, attempt.ip, attempt.silence) == (Dial.CONNECTED, "127.0.0.1", MUTE)


@pytest.mark.parametrize("address", [f"{'x' * 64}.example:7707", "no address"])
async def test_what_names_no_host_is_said_so(address):
    assert (await attempt_at(address)).dial is Dial.NO_NAME


async def test_a_machine_that_takes_connections_is_told_from_one_that_does_not():
    with socket.create_server(("127.0.0.1", 0)) as mute, socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        assert await accepts(f"127.0.0.1:{mute.getsockname()[1]}")
        assert await accepts(f"localhost:{mute.getsockname()[1]}")
        assert not await accepts(f"127.0.0.1:{held.getsockname()[1]}")
    assert not await accepts("no address")


@pytest.mark.skipif(not multicast_reaches_us(), reason="no multicast on the loopback here")
async def test_a_machine_hears_its_own_question():
    facts = await hear_ourselves(["127.0.0.1"])
    assert (facts.heard_on, facts.silent_on, facts.fault) == (("127.0.0.1",), (), "")


async def test_an_interface_that_is_none_stays_silent():
    facts = await hear_ourselves(["192.0.2.1"], listen_s=0.05)
    assert facts.heard_on == ()
    assert facts.silent_on == ("192.0.2.1",)
