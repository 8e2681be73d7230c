"""Nothing is carried out twice, however often it comes and wherever the node ends meanwhile."""

from collections import Counter

from sim.replays import PLACES, simulate

SEEDS = 10
COMMANDS = 300


def test_no_command_is_carried_out_twice_across_crashes_wipes_and_clock_steps():
    reports = [simulate(seed, COMMANDS) for seed in range(SEEDS)]
    assert [fault for report in reports for fault in report.faults] == []
    crashes = sum((report.crashes for report in reports), Counter())
    outcomes = sum((report.outcomes for report in reports), Counter())
    assert set(crashes) == set(PLACES), "each place was tried, or this says little"
    assert sum(report.wipes for report in reports)
    assert sum(report.clock_steps for report in reports)
    expected = {"accepted", "delivered", "applied", "indeterminate", "expired", "refused"}
    assert expected <= {name.removeprefix("error ") for name in outcomes}
    assert sum(report.deliveries for report in reports) > 2 * SEEDS * COMMANDS


def test_the_check_notices_a_journal_that_forgets(monkeypatch):
    """Else it would prove nothing."""
    monkeypatch.setattr("meshnode.store.journal._known", lambda _connection, _id: None)
    monkeypatch.setattr("meshnode.store.journal._insert", lambda _connection, _entry: None)
    assert simulate(1, COMMANDS).faults
