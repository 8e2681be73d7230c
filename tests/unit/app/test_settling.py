"""What is old is old only by a clock that has gone with the steady one for a while."""

from math import inf

import pytest
from doubles import ManualClock

from meshnode.app.settling import JUMP_S, SETTLED_S, Settling

WEEK_S = 7 * 86400.0


def test_nothing_is_old_until_a_node_has_run_for_a_while():
    clock = ManualClock()
    settling = Settling(clock)
    clock.now_s += SETTLED_S - 1
    assert settling.old_s(WEEK_S) == -inf
    clock.now_s += 1
    assert settling.old_s(WEEK_S) == clock.wall_s() - WEEK_S


@pytest.mark.parametrize("jump_s", [2 * WEEK_S, -2 * WEEK_S, JUMP_S + 1])
def test_nothing_is_old_after_a_jump_and_after_the_jump_back(jump_s):
    clock = ManualClock()
    settling = Settling(clock)
    clock.now_s += SETTLED_S
    assert settling.look()
    for ahead_s in (jump_s, 0.0):
        clock.ahead_s = ahead_s
        assert settling.old_s(WEEK_S) == -inf
        clock.now_s += SETTLED_S - 1
        assert settling.old_s(WEEK_S) == -inf
    clock.now_s += 1
    assert settling.old_s(WEEK_S) == clock.wall_s() - WEEK_S


def test_a_clock_that_is_corrected_by_seconds_has_not_jumped():
    clock = ManualClock()
    settling = Settling(clock)
    clock.now_s += SETTLED_S
    clock.ahead_s = JUMP_S - 1
    assert settling.look()
