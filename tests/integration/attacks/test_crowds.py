"""Strangers that take all the connections of a port, after TLS and before it."""

import grpc
import grpc.aio
import pytest
from integration.attacks.ports import (
    Commands,
    finished_handshakes,
    held_at,
    hello,
    joiners_port,
    members_port,
    silent_connections,
    submitted,
)
from integration.rpc.fleet import Founded
from msgspec.structs import replace

from meshnode.rpc import servers
from meshnode.rpc.servers import OF_JOINERS, OF_MEMBERS

FEW = 8  # connections that a port takes


async def greeted(mesh, bert, address):
    """Ask as an honest stranger does; None if there is no room."""
    try:
        return await hello(mesh, bert, address)
    except grpc.aio.AioRpcError as failure:
        if failure.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return None


@pytest.fixture
def mesh() -> Founded:
    return Founded(5)


@pytest.fixture
def commands() -> Commands:
    return Commands()


async def test_strangers_hold_as_many_connections_as_a_port_takes_and_no_member_is_kept_out(
    mesh, commands, monkeypatch
):
    monkeypatch.setattr(servers, "OF_JOINERS", replace(OF_JOINERS, connections_max=FEW))
    anna, bert = mesh.node(), mesh.node()
    async with (
        members_port(bert, commands) as members,
        joiners_port(bert, mesh) as joiners,
        finished_handshakes(joiners, FEW + 12) as crowd,
    ):
        assert len(crowd.streams) == FEW
        assert held_at(joiners) <= FEW
        async with anna.identity.channel(bert.node_id, members) as channel:
            assert await submitted(channel) is None
        await crowd.gone()  # who calls nothing is let go
        while (greeting := await greeted(mesh, bert, joiners)) is None:
            pass
    assert greeting.node_id == bert.node_id


async def test_strangers_at_the_members_port_are_bounded_too_and_gone_at_once(
    mesh, commands, monkeypatch
):
    monkeypatch.setattr(servers, "OF_MEMBERS", replace(OF_MEMBERS, connections_max=FEW))
    anna, bert = mesh.node(), mesh.node()
    async with members_port(bert, commands) as address:
        async with silent_connections(address, FEW + 12) as silent:
            assert held_at(address) <= FEW
            await silent.gone()
        async with finished_handshakes(address, FEW) as crowd:
            assert held_at(address) <= FEW
            await crowd.gone()  # they have no certificate
        async with anna.identity.channel(bert.node_id, address) as channel:
            while await submitted(channel, wait_for_ready=True) is not None:
                pass
    assert set(commands.peers) == {anna.node_id}
