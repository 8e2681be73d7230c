"""What `doctor` sees at the addresses of peers: real listeners, and whatever a member may say."""

import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from integration.discovery.places import NAME, stand_for
from integration.rpc.fleet import Founded, Member, serving
from msgspec.structs import replace

from meshnode.app.diagnosis.observations import Attempt, Dial, MulticastFacts
from meshnode.app.diagnosis.peer_diagnosis import Here, Peer, judge_peer
from meshnode.core.membership.members import ADDRESSES_MAX
from meshnode.node.doctor import observing
from meshnode.node.doctor.observing import Observer, Seen
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc

ANNA, BERTA, MESH = "a" * 52, "b" * 52, "m" * 52
HERE = Here(ANNA, MESH, 1, 0.0, node_runs=True)
ODD = ["", "nonsense", "host:port", "[::1]", "unix:/run/x", "a\0b:1", "[fe80::1%\0]:1", "..:1"]
ODD += ["é:1", f"{'x' * 9999}:1", f"[::1%{'x' * 9999}]:1", f"1:{'9' * 9999}", "127.0.0.1:0"]
PEER = Peer("berta", (), node_id=BERTA, state="unreachable")


async def observed(*peers: Peer) -> list[tuple[Peer, tuple[Attempt, ...]]]:
    seen = Seen()
    await Observer(ANNA, MESH, None, time.time).peers(peers, seen)
    return seen.peers


@pytest.mark.parametrize("address", ODD, ids=lambda address: ascii(address)[:20])
async def test_whatever_a_member_calls_its_address_is_a_fact_and_judged(address):
    ((peer, attempts),) = await observed(replace(PEER, addresses=(address,)))
    assert [one.address for one in attempts] == [address]
    assert attempts[0].dial is not Dial.CONNECTED
    assert [check.ok for check in judge_peer(peer, attempts, HERE)] == [False]


@asynccontextmanager
async def listening(berta: Member) -> AsyncIterator[int]:
    """Let a member listen as it does on its own machine; yields the port."""
    servicers = links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    async with serving(await members_server(*servicers), berta.identity.for_members) as address:
        yield int(address.rpartition(":")[2])


async def test_every_address_that_a_member_may_have_is_looked_at():
    berta = Founded(1).node()
    async with listening(berta) as port:
        last = ADDRESSES_MAX - 1
        hosts = [*(f"127.0.1.{place}" for place in range(last)), "127.0.0.1"]
        peer = replace(PEER, addresses=tuple(f"{host}:{port}" for host in hosts))
        ((_, attempts),) = await observed(replace(peer, node_id=berta.node_id))
    assert [one.dial for one in attempts] == [Dial.REFUSED] * last + [Dial.CONNECTED]


async def test_a_name_is_looked_up_once_since_the_next_time_may_fail(monkeypatch):
    berta = Founded(1).node()
    async with listening(berta) as port:
        asked = stand_for(monkeypatch, "127.0.0.1")
        peer = replace(PEER, addresses=(f"{NAME}:{port}",), node_id=berta.node_id)
        ((_, (attempt,)),) = await observed(peer)
    assert (attempt.ip, attempt.shown.node_id) == ("127.0.0.1", berta.node_id)
    assert asked == [NAME]


async def test_a_machine_without_ipv4_has_no_interface_to_ask_on(monkeypatch):
    def no_ipv4(*_):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(observing, "interface_hosts", lambda: ("2001:db8::5",))
    monkeypatch.setattr(socket, "socket", no_ipv4)
    seen = Seen()
    await Observer(ANNA, MESH, None, time.time).multicast(["[2001:db8::5]:7707"], seen)
    assert seen.multicast == MulticastFacts()
