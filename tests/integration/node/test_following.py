"""A ledger on its way into a feed without room for all: what fits is said, the rest is told."""

import asyncio
from dataclasses import replace
from random import Random
from types import SimpleNamespace

import pytest
from doubles import InBackground, ManualClock
from integration.node.test_world import Node
from integration.rpc.fleet import WAIT_S, Founded

from meshnode.app.reporting import Report, ReportDesk
from meshnode.core.charges import Charge
from meshnode.core.errors import DamagedError
from meshnode.core.genesis import Limits
from meshnode.core.ids import session_id_of
from meshnode.core.ledger import (
    LEDGER,
    SLOT_S,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    SlotKey,
    UsageRecord,
)
from meshnode.core.ledger_rows import (
    diagnostics_from_row,
    diagnostics_to_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.own_feed import OTHERS_PART
from meshnode.core.periods import DAY_S
from meshnode.core.rollups import SLOTS_KEPT_DAYS
from meshnode.core.sessions import SessionRecord, State
from meshnode.node import following, offline, persistence, rolling
from meshnode.node.following import Following
from meshnode.node.inside import StoredReports
from meshnode.node.keeping import EVERY_S, SETTLED_S
from meshnode.node.pricing import LatePrices
from meshnode.node.rolling import FULL
from meshnode.store import checkpoints, counters, facts, ledger, reports, rollups
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
LIMITS = Limits(rows_max=20)
MOST = LIMITS.rows_max - LIMITS.rows_max // OTHERS_PART


class Kept(Node):
    """A node that publishes what is in its ledger; time passes for the ledger alone."""

    def __init__(self, database: Database) -> None:
        founded = Founded(3)
        founded.genesis = replace(founded.genesis, limits=LIMITS)
        super().__init__(founded, database)
        self.clock = ManualClock()
        self.tasks = InBackground()
        ground = SimpleNamespace(
            database=database,
            world=self.world,
            clock=self.clock,
            alarms=self.alarms,
            spawn=self.tasks,
            key=founded.root,
        )
        self.following = Following(ground, None, SimpleNamespace(note=lambda _: None))
        self.counted = 0

    async def use(self, session: str, slots: int, days_ago: int = 0) -> list:
        """Count a response in each of some half hours of a day; returns the rows to publish."""
        begin_s = (self.clock.now_s // DAY_S - days_ago) * DAY_S
        rows = []
        for number in range(slots):
            self.counted += 1
            record = UsageRecord(
                idem_key=f"r{self.counted}",
                source="report",
                at_s=begin_s + number * SLOT_S,
                session=session,
                project="",
                agent="",
                owner="",
                model="m",
                provider="",
                tier="standard",
                usage=Buckets(100),
            )
            rows += await self.database.run(reports.count, record, lambda _: Charge())
        return rows

    async def read(self, path_hash: str, records: int) -> None:
        """Note that some responses were read of a path."""
        row = ("claude", path_hash, "path", diagnostics_to_row(Diagnostics(records)))
        statement = "INSERT OR REPLACE INTO usage_readers VALUES (?, ?, ?, ?)"
        await self.database.run(lambda connection: connection.execute(statement, row).rowcount)

    async def pass_days(self, days: int) -> None:
        """Let days pass, and the ledger be looked after."""
        self.clock.now_s += days * DAY_S
        await self.following._keeping.look()

    async def pass_s(self, steady_s: float, jump_s: float = 0.0) -> int:
        """Let time pass, and the clock jump; return how many records are kept then."""
        self.clock.now_s += steady_s + jump_s
        behind_s = self.clock.now_s - self.clock.steady_s() + jump_s
        self.clock.steady_s = lambda: self.clock.now_s - behind_s
        await self.following._keeping.look()
        query = "SELECT count(*) FROM usage_log"
        return (await self.database.run(lambda connection: connection.execute(query).fetchone()))[0]

    def said(self) -> dict:
        rows = ((key_from_row(k), v) for k, v in self.mesh.own.values(LEDGER).items())
        return {k: slot_from_row(v) for k, v in rows if not isinstance(k, DiagnosticsKey)}

    async def on_disk_are(self) -> dict:
        rows = await self.database.run(ledger.published)
        return {key: value for key, value in rows if not isinstance(key, DiagnosticsKey)}

    def readers(self) -> dict[str, int]:
        """Return how many records each reader of logs is said to have read."""
        rows = ((key_from_row(k), v) for k, v in self.mesh.own.values(LEDGER).items())
        readers = ((k, v) for k, v in rows if isinstance(k, DiagnosticsKey))
        return {k.path_hash: diagnostics_from_row(v).records for k, v in readers}

    @property
    def told(self) -> list[str]:
        return [alarm.id for alarm in self.alarms.standing()]


@pytest.fixture
async def node(tmp_path, monkeypatch):
    for module, name in ((following, "LOOK_S"), (following, "AGAIN_S"), (persistence, "RETRY_S")):
        monkeypatch.setattr(module, name, 0.01)
    database = Database(tmp_path / "state.db")
    node = Kept(database)
    node.tasks(node.writer.run())
    async with asyncio.timeout(WAIT_S):
        yield node
    node.world.close()
    for task in node.tasks.tasks:
        task.cancel()
    await asyncio.gather(*node.tasks.tasks, return_exceptions=True)
    database.close()


async def test_what_has_no_room_is_told_and_follows_once_older_days_are_rolled_up(node):
    for number in range(5):
        await node.use(f"s{number}", 6)
    await node.following.start([])
    assert (len(node.mesh.own.values(LEDGER)), node.told) == (MOST, [FULL])
    await node.world.publish("sessions", b"k", b"v")
    await node.pass_days(SLOTS_KEPT_DAYS + 1)
    await node.over.wait()
    assert node.told == []
    assert node.said() == await node.on_disk_are()
    assert sum(slot.records for slot in node.said().values()) == 30


async def test_what_is_said_already_grows_although_there_is_no_room_for_more(node):
    await node.use("old", MOST)
    await node.following.start([])
    new, grown = await node.use("new", 1), await node.use("old", 1)
    node.following.publish([*new, *grown])
    assert node.told == [FULL]
    ((key, slot),) = [(key, slot) for key, slot in grown if not isinstance(key, DiagnosticsKey)]
    assert (node.said()[key], slot.records) == (slot, 2)


async def test_a_stopped_node_shows_what_has_grown_although_there_is_no_room_for_more(node):
    await node.use("old", MOST)
    await node.following.start([])
    await node.use("new", 1)
    await node.use("old", 1)
    offline._publish_what_is_counted(node.mesh, node.database)
    assert sum(slot.records for slot in node.said().values()) == MOST + 1


async def test_what_was_never_said_is_rolled_up_all_the_same(node):
    await node.use("young", MOST - 1)
    await node.following.start([])
    node.following.publish(await node.use("old", 6, SLOTS_KEPT_DAYS + 9))
    await node.pass_days(1)
    assert len(await node.on_disk_are()) == MOST
    assert (node.told, len(node.said())) == ([FULL], MOST - 1)
    await node.pass_days(SLOTS_KEPT_DAYS)
    await node.over.wait()
    assert node.said() == await node.on_disk_are()


async def test_a_report_that_has_no_room_is_taken_once_and_said_later(node, tmp_path):
    await node.use("young", MOST)
    await node.following.start([])
    book = StoredReports(
        node.database,
        LatePrices(tmp_path / "none.yaml", str),
        node.alarms.check_writable,
        node.following.lock,
    )
    live = SimpleNamespace(live=list)
    desk = ReportDesk(live, book, node.following.publish, node.clock)
    session_id = session_id_of(node.mesh.self_id, Random(1).getrandbits(60))
    session = SessionRecord(session_id, 1, "a", State.RUNNING, 1.0, 1.0)
    report = Report("id", "m", Buckets(100))
    assert [await desk.take(session, report) for _ in range(2)] == [True, False]
    assert (node.told, {key.session for key in node.said()}) == ([FULL], {"young"})
    await node.pass_days(SLOTS_KEPT_DAYS + 1)
    await node.over.wait()
    assert {key.session for key in node.said()} == {"young", session_id}


async def test_what_others_read_is_published_although_that_failed_before(node):
    await node.following.start([])
    await node.use("late", 1)
    run, failed, written = node.database.run, asyncio.Event(), asyncio.Event()

    async def failing(function, *args):
        if function is ledger.mark and not failed.is_set():
            failed.set()
            raise DamagedError("a row is not as it was written")
        return await run(function, *args)

    node.database.run = failing
    node.world.on_change.append(lambda _: written.set())
    while not node.said():
        written.clear()
        await written.wait()
    assert failed.is_set()


@pytest.mark.parametrize(("held_at", "records"), [(None, 3), (6, 3), (7, 1)])
async def test_a_feed_is_held_against_the_ledger_unless_it_was_at_this_epoch(
    node, held_at, records
):
    ((key, slot),) = [row for row in await node.use("s", 1) if isinstance(row[1], Slot)]
    own = node.mesh.own
    own.epoch = 7
    own.write(LEDGER, key_to_row(key), slot_to_row(Slot(3, slot.usage)))
    if held_at:
        held = rollups.held_at(node.mesh.genesis.mesh_id, held_at)
        await node.database.run(facts.remember, {rollups.HELD: held})
    node.following.take_up()
    await node.following.start([])
    assert (await node.on_disk_are())[key].records == records == node.said()[key].records
    known = await node.database.run(facts.recall, rollups.HELD)
    assert known == rollups.held_at(node.mesh.genesis.mesh_id, 7)


async def test_a_clock_that_has_jumped_drops_and_rolls_up_nothing_until_it_has_settled(node):
    await node.use("s", 6)
    await node.following.start([])
    before = await node.on_disk_are()
    year_s, often_s = 400.0 * DAY_S, SETTLED_S / 2
    jumps = [(1, 0), (often_s, year_s), (often_s, 0), (1, -year_s), (often_s, 0), (often_s, 0)]
    for steady_s, jump_s in jumps:
        assert await node.pass_s(steady_s, jump_s) == 6
    assert await node.on_disk_are() == before
    assert [await node.pass_s(*one) for one in ((1, year_s), (often_s, 0), (often_s, 0))][-1] == 1
    assert set(await node.on_disk_are()) != set(before)


async def test_checkpoints_go_on_although_the_clock_was_ahead_for_a_moment(node):
    for steady_s, jump_s, newest in ((1, 1e8, 1), (1, -1e8, 1), (EVERY_S - 3, 0, 1), (2, 0, 4)):
        await node.use("s", 1)
        await node.pass_s(steady_s, jump_s)
        assert await node.database.run(checkpoints.newest) == newest


async def test_a_disk_that_takes_nothing_keeps_no_ledger_from_being_said(node):
    await node.use("s", 1)
    held = {rollups.HELD: rollups.held_at(node.mesh.genesis.mesh_id, 6)}
    await node.database.run(facts.remember, held)

    def read_only(on: int) -> None:
        node.database.run_now(lambda c: c.execute(f"PRAGMA query_only={on}").fetchall())

    read_only(1)
    node.following.take_up()
    await node.following.start([])
    read_only(0)
    assert len(node.said()) == 1


async def test_of_many_readers_those_are_said_that_have_counted_most(node, monkeypatch):
    monkeypatch.setattr(rolling, "READERS_MAX", 3)
    for number in range(5):
        await node.read(f"{number}", number)
        node.mesh.own.write(  # as an older version has said it
            LEDGER, key_to_row(DiagnosticsKey("claude", f"{number}")), b"older"
        )
    await node.following.start([])
    assert node.readers() == {"2": 2, "3": 3, "4": 4}
    await node.read("new", 9)
    await node.read("3", 6)
    node.following.publish(await node.database.run(ledger.published))
    assert node.readers() == {"2": 2, "3": 6, "4": 4}
    assert node.told == []
    assert len(await node.database.run(ledger.readers)) == 6


async def test_an_epoch_is_known_as_held_only_once_what_was_said_then_is_on_disk(node):
    plain, other = SlotKey("s", "m", "standard", 1), SlotKey("s", "m", "standard", 2)
    marked = SlotKey("s", "m", "standard>#00c0ffee", 2)
    anew = SlotKey("s", "m", marked.tier, plain.slot)
    slots = {anew: Slot(1, Buckets(100)), marked: Slot(1, Buckets(40))}
    counted = [(key, counters.Counted(slot, 1)) for key, slot in slots.items()]
    await node.database.run(counters.keep_counted, counted)
    for key, slot in ((plain, Slot(2, Buckets(150))), (marked, slots[marked])):
        await node.world.publish(LEDGER, key_to_row(key), slot_to_row(slot))
    writing, *_ = node.tasks.tasks
    writing.cancel()
    await node.following.start([])
    assert set(node.said()) == {plain, other}
    assert await node.database.run(facts.recall, rollups.HELD) is None
    node.tasks(node.writer.run())
    await node.world.publish("sessions", b"k", b"v")
    while await node.database.run(facts.recall, rollups.HELD) is None:
        pass
