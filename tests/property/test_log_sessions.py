"""Whoever had a log session, and whenever somebody says so: totals stay, over a lost disk too."""

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from property.test_rolled_ledgers import Rolled

from meshnode.core.log_sessions import LogSession, Whose
from meshnode.core.marks import session_in
from meshnode.core.periods import DAY_S
from meshnode.store import counters, log_sessions

pytestmark = pytest.mark.property


class Had(Rolled):
    """Sessions of the mesh have the log sessions, at times, and somebody says so sometime."""

    by_owner = False

    @rule(
        name=st.sampled_from("ab"),
        session=st.sampled_from(["m" * 26, "n" * 26]),
        since=st.sampled_from([-1.0, 1 + 1500 / DAY_S, 5.0, 500.0]),
        days=st.sampled_from([1, 30, 1000]),
    )
    def have(self, name: str, session: str, since: float, days: float) -> None:
        since_s = self.now_s - since * DAY_S
        had = LogSession(self.source, name, since_s, since_s + days * DAY_S)
        log_sessions.keep(self.connection, [(Whose(session, "agent", "olga"), had)])


Had.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestTotalsStayWhoeverHadALogSession = Had.TestCase


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize("then", ["", "m", "n"])
@pytest.mark.parametrize("told_again", [False, True])
def test_what_sessions_of_the_mesh_had_and_a_disk_has_lost_is_counted_once(
    share: float, late: float, then: str, told_again: bool
):
    """Also where one half hour is of two of them, or of one and of nobody."""
    ledger = Had()
    within = 1 + 1500 / DAY_S
    ledger.have("a", "m" * 26, 30, 30 - within)
    if then:
        ledger.have("a", then * 26, within, 1000)
    ledger.record([1] * 4, "a", "m", 5, "x")
    sessions = {session_in("", key.tier) for key, _ in counters.counted(ledger.connection)}
    assert sessions == {"m" * 26, then * 26}
    ledger.lose_the_disk(Random(1), share, late)
    if told_again:
        ledger.have("a", "n" * 26, within, 1000)
        ledger.record([0], "a", "m", 5, "x")
    for step in (ledger.read_all_again, ledger.roll_all_up):
        step()
        ledger.nothing_is_lost_and_nothing_counts_twice()
        ledger.groups_add_up()
    ledger.teardown()
