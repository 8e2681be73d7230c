"""Laws of rolling up: totals stay, again does nothing, order does not matter, and rows decode."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.errors import PeerError
from meshnode.core.ledger.counts import Weight, counter_of, exactly, packed, unpacked, weight_of
from meshnode.core.ledger.ledger import (
    COUNT_MAX,
    LEDGER,
    SLOT_MAX,
    Buckets,
    DiagnosticsKey,
    Slot,
    SlotKey,
    merged,
)
from meshnode.core.ledger.ledger_rows import key_from_row, key_to_row, slot_from_row, slot_to_row
from meshnode.core.ledger.marks import unmarked
from meshnode.core.ledger.regained import joined_rows
from meshnode.core.ledger.rollups import (
    DAYS_KEPT_MONTHS,
    SLOTS_KEPT_DAYS,
    levelled,
    month_key_of,
    month_of,
    moves,
    summed,
    way_of,
    written_by,
)
from meshnode.core.packing import pack
from meshnode.core.periods import DAY_MAX, DAY_S, MONTH_MAX, DayKey, MonthKey

pytestmark = pytest.mark.property
NOW_S = 1_790_000_000.0
TODAY = int(NOW_S // DAY_S)
THIS_MONTH = month_of(NOW_S)

tiers = st.sampled_from(["standard", "standard>#00c0ffee", "standard>#deadbeef"])
named = st.tuples(st.sampled_from("ab"), st.sampled_from(["m", "n"]), tiers)
some_slots = st.integers(0, 48).map(lambda number: (TODAY - 60) * 48 + number * 50)
some_months = st.integers(THIS_MONTH - 16, THIS_MONTH)
keys = st.one_of(
    st.builds(lambda n, slot: SlotKey(*n, slot), named, some_slots),
    st.builds(lambda n, day: DayKey(*n, day), named, st.integers(TODAY - 450, TODAY)),
    st.builds(lambda n, month: MonthKey(*n, month), named, some_months),
)
texts = st.sampled_from(["", "x", "y"])
counts = st.integers(0, 1 << 40)
slots = st.builds(Slot, counts, st.builds(Buckets, *[counts] * 7), texts, texts, texts, texts)
ledgers = st.dictionaries(keys, slots, max_size=12)
alike = st.builds(Slot, counts, st.builds(Buckets, *[counts] * 7))


def applied(ledger: dict, now_s: float) -> dict:
    moved = moves(ledger, now_s)
    removed = {key for key, _ in moved}
    kept = {key: slot for key, slot in ledger.items() if key not in removed}
    return kept | written_by(ledger, moved)


@given(ledgers, st.integers(0, 1000), st.randoms(use_true_random=False))
def test_totals_stay_and_again_does_nothing_in_any_order(ledger: dict, days: int, chance: Any):
    now_s = NOW_S + days * DAY_S
    after = applied(ledger, now_s)
    assert sum(slot.records for slot in after.values()) == sum(s.records for s in ledger.values())
    for name in ("input", "cache_read", "output", "web_search"):
        assert sum(getattr(s.usage, name) for s in after.values()) == sum(
            getattr(s.usage, name) for s in ledger.values()
        )
    assert moves(after, now_s) == []
    shuffled = chance.sample(sorted(ledger.items(), key=str), len(ledger))
    assert applied(dict(shuffled), now_s) == applied(ledger, now_s)


@given(st.dictionaries(keys, alike, max_size=12), st.integers(0, 400), st.integers(0, 400))
def test_rolling_up_twice_is_rolling_up_once_later(ledger: dict, first: int, more: int):
    early, late = NOW_S + first * DAY_S, NOW_S + (first + more) * DAY_S
    assert applied(applied(ledger, early), late) == applied(ledger, late)


def whose(ledger: dict) -> dict:
    sums: dict[tuple, Buckets] = {}
    for key, slot in ledger.items():
        texts = (slot.agent, slot.owner, slot.project, slot.provider)
        group = (key.session, key.model, key.tier, month_of(key.start_s), *texts)
        sums[group] = sums.get(group, Buckets()) + slot.usage
    return {group: usage for group, usage in sums.items() if usage != Buckets()}


@given(ledgers, st.lists(st.integers(0, 600), max_size=3))
def test_what_is_whose_and_of_which_month_stays(ledger: dict, days: list[int]):
    after = ledger
    for day in days:  # a clock may be put back, too
        after = applied(after, NOW_S + day * DAY_S)
        assert whose(after) == whose(ledger)


@given(ledgers, ledgers)
def test_what_was_lost_joins_what_was_counted_anew_however_far_each_is_rolled_up(
    ours: dict, theirs: dict
):
    moved = levelled(ours, theirs)
    one, other = summed(ours, moved), summed(theirs, moved)
    for side, level in ((ours, one), (theirs, other)):
        assert sum(slot.records for slot in level.values()) == sum(
            slot.records for slot in side.values()
        )
    joined = set(one) | set(other)
    assert not any(
        coarser in joined for key in one.keys() ^ other.keys() for coarser in way_of(key)
    )
    assert levelled(one, other) == {}
    differing = set(map(month_key_of, one.keys() ^ other.keys()))
    marks = {(month_key_of(key), unmarked(key.tier) == key.tier) for key in joined}
    assert not any({(month, True), (month, False)} <= marks for month in differing)
    rows = [{key_to_row(k): slot_to_row(s) for k, s in side.items()} for side in (ours, theirs)]
    said = {**rows[0], **rows[1], **joined_rows(LEDGER, *rows)}
    kept = {key_from_row(key): slot_from_row(row) for key, row in said.items() if row is not None}
    expected = {
        key: merged(one.get(key, other.get(key)), other.get(key, one.get(key))) for key in joined
    }
    assert kept == expected


@given(st.dictionaries(keys, alike, max_size=12))
def test_what_is_young_is_kept_as_it_is(ledger: dict):
    moved = moves(ledger, NOW_S)
    removed = {key for key, _ in moved}
    for key in [*written_by(ledger, moved), *set(ledger) - removed]:
        if isinstance(key, SlotKey):
            assert key.start_s // DAY_S >= TODAY - SLOTS_KEPT_DAYS
        if isinstance(key, DayKey):
            assert month_of(key.start_s) >= THIS_MONTH - DAYS_KEPT_MONTHS
    assert all(key.start_s < (TODAY - SLOTS_KEPT_DAYS) * DAY_S for key in removed)


named_anyhow = [st.text(max_size=5)] * 3
everything = st.one_of(
    st.builds(SlotKey, *named_anyhow, st.integers(0, SLOT_MAX)),
    st.builds(DayKey, *named_anyhow, st.integers(0, DAY_MAX)),
    st.builds(MonthKey, *named_anyhow, st.integers(0, MONTH_MAX)),
)


@given(everything)
def test_keys_come_back_as_they_were_and_end_after_they_begin(key: Any):
    assert key_from_row(key_to_row(key)) == key
    assert key.start_s < key.end_s
    counter = counter_of(key_to_row(key))
    assert counter is not None
    named = (key.session, key.model, unmarked(key.tier))
    assert (counter.session, counter.model, counter.tier) == named


short, numbers = st.text(max_size=2), st.integers(-1, 1 << 63)
simple = st.none() | st.booleans() | numbers | short | st.binary(max_size=3)
anything = st.recursive(simple, lambda inner: st.lists(inner, max_size=8), max_leaves=16)
near_keys = st.tuples(st.integers(-1, 5), short, short, short, st.integers(-1, SLOT_MAX + 2))
near_slots = st.tuples(numbers, st.lists(numbers, min_size=6, max_size=8), *[short] * 4)
rows = st.one_of(
    st.binary(max_size=40), *[some.map(pack) for some in (anything, near_keys, near_slots)]
)
usages = st.builds(Buckets, *[st.integers(0, COUNT_MAX)] * 7)


@given(rows)
def test_quick_decoders_take_what_the_others_take(row: bytes):
    try:
        key = key_from_row(row)
    except PeerError:
        key = None
    assert (counter_of(row) is None) == (key is None or isinstance(key, DiagnosticsKey))
    try:
        slot = slot_from_row(row)
    except PeerError:
        assert weight_of(row) is None
        return
    assert weight_of(row) == Weight(
        packed(slot), slot.agent, slot.owner, slot.project, slot.provider
    )


@given(
    st.lists(
        st.tuples(st.integers(0, COUNT_MAX), st.builds(Buckets, *[st.integers(0, COUNT_MAX)] * 7)),
        max_size=6,
    )
)
def test_packed_counts_add_up_field_by_field(several: list):
    whole = sum(packed(Slot(records, usage)) for records, usage in several)
    records, usage = exactly(whole)
    assert records == sum(one for one, _ in several)
    assert usage.input == sum(one.input for _, one in several)
    assert usage.reasoning == sum(min(one.reasoning, one.output) for _, one in several)
    assert unpacked(whole)[1].web_search == min(
        COUNT_MAX, sum(one.web_search for _, one in several)
    )
    for records, usage in several:
        whole -= packed(Slot(records, usage))
    assert whole == 0
