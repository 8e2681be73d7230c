"""Rolling up the counters on disk, and holding them against what our own feed says.

Invariant: no total changes by a roll-up, neither of what was counted here nor of what is said; a
row goes in the same transaction in which it is added to the coarser one. Functions are synchronous.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import SLOT_S, Buckets, DiagnosticsKey, Slot, SlotKey, merged
from meshnode.core.ledger.ledger_rows import key_from_row, key_to_row, slot_to_row
from meshnode.core.ledger.marks import FOLDED, MARK_DIGITS, SESSION_MARKS, marked
from meshnode.core.ledger.rollups import (
    due,
    is_part,
    less,
    levelled,
    month_key_of,
    moves,
    plus,
    summed,
    way_of,
    written_by,
)
from meshnode.core.periods import DAY_S, DayKey, MonthKey
from meshnode.store import counters, elsewhere
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meshnode.core.ledger.ledger import CounterKey

LOOKED_AT_ONCE = 2000  # rows; then others get a turn
MOVED_AT_ONCE = 500
HELD = "ledger_held"  # the fact which epoch of our feed the ledger was last held against
ROW_BYTES = 512  # that a row which is written takes mostly, but for its key
_MERELY_RETURNED = Slot(0, Buckets())  # peers have such a row, too: it may be of anybody
_MONTHS = b"\x95\x03"  # where keys of months begin: nothing is rolled up further


class Piece(msgspec.Struct, frozen=True):
    """Some of a roll-up: what the feed is to say (None: nothing any more), and what goes where.

    `after`: the key up to which rows were looked at; None: up to the last.
    """

    said: Mapping[CounterKey, Slot | None] = msgspec.field(default_factory=dict)
    moved: Sequence[tuple[CounterKey, CounterKey]] = ()
    after: bytes | None = None


def plan(connection: sqlite3.Connection, now_s: float, after: bytes, room_bytes: int) -> Piece:
    """Look at some counters that follow a key, and say what is to be rolled up; change nothing.

    What the feed is to say takes at most `room_bytes`, or is of one row. Raises DamagedError.
    """
    query = """SELECT CAST(key AS BLOB) FROM usage_slots WHERE key > :after AND key < :end
        UNION SELECT CAST(key AS BLOB) FROM usage_imported WHERE key > :after AND key < :end
        ORDER BY 1 LIMIT :limit"""
    values = {"after": after, "end": _MONTHS, "limit": LOOKED_AT_ONCE}
    found = [row for (row,) in connection.execute(query, values)]
    last = found[-1] if len(found) == LOOKED_AT_ONCE else None
    old: list[CounterKey] = []
    before, room_left = after, room_bytes
    for row in found:
        with counters.ours("usage_slots"):
            key = key_from_row(row)
        is_kept = key is None or isinstance(key, DiagnosticsKey) or key.session == FOLDED
        if not is_kept and due(key, now_s) != key:  # type: ignore[arg-type] # that of a counter
            room_left -= 2 * len(row) + ROW_BYTES
            if old and (room_left < 0 or len(old) == MOVED_AT_ONCE):
                last = before
                break
            old.append(key)  # type: ignore[arg-type] # as above
        before = row
    piece = _piece(connection, old, now_s, last)
    while len(old) > 1 and _size(piece.said) > room_bytes:  # names may be long
        del old[len(old) // 2 :]
        piece = _piece(connection, old, now_s, key_to_row(old[-1]))
    return piece


def _piece(
    connection: sqlite3.Connection, old: Sequence[CounterKey], now_s: float, after: bytes | None
) -> Piece:
    ways = {one for key in old for one in (key, *way_of(key))}
    counted = counters.counted_of(connection, ways)
    held = counters.said_of(counted, counters.imported_of(connection, ways))
    moved = moves(held, now_s)
    said: dict[CounterKey, Slot | None] = dict.fromkeys(key for key, _ in moved)
    said.update(written_by(held, moved))
    beside = elsewhere.rows_of(connection, ways)
    beside |= written_by(beside, [(key, into) for key, into in moved if key in beside])
    said |= {k: less(slot, beside[k]) for k, slot in said.items() if slot and k in beside}
    return Piece(said, moved, after)


def _size(said: Mapping[CounterKey, Slot | None]) -> int:
    values = (slot_to_row(slot) for slot in said.values() if slot is not None)
    return sum(map(len, map(key_to_row, said))) + sum(map(len, values))


def apply(connection: sqlite3.Connection, moved: Iterable[tuple[CounterKey, CounterKey]]) -> None:
    """Roll rows up as they are now: one that is gone is passed over."""
    with transaction(connection):
        moved = list(moved)
        elsewhere.move(connection, moved)
        for key, into in moved:
            counted = counters.counted_of(connection, (key, into))
            imported = counters.imported_of(connection, (key, into))
            said = counters.said_of(counted, imported)
            if key not in said:
                continue
            if key in counted:
                slot, seq = counted[key]
                before = counted.get(into)
                total = plus(before.slot if before else None, slot)
                seq = max(seq, before.seq if before else 0)
                counters.keep_counted(connection, [(into, counters.Counted(total, seq))])
            if imported:  # what is said is the sum of what was said of both
                is_beyond = any(slot != _MERELY_RETURNED for slot in imported.values())
                total = plus(said.get(into), said[key]) if is_beyond else _MERELY_RETURNED
                counters.keep_imported(connection, [(into, total)])
            counters.delete(connection, [key])


def held_at(mesh_id: str, epoch: int) -> bytes:
    """Name an epoch of our feed in a mesh, as the fact `HELD` does."""
    return f"{mesh_id}:{epoch}".encode()


def hold(
    connection: sqlite3.Connection, feed: Mapping[CounterKey, Slot], *, is_net: bool = False
) -> dict[CounterKey, Slot | None]:
    """Keep what our own feed says beyond this disk: counted on one that is lost.

    `feed`: all it says of some months of some sessions, models and tiers, whatever their marks;
    `is_net`: it leaves out what is said elsewhere.
    Returns what it is to say instead, where that is something else; None is nothing any more.
    """
    with transaction(connection):
        keys = of_months(connection, set(map(month_key_of, feed))).union(feed)
        beside = elsewhere.rows_of(connection, keys) if is_net else {}
        whole = _sum_of(feed, beside)
        moved, joined = _joined(connection, keys, whole)
        said: dict[CounterKey, Slot | None] = dict.fromkeys(key for key in moved if key in feed)
        said.update({key: slot for key, slot in joined.items() if whole.get(key) != slot})
        return _beyond(connection, said)


def stand_beside(
    connection: sqlite3.Connection, theirs: Mapping[CounterKey, Slot], *, is_late: bool = False
) -> dict[CounterKey, Slot | None]:
    """Take up what a node has counted whose place ours takes: as lost, and said elsewhere.

    `theirs`: as `feed` of `hold`, of its feed; `is_late`: what peers have returned of ours leaves
    it out already, and was held without it. Returns what ours is to say instead, as `hold` does.
    """
    with transaction(connection):
        keys = of_months(connection, set(map(month_key_of, theirs))).union(theirs)
        moved, joined = _joined(connection, keys, theirs, is_beyond=is_late)
        elsewhere.keep(connection, summed(theirs, moved))
        said: dict[CounterKey, Slot | None] = dict.fromkeys(key for key in moved if key in keys)
        return _beyond(connection, said | joined)


def _joined(
    connection: sqlite3.Connection,
    keys: Iterable[CounterKey],
    theirs: Mapping[CounterKey, Slot],
    *,
    is_beyond: bool = False,
) -> tuple[Mapping[CounterKey, CounterKey], dict[CounterKey, Slot]]:
    """Join our counters with another count of the same; return what moved, and what is said then.

    Of `keys`, all counters of the months of theirs; nothing, where ours are as large already.
    `is_beyond`: what was returned of ours is beyond theirs.
    """
    returned = counters.imported_of(connection, keys)
    held = counters.said_of(counters.counted_of(connection, keys), returned)
    net = [key for key, slot in returned.items() if is_beyond and slot != _MERELY_RETURNED]
    if not net and all(
        key in held and merged(held[key], slot) == held[key] for key, slot in theirs.items()
    ):
        return {}, {}
    moved = levelled(held, theirs)
    elsewhere.move(connection, moved.items())
    apply(connection, [(key, into) for key, into in moved.items() if key in held])
    ours, others = summed(held, moved), summed(theirs, moved)
    joined = {key: merged(slot, ours.get(key, slot)) for key, slot in others.items()}
    rows = {moved.get(key, key) for key in net} & others.keys()
    joined |= {key: plus(ours[key], others[key]) for key in rows}
    joined |= {key: slot for key, slot in ours.items() if key not in joined}
    now = counters.counted_of(connection, joined)
    beyond = [(k, slot) for k, slot in joined.items() if k not in now or now[k].slot != slot]
    # What is corrected is looked for where its row went, which may say no more than is counted.
    unmarked = {into for key, into in moved.items() if not is_part(key, into)} & now.keys()
    beyond += [(key, _MERELY_RETURNED) for key in unmarked if now[key].slot == joined[key]]
    counters.keep_imported(connection, beyond)
    return moved, joined


def _beyond(
    connection: sqlite3.Connection, said: Mapping[CounterKey, Slot | None]
) -> dict[CounterKey, Slot | None]:
    beside = elsewhere.rows_of(connection, said)
    return {k: less(slot, beside[k]) if slot and k in beside else slot for k, slot in said.items()}


def _sum_of(
    one: Mapping[CounterKey, Slot], other: Mapping[CounterKey, Slot]
) -> dict[CounterKey, Slot]:
    return dict(one) | {key: plus(one.get(key), slot) for key, slot in other.items()}


def of_months(connection: sqlite3.Connection, months: Iterable[MonthKey]) -> set[CounterKey]:
    """Return the keys of all counters of some months, whatever their marks; `months` have none."""
    query = """SELECT CAST(key AS BLOB) FROM usage_slots WHERE key BETWEEN :first AND :last
        UNION SELECT CAST(key AS BLOB) FROM usage_imported WHERE key BETWEEN :first AND :last"""
    found: set[CounterKey] = set()
    for month in months:
        for first, last in _ranges(month):
            values = {"first": key_to_row(first), "last": key_to_row(last)}
            for (row,) in connection.execute(query, values):
                with counters.ours("usage_slots"):
                    key = key_from_row(row)
                if key is None or isinstance(key, DiagnosticsKey):
                    continue
                if month_key_of(key) == month:  # between two marks are other months, too
                    found.add(key)
    return found


def _ranges(month: MonthKey) -> Iterator[tuple[CounterKey, CounterKey]]:
    start_s, end_s = month.start_s, month.end_s - 1
    named = month.session, month.model
    tiers = [(month.tier, month.tier)]
    for first, last in ("0" * MARK_DIGITS, "f" * MARK_DIGITS), SESSION_MARKS:
        tiers.append((marked(month.tier, first), marked(month.tier, last)))
    for low, high in tiers:
        yield (
            SlotKey(*named, low, start_s // SLOT_S),
            SlotKey(*named, high, end_s // SLOT_S),
        )
        yield DayKey(*named, low, start_s // DAY_S), DayKey(*named, high, end_s // DAY_S)
        yield MonthKey(*named, low, month.month), MonthKey(*named, high, month.month)
