"""Whatever a node reads, rolls up and is given back, and whenever it is killed: totals stay.

The real path of a node, between its steps of which anything may happen: another process reads the
same logs, the node is killed, or peers return what a lost disk had said.
"""

import asyncio
from pathlib import Path
from random import Random

import pytest
from integration.node.ledgers import Kept, wait_for_little
from integration.rpc.fleet import WAIT_S
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.core.feeds.headers import Header
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.ledger.ledger import (
    SLOT_S,
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    LedgerKey,
    Slot,
    UsageRecord,
)
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DAY_S
from meshnode.node.homes.restoring import restore
from meshnode.node.ledger import keeping, rolling
from meshnode.store import ledger
from meshnode.store.database import Database

pytestmark = pytest.mark.property
START_S = 1_790_000_000.0
AGES = (0, 0, 1, 20, 34, 35, 36, 60, 400, 500)  # days
OFTEN = 0.15  # how likely peers return a history at a step of the database
SEEDS = 25
History = tuple[Header, Rows]


class Home:
    """A node's disk, and whatever node runs on it."""

    def __init__(self, path: Path, now_s: float, chance: Random) -> None:
        self.path, self.chance, self.now_s, self.boots = path, chance, now_s, 1
        self.history: History | None = None  # that peers hold
        self.returning: History | None = None  # and have not returned yet

    async def start(self) -> None:
        self.boots += 1
        database = Database(self.path)
        self.node = Kept(database, Limits(), self.boots)
        self.node.clock.now_s = self.now_s
        restore(self.node.mesh, database, self.now_s)
        self.node.following.take_up()
        if self.history and self.node.mesh.own.epoch <= self.history[0].epoch:
            self.returning = self.history
        run = database.run

        async def interrupted(function, *args, **kwargs):
            self.maybe_return()
            result = await run(function, *args, **kwargs)
            self.maybe_return()
            return result

        database.run = interrupted
        self.node.tasks(self.node.writer.run())
        await self.node.following.start([])

    def maybe_return(self, likely: float = OFTEN) -> None:
        if self.returning and self.chance.random() < likely:
            self.node.mesh.own.continue_after(*self.returning)
            self.returning = None
            self.node.world.write("sessions", b"k", b"v")  # it is on its way, as after any news

    async def end(self) -> None:
        self.now_s = self.node.clock.now_s
        await self.node.end()

    async def settled(self) -> dict[LedgerKey, Slot]:
        """Return what is said once everything was looked at; all that is on disk."""
        self.maybe_return(1.0)
        for _ in range(2):
            await self.node.looked_again()
        said = self.node.said()
        assert said == await self.node.on_disk_are()
        return said

    async def count(self, *records: UsageRecord) -> None:
        async with self.node.following.counting():
            rows = await self.node.database.run(ledger.commit, *batch(self.node, records))
        self.node.following.publish(rows)

    def count_elsewhere(self, *records: UsageRecord) -> None:
        other = Database(self.path)
        other.run_now(ledger.commit, *batch(self.node, records))
        other.close()

    async def happen(self, unread: list[UsageRecord], new: list[UsageRecord]) -> None:
        """Read some, roll some up, be killed, and use something new."""
        chance = self.chance
        for _ in range(chance.randint(2, 12)):
            match chance.choice(["read"] * 4 + ["other", "killed", "days", "wait", "use", "use"]):
                case "read" if unread:
                    await self.count(*some_of(unread, chance.randint(1, 4)))
                case "other" if unread:
                    self.count_elsewhere(*some_of(unread, 1))
                case "killed":
                    await self.end()
                    await self.start()
                case "days":
                    await self.node.pass_days(chance.choice([0, 1, 1, 36]))
                case "use":
                    new.append(await self.used(len(new)))
                case _:
                    await self.node.looked_again()
        while unread:
            await self.count(*some_of(unread, 3))

    async def used(self, number: int) -> UsageRecord:
        """Use something; its log may say another model later.

        Where something is given back in the very step of a correction, both stay.
        """
        was = record(number, self.node.clock.now_s, self.chance, self.path.stem)
        await self.count(was)
        if self.chance.random() < 0.5:
            return was
        found = replace(was, model="other", usage=was.usage + Buckets(output=1), rank=1)
        waiting, self.returning = self.returning, None
        await self.count(found)
        self.returning = waiting
        return found


def some_of(records: list[UsageRecord], number: int) -> list[UsageRecord]:
    source = records[-1].source  # each reader has one
    found = [one for one in records if one.source == source][-number:]
    for one in found:
        records.remove(one)
    return found


def batch(node: Kept, records: tuple[UsageRecord, ...]) -> tuple[Batch, int]:
    reader = DiagnosticsKey(records[0].source, "0")
    return Batch(reader, "path", {}, records, Diagnostics()), int(node.clock.now_s * 1000)


def record(number: int, at_s: float, chance: Random, name: str) -> UsageRecord:
    return usage_record(
        f"{name}{number}",
        source=chance.choice(["claude", "higress"]),
        at_s=at_s,
        session=chance.choice("ab"),
        owner=chance.choice("xy"),
        model=chance.choice("mn"),
        usage=Buckets(10 + number),
    )


def summed(slots: list[Slot]) -> tuple[int, int]:
    return sum(slot.records for slot in slots), sum(slot.usage.input for slot in slots)


def total(records: list[UsageRecord]) -> tuple[int, int]:
    return len(records), sum(one.usage.input for one in records)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_totals_stay_whatever_happens_between_two_steps(tmp_path, monkeypatch, seed):
    wait_for_little(monkeypatch)
    for module in (keeping, rolling):
        monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(rolling, "HELD_AT_ONCE", 3)
    chance = Random(seed)
    counted = []
    for number in range(chance.randint(1, 14)):
        at_s = START_S - chance.choice(AGES) * DAY_S - chance.randint(0, 20) * SLOT_S
        counted.append(record(number, at_s, chance, "old"))

    async with asyncio.timeout(WAIT_S):
        home, new = Home(tmp_path / "lost.db", START_S, chance), []
        await home.start()
        await home.happen(list(counted), new)
        counted += new
        assert summed((await home.settled()).values()) == total(counted)
        while home.node.mesh.own.waiting:
            await home.node.looked_again()
        own, rows = home.node.mesh.own, Rows()
        for (table, key), row in all_rows(own.rows).items():
            rows.put(table, key, row)
        history = own.header, rows
        await home.end()

        later_s = home.now_s + chance.choice([2 * 3600, DAY_S, 40 * DAY_S])
        home, new = Home(tmp_path / "new.db", later_s, chance), []
        home.history = history
        await home.start()
        # Of some the log is gone: peers alone know of them.
        unread = [one for one in counted if chance.random() < 0.8]
        chance.shuffle(unread)
        await home.happen(unread, new)
        assert summed((await home.settled()).values()) == total(counted + new)
        await home.end()
