"""Output read from an owner for long: neither the reader nor a silent agent ends it."""

import asyncio

import pytest
from integration.rpc.test_commands import Owner, courier, reachable
from msgspec.structs import replace

from meshnode.rpc import commands, servers


@pytest.fixture
def owner(mesh, database):
    return Owner(mesh, database)


async def test_a_reader_may_take_longer_than_a_call_does(mesh, owner, monkeypatch):
    monkeypatch.setattr(commands, "READ_LOG_TIMEOUT_S", limit_s := 2.0)
    monkeypatch.setattr(servers, "OF_MEMBERS", replace(servers.OF_MEMBERS, answer_s=limit_s))
    monkeypatch.setattr(commands, "ALIVE_S", limit_s / 4)
    owner.pieces = [bytes([number // 2]) * 60_000 for number in range(200)]
    owner.pieces[99:99] = [b""] * 30  # a followed agent that says nothing for longer than that
    async with reachable(owner) as address:
        command = owner.command("read_messages")
        output = courier(mesh, address).read_log(owner.member.node_id, command)
        first = await anext(output)
        await asyncio.sleep(2 * limit_s)
        assert [first, *[piece async for piece in output]] == list(filter(None, owner.pieces))


@pytest.mark.parametrize(
    ("alive_s", "said"), [(60.0, [b"one", b"two"]), (0.0, [b"one", *[b""] * 20, b"two"])]
)
async def test_that_its_owner_lives_is_said_by_no_more_pieces_than_it_takes(
    mesh, owner, monkeypatch, alive_s, said
):
    monkeypatch.setattr(commands, "LATER_S", 0.0)
    monkeypatch.setattr(commands, "ALIVE_S", alive_s)
    owner.pieces = [b"one", *[b""] * 20, b"two"]
    pieces = owner.servicer.read(owner.command("read_messages"), mesh.node().node_id)
    assert [piece async for piece in pieces] == said
