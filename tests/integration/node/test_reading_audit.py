"""A log from which records are dropped while somebody reads it proves itself all the same."""

import asyncio
from random import Random
from types import SimpleNamespace

import pytest
from doubles import ManualClock
from integration.rpc.fleet import WAIT_S, Founded

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.ports import Sought
from meshnode.core.commands.audit import walked
from meshnode.core.errors import StaleError
from meshnode.node.audit.auditing import Auditing
from meshnode.store import audit
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
KEPT, DROPPED_AT_ONCE = 3000, 1000
WRITTEN_AT_ONCE = 900


class Full:
    """A node's log that is full, so that every thousandth record drops a thousand."""

    def __init__(self, database: Database) -> None:
        founded = Founded(3)
        key = founded.node().key
        self.mesh = Mesh(founded.genesis, Self(key, 1, Random(1)))
        world = SimpleNamespace(mesh=self.mesh)
        ground = SimpleNamespace(
            world=world, clock=ManualClock(), database=database, key=key, alarms=None
        )
        self.database, self.auditing = database, Auditing(ground)
        database.carry(self.auditing.rider)

    async def add(self, records: int) -> None:
        while records:
            for _ in range(min(records, WRITTEN_AT_ONCE)):
                self.auditing.rider.put(audit.Noted(1, {"kind": "thing"}))
            records -= min(records, WRITTEN_AT_ONCE)
            await self.database.run(audit.write_waiting)

    async def fill(self) -> None:
        """Write until the next record drops some."""
        tail = self.auditing.rider.tail
        await self.add(KEPT - (tail.seq - tail.first) - 1)

    async def read(self, parts: int, added: int) -> tuple[list, int]:
        """Read it all, and once some parts are read let more be written."""
        kept, log = [], 0
        async for log, part in self.auditing.pages(Sought(0, "", (), 0)):  # noqa: B007 - the last
            kept += part
            parts -= 1
            if parts == 0:
                await self.add(added)
        return kept, log


@pytest.fixture
async def full(database, monkeypatch):
    monkeypatch.setattr(audit, "RECORDS_MAX", KEPT)
    assert audit.DROPPED_AT_ONCE == DROPPED_AT_ONCE
    async with asyncio.timeout(WAIT_S):
        yield Full(database)


@pytest.mark.parametrize("parts", range(1, 8))
async def test_what_is_dropped_while_a_log_is_read_accuses_nobody(full, parts):
    await full.fill()
    for _ in range(3):  # the first time nothing was ever dropped before
        first = full.auditing.rider.tail.first
        kept, log = await full.read(parts, 1)
        assert full.auditing.rider.tail.first == first + DROPPED_AT_ONCE
        assert walked(full.mesh.self_id, log, kept, [])[1] is None
        await full.fill()


async def test_a_reader_who_is_slower_than_the_dropping_is_told_to_ask_again(full):
    await full.fill()
    with pytest.raises(StaleError):
        await full.read(1, KEPT)
    kept, log = await full.read(0, 0)
    assert walked(full.mesh.self_id, log, kept, [])[1] is None
