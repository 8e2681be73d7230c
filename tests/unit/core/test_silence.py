"""When a link counts as silent."""

from meshnode.core.silence import MISSES_MAX, PULSE_S, Silence

LIMIT_S = PULSE_S * MISSES_MAX


def test_a_link_is_silent_after_three_intervals_and_not_before():
    silence = Silence(100.0)
    assert not silence.is_silent(100.0)
    assert not silence.is_silent(100.0 + LIMIT_S)
    assert silence.is_silent(100.0 + LIMIT_S + 0.001)


def test_any_frame_is_a_sign_of_life():
    silence = Silence(100.0)
    silence.heard(102.0)
    assert not silence.is_silent(102.0 + LIMIT_S)
    assert silence.is_silent(102.1 + LIMIT_S)


def test_pulses_are_counted_from_one():
    silence = Silence(0.0)
    assert [silence.next_pulse() for _ in range(3)] == [1, 2, 3]
