"""Rolling a ledger up: old slots become rows of a day, old days rows of a month.

Invariant: no count changes. What is added to a row is removed in the same step, so doing it again
does nothing, in whatever order rows are looked at. Source: the retention that facts ask for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, assert_never

from meshnode.core.ledger import Slot, SlotKey, grown
from meshnode.core.periods import DAY_S, MONTHS_A_YEAR, DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.ledger import CounterKey

SLOTS_KEPT_DAYS = 35  # whole UTC days; older slots become day rows
DAYS_KEPT_MONTHS = 13  # whole UTC months besides the one that runs; older days become month rows


def rolled_up(
    slots: Iterable[tuple[CounterKey, Slot]], now_s: float
) -> tuple[dict[CounterKey, Slot], list[CounterKey]]:
    """Return the rows to write, and the keys to remove in the same transaction, sorted.

    `slots`: all counters of one owner, roll-ups included; `now_s`: seconds since 1970. A row that
    is written holds what it held and what is rolled into it: leave out no row of the ledger.
    """
    kept: dict[CounterKey, Slot] = {}
    moved: list[tuple[CounterKey, CounterKey, Slot]] = []
    for key, slot in slots:
        into = _coarser(key, now_s)
        if into == key:
            kept[key] = slot
        else:
            moved.append((key, into, slot))
    written: dict[CounterKey, Slot] = {}
    for _, into, slot in moved:
        written[into] = grown(written.get(into) or kept.get(into), slot)
    return written, sorted((key for key, _, _ in moved), key=_order)


def month_of(at_s: float) -> int:
    """Return the months from January 1970 to a time."""
    at = datetime.fromtimestamp(at_s, UTC)
    return (at.year - 1970) * MONTHS_A_YEAR + at.month - 1


def _coarser(key: CounterKey, now_s: float) -> CounterKey:
    match key:
        case SlotKey(session, model, tier):
            day = DayKey(session, model, tier, key.start_s // DAY_S)
            return _coarser(day, now_s) if day.day < now_s // DAY_S - SLOTS_KEPT_DAYS else key
        case DayKey(session, model, tier):
            month = month_of(key.start_s)
            old = month < month_of(now_s) - DAYS_KEPT_MONTHS
            return MonthKey(session, model, tier, month) if old else key
        case MonthKey():
            return key
        case _:
            assert_never(key)


def _order(key: CounterKey) -> tuple[int, str, str, str]:
    return key.start_s, key.session, key.model, key.tier
