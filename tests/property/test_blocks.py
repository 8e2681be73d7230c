"""Blocks of five hours, of whatever was used when."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshnode.app.cost.blocks import BLOCK_S, Spent, blocks_of, forecast, is_active, widened
from meshnode.app.cost.cost import OwnedSlot, cost
from meshnode.app.cost.cutting import CostQuery
from meshnode.core.ledger.ledger import SLOT_MAX, SLOT_S, Buckets, Slot, SlotKey

slots = st.lists(st.integers(0, 200) | st.integers(0, SLOT_MAX), max_size=40)


class Free:
    """Prices all at nothing known."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> None:
        del model, provider, tier, at_s

    def is_steady(self, *_: object) -> bool:
        return True

    def source_text(self) -> str:
        return "none"


@given(slots, st.randoms(use_true_random=False))
def test_each_use_is_in_one_block_of_five_hours_whatever_the_order(used: list[int], chance: Any):
    blocks = blocks_of(used)
    assert blocks.keys() == set(used)
    for slot, start_s in blocks.items():
        assert start_s <= slot * SLOT_S
        assert (slot + 1) * SLOT_S <= start_s + BLOCK_S
    starts = sorted(set(blocks.values()))
    for start_s, following_s in pairwise(starts):
        assert following_s >= start_s + BLOCK_S
    for start_s in starts:  # each begins with the hour of a use in it
        first = min(slot for slot, at_s in blocks.items() if at_s == start_s)
        assert start_s == first * SLOT_S // 3600 * 3600
    assert blocks_of(chance.sample(used, len(used))) == blocks


@given(slots, slots)
def test_what_is_used_later_moves_no_block(used: list[int], more: list[int]):
    last = max(used, default=-1)
    before = blocks_of(used)
    after = blocks_of([*used, *(slot for slot in more if slot > last)])
    assert before.items() <= after.items()


@given(slots)
def test_blocks_add_up_to_all_that_was_used(used: list[int]):
    rows = [
        OwnedSlot("id", "n", SlotKey("s", "m", "standard", slot), Slot(1, Buckets(slot)))
        for slot in used
    ]
    answer = cost(rows, [], CostQuery(("block",), blocks=blocks_of(used)), Free())
    assert answer.records == sum(group.records for group in answer.groups) == len(used)
    assert sum((group.usage for group in answer.groups), Buckets()) == answer.totals
    assert len(answer.groups) == len(set(blocks_of(used).values()))


@given(slots, st.tuples(*[st.none() | st.integers(0, 300 * SLOT_S)] * 2))
def test_a_span_that_was_widened_cuts_no_block(used: list[int], asked: tuple[Any, Any]):
    blocks = blocks_of(used)
    ends = widened(blocks, *asked)
    assert widened(blocks, *ends) == ends
    for start_s in blocks.values():
        for end_s in ends:
            assert end_s is None or not start_s < end_s < start_s + BLOCK_S


@given(
    st.floats(0, BLOCK_S), st.floats(0, BLOCK_S), st.integers(0, 10**9), st.floats(-9, 3 * BLOCK_S)
)
def test_a_forecast_is_never_less_than_what_was_used(
    first_s: float, last_s: float, tokens: int, now_s: float
):
    first_s, last_s = sorted((first_s, last_s))
    found = forecast(Spent(0, first_s, last_s, tokens, tokens), now_s)
    assert found.remaining_s >= 0
    assert found.tokens is None or found.tokens >= tokens
    if found.tokens is not None and not is_active(0, max(0.0, now_s)):
        assert found.tokens == tokens
