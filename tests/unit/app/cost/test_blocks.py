"""Blocks of five hours, by examples; what holds of all is in tests/property."""

import pytest

from meshnode.app.cost.blocks import (
    BLOCK_S,
    Forecast,
    Spent,
    blocks_of,
    forecast,
    is_active,
    widened,
)

HOUR_S = 3600
TEN_S = 20_000 * 86_400 + 10 * HOUR_S  # ten o'clock of some day


def slots(*hours: float) -> list[int]:
    return [int((TEN_S + hour * HOUR_S) // 1800) for hour in hours]


def hours_of(*used: float) -> list[int]:
    """Return after how many hours the blocks of such a use begin."""
    return [
        (start_s - TEN_S) // HOUR_S for start_s in sorted(set(blocks_of(slots(*used)).values()))
    ]


@pytest.mark.parametrize(
    ("used", "begin"),
    [
        ((), []),
        ((0.5,), [0]),
        ((0.5, 4.5), [0]),
        ((0.5, 5), [0, 5]),
        ((0.5, 5.5, 9.5, 10), [0, 5, 10]),
        ((0.5, 12.5, 13), [0, 12]),
        ((4.5, 0.5, 5, 4), [0, 5]),
    ],
)
def test_a_block_begins_with_the_hour_of_the_first_use_after_the_one_before(used, begin):
    assert hours_of(*used) == begin


def test_a_block_is_active_until_its_end():
    assert not is_active(TEN_S, TEN_S - 0.1)
    assert is_active(TEN_S, TEN_S)
    assert is_active(TEN_S, TEN_S + BLOCK_S - 0.1)
    assert not is_active(TEN_S, TEN_S + BLOCK_S)


def test_ends_of_a_span_move_out_to_those_of_the_blocks_that_they_cut():
    blocks = blocks_of(slots(0, 6))
    five_s, six_s, eleven_s = (TEN_S + hours * HOUR_S for hours in (5, 6, 11))
    assert widened(blocks, None, None) == (None, None)
    assert widened(blocks, TEN_S + 1, six_s + 1) == (TEN_S, eleven_s)
    assert widened(blocks, five_s - 1, five_s - 1) == (TEN_S, five_s)
    for edge_s in (TEN_S, five_s, five_s + 1, six_s, eleven_s):
        assert widened(blocks, edge_s, edge_s) == (edge_s, edge_s)


def test_a_block_goes_on_at_the_rate_between_its_first_use_and_its_last():
    first_s = TEN_S + 600
    spent = Spent(TEN_S, first_s, first_s + 1800, 3000, 9 * 10**9)
    at_noon = forecast(spent, TEN_S + 2 * HOUR_S)
    assert at_noon == Forecast(3 * HOUR_S, 100, 18 * 10**9, 3000 + 18_000, 63 * 10**9)
    assert forecast(spent._replace(cost_nusd=None), TEN_S + 2 * HOUR_S) == at_noon._replace(
        nusd_per_hour=None, cost_nusd=None
    )
    assert forecast(spent._replace(last_s=first_s), TEN_S + 2 * HOUR_S) == Forecast(3 * HOUR_S)
