"""A feed that many short sessions would fill: old ones are told without their names, in time."""

from collections import Counter
from pathlib import Path

import pytest
from integration.node.ledgers import Kept, kept, wait_for_little
from integration.node.test_beside import LOST_ID, hear_of, joined_for
from msgspec.structs import replace

from meshnode.app.cost.cutting import CostQuery
from meshnode.app.queries.queries import Queries
from meshnode.core.errors import ExhaustedError, StorageError
from meshnode.core.feeds.room import ALWAYS
from meshnode.core.ledger.folding import Horizon, is_folded, row_of
from meshnode.core.ledger.ledger import LEDGER, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.marks import FOLDED
from meshnode.core.ledger.rollups import SLOTS_KEPT_DAYS
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DAY_S, MonthKey
from meshnode.node import offline
from meshnode.node.configuration.pricing import LatePrices
from meshnode.node.ledger import folding
from meshnode.node.ledger.rolling import FULL
from meshnode.store import folds
from meshnode.store.database import Database

pytestmark = pytest.mark.integration
ROOM = 100
LIMITS = Limits(rows_max=ROOM + len(ALWAYS), flush_bytes_max=4000)
MOST = ROOM - ROOM // 10
DAYS, EACH = 30, 6


@pytest.fixture
async def node(tmp_path, monkeypatch):
    monkeypatch.setattr(folding, "AGAIN_S", 0.0)
    monkeypatch.setattr(folding, "SHARE", 0)
    async with kept(tmp_path, monkeypatch, LIMITS) as node:
        yield node


async def used(node, *, first=2, each=EACH) -> list:
    """Use something in so many sessions a day, of as many days as would not fit."""
    rows = []
    for day in range(first, DAYS):
        for number in range(each):
            rows += await node.use(f"{day}-{number}", 1, day)
    return [row for row in rows if isinstance(row[1], Slot)]


def records(rows) -> int:
    return sum(slot.records for slot in rows.values())


def by_day(rows) -> Counter:
    found = Counter()
    for key, slot in rows.items():
        found[key.start_s // DAY_S] += slot.records
    return found


def spent(rows, node) -> int:
    """Return how much a budget by the day counts of these rows."""
    today_s = node.clock.now_s // DAY_S * DAY_S
    return sum(
        s.records for k, s in rows.items() if today_s <= k.start_s and k.end_s <= today_s + DAY_S
    )


async def test_thousands_of_old_sessions_leave_room_for_what_is_new(node):
    await used(node)
    await node.following.start([])
    said = node.said()
    assert records(said) == (DAYS - 2) * EACH
    assert len(said) <= MOST * 7 // 8
    assert set(by_day(said).values()) == {EACH}
    node.following.publish(await node.use("new", 5))
    assert node.told == []
    assert {key.session for key in node.said()} >= {"new", FOLDED}
    assert spent(node.said(), node) == 5
    assert node.said() == await node.on_disk_are()


async def test_a_feed_that_an_older_version_filled_has_room_at_once_and_no_flush_shows_less(
    node,
):
    rows = await used(node)
    for key, slot in rows[:MOST]:  # no more had room
        node.mesh.own.write(LEDGER, key_to_row(key), slot_to_row(slot))
    await node.world.publish("sessions", b"k", b"v")
    totals = []
    node.world.on_change.append(lambda _: totals.append(records(out(node))))
    await node.following.start([])
    await node.world.publish("sessions", b"k", b"w")
    grown = [one for one in totals if one != MOST]
    assert len(totals) - len(grown) >= 3  # flushes in which rows left into others
    assert set(grown) == {len(rows)}
    assert totals == sorted(totals)
    assert node.told == []


def out(node) -> dict:
    """Return what has left: nothing that waits."""
    own = node.mesh.own
    rows = {key: row.value for key, row in own.rows.tables.get(LEDGER, {}).items()}
    return folding.counters_of(rows.items())


async def test_what_comes_late_and_what_is_corrected_is_added_to_what_is_told(node):
    await used(node)
    await node.following.start([])
    before = node.said()
    late = await node.use("5-0", 3, DAYS - 3) + await node.use("other", 1, DAYS - 3)
    assert any(is_folded(key, node.following._rolling.folding.horizon) for key, _ in late[:1])
    node.following.publish(late)
    await node.looked_again()
    assert records(node.said()) == records(before) + 4
    assert len(node.said()) == len(before)
    assert node.said() == await node.on_disk_are()


async def test_what_is_late_waits_ten_minutes_at_most_however_slow_the_disk_was(node, monkeypatch):
    rows = await used(node)
    await node.following.start([])
    told = node.following._rolling.folding
    monkeypatch.setattr(folding, "SHARE", 10)
    began_s = node.clock.steady_s()
    node.clock.now_s += 3600.0
    told.rest(began_s)
    assert told.has_in(rows[-1][0])
    assert not told.is_due
    node.clock.now_s += folding.AGAIN_S_MAX
    assert told.is_due


async def test_days_that_are_rolled_up_stay_as_they_are_told(node):
    await used(node)
    await node.following.start([])
    before = records(node.said())
    for days in (SLOTS_KEPT_DAYS + 1, 400):
        await node.pass_days(days)
        assert records(node.said()) == before
        await node.looked_again()
        assert node.said() == await node.on_disk_are()
    assert set(map(type, node.said())) == {MonthKey}


async def test_a_restart_says_the_same(node, tmp_path):
    key, slot = (await used(node))[-1]
    await node.following.start([])
    said, horizon = node.said(), await node.database.run(folds.horizon)
    assert is_folded(key, horizon)
    for says in (offline_says, node_says):
        again = Kept(Database(tmp_path / "state.db"), LIMITS, boot=2)
        again.mesh.own.write(LEDGER, key_to_row(key), slot_to_row(slot))  # it was on its way
        await says(again)
        assert again.said() == said
        await again.end()


async def offline_says(node) -> None:
    assert offline._publish_what_is_counted(node.mesh, node.database) == 0


async def node_says(node) -> None:
    node.tasks(node.writer.run())
    await node.following.start([])


async def test_after_a_lost_disk_what_is_read_again_counts_once_also_if_a_session_goes_on(
    node, tmp_path, monkeypatch
):
    rows = await used(node)
    await node.following.start([])
    returned = node.said()
    wait_for_little(monkeypatch)
    anew = Kept(Database(tmp_path / "anew.db"), LIMITS, boot=2)
    anew.tasks(anew.writer.run())
    await anew.following.start([])
    half = [one for one in rows if int(one[0].session[-1]) % 2]
    for key, _ in half:
        ago = int(key.session.split("-")[0])
        anew.following.publish(await anew.use(key.session, 1, ago))
    anew.give_back(returned)
    anew.following.publish(await anew.use(half[-1][0].session, 3))  # today, and said at once
    await anew.looked_again()
    assert records(anew.said()) == len(rows) + 3
    assert anew.said() == await anew.on_disk_are()
    assert spent(anew.said(), anew) == 3
    await anew.end()


async def test_what_a_replaced_node_tells_without_sessions_by_now_is_left_out_once(
    node,
):
    rows = dict(await used(node, first=20, each=3))
    folds_at = Horizon(int(node.clock.now_s // DAY_S) - 21)
    old = [key for key in rows if is_folded(key, folds_at)]
    await joined_for(node, LOST_ID)
    hear_of(node, rows)
    await node.following.start([])
    await node.looked_again()
    assert records(out(node)) == 0
    theirs = {key: slot for key, slot in rows.items() if key not in old}
    for key in old:
        into = row_of(key, rows[key], folds_at)
        before = theirs.get(into, Slot(0, rows[key].usage - rows[key].usage))
        theirs[into] = replace(
            before, records=before.records + 1, usage=before.usage + rows[key].usage
        )
    hear_of(node, theirs, flushes=2)  # as it was told later
    node.following._rolling._beside._taken_s = -1e9
    late = await node.use("late", 2, 25)
    node.following.publish(late)
    await node.looked_again()
    assert records(out(node)) == 2


async def test_a_disk_that_takes_nothing_keeps_sessions_as_they_are_until_it_does(node):
    await used(node)
    run, is_full = node.database.run, True

    async def full(function, *args):
        if function is folds.remember and is_full:
            raise StorageError("no space is left")
        return await run(function, *args)

    node.database.run = full
    await node.following.start([])
    assert {key.session for key in node.said()}.isdisjoint({FOLDED})
    assert node.told == [FULL]
    is_full = False
    await node.over.wait()
    assert records(node.said()) == (DAYS - 2) * EACH


async def test_what_has_no_room_to_leave_stays_as_it_was_told(node, monkeypatch):
    rows = await used(node)
    for key, slot in rows[:MOST]:  # no more had room
        node.mesh.own.write(LEDGER, key_to_row(key), slot_to_row(slot))
    await node.world.publish("sessions", b"k", b"v")
    publish_together, moves, totals = node.world.publish_together, [], []

    async def refuse(*words):
        moves.append(words)
        raise ExhaustedError("there is no room")

    monkeypatch.setattr(node.world, "publish_together", refuse)
    node.world.on_change.append(lambda _: totals.append(records(out(node))))
    await node.following.start([])
    await node.world.publish("sessions", b"k", b"w")
    assert moves
    assert set(totals) == {MOST}
    assert node.told == [FULL]
    monkeypatch.setattr(node.world, "publish_together", publish_together)
    await node.over.wait()
    await node.world.publish("sessions", b"k", b"x")
    assert records(out(node)) == len(rows)
    assert totals == sorted(totals)


async def test_where_today_alone_has_no_room_that_is_told(node):
    for number in range(MOST + 9):
        await node.use(f"s{number}", 1)
    await node.following.start([])
    assert node.told == [FULL]
    assert {type(key) for key in node.said()} == {SlotKey}
    queries = Queries(node.mesh, LatePrices(Path("none.yaml"), str), node.clock)
    queries.unsaid = node.following.unsaid
    assert "do not see all" in " ".join(queries.cost(CostQuery()).notes)
