"""What is told without its session: which rows, how far back, and never whose it is."""

from collections import Counter

import msgspec
import pytest

from meshnode.core.ledger.folding import (
    NOWHERE,
    Horizon,
    Room,
    covered,
    covering,
    is_folded,
    planned,
    row_of,
    told,
    with_folded,
)
from meshnode.core.ledger.ledger import Buckets, Slot, SlotKey, counters_of
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.marks import FOLDED, mark_of, session_in, unmarked
from meshnode.core.ledger.regained import joined_rows
from meshnode.core.ledger.rollups import DAYS_KEPT_MONTHS
from meshnode.core.periods import DAY_S, DayKey, MonthKey, month_start_s

DAY = 20_500
NOW_S = (DAY + 0.5) * DAY_S
MESH_ID = "a" * 26
MUCH = 1 << 40


def slot_of(session, day, hour=0.0, tier="standard", model="m"):
    return SlotKey(session, model, tier, int(day * 48 + 2 * hour))


def one(owner="", tokens=1):
    return Slot(1, Buckets(tokens), "agent", owner, "project", "provider")


def chats(days, each):
    """Make so many sessions of an hour on each of some days before today."""
    return {
        slot_of(f"{day}-{number}", DAY - day, hour): one()
        for day in range(days)
        for number in range(each)
        for hour in (9, 9.5)
    }


def plan(rows, since=NOWHERE, room=MUCH, beside=None, now_s=NOW_S, room_bytes=MUCH):
    return planned(rows, beside or {}, since, now_s, Room(room, room_bytes))


def records(rows):
    return sum(slot.records for slot in rows.values())


@pytest.mark.parametrize("tier", ["standard", f"standard>#{MESH_ID}", "standard#00c0ffee>200000"])
def test_a_row_without_a_session_says_whose_it_is_its_model_tier_and_day(tier):
    key, slot = slot_of("s", DAY - 5, 9, tier), one("olga")
    row = row_of(key, slot, Horizon(DAY - 1))
    assert isinstance(row, DayKey)
    assert (row.model, row.day, unmarked(row.tier)) == ("m", DAY - 5, unmarked(tier))
    assert mark_of("agent", "olga", "project", "provider") in row.tier
    assert session_in(row.session, row.tier) == FOLDED
    assert row_of(key, one("otto"), Horizon(DAY - 1)) != row


def test_no_log_can_name_what_stands_for_old_sessions():
    said = (FOLDED, "m", "standard", "claude", "", "", "", "")
    assert counters_of(said)[0][0] == "older sessions"


def test_where_there_is_room_sessions_stay():
    rows = chats(60, 5)
    found = plan(rows, room=700)
    assert (found.rows, found.horizon, found.has_room) == (rows, NOWHERE, True)


def test_the_oldest_days_go_first_and_no_more_than_are_in_the_way():
    found = plan(chats(60, 5), room=640)
    assert found.has_room
    assert found.horizon.day == DAY - 45  # 46 days of 10 rows, and 14 of one: six eighths
    assert records(found.rows) == 600
    assert len(found.rows) == 460 + 14
    again = plan(found.rows | chats(46, 5), found.horizon, 640)
    assert again.horizon == found.horizon


def test_a_feed_is_full_of_bytes_as_of_rows():
    rows = chats(20, 5)
    size = sum(len(key_to_row(key)) + len(slot_to_row(slot)) for key, slot in rows.items())
    assert plan(rows, room_bytes=2 * size).horizon == NOWHERE
    assert plan(rows, room_bytes=size).horizon != NOWHERE


@pytest.mark.parametrize("each", [10, 1000])
def test_yesterday_and_today_keep_their_sessions_whatever_room_there_is(each):
    rows = chats(5, each)
    found = plan(rows, room=each)
    assert (found.horizon.day, found.has_room) == (DAY - 1, False)
    young = {key for key in rows if key.start_s >= (DAY - 1) * DAY_S}
    assert young <= found.rows.keys()
    assert len(found.rows) <= len(young) + 3


def test_a_clock_that_is_ahead_leaves_no_session_away_that_was_used_last():
    rows = chats(5, 100)
    found = plan(rows, room=10, now_s=NOW_S + 400 * DAY_S)
    assert found.horizon.day == DAY - 1
    back = plan(rows, found.horizon, 10, now_s=0.0)
    assert back.horizon == found.horizon


def test_rows_are_bounded_whatever_the_number_of_sessions():
    rows = chats(400, 10)
    found = plan(rows, room=300)
    assert found.has_room
    assert len(found.rows) <= 300
    assert records(found.rows) == len(rows)
    assert found.horizon.month  # the older days are months
    assert {type(key) for key in found.rows} == {SlotKey, DayKey, MonthKey}


def test_what_is_due_to_be_a_month_is_one_already_once_anything_has_no_session():
    old = slot_of("old", DAY - 31 * (DAYS_KEPT_MONTHS + 3))
    rows = {old: one(), **chats(9, 50)}
    assert plan(rows).rows == rows
    found = plan(rows, Horizon(DAY - 5))
    assert [type(key) for key in found.rows if key.start_s < NOW_S - 390 * DAY_S] == [MonthKey]
    mixed = Horizon(DAY - 31 * (DAYS_KEPT_MONTHS + 2))  # in the middle of a month that is due
    reached = plan(rows, mixed).horizon
    assert reached.day * DAY_S == month_start_s(reached.month)


def test_what_counts_nothing_makes_no_row_without_a_session():
    rows = {slot_of("s", DAY - 9): Slot(0, Buckets(), "agent")}
    assert plan(rows, Horizon(DAY - 1)).rows == {}


def test_of_what_peers_have_returned_and_what_is_counted_the_larger_is_told():
    keys = [slot_of(f"s{number}", DAY - 9) for number in range(3)]
    row = row_of(keys[0], one(), Horizon(DAY - 1))
    here = dict.fromkeys(keys, one())
    for returned, records_ in ((5, 5), (2, 3)):
        slot = Slot(returned, Buckets(returned), "agent", "", "project", "provider")
        found = plan({**here, row: slot})
        assert (found.horizon.day, records(found.rows)) == (DAY - 8, records_)
        gone = covered({**here, row: slot}, {}, found.horizon)
        assert gone == ([row] if returned == 2 else [])


def test_days_that_peers_have_returned_are_part_of_what_is_here_only_together():
    month = month_start_s(600) // DAY_S
    keys = [slot_of(f"s{number}", month + 1) for number in range(4)]
    by_day = [row_of(slot_of("s", month + day), one(), Horizon(month + 40)) for day in (1, 2)]
    three = msgspec.structs.replace(one(), records=3, usage=Buckets(3))
    counters = dict.fromkeys(keys, one()) | dict.fromkeys(by_day, three)
    horizon = Horizon(month + 40, 601)
    assert records(told(counters.items(), {}, horizon)) == 6
    assert covered(counters, {}, horizon) == []


def test_what_is_lacking_of_one_day_hides_nothing_of_another_once_both_are_a_month():
    month = month_start_s(600) // DAY_S
    key, horizon = slot_of("s", month + 1), Horizon(month + 40, 0)
    lost = {row_of(key, one("olga"), horizon): one("olga")}
    here = {slot_of("t", month + 2): one("otto")}
    before = told((lost | here).items(), {}, horizon)
    assert records(before) == 2
    later_s = month_start_s(601 + DAYS_KEPT_MONTHS)
    today = {slot_of("u", later_s // DAY_S): Slot(0, Buckets())}
    found = plan(lost | here | today, now_s=later_s + DAY_S)
    assert {type(key) for key in found.rows.keys() - today} == {MonthKey}
    by_owner = {slot.owner: slot.records for slot in found.rows.values() if slot.records}
    assert by_owner == {"olga": 1, "otto": 1}
    kept = {key: slot for key, slot in found.returned.items() if slot}
    assert told((here | today | kept).items(), {}, found.horizon) == found.rows


def test_days_that_become_a_month_tell_no_more_than_they_did():
    day, later_s = month_start_s(600) // DAY_S, month_start_s(601 + DAYS_KEPT_MONTHS)
    nobodys = msgspec.structs.replace(one(), agent="")
    read_again, other = slot_of("s", day + 1), slot_of("t", day + 2)
    returned = {row_of(read_again, one("olga"), Horizon(day + 40)): one("olga")}
    counters = returned | {read_again: nobodys, other: one("olga")}
    assert records(told(counters.items(), {}, Horizon(day + 40))) == 2
    today = {slot_of("u", later_s // DAY_S): Slot(0, Buckets())}
    found = plan(counters | today, now_s=later_s + DAY_S)
    assert found.horizon.month > 600
    assert records(found.rows) == 2


def test_what_others_say_of_such_rows_is_left_out_and_no_more():
    keys = [slot_of(f"s{number}", DAY - 9) for number in range(3)]
    row = row_of(keys[0], one(), Horizon(DAY - 1))
    here = dict.fromkeys(keys, one())
    assert records(plan(here, beside={row: Slot(2, Buckets(2))}).rows) == 1
    assert records(plan(here, beside={row: Slot(9, Buckets(9))}).rows) == 0


@pytest.mark.parametrize("read_again", [4, 5, 2])
@pytest.mark.parametrize("told_by", ["peers", "the node whose place this one takes"])
def test_logs_whose_sessions_a_lost_disk_knew_are_not_counted_as_nobodys_too(told_by, read_again):
    horizon = Horizon(DAY - 1)
    nobodys = msgspec.structs.replace(one(), agent="")
    keys = [slot_of(f"s{number}", DAY - 9) for number in range(6)]
    returned = {row_of(keys[0], one("olga"), horizon): Slot(3, Buckets(3), "agent", "olga")}
    returned |= {row_of(keys[0], nobodys, horizon): Slot(1, Buckets(1))}
    returned = {
        key: msgspec.structs.replace(slot, project="project", provider="provider")
        for key, slot in returned.items()
    }
    here = dict.fromkeys(keys[:read_again], nobodys)
    other = msgspec.structs.replace(nobodys, project="another")  # which none of that can be
    here |= {slot_of("elsewhere", DAY - 9): other}
    if told_by == "peers":
        found, known = told({**here, **returned}.items(), {}, horizon), 4
    else:
        found, known = told(here.items(), returned, horizon), 0
    by_owner = Counter()
    for slot in found.values():
        by_owner[slot.owner, slot.project] += slot.records
    assert by_owner["", "another"] == 1
    assert by_owner.total() == 1 + known + max(0, read_again - 4)
    assert by_owner["olga", "project"] == (3 if told_by == "peers" else 0)


def test_a_horizon_is_as_late_as_a_row_of_any_month_needs():
    month = MonthKey("s", "m", "standard", 600)
    assert covering(NOWHERE, [month]) == NOWHERE
    assert covering(NOWHERE, [DayKey(FOLDED, "m", "t", 9)]) == Horizon(10)
    reached = covering(Horizon(1), [month])
    assert (reached.month, reached.day * DAY_S) == (601, month_start_s(601))
    assert is_folded(month, reached)


def test_a_feed_that_was_left_on_the_way_says_as_much_as_if_it_had_come_there():
    keys = [slot_of(f"s{number}", DAY - 9) for number in range(3)]
    row = row_of(keys[0], one(), Horizon(DAY - 1))
    whole = with_folded({row: Slot(4, Buckets(4)), keys[0]: one(), keys[1]: one()}, NOW_S)
    assert whole[row].records == 6
    assert told(whole.items(), {}, covering(NOWHERE, whole))[row].records == 6


def test_what_is_read_again_is_in_the_rows_that_a_lost_disk_has_told_without_sessions():
    keys = [slot_of(f"s{number}", DAY - 9) for number in range(3)]
    row = row_of(keys[0], one(), Horizon(DAY - 1))
    young = slot_of("young", DAY)
    ours = {key_to_row(key): slot_to_row(one()) for key in (*keys, young)}
    theirs = {key_to_row(row): slot_to_row(Slot(2, Buckets(2)))}
    said = joined_rows("ledger", ours, theirs)
    assert {key for key, value in said.items() if value is None} == set(map(key_to_row, keys))
    merged = Slot(3, Buckets(3), "agent", "", "project", "provider")
    assert said[key_to_row(row)] == slot_to_row(merged)
    assert key_to_row(young) not in said
