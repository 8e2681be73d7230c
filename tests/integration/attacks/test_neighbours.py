"""What a linked member can do with the frames it sends: be slow, be refused, and hold up nobody."""

import time
from contextlib import AsyncExitStack

import pytest
from integration.rpc.by_hand import linked_by_hand
from integration.rpc.fleet import Founded
from integration.rpc.stations import Station, link, station

from meshnode.core.feeds.messages import Pulse
from meshnode.rpc import share
from meshnode.rpc.links import TOGETHER_MAX
from meshnode.v1 import link_service_pb2 as pb


@pytest.fixture(scope="module")
def mesh() -> Founded:
    return Founded(7)


@pytest.fixture
async def stations(mesh):
    """Three nodes without links."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(station(mesh, mesh.node())) for _ in range(3)]


async def test_a_message_of_very_many_frames_ends_the_link(mesh, stations):
    callee: Station = stations[0]
    empty = pb.Frame()
    async with linked_by_hand(mesh, callee) as call:
        flood = pb.LinkRequest(frame=empty, more=[empty] * 500_000)
        await call.write(flood.SerializeToString())
        assert "frames together" in await callee.heard.heard("refused")
        await callee.heard.heard("unlinked")
    assert callee.heard.all("received") == []


async def test_as_many_frames_as_are_allowed_together_are_taken(mesh, stations):
    callee: Station = stations[0]
    pulse = pb.Frame(pulse=pb.Pulse(count=7))
    async with linked_by_hand(mesh, callee) as call:
        many = pb.LinkRequest(frame=pulse, more=[pulse] * (TOGETHER_MAX - 1))
        await call.write(many.SerializeToString())
        await callee.heard.heard("received", TOGETHER_MAX)
    assert callee.heard.all("refused") == []
    assert set(callee.heard.all("received")) == {Pulse(7)}


async def test_a_neighbour_whose_frames_cost_much_waits_and_others_are_heard(stations, monkeypatch):
    monkeypatch.setattr(share, "BURST_S", 0.02)
    callee, greedy, modest = stations
    callee.links._shares = share.Shares()
    await link(greedy, callee)
    await link(modest, callee)
    taken = callee.heard.received

    def costly(peer, message) -> None:
        if peer == greedy.node_id:
            if not callee.numbers():
                modest.send(callee, 1000)  # the others are there, or on their way
            until_s = time.thread_time() + 0.006
            while time.thread_time() < until_s:  # as a large repair does
                pass
        taken(peer, message)

    monkeypatch.setattr(callee.heard, "received", costly)
    greedy.send(callee, *range(40))
    await callee.told(1000)
    early = len(callee.numbers())
    await callee.told(*range(40))
    assert early <= 25, "the modest one came before the greedy one was through"
    assert sorted(callee.numbers()) == [*range(40), 1000], "nothing was dropped"
    assert callee.balance == 2
