"""A ledger on its way into a feed without room for all: what fits is said, the rest is told."""

import asyncio
from pathlib import Path

import pytest
from integration.node.ledgers import MOST, kept

from meshnode.app.audit.alarms import Alarm
from meshnode.app.budgets.outlays import Outlays
from meshnode.app.sessions.reporting import Report
from meshnode.app.settling import SETTLED_S
from meshnode.core.control.settings import Terms
from meshnode.core.errors import DamagedError, RefusedError
from meshnode.core.ledger.budgets import TOKENS, window_of
from meshnode.core.ledger.ledger import (
    LEDGER,
    Buckets,
    DiagnosticsKey,
    Slot,
    SlotKey,
)
from meshnode.core.ledger.ledger_rows import (
    key_to_row,
    slot_to_row,
)
from meshnode.core.ledger.rollups import SLOTS_KEPT_DAYS
from meshnode.core.periods import DAY_S
from meshnode.node import offline
from meshnode.node.configuration.pricing import LatePrices
from meshnode.node.ledger import rolling
from meshnode.node.ledger.keeping import EVERY_S
from meshnode.node.ledger.rolling import FULL
from meshnode.store import checkpoints, counters, facts, ledger, rollups, usage_log

NEWEST_S = usage_log.newest_s
pytestmark = pytest.mark.integration


@pytest.fixture
async def node(tmp_path, monkeypatch):
    async with kept(tmp_path, monkeypatch) as node:
        yield node


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


async def test_what_our_feed_leaves_out_by_itself_is_said_again_once_there_is_room(node):
    await node.use("s", 6)
    await node.following.start([])
    await node.looked_again()
    own = node.mesh.own
    for key in list(own.keys(LEDGER))[:3]:
        await node.world.publish(LEDGER, key, None)
    own.left_out += 3
    await node.looked_again()
    assert node.said() == await node.on_disk_are() != {}
    assert node.told == []


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
    left_out = offline._publish_what_is_counted(node.mesh, node.database)
    assert sum(slot.records for slot in node.said().values()) == MOST + 1
    assert left_out == 2  # what was used, and what was read of its log


async def test_a_stopped_node_whose_ledger_cannot_be_read_does_not_show_less(node, monkeypatch):
    def failing(_):
        raise DamagedError("a row is not as it was written")

    monkeypatch.setattr(ledger, "published", failing)
    with pytest.raises(DamagedError):
        offline._publish_what_is_counted(node.mesh, node.database)


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
    desk, _ = node.desk(tmp_path / "none.yaml")
    session = node.session
    report = Report("id", "m", Buckets(100))
    assert [await desk.take(session, report) for _ in range(2)] == [True, False]
    assert (node.told, {key.session for key in node.said()}) == ([FULL], {"young"})
    await node.pass_days(SLOTS_KEPT_DAYS + 1)
    await node.over.wait()
    assert {key.session for key in node.said()} == {"young", session.session_id}


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


async def test_a_name_that_no_feed_takes_keeps_nothing_else_from_being_said(node):
    long = SlotKey("\U0001f600" * 256, "m", "standard", 1)
    rolled_up = [(long, counters.Counted(Slot(1, Buckets(100)), 1))]  # as an older version has it
    await node.database.run(counters.keep_counted, rolled_up)
    await node.use("s", 1)
    await node.use("old", 1, SLOTS_KEPT_DAYS + 9)
    await node.following.start([])
    await node.pass_days(1)
    assert {key.session for key in node.said()} == {"s", "old"}
    assert node.told == []
    node.mesh.own.write("sessions", b"k", b"v")
    offline._publish_what_is_counted(node.mesh, node.database)
    assert {key.session for key in node.said()} == {"s", "old"}


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


def spent_within_the_hour(node) -> int:
    """Return the tokens that a budget counts in the hour in which this node has used some."""
    outlays = Outlays(node.mesh.tables, LatePrices(Path("none.yaml"), str))
    terms = Terms(10**9, TOKENS, "hour", "warn")
    outlays.ask({b"budget": (terms, window_of("hour", node.clock.now_s // DAY_S * DAY_S))})
    while outlays.busy:
        outlays.settle()
    return outlays.spent(b"budget").tokens


@pytest.mark.parametrize("days_ahead", [SLOTS_KEPT_DAYS + 5, 500])
async def test_a_budget_counts_the_hour_although_the_clock_was_ahead_for_long(
    node, monkeypatch, days_ahead
):
    monkeypatch.setattr(usage_log, "newest_s", NEWEST_S)
    await node.use("s", 1)
    await node.following.start([])
    for steady_s, jump_s in ((1, days_ahead * DAY_S), (SETTLED_S, 0), (1, -days_ahead * DAY_S)):
        await node.pass_s(steady_s, jump_s)
    node.following.publish(await node.use("s", 2))
    await node.world.publish("sessions", b"k", b"v")
    each = sum(slot.usage.total for slot in node.said().values()) / 3
    assert spent_within_the_hour(node) == 3 * each > 0


async def test_what_is_old_is_rolled_up_once_things_are_used_long_after_it(node, monkeypatch):
    monkeypatch.setattr(usage_log, "newest_s", NEWEST_S)
    await node.use("s", 3)
    await node.following.start([])
    before = await node.on_disk_are()
    await node.pass_days(SLOTS_KEPT_DAYS + 2)
    assert await node.on_disk_are() == before
    await node.use("s", 1)
    await node.pass_days(1)
    assert len(await node.on_disk_are()) == 2


async def test_nothing_is_rolled_up_in_the_first_ten_minutes(node):
    await node.use("s", 3, SLOTS_KEPT_DAYS + 9)
    await node.following.start([])
    before = await node.on_disk_are()
    assert len(before) == 3
    await node.pass_s(SETTLED_S - 1)
    assert await node.on_disk_are() == before
    await node.pass_s(1)
    assert len(await node.on_disk_are()) == 1


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


async def test_a_report_is_refused_when_the_disk_fails_while_it_waits_for_the_ledger(
    node, tmp_path, monkeypatch
):
    monkeypatch.setattr(rolling, "CHECK_S", 0.01)
    desk, _ = node.desk(tmp_path / "none.yaml")
    async with node.following.counting():  # as who rolls up holds it until that is on disk
        waiting = [
            asyncio.ensure_future(desk.take(node.session, Report(name, "m", Buckets(100))))
            for name in ("first", "behind it")
        ]
        await asyncio.wait(waiting, timeout=0.05)
        assert not any(one.done() for one in waiting)
        node.alarms.sound(Alarm("disk", "it is full", "make room", stops_writes=True))
        for one in waiting:
            with pytest.raises(RefusedError, match="takes nothing new: it is full"):
                await one
    node.alarms.clear("disk")
    assert await desk.take(node.session, Report("first", "m", Buckets(100)))
