"""Durations and moments as people write them."""

from zoneinfo import ZoneInfo

import pytest

from meshnode.client.durations import parse_duration, parse_instant, rfc3339, seconds_of, words_of
from meshnode.core.errors import UsageError

NOW_S = 1_795_132_800.0  # 2026-11-20T00:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28800), ("7d", 604800), ("0", 0), (" 5s ", 5)],
)
def test_the_forms_of_the_contract_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (90, "90s"), (900, "15m"), (28800, "8h"), (8 * 86400, "8d"), (86401, "86401s")],
)
def test_a_duration_is_told_as_people_write_it(seconds, text):
    assert words_of(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-5s", "1.5h", "5 s", "1w", "٣s", "9" * 13, "1e3", "3651d"]
)
def test_what_is_no_duration_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T08:00:00Z", "2026-11-20T08:00:00.000Z"),
        ("2026-11-20T08:00:00+02:00", "2026-11-20T06:00:00.000Z"),
        ("2026-11-20", "2026-11-20T00:00:00.000Z"),
        ("7d", "2026-11-13T00:00:00.000Z"),
        ("7d ago", "2026-11-13T00:00:00.000Z"),
        ("90 ago", "2026-11-19T23:58:30.000Z"),
    ],
)
def test_moments_come_out_in_utc(text, moment):
    assert parse_instant(text, NOW_S) == moment


def test_a_date_begins_at_midnight_of_its_zone():
    assert parse_instant("2026-07-01", NOW_S, ZoneInfo("Europe/Berlin")).startswith("2026-06-30T22")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+23:59"])
def test_what_is_no_moment_is_a_usage_error(text):
    with pytest.raises(UsageError):
        parse_instant(text, NOW_S)


def test_a_moment_survives_being_written_and_read():
    assert seconds_of(rfc3339(NOW_S + 0.25)) == NOW_S + 0.25


def test_a_number_out_of_range_is_no_moment():
    with pytest.raises(UsageError):
        rfc3339(1e20)
