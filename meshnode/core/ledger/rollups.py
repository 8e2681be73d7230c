"""Rolling a ledger up: old slots become rows of a day, old days rows of a month.

Invariant: no count changes, nor whose it is. What is added to a row is removed in the same step, so
doing it again does nothing. The records of a slot are in one row: in the slot's while there is one,
else in its day's, else in its month's; and of each, what is told while there is a row with its mark
is in that, the rest in that without, of a version that set no marks. So no row with a mark counts
more than was used by those whose it is. Source: the retention that facts ask for.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, assert_never

import msgspec

from meshnode.core.ledger.ledger import Buckets, Slot, SlotKey, grown
from meshnode.core.ledger.marks import MARK, session_in, unmarked
from meshnode.core.periods import DAY_S, MONTHS_A_YEAR, DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from meshnode.core.ledger.ledger import CounterKey

    Move = tuple[CounterKey, CounterKey]
    """From which row into which."""

SLOTS_KEPT_DAYS = 35  # whole UTC days; older slots become day rows
DAYS_KEPT_MONTHS = 13  # whole UTC months besides the one that runs; older days become month rows
_NOTHING = Buckets()


def moves(held: Mapping[CounterKey, Slot], now_s: float) -> list[Move]:
    """Return what is to be rolled into what, in the order of time.

    `held`: counters of one owner, with all that are coarser than one of them (`way_of`); `now_s`:
    seconds since 1970. What is rolled up is removed in the transaction that writes the rest.

    A row that says another owner, agent, project or provider than the one it would go into stays:
    added to that, it would be somebody else's.
    """
    found: dict[CounterKey, CounterKey] = {}
    said = {key: _said(slot) for key, slot in held.items()}
    for key in sorted(held, key=_order):
        into = due(key, now_s)
        if into == key:
            continue
        day, month = way_of(key)[0], way_of(key)[-1]
        into = month if month in held else into
        if day in held and day not in found:  # where else its records are looked for
            into = day
        texts = said[key]
        if texts is None or said.get(into) in (None, texts):
            said[into] = said.get(into) or texts
            found[key] = into
    return list(found.items())


def written_by(held: Mapping[CounterKey, Slot], moved: Iterable[Move]) -> dict[CounterKey, Slot]:
    """Return the rows that moves have others go into, as they are afterwards."""
    written: dict[CounterKey, Slot] = {}
    for key, into in moved:
        written[into] = plus(written.get(into) or held.get(into), held[key])
    return written


def plus(slot: Slot | None, added: Slot) -> Slot:
    """Add a row to the one that it is rolled into; what counts nothing says nothing."""
    if slot is None or _said(slot) is None:
        return added
    return slot if _said(added) is None else grown(slot, added)


def less(slot: Slot, other: Slot) -> Slot:
    """Return what a counter counts beyond another count of the same."""
    pairs = zip(slot.usage.counts, other.usage.counts, strict=True)
    usage = Buckets(*(max(mine - theirs, 0) for mine, theirs in pairs))
    records = max(slot.records - other.records, 0)
    return Slot(records, usage, slot.agent, slot.owner, slot.project, slot.provider)


def is_nothing(slot: Slot) -> bool:
    """Whether a counter counts nothing."""
    return not slot.records and not any(slot.usage.counts)


def due(key: CounterKey, now_s: float) -> CounterKey:
    """Return what a counter is kept as at a time: itself, or a coarser one."""
    match key:
        case SlotKey():
            is_old = _day(key.start_s, 0) < _day(now_s, SLOTS_KEPT_DAYS)
            return due(day_of(key), now_s) if is_old else key
        case DayKey():
            old = month_of(key.start_s) < month_of(now_s) - DAYS_KEPT_MONTHS
            return way_of(key)[-1] if old else key
        case MonthKey():
            return key
        case _:
            assert_never(key)


def way_of(key: CounterKey) -> tuple[CounterKey, ...]:
    """Return the coarser counters that a counter may become part of: the finer one first."""
    match key:
        case SlotKey():
            day = day_of(key)
            return (day, *way_of(day))
        case DayKey(session, model, tier):
            return (MonthKey(session, model, tier, month_of(key.start_s)),)
        case MonthKey():
            return ()
        case _:
            assert_never(key)


def day_of(key: SlotKey) -> DayKey:
    """Return the counter of the day that a slot is in."""
    return DayKey(key.session, key.model, key.tier, key.start_s // DAY_S)


def ways_of(key: CounterKey) -> tuple[CounterKey, ...]:
    """Return where the records of a counter may be, in the order in which they are looked for.

    The counter itself comes first; each is followed by the same without a mark.
    """
    return (*either_of(key), *(either for one in way_of(key) for either in either_of(one)))


def either_of(key: CounterKey) -> tuple[CounterKey, ...]:
    """Return a counter, and what it was before there were marks, if it has one."""
    return (key, without_mark(key)) if MARK in key.tier else (key,)


def is_part(key: CounterKey, whole: CounterKey) -> bool:
    """Tell whether a counter may be part of another as it was before there were marks.

    Marks that name a session were there from the first response of theirs on.
    """
    return not session_in("", key.tier) or MARK in whole.tier


def without_mark(key: CounterKey) -> CounterKey:
    """Return what a counter was before there were marks."""
    if MARK not in key.tier:
        return key
    return msgspec.structs.replace(key, tier=unmarked(key.tier))


def month_key_of(key: CounterKey) -> MonthKey:
    """Return the coarsest counter that this one, or the same without a mark, may be part of."""
    return MonthKey(key.session, key.model, unmarked(key.tier), month_of(key.start_s))


def levelled(
    ours: Mapping[CounterKey, Slot], theirs: Mapping[CounterKey, Slot]
) -> dict[CounterKey, CounterKey]:
    """Return what is to be rolled up so that two counts of the same can be compared row by row.

    Both are the whole of some months. Where one has a row that the other has as a part of a coarser
    one, or in parts, both take the coarsest that either has. Where one has rows without marks, and
    either rows with marks, of a month that differs, both lose them; so they do where a log session
    was had by several sessions of the mesh in that month: a log does not tell them apart. A month
    with marks of such sessions differs by its counts, too: one response may be in another row here
    than there, though both have both.
    """
    lost = _unmarked(ours, theirs)
    moved = _coarsest(*({lost.get(key, key) for key in side} for side in (ours, theirs)))
    found: dict[CounterKey, CounterKey] = {}
    for key in ours.keys() | theirs.keys():
        into = lost.get(key, key)
        into = moved.get(into, into)
        if into != key:
            found[key] = into
    return found


def _unmarked(
    ours: Mapping[CounterKey, Slot], theirs: Mapping[CounterKey, Slot]
) -> dict[CounterKey, CounterKey]:
    both = ours.keys() | theirs.keys()
    with_mark = {key for key in both if MARK in key.tier}
    if not with_mark:
        return {}
    sessions = _sessions(with_mark)
    shared = {month for month, several in sessions.items() if len(several) > 1}
    unclear = shared.union(map(month_key_of, both - with_mark))
    differing = set(map(month_key_of, ours.keys() ^ theirs.keys()))
    unlike = (key for key in ours.keys() & theirs.keys() if not _is_alike(ours[key], theirs[key]))
    differing |= sessions.keys() & set(map(month_key_of, unlike))
    differing &= unclear
    return {key: without_mark(key) for key in with_mark if month_key_of(key) in differing}


def _sessions(with_mark: Iterable[CounterKey]) -> dict[MonthKey, set[str]]:
    """Return which sessions of the mesh have marks in which months."""
    sessions: defaultdict[MonthKey, set[str]] = defaultdict(set)
    for key in with_mark:
        if session := session_in("", key.tier):
            sessions[month_key_of(key)].add(session)
    return sessions


def _is_alike(one: Slot, other: Slot) -> bool:
    return (one.records, one.usage) == (other.records, other.usage)


def _coarsest(
    ours: AbstractSet[CounterKey], theirs: AbstractSet[CounterKey]
) -> dict[CounterKey, CounterKey]:
    one_sided, both = ours ^ theirs, ours | theirs
    coarse = {key for key in both if not isinstance(key, SlotKey)}
    if not coarse or not one_sided:
        return {}
    unclear: set[CounterKey] = set()
    for key in one_sided:
        unclear.update(way_of(key), () if isinstance(key, SlotKey) else (key,))
    unclear &= coarse
    moved = {}
    for key in both:
        into = [one for one in way_of(key) if one in unclear]
        if into:
            moved[key] = into[-1]
    return moved


def summed(
    side: Mapping[CounterKey, Slot], moved: Mapping[CounterKey, CounterKey]
) -> dict[CounterKey, Slot]:
    """Add up what goes to one row; of differing texts the smallest stays."""
    sums: dict[CounterKey, Slot] = {}
    for key in sorted(side, key=_order):
        into = moved.get(key, key)
        sums[into] = grown(sums.get(into), side[key])
    return sums


def month_of(at_s: float) -> int:
    """Return the months from January 1970 to a time."""
    return _month_of(int(at_s // DAY_S))


@lru_cache(maxsize=1024)
def _month_of(day: int) -> int:
    at = datetime.fromtimestamp(day * DAY_S, UTC)
    return (at.year - 1970) * MONTHS_A_YEAR + at.month - 1


def _day(now_s: float, ago: int) -> int:
    return (int(now_s // DAY_S) - ago) * DAY_S


def _said(slot: Slot) -> tuple[str, ...] | None:
    """Return whose a row is; None for one that counts nothing: then it does not matter."""
    if not slot.records and slot.usage == _NOTHING:
        return None
    return slot.agent, slot.owner, slot.project, slot.provider


def _order(key: CounterKey) -> tuple[int, int, str, str, str]:
    return key.start_s, -key.end_s, key.session, key.model, key.tier  # a day before its slots
