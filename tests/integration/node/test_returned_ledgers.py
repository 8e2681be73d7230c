"""What comes between counting and saying it: all on disk is said, and nothing twice."""

import asyncio

import pytest
from integration.node.ledgers import MOST, kept
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.app.sessions import reporting
from meshnode.app.sessions.reporting import Report
from meshnode.core.errors import ExhaustedError, StorageError
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    SlotKey,
)
from meshnode.core.ledger.marks import MARK
from meshnode.core.ledger.rollups import SLOTS_KEPT_DAYS, day_of
from meshnode.core.periods import DAY_S, DayKey
from meshnode.node.homes import persistence
from meshnode.node.ledger import keeping, rolling
from meshnode.node.ledger.rolling import FULL
from meshnode.store import ledger, reports, rollups
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
RECORD = usage_record(source="claude", at_s=1_790_000_000.0)


@pytest.fixture
async def node(tmp_path, monkeypatch):
    for module in (keeping, rolling):
        monkeypatch.setattr(module, "PAUSE_S", 0.0)
    async with kept(tmp_path, monkeypatch) as node:
        yield node


async def counted(node, record):
    """Count a record as a follower of logs does."""
    batch = Batch(DiagnosticsKey("claude", "0"), "path", {}, [record], Diagnostics())
    async with node.following.counting():
        return await node.database.run(ledger.commit, batch, int(node.clock.now_s * 1000))


def counter(rows):
    (found,) = [row for row in rows if isinstance(row[1], Slot)]
    return found


async def test_what_is_read_again_does_not_stand_for_what_peers_return_meanwhile(node):
    await node.following.start([])
    async with node.following.counting():
        rows = await node.use("s", 1)
        key, _ = counter(rows)
        node.give_back({key: Slot(10, Buckets(1000))})  # of nine, the log is gone
    node.following.publish(rows)
    await node.looked_again()
    assert node.said() == {key: Slot(10, Buckets(1000))} == await node.on_disk_are()


async def test_what_is_left_out_after_a_lost_disk_is_told_and_of_what_was_lost_nothing(node):
    await node.use("ours", MOST - 1)
    await node.following.start([])
    await node.looked_again()
    assert (node.told, len(node.said())) == ([], MOST - 1)
    young = dict(list(node.said().items())[:9])  # none may be told without its session
    lost = {replace(key, session="lost"): slot for key, slot in young.items()}
    node.give_back(lost)
    await node.looked_again()
    assert {key for key in node.said() if key.session == "lost"} == lost.keys()
    assert lost.keys() <= (await node.on_disk_are()).keys()
    assert len(await node.on_disk_are()) == MOST + 8 > len(node.said())
    assert node.told == [FULL]
    await node.pass_days(SLOTS_KEPT_DAYS + 1)
    await node.over.wait()
    assert node.told == []
    assert node.said() == await node.on_disk_are()


async def test_what_is_old_is_rolled_up_although_no_row_that_is_out_may_grow(node, monkeypatch):
    monkeypatch.setattr(rollups, "MOVED_AT_ONCE", 1)
    await node.use("old", 1, SLOTS_KEPT_DAYS)
    await node.following.start([])
    assert len(node.said()) == 1
    room = node.mesh.own._room
    room._of_rows = room._of_bytes = type(room._of_bytes).of(0)
    await node.use("old", 40, SLOTS_KEPT_DAYS)
    await node.pass_days(1)
    ((key, slot),) = (await node.on_disk_are()).items()
    assert (type(key), slot.records) == (DayKey, 41)
    assert node.told == [FULL]
    assert node.said()[key].records < 41


async def test_a_consumer_is_said_although_peers_have_returned_another_source(node):
    await node.following.start([])
    async with node.following.counting():
        plain = await node.use("s", 1, source="claude")
        await node.database.run(lambda one: one.execute("DELETE FROM usage_slots").rowcount)
        node.give_back(dict([counter(plain)]))
        marked = await node.use("s", 1, source="higress")
        node.following.publish(marked)
        node.following.publish(await node.use("s", 1, source="claude"))
    await node.looked_again()
    assert {MARK in key.tier for key in node.said()} == {False, True}
    assert node.said() == await node.on_disk_are()


async def test_what_is_corrected_just_after_peers_have_returned_something_is_counted_once(node):
    await node.following._publish_since(None)
    (key, said) = counter(await counted(node, RECORD))
    node.following.publish([(key, said)])
    node.give_back({SlotKey("other", "m", "standard", key.slot): said})
    later = replace(RECORD, model="n", usage=Buckets(100, output=1), rank=1)
    node.following.publish(await counted(node, later))
    await node.following.start([])
    assert sum(slot.records for slot in node.said().values()) == 2
    assert node.said() == await node.on_disk_are()


async def test_what_peers_return_while_the_whole_ledger_is_said_is_counted_once(node):
    await node.use("s", 4)
    (key, *_) = await node.on_disk_are()
    day = DayKey(key.session, key.model, key.tier, key.start_s // DAY_S)
    run, returned = node.database.run, asyncio.Event()

    async def reading(function, *args):
        rows = await run(function, *args)
        if function is ledger.published and not returned.is_set():
            returned.set()
            node.give_back({day: Slot(4, Buckets(400))})
        return rows

    node.database.run = reading
    await node.following.start([])
    await node.looked_again()
    assert node.said() == {day: Slot(4, Buckets(400))} == await node.on_disk_are()


async def test_what_peers_return_while_a_roll_up_is_planned_stays(node):
    await node.use("s", 4)
    await node.following.start([])
    (key, *_) = await node.on_disk_are()
    day = DayKey(key.session, key.model, key.tier, key.start_s // DAY_S)
    run, returned = node.database.run, asyncio.Event()

    async def planning(function, *args):
        found = await run(function, *args)
        if getattr(found, "moved", ()) and not returned.is_set():
            returned.set()
            node.give_back({day: Slot(9, Buckets(900))})
        return found

    node.database.run = planning
    await node.pass_days(SLOTS_KEPT_DAYS + 1)
    await node.looked_again()
    assert returned.is_set()
    assert node.said() == {day: Slot(9, Buckets(900))} == await node.on_disk_are()


async def test_a_roll_up_that_waits_for_the_disk_changes_the_ledger_with_its_flush_alone(node):
    await node.use("s", 2)
    await node.following.start([])
    await node.world.publish("sessions", b"k", b"v")
    before, run, tries = await node.on_disk_are(), node.database.run, 0
    is_full, tried = True, asyncio.Event()

    async def full(function, *args):
        nonlocal tries
        if function is persistence._all_of and is_full:
            tries += 1
            tried.set()
            trouble = StorageError("no space is left")
            node.database.on_trouble(trouble)
            raise trouble
        return await run(function, *args)

    node.database.run = full
    days = [asyncio.create_task(node.pass_days(one)) for one in (SLOTS_KEPT_DAYS + 2, 0, 0)]
    while tries < 20:
        tried.clear()
        await tried.wait()
    assert await node.on_disk_are() == before
    is_full = False
    await asyncio.gather(*days)
    await node.over.wait()
    assert set(map(type, node.said())) == {DayKey}
    assert node.said() == await node.on_disk_are()


async def test_a_report_is_said_although_its_sender_hangs_up(node, tmp_path):
    await node.following.start([])
    desk, book = node.desk(tmp_path / "none.yaml")
    counting, loop, charged = asyncio.Event(), asyncio.get_running_loop(), book._charged

    def begun(*args):
        loop.call_soon_threadsafe(counting.set)
        return charged(*args)

    book._charged = begun
    report = Report("id", "m", Buckets(100))
    task = asyncio.get_running_loop().create_task(desk.take(node.session, report))
    await counting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert not await desk.take(node.session, report)
    assert node.said() == await node.on_disk_are() != {}
    assert desk._tallies[node.session.session_id].reports == 1


async def test_reports_whose_senders_hang_up_are_so_many_at_a_time_and_no_more(
    node, tmp_path, monkeypatch
):
    monkeypatch.setattr(reporting, "WAITING_MAX", 3)
    await node.following.start([])
    desk, _ = node.desk(tmp_path / "none.yaml")
    loop = asyncio.get_running_loop()
    takes = [desk.take(node.session, Report(f"{one}", "m", Buckets(1))) for one in range(9)]
    async with node.following.counting():
        tasks = list(map(loop.create_task, takes))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, ExhaustedError) for one in ended) == 6
    async with desk._one_at_a_time:  # each in its turn
        assert desk._waiting == 0
    assert await desk.take(node.session, Report("last", "m", Buckets(1)))
    assert sum(slot.records for slot in node.said().values()) == 4


async def test_what_another_process_keeps_while_a_look_begins_is_said(node):
    await node.following.start([])
    other, run, statements = Database(node.database.path), node.database.run, []

    def between(connection):
        """Let another process write between the two questions of a look."""

        def noted(statement):
            statements.append(statement)
            if len(statements) == 2:
                other.run_now(reports.count, RECORD, lambda _: Charge())

        connection.set_trace_callback(noted)
        try:
            return ledger.mark(connection)
        finally:
            connection.set_trace_callback(None)

    async def running(function, *args):
        return await run(between if function is ledger.mark else function, *args)

    node.database.run = running
    await node.looked_again()
    other.close()
    assert len(statements) > 2
    assert node.said() == await node.on_disk_are() != {}


async def test_what_a_kill_has_left_of_a_roll_up_is_said_no_more(node):
    """The disk has the row of a day, and the feed those of its slots: both would count."""
    await node.use("s", 4)
    await node.use("t", 1)
    await node.following.start([])
    await node.looked_again()
    before = node.said()
    moved = [(key, day_of(key)) for key in before if key.session == "s"]
    assert len(moved) == 4
    await node.database.run(rollups.apply, moved)
    async with node.following.counting():
        await node.following._rolling.publish_all(await node.database.run(ledger.published))
    assert node.said() == await node.on_disk_are()
    assert sum(slot.records for slot in node.said().values()) == 5
    assert len(node.said()) == 2
