"""Publishing a row: whoever waits for it is told once the disk has it, and is always told."""

import asyncio
import sqlite3
from contextlib import closing
from random import Random

import pytest
from integration.rpc.fleet import WAIT_S, Founded

from meshnode.app.audit.alarms import Alarm, Alarms
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.control.entries import Forget, sign_entry
from meshnode.core.errors import StorageError
from meshnode.core.feeds.messages import Fork
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.node import world as world_module
from meshnode.node.clock import SystemClock
from meshnode.node.homes import persistence
from meshnode.node.homes.persistence import FeedWriter
from meshnode.node.world import NodeWorld
from meshnode.store import feeds
from meshnode.store.database import Database
from meshnode.wire.links import Introduction

TABLE = "sessions"


class Node:
    """A node's world without listeners: its mesh, its disk, its timers."""

    def __init__(self, founded: Founded, database: Database, boot: int = 1) -> None:
        member = founded.node()
        self.key = member.key
        self.database = database
        self.mesh = Mesh(founded.genesis, Self(member.key, boot, Random(1)))
        self.over = asyncio.Event()
        self.alarms = Alarms(lambda: 0.0, self._heard)
        self.world = NodeWorld(
            self.mesh, SystemClock(), member.identity, Introduction(1, ()), _no_spawn, self.alarms
        )
        replicas = self.mesh.replication.replicas
        self.writer = FeedWriter(database, replicas.__getitem__, self.world.persisted, self.alarms)
        self.world.writer = self.writer

    def _heard(self, _alarm: Alarm, raised: bool) -> None:
        if not raised:
            self.over.set()

    def on_disk(self, key: bytes) -> bytes | None:
        """Look with a connection of our own: the node's would wait for what is being written."""
        with closing(sqlite3.connect(self.database.path)) as connection:
            held = feeds.load(connection)
        for header, rows in held.feeds:
            row = rows.get(TABLE, key)
            if header.origin == self.mesh.self_id and row is not None:
                return row.value
        return None

    async def publish(self, key: bytes, value: bytes | None) -> bytes | None:
        """Publish, and look at the disk at the very moment it is done."""
        await self.world.publish(TABLE, key, value)
        return self.on_disk(key)


def _no_spawn(work) -> None:
    work.close()


@pytest.fixture
async def node(database, monkeypatch):
    monkeypatch.setattr(persistence, "RETRY_S", 0.01)
    node = Node(Founded(3), database)
    task = asyncio.get_running_loop().create_task(node.writer.run())
    async with asyncio.timeout(WAIT_S):
        yield node
    node.world.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_row_is_on_disk_when_its_publishing_is_done(node):
    assert await node.publish(b"k", b"1") == b"1"
    assert await node.publish(b"k", b"2") == b"2"
    assert await node.publish(b"k", None) is None


async def test_publishing_what_is_there_already_is_done_at_once(node):
    await node.publish(b"k", b"1")
    assert await node.publish(b"k", b"1") == b"1"


async def test_publishing_again_while_the_first_is_written_waits_for_the_second(node):
    seen = []
    persisted = node.mesh.persisted

    def noting(change, now_s):
        if not seen and (TABLE, b"k") in change.rows:
            # The first flush is on disk and not told yet: a new value of the row comes now.
            seen.append(asyncio.get_running_loop().create_task(node.publish(b"k", b"2")))
        return persisted(change, now_s)

    node.mesh.persisted = noting
    first = asyncio.get_running_loop().create_task(node.publish(b"k", b"1"))
    async with asyncio.timeout(WAIT_S):
        assert await first == b"1"
        assert await seen[0] == b"2"


@pytest.mark.parametrize("value", [b"2", b"1"], ids=["another value", "the same again"])
async def test_what_came_between_flush_and_disk_is_not_told_early(node, value):
    """As two reports of one session do that arrive within a few milliseconds."""
    put = node.writer.put
    later = []

    def slow_disk(change, *, ours):
        put(change, ours=ours)
        if not later and (TABLE, b"k") in change.rows:
            later.append(asyncio.get_running_loop().create_task(node.publish(b"k", value)))

    node.writer.put = slow_disk
    async with asyncio.timeout(WAIT_S):
        await node.publish(b"k", b"1")
        assert await later[0] == value


async def test_whoever_waits_for_a_value_that_is_taken_back_is_told_all_the_same(node):
    await node.publish(b"k", b"1")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(node.publish(b"k", b"2"))
        await asyncio.sleep(0)  # it has written, and waits
        node.world.write(TABLE, b"k", b"1")
    assert waiting.result() == b"1"


async def test_publishing_on_a_disk_without_room_is_told_and_done_once_there_is_some(node):
    await node.publish(b"k", b"1")
    await limit_pages(node.database)
    with pytest.raises(StorageError, match="is full"):
        await node.publish(b"k", bytes(15_000))
    with pytest.raises(StorageError, match="what was written waits"):  # at once, from now on
        await node.publish(b"l", b"2")
    assert node.on_disk(b"k") == b"1"
    assert node.alarms.stop() is not None
    await node.database.run(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
    await node.over.wait()
    assert await node.publish(b"m", b"3") == b"3"
    assert node.on_disk(b"k") == bytes(15_000)
    assert node.on_disk(b"l") == b"2"


async def limit_pages(database: Database) -> None:
    def limit(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")

    await database.run(limit)


async def test_a_cloned_home_is_an_alarm_that_stops_writes(node):
    node.world.report("cloned_home", None, "another node writes this node's feed")
    (alarm,) = node.alarms.standing()
    assert (alarm.id, alarm.stops_writes) == ("cloned_home", True)
    assert alarm.fix
    with pytest.raises(StorageError, match="another node writes"):
        await node.world.publish(TABLE, b"k", b"1")


async def test_a_quarantined_feed_is_an_alarm_until_it_has_news(node):
    peer = Founded(4).node()
    node.world.report("feed_quarantined", peer.node_id, "two headers for 3.14")
    (alarm,) = node.alarms.standing()
    assert alarm.id == f"feed:{peer.node_id[:12]}"
    assert not alarm.stops_writes
    feed = OwnFeed(peer.key, node.mesh.genesis.mesh_id, node.mesh.genesis.limits, 1)
    feed.write(TABLE, b"k", b"v")
    node.world.persist(feed.flush(1.0), ours=False)
    assert node.alarms.standing() == ()


async def test_a_quarantined_feed_is_no_alarm_once_its_node_is_forgotten(node):
    founded = Founded(3)
    peer = founded.node()
    node.world.report("feed_quarantined", peer.node_id, "two headers for 3.14")
    feed = OwnFeed(peer.key, founded.mesh_id, node.mesh.genesis.limits, 1)
    feed.write(TABLE, b"k", b"v")
    feed.flush(1.0)
    forget, chance = Forget(feed.header), founded.chance
    node.world.add_control(sign_entry(founded.root, founded.mesh_id, forget, chance, issued_s=1))
    assert node.mesh.control.forgotten.keys() == {peer.node_id}
    assert node.alarms.standing() == ()


@pytest.mark.parametrize("is_back", [False, True])
async def test_a_fork_proved_once_its_node_is_forgotten_is_an_alarm_if_it_is_back(node, is_back):
    founded = Founded(3)
    _, peer, teller = founded.node(), founded.node(), founded.node()

    def history(*names: str) -> OwnFeed:
        feed = OwnFeed(peer.key, founded.mesh_id, node.mesh.genesis.limits, 1)
        for name in names:
            feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord(name)))
            feed.flush(1.0)
        return feed

    before = ["anna"] if is_back else []
    one, other = history(*before, "berta"), history(*before, "carla")
    forget, chance = Forget(history(*before or ["berta"]).header), founded.chance
    node.world.add_control(sign_entry(founded.root, founded.mesh_id, forget, chance, issued_s=1))
    node.mesh.replication.restore(one.header, one.rows)
    node.world.linked(teller.node_id, dialled=True)
    node.world.received(teller.node_id, Fork((one.header, other.header)))
    assert node.mesh.replication.forks.has(peer.node_id)
    alarms = [alarm.id for alarm in node.alarms.standing()]
    assert alarms == ([f"feed:{peer.node_id[:12]}"] if is_back else [])


class Once:
    """Raises the first time, then does as what it stands before; lets a test wait for calls."""

    def __init__(self, real) -> None:
        self._real = real
        self._calls = 0
        self._called = asyncio.Event()

    def __call__(self, *args):
        self._calls += 1
        self._called.set()
        if self._calls == 1:
            raise ValueError("only once")
        return self._real(*args)

    async def called(self, count: int) -> None:
        while self._calls < count:
            self._called.clear()
            await self._called.wait()


@pytest.mark.parametrize("name", ["tick", "pulse"])
async def test_a_timer_that_fails_rings_again_and_is_an_alarm(node, monkeypatch, name):
    monkeypatch.setattr(world_module, "AGAIN_S", 0.01)
    owner, method = {
        "tick": (node.mesh.replication, "tick"),
        "pulse": (node.mesh.neighbours, "pulses"),
    }[name]
    once = Once(getattr(owner, method))
    monkeypatch.setattr(owner, method, once)
    node.world.start()
    await once.called(3)
    (alarm,) = node.alarms.standing()
    assert (alarm.id, alarm.stops_writes) == (f"fault:{name}", False)
    assert "ValueError: only once" in alarm.detail
    assert await node.publish(b"k", b"1") == b"1"


async def test_what_a_timer_had_planned_when_it_failed_is_done_all_the_same(node, monkeypatch):
    monkeypatch.setattr(world_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(node.mesh, "_flush", Once(node.mesh._flush))
    assert await node.publish(b"k", b"1") == b"1"


async def test_whoever_fails_over_some_news_costs_nobody_else_anything(node, monkeypatch):
    failing = Once(lambda _news: None)
    node.world.on_news = failing
    node.world.on_change.append(Once(lambda _change: None))
    node.world.start()
    assert await node.publish(b"k", b"1") == b"1"
    assert await node.publish(b"k", b"2") == b"2"
    assert [alarm.id for alarm in node.alarms.standing()] == ["fault:effect"]
