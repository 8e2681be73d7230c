"""What is left of old slots: counters of a UTC day, and of a UTC month."""

from __future__ import annotations

from calendar import timegm

import msgspec

DAY_S = 86_400
DAY_MAX = 2_916_666  # about the year 9955, as of slots: any day up to here is a date in any zone
MONTHS_A_YEAR = 12
MONTH_MAX = 7984 * MONTHS_A_YEAR  # the same end of time


class DayKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Which counter of a UTC day, once its slots are too old: `day` is the days since 1970."""

    session: str
    model: str
    tier: str
    day: int

    @property
    def start_s(self) -> int:
        """Where the day begins, seconds since 1970."""
        return self.day * DAY_S

    @property
    def end_s(self) -> int:
        """Where the next day begins, seconds since 1970."""
        return self.start_s + DAY_S


class MonthKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Which counter of a UTC month, once its days are too old: `month` is the months since 1970."""

    session: str
    model: str
    tier: str
    month: int

    @property
    def start_s(self) -> int:
        """Where the month begins, seconds since 1970."""
        return month_start_s(self.month)

    @property
    def end_s(self) -> int:
        """Where the next month begins, seconds since 1970."""
        return month_start_s(self.month + 1)


def month_start_s(month: int) -> int:
    """Return where a month begins, counted from January 1970; seconds since 1970."""
    years, months = divmod(month, MONTHS_A_YEAR)
    return timegm((1970 + years, months + 1, 1, 0, 0, 0))
