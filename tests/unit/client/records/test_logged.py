"""Times of a session that only logs know: of its rounds, or of what its counters are kept in."""

import pytest

from meshnode.client.records.logged import summed, timed

HOUR, OLD = "2026-11-20T09:30Z", "2024-02"


def asked(*hours: str) -> dict:
    """Answer as a ledger does."""
    key = {"agent": "", "owner": "", "project": "", "model": "m"}
    groups = [{"key": key | {"hour": hour}} for hour in hours]
    return {
        "groups": groups,
        "totals": {},
        "records": len(hours),
        "cost_usd": None,
        "unpriced": [],
        "coverage": {},
    }


def rounds(*times: str) -> list[dict]:
    return [{"timestamp": one} for one in times]


@pytest.mark.parametrize(
    ("hour", "moment"),
    [
        (HOUR, "2026-11-20T09:30:00.000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000Z"),
        (OLD, "2024-02-01T00:00:00.000Z"),
    ],
)
def test_what_is_left_of_an_hour_day_or_month_begins_at_a_moment(hour, moment):
    session = summed("s1", asked(hour))
    assert (session["created_at"], session["updated_at"]) == (moment, moment)


def test_a_session_began_and_ended_with_its_rounds_where_all_are_kept():
    first, last = "2026-11-20T09:41:02.500Z", "2026-11-20T10:12:00.000Z"
    session = timed(summed("s1", asked(HOUR, "2026-11-20T10:00Z")), rounds(first, last))
    assert (session["created_at"], session["updated_at"]) == (first, last)


def test_a_session_whose_first_rounds_are_dropped_began_with_what_is_left_of_them():
    last = "2026-11-20T09:41:02.500Z"
    session = timed(summed("s1", asked(HOUR, OLD)), rounds(last))
    assert (session["created_at"], session["updated_at"]) == ("2024-02-01T00:00:00.000Z", last)


@pytest.mark.parametrize("times", [(), ("soon",), ("2026-11-20",)])
def test_rounds_without_a_moment_tell_no_time(times):
    session = summed("s1", asked(HOUR))
    assert timed(session, rounds(*times)) == session
