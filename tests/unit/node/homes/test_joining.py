"""What is told of a clock when a device joins: only what the answer proves."""

import pytest

from meshnode.node.homes.joining import clock_off_s

AT_S = 1000.0  # the other clock showed this, or anything up to a second later


@pytest.mark.parametrize(
    ("asked_s", "answered_s", "off_s"),
    [
        (1000.1, 1000.2, 0.0),
        (1000.9, 1001.7, 0.0),
        (999.0, 1000.5, 0.0),
        (1001.5, 1001.6, 0.5),
        (4600.5, 4601.0, 3599.5),
        (-2600.0, -2599.0, -3599.0),
    ],
)
def test_a_clock_is_off_by_what_neither_the_wait_nor_whole_seconds_explain(
    asked_s, answered_s, off_s
):
    assert clock_off_s(AT_S, asked_s, answered_s) == pytest.approx(off_s)
