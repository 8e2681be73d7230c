"""A node's mDNS over its life: it begins again after a failure, and where the machine moved to."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from integration.discovery.test_mdns import MESH, an_id, announcement, multicast_reaches_us
from integration.rpc.fleet import WAIT_S
from zeroconf import NonUniqueNameException
from zeroconf.asyncio import AsyncZeroconf

from meshnode.discovery import mdns
from meshnode.discovery.hints import Announcement
from meshnode.node.presence import finding as module
from meshnode.node.presence.finding import LISTENING, MDNS, Finding

pytestmark = pytest.mark.skipif(
    not multicast_reaches_us(), reason="multicast on the loopback is not available here"
)


class World:
    """A node's world that only remembers what it is told."""

    def __init__(self, number: int) -> None:
        genesis = SimpleNamespace(mesh_id=MESH)
        self.mesh = SimpleNamespace(genesis=genesis, self_id=an_id(number))
        self.troubles = {}
        self.hints = {}
        self.hinted = asyncio.Event()
        self.told = asyncio.Event()

    def hint(self, node_id, addresses) -> None:
        self.hints[node_id] = addresses
        self.hinted.set()

    def trouble(self, where, reason) -> None:
        self.troubles[where] = reason
        self.told.set()

    async def is_told(self, condition) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition(self.troubles.get(MDNS, "")):
                self.told.clear()
                await self.told.wait()

    async def hears(self, number: int, address: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.hints.get(an_id(number)) != (address,):
                self.hinted.clear()
                await self.hinted.wait()


@asynccontextmanager
async def finding(number: int):
    tasks = set()
    found = Finding(World(number), lambda work: tasks.add(asyncio.ensure_future(work)))
    try:
        yield found
    finally:
        await found.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one for one in ended if isinstance(one, Exception)] == []


def at(number: int, port: int) -> Announcement:
    return announcement(number, port=port)


@pytest.fixture
def trouble(monkeypatch):
    """Let the next instance of zeroconf fail over what is put here, and keep all there are."""
    failures: dict[str, Exception] = {}
    made: list[AsyncZeroconf] = []

    class Troubled(AsyncZeroconf):
        def __init__(self, **words) -> None:
            if "begin" in failures:
                raise failures.pop("begin")
            super().__init__(**words)
            made.append(self)

        async def async_register_service(self, *words, **more):
            if "register" in failures:
                raise failures.pop("register")
            return await super().async_register_service(*words, **more)

    monkeypatch.setattr(mdns, "AsyncZeroconf", Troubled)
    monkeypatch.setattr(module, "QUIET_S", 0.01)
    return failures, made


@pytest.mark.parametrize(
    ("when", "error"),
    [("begin", OSError(101, "Network is unreachable")), ("register", NonUniqueNameException())],
)
async def test_mdns_that_fails_is_tried_again_and_nothing_of_it_is_left(trouble, when, error):
    failures, made = trouble
    failures[when] = error
    async with finding(66) as other, finding(61) as found:
        found.listen(at(61, 7761))
        other.listen(at(66, 7766))
        await other._world.hears(61, "127.0.0.1:7761")
        assert failures == {}
        assert [one.zeroconf.done for one in made].count(False) == 2
    assert all(one.zeroconf.done for one in made)


async def test_a_node_that_has_moved_is_heard_where_it_is_now():
    async with finding(62) as one, finding(63) as other:
        one.listen(at(62, 7762))
        other.listen(at(63, 7763))
        await one._world.hears(63, "127.0.0.1:7763")
        other.listen(at(63, 7764))
        await one._world.hears(63, "127.0.0.1:7764")


async def test_a_node_without_an_address_for_others_listens_and_says_so():
    async with finding(64) as mute, finding(65) as other:
        mute.listen(Announcement(an_id(64), MESH, (), 7764, loopback_only=True))
        other.listen(at(65, 7765))
        await mute._world.hears(65, "127.0.0.1:7765")
        assert mute.mdns == LISTENING
        assert an_id(64) not in other._world.hints


async def test_a_node_of_another_mesh_is_told_of_until_it_says_goodbye():
    async with finding(67) as one, finding(69) as second:
        one.listen(at(67, 7767))
        second.listen(announcement(69, mesh_id="n" * 52, port=7769))
        async with finding(68) as first:
            first.listen(announcement(68, mesh_id="n" * 52, port=7768))
            await one._world.is_told(lambda said: ":7768" in said and ":7769" in said)
        await one._world.is_told(lambda said: ":7768" not in said and ":7769" in said)


async def test_other_meshes_of_a_network_that_was_left_are_told_of_no_more():
    async with finding(70) as one, finding(71) as other:
        one.listen(at(70, 7770))
        other.listen(announcement(71, mesh_id="n" * 52, port=7771))
        await one._world.is_told(lambda said: ":7771" in said)
        before = one._discovery
        one.listen(at(70, 7770))
        async with asyncio.timeout(WAIT_S):
            while one._discovery is before:  # noqa: ASYNC110 - no event says so
                await asyncio.sleep(0)
        assert one._world.troubles == {}
