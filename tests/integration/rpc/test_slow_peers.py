"""Peers that do not read: they block nobody else, and are told or cut off in time."""

import asyncio
from contextlib import suppress
from typing import Any

import grpc.aio
import pytest
from integration.rpc.by_hand import (
    INTRODUCED,
    Answering,
    answering,
    flush_of,
    linked_by_hand,
    pulse,
)
from integration.rpc.fleet import WAIT_S
from integration.rpc.stations import Station, flows, link

from meshnode.app.mesh import outbox
from meshnode.core.feeds.messages import Message, Pulse
from meshnode.core.ids import NodeId
from meshnode.rpc import links as links_module
from meshnode.v1 import link_service_pb2 as pb


@pytest.fixture
def large(mesh):
    """A message of 200 kB, more than streams hold on their way."""
    return flush_of(mesh.node(), mesh.mesh_id, 1, bytes(200_000))


@pytest.fixture
def huge(mesh):
    """A message that no stream takes whole while nobody reads."""
    return flush_of(mesh.node(), mesh.mesh_id, 1, bytes(3_900_000))


async def until_stuck(one: Station, peer: NodeId, huge: Message) -> None:
    """Send until gRPC takes no more into its own buffers, which are larger than one message."""
    with suppress(TimeoutError):
        while True:
            one.links.send(peer, huge)
            async with asyncio.timeout(1.0):
                await one.writing()


async def read_on(call: Any) -> None:
    """Read whatever comes."""
    while await call.read():
        pass


async def fill(one: Station, peer: NodeId, large: Message) -> None:
    """Queue more than an outbox holds."""
    for _ in range(2 * outbox.OUTBOX_BYTES_MAX // 200_000):
        one.links.send(peer, large)


async def test_an_outbox_that_overflowed_is_told_as_caught_up(mesh, pair, large):
    anna, _ = pair
    async with linked_by_hand(mesh, anna) as call:
        await fill(anna, call.caller_id, large)
        assert anna.heard.all("caught_up") == []
        async with asyncio.TaskGroup() as tasks:  # the last frame may be read before it is told
            reading = tasks.create_task(read_on(call))
            await anna.heard.heard("caught_up")
            reading.cancel()
    assert len(anna.heard.all("caught_up")) == 1


async def test_a_dialler_whose_outbox_overflowed_catches_up_too(pair, large):
    anna, bert = pair
    await link(anna, bert)
    await fill(anna, bert.node_id, large)
    await anna.heard.heard("caught_up")
    assert anna.heard.all("unlinked") == []


async def test_a_peer_that_does_not_read_blocks_no_other_link(mesh, pair, large):
    anna, bert = pair
    await link(anna, bert)
    async with linked_by_hand(mesh, anna) as call:
        await fill(anna, call.caller_id, large)
        await flows(anna, bert, 1)
        await call.write(pulse(5))  # and it may still speak itself
        await anna.heard.until(lambda: Pulse(5) in anna.heard.all("received"))
        assert anna.heard.all("unlinked") == []


async def test_a_caller_that_does_not_read_is_let_go_and_told_when_it_reads_again(mesh, pair, huge):
    anna, bert = pair
    async with linked_by_hand(mesh, anna) as call:
        await until_stuck(anna, call.caller_id, huge)
        anna.links.hang_up(call.caller_id, "silent")
        assert anna.heard.all("unlinked") == ["silent"]
        anna.dial(bert)  # meanwhile life goes on
        await bert.heard.heard("linked")
        last = b""
        while answer := await call.read():
            last = answer
        assert pb.LinkResponse.FromString(last).frame.farewell.reason == "silent"
        assert await call.code() is grpc.StatusCode.OK


async def test_a_parting_does_not_wait_for_a_caller_that_does_not_read(
    mesh, pair, huge, monkeypatch
):
    monkeypatch.setattr(links_module, "PARTING_S", 0.0)
    anna, bert = pair
    async with linked_by_hand(mesh, anna) as call:
        await until_stuck(anna, call.caller_id, huge)
        anna.links.send(call.caller_id, Pulse(9))  # small enough to be kept
        anna.links.hang_up(call.caller_id, "links enough", parting=True)
        anna.dial(bert)  # longer than a parting
        await bert.heard.heard("linked")
        frames = []
        while answer := await call.read():
            frames.append(pb.LinkResponse.FromString(answer).frame)
    assert frames[-1].farewell.reason == "links enough"
    assert not [frame for frame in frames if frame.HasField("pulse")]


async def test_a_dialled_peer_that_does_not_read_is_cut_off_once_it_is_let_go(
    mesh, pair, huge, monkeypatch
):
    monkeypatch.setattr(links_module, "LAST_WORDS_S", 0.1)
    anna, _ = pair
    member, servicer = mesh.node(), Answering(INTRODUCED)
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        await anna.heard.heard("linked")
        await until_stuck(anna, member.node_id, huge)
        anna.links.hang_up(member.node_id, "silent")
        await anna.quiet()
        async with asyncio.timeout(WAIT_S):
            await servicer.gone.wait()
    assert anna.heard.all("unlinked") == ["silent"]
