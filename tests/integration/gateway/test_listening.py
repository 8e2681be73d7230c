"""Connections that cost their holder nothing, and requests that can be read in two ways."""

import asyncio
from contextlib import suppress

import pytest
from integration.gateway.wire import listening, status_of

from meshnode.gateway import doorkeeper
from meshnode.gateway import listening as wired

GET = "GET /alive HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW = "POST /slow HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{"


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
