"""Joining our ledger with what a history of it says that our disk has lost.

Invariant: what both have counted is counted once, however far each was rolled up: both are rolled
up alike, then of each count the larger stays. No row of either is in the result twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.ledger.folding import NOWHERE, added_up, covering, leave_to
from meshnode.core.ledger.ledger import LEDGER, DiagnosticsKey, merged
from meshnode.core.ledger.ledger_rows import (
    key_from_row,
    key_to_row,
    replaced_in,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.ledger.marks import FOLDED
from meshnode.core.ledger.rollups import is_nothing, levelled, month_key_of, summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.core.ledger.ledger import CounterKey, Slot


def joined_rows(
    table: str, ours: Mapping[bytes, bytes], theirs: Mapping[bytes, bytes]
) -> dict[bytes, bytes | None]:
    """Join the rows of a table with those of a lost history: what to write where both speak.

    Counters are counted anew from what is left of the logs; every other row is as we say it now.
    None is a row to be deleted: it is part of another.

    Where theirs leaves out what other nodes say, and ours was said before that was known, theirs
    stays: the two are not of the same. What is on our disk is to be said anew then.
    """
    if table != LEDGER:
        return {}
    if replaced_in(theirs) and not replaced_in(ours):
        return {key: theirs.get(key) for key in ours if counters_of([(key, ours[key])])}
    one, other = counters_of(ours.items()), counters_of(theirs.items())
    horizon = covering(NOWHERE, [*one, *other])
    before = one.keys() | other.keys()
    one, other = (added_up(side, horizon) for side in (one, other))
    moved = levelled(one, other)
    mine, lost = summed(one, moved), summed(other, moved)
    leave_to(mine, lost)
    gone = before - mine.keys() - lost.keys()
    said: dict[bytes, bytes | None] = dict.fromkeys(map(key_to_row, gone))
    joined = {key for key in mine.keys() | lost.keys() if key.session == FOLDED}
    for key in joined | mine.keys() & lost.keys() | set(moved.values()):
        sides = [side[key] for side in (mine, lost) if key in side]
        slot = merged(sides[0], sides[-1])
        is_left = key.session == FOLDED and is_nothing(slot)
        said[key_to_row(key)] = None if is_left else slot_to_row(slot)
    return said


def counters_of(rows: Iterable[tuple[bytes, bytes]]) -> dict[CounterKey, Slot]:
    """Decode the counters among rows of a ledger; what cannot be decoded is passed over."""
    found: dict[CounterKey, Slot] = {}
    for packed, value in rows:
        try:
            key = key_from_row(packed)
            if key is not None and not isinstance(key, DiagnosticsKey):
                found[key] = slot_from_row(value)
        except PeerError:
            continue
    return found


def by_month(counters: Mapping[CounterKey, Slot], rows: int) -> Iterator[dict[CounterKey, Slot]]:
    """Part counters into pieces of that many rows or more, and whole months of a session."""
    months: dict[CounterKey, dict[CounterKey, Slot]] = {}
    for key, slot in counters.items():
        months.setdefault(month_key_of(key), {})[key] = slot
    piece: dict[CounterKey, Slot] = {}
    for month in months.values():
        piece |= month
        if len(piece) >= rows:
            yield piece
            piece = {}
    if piece:
        yield piece
