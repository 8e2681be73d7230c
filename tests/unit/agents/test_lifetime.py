"""How long an agent may run and be idle, on clocks of our own: what ends it, and when."""

from math import inf

from meshnode.agents.lifetime import LATE_S, LOOK_S, Lifetime

DAY_S = 86400.0


def seen(lifetime: Lifetime, now_s: float, *, stirred: bool = False, is_held: bool = False) -> bool:
    """Look once, in no time; returns whether it ends."""
    lifetime.looked(now_s, now_s, stirred=stirred, is_held=is_held)
    return lifetime.ends(now_s)


def test_without_time_outs_nothing_ends_it_and_nothing_is_waited_for():
    one = Lifetime(0.0, 0.0, 5.0)
    assert not seen(one, 5.0 + 365 * DAY_S)
    assert not seen(one, 5.0 + 365 * DAY_S, is_held=True)
    assert one.left_s(9.0) == inf
    assert (one.is_over, one.reason) == (False, "")


def test_its_time_is_over_once_however_busy_it_is():
    one = Lifetime(14 * DAY_S, 0.0, 5.0)
    assert one.left_s(6.0) == 14 * DAY_S - 1.0
    assert not seen(one, 5.0 + 14 * DAY_S - 0.001, stirred=True)
    assert seen(one, 5.0 + 14 * DAY_S, stirred=True)
    assert not seen(one, 6.0 + 14 * DAY_S)
    assert (one.is_over, one.reason) == (True, "timed out after 1209600 s")
    assert one.left_s(6.0 + 14 * DAY_S) == inf


def test_who_does_nothing_for_so_long_is_idle():
    one = Lifetime(0.0, 30.0, 5.0)
    assert one.left_s(5.0) == 30.0
    assert not seen(one, 34.999)
    assert seen(one, 35.0)
    assert not seen(one, 36.0)
    assert (one.is_over, one.reason) == (True, "timed out: idle for 30 s")
    assert one.left_s(36.0) == inf


def test_whatever_happens_lets_it_begin_anew():
    one = Lifetime(0.0, 30.0, 0.0)
    for now_s in range(29, 29 * 100, 29):
        assert not seen(one, now_s, stirred=True)
        assert one.left_s(now_s) == 30.0
    assert seen(one, now_s + 30.0)


def test_what_happened_while_we_were_busy_is_looked_for_before_it_is_called_idle():
    """A look that began in time and was over late may have missed what happened in between."""
    one = Lifetime(0.0, 30.0, 0.0)
    one.looked(29.0, 33.0, stirred=False, is_held=False)
    assert not one.ends(33.0)
    assert one.left_s(33.0) < 0.0, "the next look is not waited for"
    assert not seen(one, 33.0, stirred=True)
    assert one.left_s(33.0) == 30.0


def test_who_is_suspended_is_not_idle_and_begins_anew_after_it():
    one = Lifetime(0.0, 30.0, 0.0)
    assert not seen(one, 20.0, is_held=True)
    assert one.left_s(20.0) == inf
    for minute in range(1, 100):
        assert not seen(one, 20.0 + 60.0 * minute, is_held=True)
    assert not seen(one, 6000.0)
    assert one.left_s(6000.0) == 30.0
    assert seen(one, 6030.0)


def test_its_time_goes_on_while_it_is_suspended():
    one = Lifetime(40.0, 30.0, 0.0)
    assert not seen(one, 20.0, is_held=True)
    assert one.left_s(20.0) == 20.0
    assert seen(one, 40.0, is_held=True)
    assert one.reason == "timed out after 40 s"


def test_the_earlier_of_two_time_outs_ends_it_and_is_named():
    idle, busy, tied = Lifetime(31.0, 30.0, 0.0), Lifetime(31.0, 30.0, 0.0), Lifetime(30, 30, 0.0)
    assert idle.left_s(0.0) == 30.0
    assert seen(idle, 32.0)
    assert idle.reason == "timed out: idle for 30 s"
    assert not seen(busy, 10.0, stirred=True)
    assert busy.left_s(10.0) == 21.0
    assert seen(busy, 32.0)
    assert busy.reason == "timed out after 31 s"
    assert seen(tied, 30.0)
    assert tied.reason == "timed out after 30 s"


def test_while_we_stand_still_ourselves_nobody_is_idle():
    """Frozen or stopped together with its agent: the clock goes on, and nobody else."""
    short, long = Lifetime(0.0, 30.0, 0.0), Lifetime(0.0, DAY_S, 0.0)
    assert not seen(short, 30.0 + LATE_S + 1.0)
    assert seen(short, 30.0 + LATE_S + 31.0)
    assert not seen(long, LOOK_S)
    assert not seen(long, DAY_S - 1.0)
    assert long.left_s(DAY_S - 1.0) == DAY_S


def test_a_look_that_is_a_little_late_counts():
    one = Lifetime(0.0, 90.0, 0.0)
    assert not seen(one, LOOK_S + LATE_S)
    assert seen(one, 90.0 + LATE_S)
