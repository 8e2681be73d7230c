"""Whoever had a log session, and whenever somebody says so: totals stay, over a lost disk too."""

import sqlite3
from contextlib import closing
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from property.test_folded_ledgers import Folded
from property.test_rolled_ledgers import READER, START_S, Rolled
from usage_records import usage_record

from meshnode.core.ledger.ledger import LEDGER, Batch, Buckets, Diagnostics, Slot
from meshnode.core.ledger.log_sessions import LogSession, Whose
from meshnode.core.ledger.marks import FOLDED, session_in
from meshnode.core.ledger.regained import counters_of
from meshnode.core.periods import DAY_S
from meshnode.store import counters, ledger, log_sessions, rollups
from meshnode.store.migrations import migrate

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


class HadAndFolded(Had, Folded):
    """The feed has no room for all of it: whose it was is told in rows without sessions."""

    told_again: tuple[Any, ...] = ()  # who has what, as a new disk hears it

    def begin(self) -> None:
        super().begin()
        for words in self.told_again:
            self.have(*words)

    def owner(self, session: str, consumer: str) -> str:
        """Say what a transcript does: nothing."""
        return ""


HadAndFolded.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
TestTotalsStayWhereTheFeedHasNoRoom = HadAndFolded.TestCase


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


@pytest.mark.parametrize("had_by", ["m", "mn"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("late", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("is_known", ["before", "after"])
def test_so_is_what_was_told_without_its_session(
    had_by: str, share: float, late: float, is_known: str
):
    """Whether logs are read again before what peers have returned is there, or after."""
    ledger = HadAndFolded()
    had = [("a", session * 26, 30 if session == "m" else 20, 10) for session in had_by]
    if is_known == "after":
        ledger.told_again = tuple(had)
    else:
        for words in had:
            ledger.have(*words)
    for days in range(12, 30):
        ledger.record([days] * 3, "a", "m", 5, "x")
        ledger.record([days], "b", "m", 5, "x")
    ledger.fold(4)
    before = ledger.shown()
    rows = counters_of(ledger.feed.values(LEDGER).items())
    owners = {slot.owner for key, slot in rows.items() if key.session == FOLDED}
    assert owners == ({"", "olga"} if is_known == "before" else {""})
    ledger.lose_the_disk(Random(1), share, late)
    for step in (ledger.read_all_again, ledger.roll_all_up, partial(ledger.fold, 4)):
        step()
        ledger.nothing_is_lost_and_nothing_counts_twice()
        ledger.groups_add_up()
        assert ledger.shown() == before
    ledger.teardown()


times = st.sampled_from([0.0, 0.3, 1.0, 2000.0, 90_000.0])
whose = st.sampled_from([Whose("m" * 26, "agent", "olga"), Whose("n" * 26, "other", "otto")])
spans = st.tuples(whose, times, st.sampled_from([0.5, 3000.0, 1e9]))
several_spans = st.lists(spans, max_size=2, unique_by=lambda span: span[0])


def disk(had: list[tuple[Whose, float, float]]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    for one, since, lasts in had:
        since_s = START_S + since - 0.2
        log_sessions.keep(connection, [(one, LogSession("claude", "s", since_s, since_s + lasts))])
    return connection


@settings(max_examples=150)
@given(
    st.lists(times, min_size=1, max_size=4),
    several_spans,
    several_spans,
    st.integers(0, 4),
    st.sampled_from([0, 5, 60]),
)
def test_what_is_corrected_after_a_lost_disk_is_found_and_counted_once(
    at: list[float], then: list, now: list, before: int, output: int
):
    """Who had which log session when may be known otherwise on the new disk."""
    records = [
        usage_record(str(n), source="claude", at_s=START_S + after + n / 10, usage=Buckets(100))
        for n, after in enumerate(at)
    ]
    corrected = [
        usage_record(
            one.idem_key, source="claude", at_s=one.at_s, usage=Buckets(100, output=output), rank=1
        )
        for one in records
    ]
    with closing(disk(then)) as lost, closing(disk(now)) as new:

        def count(connection: sqlite3.Connection, *some: object) -> None:
            batch = Batch(READER, "/log", {}, some, Diagnostics())
            ledger.commit(connection, batch, int(START_S * 1000))

        count(lost, *records)
        count(new, *records[:before])
        rollups.hold(new, dict(counters.counted(lost)))
        for one in (*records[before:], *corrected):
            count(new, one)
        said = [slot for _, slot in ledger.published(new) if isinstance(slot, Slot)]
        assert sum(slot.records for slot in said) == len(records)
        assert sum(slot.usage.total for slot in said) == (100 + output) * len(records)
