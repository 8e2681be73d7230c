"""Connections that cost their holder nothing, and requests that can be read in two ways."""

import asyncio
import socket
import ssl
from contextlib import suppress

import pytest
from integration.gateway.wire import listening, status_of
from integration.rpc.fleet import Founded

from meshnode.core.errors import ConflictError
from meshnode.gateway import doorkeeper
from meshnode.gateway import listening as wired

GET = "GET /alive HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW = "POST /slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"


@pytest.fixture
def secured(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = Founded(3).node().identity.leaf()
    (tmp_path / "chain").write_bytes(leaf.chain)
    (tmp_path / "key").write_bytes(leaf.private_key)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")
    return context


async def test_a_byte_after_a_long_silence_buys_no_more_than_the_time_for_a_head(monkeypatch):
    monkeypatch.setattr(wired, "IDLE_S", 3600)
    async with listening() as wire:
        plug = await wire.plug()
        monkeypatch.setattr(wired, "HEAD_S", 0.05)
        await plug.send(GET)
        assert status_of(await plug.answer()) == 200
        with pytest.raises(TimeoutError):  # idle, it may stay
            await asyncio.wait_for(plug.some(), 0.5)
        await plug.send("G")
        assert await plug.rest() == b""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_all_of_ipv6_is_all_of_ipv4_too_and_each_is_asked_for_by_its_address():
    async with listening(host="::") as wire:
        assert await wire.ask("/alive") == 200
        asked = "GET /alive HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n"
        for host, called, status in (
            ("127.0.0.1", "localhost", 200),
            ("::1", "[::1]", 200),
            ("127.0.0.1", "192.0.2.7", 421),
        ):
            reader, writer = await asyncio.open_connection(host, wire.port)
            writer.write(asked.format(called).encode())
            assert status_of(await reader.read()) == status
            writer.close()


async def test_a_whole_request_after_a_long_silence_is_answered(monkeypatch):
    monkeypatch.setattr(wired, "IDLE_S", 3600)
    async with listening() as wire:
        plug = await wire.plug()
        for _ in range(3):
            await plug.send(GET)
            assert status_of(await plug.answer()) == 200
        plug.close()


async def test_who_reads_a_little_of_an_answer_again_and_again_is_cut(monkeypatch):
    async with listening() as wire:
        wire.hall.content = bytes(1 << 23)
        plug = await wire.plug(bytes_max=1 << 12)
        monkeypatch.setattr(wired, "HEAD_S", 1.0)
        await plug.send(GET)
        taken = 0
        while piece := await plug.some(400):
            taken += len(piece)
            await asyncio.sleep(0.01)  # 40 kB a second at most, where 64 KiB are asked for
        assert taken < len(wire.hall.content) // 2
        plug.close()


async def test_who_reads_at_a_good_pace_gets_all_of_an_answer(monkeypatch):
    async with listening() as wire:
        wire.hall.content = bytes(1 << 22)
        plug = await wire.plug()
        monkeypatch.setattr(wired, "HEAD_S", 2.0)
        await plug.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
        assert (await plug.rest()).endswith(wire.hall.content)


@pytest.mark.parametrize(
    ("idle_s", "answer_bytes", "words"),
    [
        pytest.param(3600, 1 << 19, "", id="of an answer that fits into no buffer but TLS's own"),
        pytest.param(3600, 1 << 19, "Connection: close\r\n", id="of the last answer"),
        pytest.param(0.2, 4, "", id="of an idle connection's end"),
    ],
)
async def test_who_reads_nothing_over_tls_is_cut_as_soon_as_without(
    monkeypatch, secured, idle_s, answer_bytes, words
):
    monkeypatch.setattr(wired, "IDLE_S", idle_s)
    async with listening(secured) as wire:
        wire.hall.content = bytes(answer_bytes)
        plug = await wire.secure_plug()
        monkeypatch.setattr(wired, "HEAD_S", 0.3)
        plug.sendall(GET.replace("\r\n\r\n", f"\r\n{words}\r\n").encode())
        await wire.empty()
        plug.close()


async def test_who_reads_over_tls_gets_all_of_an_answer(monkeypatch, secured):
    async with listening(secured) as wire:
        wire.hall.content = bytes(1 << 22)
        plug = await wire.secure_plug()
        monkeypatch.setattr(wired, "HEAD_S", 2.0)
        plug.sendall(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode())
        read = plug.makefile("rb").read
        assert (await asyncio.to_thread(read)).endswith(wire.hall.content)
        plug.close()


async def test_slow_bodies_of_two_sources_keep_no_third_out_nor_a_probe(monkeypatch):
    monkeypatch.setattr(doorkeeper, "AT_ONCE_MAX", 8)
    async with listening() as wire:
        held = []
        for source, share in (("127.0.0.1", 4), ("127.0.0.2", 2)):
            for _ in range(share):
                held.append(await wire.plug(source))
                await held[-1].send(SLOW)
                assert await wire.hall.inside.get() == source
            assert await wire.ask("/alive", source) == 429
            assert await wire.ask("/health", source) == 200
        assert await wire.ask("/alive", "127.0.0.3") == 200
        for plug in held:
            await plug.send("12345678")
            assert status_of(await plug.answer()) == 200
            plug.close()
        assert await wire.ask("/alive") == 200


async def test_connections_of_two_sources_keep_no_third_out(monkeypatch):
    monkeypatch.setattr(wired, "CONNECTIONS_MAX", 8)
    async with listening() as wire:
        held = []
        for source, share in (("127.0.0.1", 4), ("127.0.0.2", 2)):
            for _ in range(share):
                held.append(await wire.plug(source))
                await held[-1].send(GET)
                assert status_of(await held[-1].answer()) == 200
            with suppress(ConnectionError):
                beyond = await wire.plug(source)
                await beyond.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
                assert await beyond.rest() == b""
        assert await wire.ask("/alive", "127.0.0.3") == 200
        for plug in held:
            plug.close()


@pytest.mark.parametrize("path", ["/alive", "/health"])
async def test_two_lengths_of_a_body_are_refused_and_nothing_after_them_is_read(path):
    async with listening() as wire:
        plug = await wire.plug()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        await plug.send(head + both + "0\r\n\r\n" + GET)
        answer = await plug.rest()
        assert status_of(answer) == 400
        assert (answer.count(b"HTTP/1.1 "), b"connection: close" in answer.lower()) == (1, True)


async def test_a_head_that_is_too_long_is_refused_also_in_one_piece():
    async with listening() as wire:
        for large in ("X-Large: " + "a" * 40_000, "\r\n".join(f"X-{n}: a" for n in range(4000))):
            plug = await wire.plug()
            end = "\r\nConnection: close\r\n\r\n"
            await plug.send(f"GET /alive HTTP/1.1\r\nHost: 127.0.0.1\r\n{large}{end}")
            assert status_of(await plug.rest()) == 431


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://127.0.0.1:{port}/alive", "127.0.0.1", 200),
        ("HTTP://localhost/alive", "evil.example.com", 200),
        ("http://127.0.0.1", "127.0.0.1", 200),
        ("http://evil.example.com/alive", "127.0.0.1", 421),
        ("http://127.0.0.1@evil.example.com/alive", "127.0.0.1", 400),
        ("http://evil.example.com@127.0.0.1/alive", "127.0.0.1", 400),
        ("http:///alive", "127.0.0.1", 400),
        ("*", "127.0.0.1", 400),
    ],
)
async def test_an_address_with_its_host_is_served_if_that_host_is_ours(target, host, status):
    async with listening() as wire:
        plug = await wire.plug()
        asked = target.format(port=wire.port)
        await plug.send(f"GET {asked} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert status_of(await plug.rest()) == status


async def test_head_is_get_without_its_body():
    async with listening() as wire:
        plug = await wire.plug()
        await plug.send(GET.replace("GET", "HEAD") + GET)
        answer = await plug.answer()
        head, _, after = answer.partition(b"\r\n\r\n")
        assert (status_of(head), b"content-length: 4" in head) == (200, True)
        assert status_of(after) == 200
        plug.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_a_port_that_is_taken_is_named_as_it_was_asked_for():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"on \[::1\]:{port}: "):
            wired.bound("::1", port, "http")
