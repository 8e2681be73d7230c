"""Feeds on their way to a real disk, and a second look at it."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from random import Random

from integration.rpc.fleet import WAIT_S

from meshnode.app.audit.alarms import Alarm, Alarms
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Rows
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.node.homes.persistence import FeedWriter
from meshnode.store import feeds
from meshnode.store.database import Database

CHANCE = Random(5).randbytes
ROOT = Key.new(CHANCE)
GENESIS = Genesis((ROOT.public,), 1, "lab", CHANCE(16))
TABLE = "sessions"


class Rings:
    """What was said about alarms, for tests that wait for it."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bool]] = []
        self._changed = asyncio.Event()

    def __call__(self, alarm: Alarm, raised: bool) -> None:
        self.said.append((alarm.id, raised))
        self._changed.set()

    async def come(self, *said: tuple[str, bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.said != list(said):
                self._changed.clear()
                await self._changed.wait()


class Tries:
    """How often something was tried, for tests that wait for it."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = asyncio.Event()

    def more(self) -> None:
        self._count += 1
        self._changed.set()

    async def come(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self._count < count:
                self._changed.clear()
                await self._changed.wait()


class Writers:
    """Feeds that are written, one of them ours, and what was told to be on disk."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.feeds: dict[str, OwnFeed] = {}
        self.ours = self.feed()
        self.persisted: list[tuple[Change, dict[str, Rows]]] = []
        self._told = asyncio.Event()
        self.rings = Rings()
        self.alarms = Alarms(lambda: 1.0, self.rings)
        self.writer = FeedWriter(database, self.feeds.__getitem__, self._on_persisted, self.alarms)

    def feed(self) -> OwnFeed:
        """Start a feed of some node."""
        feed = OwnFeed(Key.new(CHANCE), GENESIS.mesh_id, GENESIS.limits, 1)
        self.feeds[feed.origin] = feed
        return feed

    def write(self, feed: OwnFeed, key: bytes, value: bytes | None) -> Change:
        """Write one row and plan its way to the disk."""
        feed.write(TABLE, key, value)
        change = feed.flush(1.0)
        assert change is not None
        self.writer.put(change, ours=feed is self.ours)
        return change

    def on_disk(self) -> dict[str, Rows]:
        """Look with a connection of our own: only what is committed is seen."""
        connection = sqlite3.connect(self.database.path)
        try:
            held = feeds.load(connection)
        finally:
            connection.close()
        return {header.origin: rows for header, rows in held.feeds}

    def _on_persisted(self, change: Change) -> None:
        self.persisted.append((change, self.on_disk()))
        self._told.set()

    async def told(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.persisted) < count:
                self._told.clear()
                await self._told.wait()

    @asynccontextmanager
    async def running(self):
        task = asyncio.get_running_loop().create_task(self.writer.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def drained(self) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.writer.drained()


def values(rows: Rows) -> dict[bytes, bytes]:
    return {key: row.value for key, row in rows.tables.get(TABLE, {}).items()}
