"""Names of hosts: looked up beside everything else, and tried at all that they stand for."""

import asyncio
import socket
import threading

import pytest
from integration.discovery.places import BOTH, NAME, black_hole, stand_for
from integration.rpc.fleet import WAIT_S, Founded, serving

from meshnode.core.errors import UnreachableError
from meshnode.discovery import names, probes, seeds
from meshnode.discovery.names import ADDRESSES_MAX, LOOKUPS_MAX, NEXT_S, connected, resolved
from meshnode.discovery.probes import accepts
from meshnode.discovery.seeds import hint_at
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2_grpc as links_grpc

MUTE = "gateway.example"  # whose name server says nothing


class Resolver:
    """The machine's resolver; of one name it hears nothing until it is let go."""

    def __init__(self) -> None:
        self.let_go, self.full = threading.Event(), threading.Event()
        self.asked = 0
        self._lock = threading.Lock()
        self._answer = socket.getaddrinfo

    def __call__(self, host, *rest, **named):
        if host == MUTE:
            with self._lock:
                self.asked += 1
            if self.asked == LOOKUPS_MAX:
                self.full.set()
            self.let_go.wait(WAIT_S / 2)
            self.let_go.set()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._answer(host, *rest, **named)


@pytest.fixture
def resolver(monkeypatch):
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    monkeypatch.setattr(seeds, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setattr(probes, "ACCEPT_S", 0.1)
    yield made
    made.let_go.set()
    for thread in threading.enumerate():
        if thread.name == names.THREAD:
            thread.join()


async def test_addresses_are_what_they_are_and_names_are_looked_up():
    assert await resolved("::1") == "::1"
    assert await resolved("localhost") in {"127.0.0.1", "::1"}


def test_a_seed_whose_name_is_not_answered_keeps_no_process_from_ending(resolver):
    async def follow() -> None:
        with pytest.raises(UnreachableError, match="does not answer"):
            await hint_at(f"{MUTE}:7707")

    asyncio.run(follow())
    assert resolver.asked == 1
    assert not resolver.let_go.is_set()


def test_nor_does_a_member_at_such_a_name(resolver):
    assert asyncio.run(accepts(f"{MUTE}:7707")) is False
    assert not resolver.let_go.is_set()


async def test_so_many_names_are_looked_up_at_once_and_one_more_is_not(resolver):
    async with asyncio.TaskGroup() as tasks:
        lookups = [tasks.create_task(accepts(f"{MUTE}:7707")) for _ in range(LOOKUPS_MAX)]
        assert await asyncio.to_thread(resolver.full.wait, WAIT_S / 4)
        with pytest.raises(OSError, match="too many names"):
            await resolved(MUTE)
        assert await resolved("127.0.0.1") == "127.0.0.1"
    assert not any(lookup.result() for lookup in lookups)


async def test_every_address_of_a_name_is_tried(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as held:
        held.bind(("127.0.0.2", listener.getsockname()[1]))  # and never listens
        stand_for(monkeypatch, *BOTH)
        ip, writer = await connected(NAME, listener.getsockname()[1])
        writer.close()
        assert ip == "127.0.0.1"
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await connected(NAME, held.getsockname()[1])


async def test_an_address_that_drops_packets_takes_its_turn_and_no_more(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stand_for(monkeypatch, *BOTH)
        with black_hole("127.0.0.2", port):
            async with asyncio.timeout(WAIT_S):
                ip, writer = await connected(NAME, port)
    writer.close()
    assert ip == "127.0.0.1"


async def test_nor_does_one_that_says_nothing_and_it_is_let_go():
    let_go = asyncio.Event()

    async def mute(reader, writer):
        await reader.read()
        let_go.set()
        writer.close()

    node = Founded(1).node()
    servicers = links_grpc.LinkServiceServicer(), commands_grpc.CommandServiceServicer()
    async with serving(await members_server(*servicers), node.identity.for_members) as address:
        port = int(address.rpartition(":")[2])
        async with asyncio.timeout(WAIT_S), await asyncio.start_server(mute, "127.0.0.2", port):
            with pytest.MonkeyPatch.context() as patched:
                stand_for(patched, *BOTH)
                assert (await hint_at(f"{NAME}:{port}")).node_id == node.node_id
            await let_go.wait()


async def test_of_all_that_fail_the_one_that_says_most_is_told(monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.2", 0))  # and never listens
        for ips in (("127.0.0.2", "255.255.255.255"), ("255.255.255.255", "127.0.0.2")):
            stand_for(monkeypatch, *ips)
            with pytest.raises(ConnectionRefusedError):
                await connected(NAME, held.getsockname()[1])


async def test_whoever_gives_up_leaves_no_attempt_behind(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    stand_for(monkeypatch, "127.0.0.2", "127.0.0.3")
    before = asyncio.all_tasks()
    with black_hole("127.0.0.2", port), black_hole("127.0.0.3", port), pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * NEXT_S):
            await connected(NAME, port)
    assert asyncio.all_tasks() == before


async def test_of_very_many_addresses_the_first_are_tried(monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        port = held.getsockname()[1]
        stand_for(monkeypatch, *(f"127.0.1.{number}" for number in range(1, 99)))
        one_more = socket.create_server((f"127.0.1.{ADDRESSES_MAX + 1}", port))
        with one_more, pytest.raises(ConnectionRefusedError):
            await connected(NAME, port)
