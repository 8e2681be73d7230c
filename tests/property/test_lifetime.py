"""Whatever happens to an agent and when, it is ended when its time-outs say, to the second."""

from math import inf

from hypothesis import event, given
from hypothesis import strategies as st

from meshnode.agents.lifetime import LOOK_S, Lifetime

STIR, HOLD, LET_GO = "stir", "hold", "let go"
END_S = 1000
LIMITS = st.just(0) | st.integers(1, 150)
HAPPENINGS = st.dictionaries(
    st.integers(1, END_S), st.sampled_from([STIR, STIR, HOLD, LET_GO]), max_size=40
)


def supervised(run_s: int, idle_s: int, happenings: dict[int, str]) -> tuple[float, str]:
    """Wake for each happening, and when a supervisor would; return when it ends, and why."""
    lifetime, now_s, is_held = Lifetime(run_s, idle_s, 0.0), 0.0, False
    while now_s < END_S:
        began_s = now_s
        ahead = min((at_s for at_s in happenings if at_s > began_s), default=inf)
        now_s = min(began_s + max(0.0, min(LOOK_S, lifetime.left_s(began_s))), ahead)
        happened = happenings.get(int(now_s)) if now_s == ahead else None
        is_held = happened == HOLD or (is_held and happened != LET_GO)
        lifetime.looked(began_s, now_s, stirred=happened == STIR, is_held=is_held)
        if lifetime.ends(now_s):
            return now_s, lifetime.reason
    return inf, ""


def expected(run_s: int, idle_s: int, happenings: dict[int, str]) -> tuple[float, str]:
    """Say the same by going through every second."""
    last_s, is_held = 0, False
    for now_s in range(1, END_S):
        happened = happenings.get(now_s)
        if happened == STIR or (happened == LET_GO and is_held):
            last_s = now_s
        is_held = happened == HOLD or (is_held and happened != LET_GO)
        if run_s and now_s >= run_s:
            return now_s, f"timed out after {run_s} s"
        if idle_s and not is_held and now_s - last_s >= idle_s:
            return now_s, f"timed out: idle for {idle_s} s"
    return inf, ""


@given(LIMITS, LIMITS, HAPPENINGS)
def test_an_agent_ends_at_the_first_of_its_time_outs(run_s, idle_s, happenings):
    ends = expected(run_s, idle_s, happenings)
    event(ends[1].partition(" s")[0].rstrip("0123456789") or "goes on")
    assert supervised(run_s, idle_s, happenings) == ends
