"""What of a ledger is told without its session, so that a feed has room however many there are.

What began before a horizon is added up by UTC day, or by month, of those whose it is, their model
and tier: the row of these names no session, and its tier has the mark of whose it is. The ledger on
disk stays as it is.

Invariant: every counter is in exactly one row, and which one depends on its key, its texts and the
horizon alone: so whoever reads the same logs again tells them in the same rows.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import Buckets, Slot, grown, merged
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.marks import FOLDED, fitting, mark_of, marked, unmarked
from meshnode.core.ledger.rollups import DAYS_KEPT_MONTHS, is_nothing, less, month_of
from meshnode.core.periods import DAY_S, DayKey, MonthKey, month_start_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshnode.core.ledger.ledger import CounterKey


class Horizon(msgspec.Struct, frozen=True):
    """Up to where sessions are left away: what began before a UTC day, days since 1970.

    Of months before `month`, months since 1970, only months are told of that.
    """

    day: int = 0
    month: int = 0


NOWHERE = Horizon()
NONE = Slot(0, Buckets())


class Room(msgspec.Struct, frozen=True):
    """How many rows, and bytes of their keys and values, there may be."""

    rows: int
    bytes: int

    def part(self, of_8: int) -> Room:
        """Return some eighths of it."""
        return Room(self.rows * of_8 // 8, self.bytes * of_8 // 8)


def is_folded(key: CounterKey, horizon: Horizon) -> bool:
    """Whether a counter of a session is told without it."""
    return key.session != FOLDED and key.start_s < horizon.day * DAY_S


def row_of(key: CounterKey, slot: Slot, horizon: Horizon) -> CounterKey:
    """Return which row tells of a counter; `slot`: whose it is."""
    if key.start_s >= horizon.day * DAY_S:
        return key
    model, tier = key.model, key.tier
    if key.session != FOLDED:
        mark = mark_of(slot.agent, slot.owner, slot.project, slot.provider)
        _, model, tier = fitting(FOLDED, model, marked(unmarked(tier), mark))
    month = month_of(key.start_s)
    if isinstance(key, MonthKey) or month < horizon.month:
        return MonthKey(FOLDED, model, tier, month)
    return DayKey(FOLDED, model, tier, key.start_s // DAY_S)


def told(
    rows: Iterable[tuple[CounterKey, Slot]],
    beside: Mapping[CounterKey, Slot],
    horizon: Horizon,
) -> dict[CounterKey, Slot]:
    """Return the rows that tell of counters, as they are to be said.

    Of those without a session among `rows` peers have returned as much, so of each count the larger
    is told; `beside`: what of such rows other nodes say.
    """
    found: dict[CounterKey, Slot] = {}
    folded: dict[CounterKey, Slot] = {}
    returned: dict[CounterKey, Slot] = {}
    for key, slot in rows:
        if key.session == FOLDED:
            into = row_of(key, slot, horizon)
            returned[into] = grown(returned.get(into), slot)
        elif not is_folded(key, horizon):
            found[key] = slot
        elif not is_nothing(slot):
            into = row_of(key, slot, horizon)
            folded[into] = grown(folded.get(into), slot)
    leave_to(folded, returned)
    _leave_out(folded, _by_row(beside, horizon))
    for key, slot in returned.items():
        folded[key] = merged(slot, folded.get(key, slot))
    return found | {key: slot for key, slot in folded.items() if not is_nothing(slot)}


def _leave_out(folded: dict[CounterKey, Slot], others: Mapping[CounterKey, Slot]) -> None:
    """Take from rows what other nodes say of the same."""
    leave_to(folded, others, nobodys=True)
    for key, slot in others.items():
        if key in folded:
            folded[key] = less(folded[key], slot)


def leave_to(
    rows: dict[CounterKey, Slot], claims: Mapping[CounterKey, Slot], *, nobodys: bool = False
) -> None:
    """Take from rows without a session what claims tell of the same, as somebody else's.

    Whose something was is not always known as it was: which session of the mesh had a log is lost
    with the disk that knew it, and an older version told no consumers apart. Read again, it is in
    another row, and would be counted twice. With `nobodys` only rows of nobody give, to somebody.
    """
    lacking: dict[tuple[object, ...], Slot] = {}
    for key, slot in claims.items():
        if key.session == FOLDED and (slot.agent or slot.owner or not nobodys):
            group = _group_of(key, slot)
            lacking[group] = grown(lacking.get(group), _beyond(key, slot, rows))
    folded = [key for key in rows if key.session == FOLDED] if lacking else []
    for key in sorted(folded, key=lambda key: key.tier):  # by its mark, so that all do it alike
        slot = rows[key]
        more = lacking.get(group := _group_of(key, slot))
        if more is not None and not (nobodys and (slot.agent or slot.owner)):
            beyond = _beyond(key, slot, claims)
            taken = less(beyond, less(beyond, more))  # of each count the smaller
            rows[key], lacking[group] = less(slot, taken), less(more, taken)


def _beyond(key: CounterKey, slot: Slot, others: Mapping[CounterKey, Slot]) -> Slot:
    return less(slot, others[key]) if key in others else slot


def _group_of(key: CounterKey, slot: Slot) -> tuple[object, ...]:
    """Return what rows have in common that are told apart by whose they are alone."""
    return key.start_s, key.end_s, key.model, unmarked(key.tier), slot.project, slot.provider


def _by_row(rows: Mapping[CounterKey, Slot], horizon: Horizon) -> dict[CounterKey, Slot]:
    found: dict[CounterKey, Slot] = {}
    for key, slot in rows.items():
        into = row_of(key, slot, horizon)
        found[into] = grown(found.get(into), slot)
    return found


def added_up(rows: Mapping[CounterKey, Slot], horizon: Horizon) -> dict[CounterKey, Slot]:
    """Add rows of one feed to those without a session, as far as they are to be part of them."""
    return _by_row(rows, horizon) if horizon.day else dict(rows)


def with_folded(rows: Mapping[CounterKey, Slot], now_s: float) -> dict[CounterKey, Slot]:
    """Return the rows of one feed, those without a session as if all had left into them.

    What was on its way there when the feed was left stays, too: it is told in either. What is read
    again of months that are over by now is counted by months.
    """
    horizon = rolled_up(covering(NOWHERE, rows), now_s)
    sessions = {key: slot for key, slot in rows.items() if key.session != FOLDED}
    return sessions | {k: s for k, s in added_up(rows, horizon).items() if k.session == FOLDED}


def covering(horizon: Horizon, keys: Iterable[CounterKey]) -> Horizon:
    """Return a horizon that is late enough for rows without a session that others have told.

    Nor does it part what stands in a row of a month.
    """
    day, month = horizon.day, horizon.month
    for key in keys:
        if key.session == FOLDED:
            day = max(day, key.end_s // DAY_S)
        if isinstance(key, MonthKey):
            month = max(month, key.month + 1)
    return _whole(day, month)


def rolled_up(horizon: Horizon, now_s: float) -> Horizon:
    """Return a horizon that parts nothing that is due to be rolled up at a time."""
    return _whole(horizon.day, max(horizon.month, month_of(now_s) - DAYS_KEPT_MONTHS))


def _whole(day: int, month: int) -> Horizon:
    """Where anything is told without its session, so is all of which only months are told."""
    return Horizon(max(day, month_start_s(month) // DAY_S), month) if day else NOWHERE


class Plan(msgspec.Struct, frozen=True):
    """What is to be said of counters; `has_room`: all of it, and some more.

    `returned`: what stands from now on for rows that peers have returned, None: nothing.
    """

    horizon: Horizon
    rows: Mapping[CounterKey, Slot]
    has_room: bool
    returned: Mapping[CounterKey, Slot | None] = msgspec.field(default_factory=dict)


def planned(
    counters: Mapping[CounterKey, Slot],
    beside: Mapping[CounterKey, Slot],
    since: Horizon,
    now_s: float,
    room: Room,
) -> Plan:
    """Return what is to be said: with sessions, as far back as there is room for it.

    Once seven eighths are full, sessions are left away until six are, never of the day before that
    on which something was used last, nor of yesterday: `now_s` may be of a clock that is ahead.
    `counters` and `beside` are as for `told`.
    """
    used_s = min(now_s, max((key.end_s for key in counters), default=0))
    covers = covering(since, [*counters, *beside])
    horizon = rolled_up(covers, used_s)
    rows = told(counters.items(), beside, horizon)
    if not _fit(rows, room.part(7)):
        until_day = int(used_s // DAY_S) - 1
        horizon = advanced(counters, beside, horizon, until_day, room.part(6))
        horizon = rolled_up(horizon, used_s)
        rows = told(counters.items(), beside, horizon)
    returned = _by_month(counters, beside, since, horizon)
    if returned:
        kept = {key: slot for key, slot in {**counters, **returned}.items() if slot is not None}
        rows = told(kept.items(), beside, horizon)
    return Plan(horizon, rows, _fit(rows, room.part(7)), returned)


def _by_month(
    counters: Mapping[CounterKey, Slot],
    beside: Mapping[CounterKey, Slot],
    since: Horizon,
    horizon: Horizon,
) -> dict[CounterKey, Slot | None]:
    """Add up what is told of days that become months, where peers have returned some of it.

    Of each day the larger is told, and of the month the sum: the larger of a month may be less.
    So may others' use on other days, which what is lacking here of one would be taken from.
    """
    own = {key: slot for key, slot in counters.items() if key.session == FOLDED}
    until = covering(since, [*own, *beside])  # whose days were told by months already
    found: dict[CounterKey, Slot | None] = {}
    if horizon.month <= until.month:
        return found
    days = ((k, slot) for k, slot in counters.items() if k in own or not isinstance(k, MonthKey))
    by_day = told(days, beside, Horizon(horizon.day, until.month))
    into = {key: row_of(key, slot, horizon) for key, slot in own.items()}
    into = {key: month for key, month in into.items() if month != key}
    found |= dict.fromkeys(into)
    groups = {_group_of(month, own[key]) for key, month in into.items()}
    for key, slot in by_day.items():
        month = row_of(key, slot, horizon)
        if key.session == FOLDED and _group_of(month, slot) in groups:
            found[month] = grown(found.get(month), slot)
    return found


def _fit(rows: Mapping[CounterKey, Slot], room: Room) -> bool:
    return len(rows) <= room.rows and sum(_size(*row) for row in rows.items()) <= room.bytes


def _size(key: CounterKey, slot: Slot) -> int:
    return len(key_to_row(key)) + len(slot_to_row(slot))


def covered(
    counters: Mapping[CounterKey, Slot], beside: Mapping[CounterKey, Slot], horizon: Horizon
) -> list[CounterKey]:
    """Return the rows without a session, as peers returned them, that say no more than is here."""
    returned = {key: slot for key, slot in counters.items() if key.session == FOLDED}
    if not returned:
        return []
    here = told(((k, s) for k, s in counters.items() if k not in returned), beside, horizon)
    rows = _by_row(returned, horizon)
    leave_to(here, rows)
    gone = {
        key for key, slot in rows.items() if key in here and merged(here[key], slot) == here[key]
    }
    lacking = {_group_of(key, slot) for key, slot in rows.items() if key not in gone}
    gone = {key for key in gone if _group_of(key, rows[key]) not in lacking}
    return [key for key, slot in returned.items() if row_of(key, slot, horizon) in gone]


def advanced(
    counters: Mapping[CounterKey, Slot],
    beside: Mapping[CounterKey, Slot],
    since: Horizon,
    until_day: int,
    room: Room,
) -> Horizon:
    """Return how far sessions are to be left away so that what is told has room.

    The oldest days go first, none from `until_day` on; then, of what has no session, days become
    months. Where all that is not enough, it is all the same what is left away.
    """

    def has_room(horizon: Horizon) -> bool:
        return _fit(told(counters.items(), beside, horizon), room)

    starts = {key.start_s for key in counters}
    days = sorted({start // DAY_S + 1 for start in starts if start < until_day * DAY_S})
    steps = [Horizon(day, since.month) for day in days if day > since.day]
    last = steps[-1] if steps else since
    months = sorted(
        {month_of(start) + 1 for start in starts if month_of(start) < month_of(last.day * DAY_S)}
    )
    steps += [Horizon(last.day, month) for month in months if month > last.month]
    enough = bisect_left(steps, True, key=has_room)  # noqa: FBT003 - what is looked for
    return steps[min(enough, len(steps) - 1)] if steps else since
