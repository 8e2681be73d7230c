"""The counters of the ledger on disk: slots, days and months, and those that peers have returned.

Invariant: a counter is a row of `usage_slots`, of `usage_imported`, or of both; what is said of it
is the larger of each count. A row of `usage_imported` that counts nothing says that counters of
sessions of the mesh went into that of `usage_slots`. Keys of a kind stand together, by session,
model, tier and time. Functions are synchronous, and change nothing outside the caller's
transaction.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ledger.ledger import DiagnosticsKey, merged
from meshnode.core.ledger.ledger_rows import (
    key_from_row,
    key_to_row,
    keys_begin,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.ledger.rollups import due, either_of, is_part, ways_of
from meshnode.store.asking import asked

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from meshnode.core.ledger.ledger import CounterKey, Slot, SlotKey

_BEHIND = b"\xff"  # more than a text begins with
_SLOT_BYTES = 4  # of its number, at the end of the key of a slot later than 1973
_COARSE = b"\x95\x02"  # where keys of days begin; those of months follow, those of slots precede


class Counted(NamedTuple):
    """A row of `usage_slots`: `seq` is that of the record that changed it last."""

    slot: Slot
    seq: int


def counted(connection: sqlite3.Connection, after_seq: int = -1) -> list[tuple[CounterKey, Slot]]:
    """Return what was counted here, as far as it changed after a seq. Raises DamagedError."""
    query = "SELECT CAST(key AS BLOB), CAST(slot AS BLOB) FROM usage_slots WHERE seq > ?"
    with ours("usage_slots"):
        return list(_decoded(connection.execute(query, (after_seq,))))


def counted_since(
    connection: sqlite3.Connection, slot: int, after_seq: int
) -> list[tuple[CounterKey, Slot]]:
    """Return what was counted here of slots from one on, and what else changed after a seq.

    By their own time, since the clock may have been behind when they changed. Raises DamagedError.
    """
    query = f"""SELECT CAST(key AS BLOB), CAST(slot AS BLOB) FROM usage_slots WHERE seq > ?
        OR key < ? AND substr(CAST(key AS BLOB), -{_SLOT_BYTES}) >= ?"""  # noqa: S608 - our own number
    least = slot.to_bytes(_SLOT_BYTES, "big")
    with ours("usage_slots"):
        return list(_decoded(connection.execute(query, (after_seq, _COARSE, least))))


def of_session(
    connection: sqlite3.Connection, session: str, table: str = "usage_slots"
) -> list[tuple[CounterKey, Slot]]:
    """Return what was counted here of a session under its log's name. Raises DamagedError.

    `table`: another one of counters.
    """
    query = f"""SELECT CAST(key AS BLOB), CAST(slot AS BLOB) FROM {table}
        WHERE key > ? AND key < ?"""  # noqa: S608 - our own names
    with ours(table):
        return [
            row
            for begin in keys_begin(session)
            for row in _decoded(connection.execute(query, (begin, begin + _BEHIND)))
        ]


def imported(connection: sqlite3.Connection) -> dict[CounterKey, Slot]:
    """Return what was counted on a disk that is lost, as the mesh has given it back."""
    query = "SELECT CAST(key AS BLOB), CAST(slot AS BLOB) FROM usage_imported"
    with ours("usage_imported"):
        return dict(_decoded(connection.execute(query)))


def counted_of(
    connection: sqlite3.Connection, keys: Iterable[CounterKey]
) -> dict[CounterKey, Counted]:
    """Return what was counted here of some counters, as far as there are any."""
    query = "SELECT key, CAST(slot AS BLOB), seq FROM usage_slots"
    with ours("usage_slots"):
        return {
            key: Counted(slot_from_row(slot), seq if isinstance(seq, int) else 0)
            for key, slot, seq in _of(connection, query, keys)
        }


def imported_of(
    connection: sqlite3.Connection, keys: Iterable[CounterKey]
) -> dict[CounterKey, Slot]:
    """Return what peers have returned of some counters, as far as there is any."""
    if connection.execute("SELECT 1 FROM usage_imported LIMIT 1").fetchone() is None:
        return {}
    query = "SELECT key, CAST(slot AS BLOB) FROM usage_imported"
    with ours("usage_imported"):
        return {key: slot_from_row(slot) for key, slot in _of(connection, query, keys)}


def said_of(
    counted: Mapping[CounterKey, Counted], imported: Mapping[CounterKey, Slot]
) -> dict[CounterKey, Slot]:
    """Return what is said of counters: of each count the larger."""
    said = dict(imported)
    for key, (slot, _) in counted.items():
        said[key] = merged(slot, said.get(key, slot))
    return said


def places_of(
    connection: sqlite3.Connection, slots: Collection[SlotKey], now_s: float
) -> tuple[dict[SlotKey, tuple[CounterKey, ...]], dict[CounterKey, Counted]]:
    """Return which counters the records of some slots may be in, and what these count so far.

    What comes goes to the first. What a session of the mesh had of a log is in a row without its
    mark only as peers have returned it; of what is counted here that row is others'.
    """
    query = """SELECT EXISTS (SELECT 1 FROM usage_slots WHERE key >= :least)
        OR EXISTS (SELECT 1 FROM usage_imported WHERE key >= :least)"""
    is_rolled_up = connection.execute(query, {"least": _COARSE}).fetchone()[0]
    ways = {key: (ways_of if is_rolled_up else either_of)(key) for key in slots}
    looked_for = set(chain.from_iterable(ways.values()))
    counted = counted_of(connection, looked_for)
    held, returned = counted.keys(), imported_of(connection, looked_for).keys()
    places = {
        key: tuple(one for one in way if one in returned or (one in held and is_part(key, one)))
        or (due(key, now_s),)
        for key, way in ways.items()
    }
    return places, counted


def keep_counted(
    connection: sqlite3.Connection, rows: Iterable[tuple[CounterKey, Counted]]
) -> None:
    """Write rows of `usage_slots`."""
    connection.executemany(
        "INSERT OR REPLACE INTO usage_slots VALUES (?, ?, ?)",
        [(key_to_row(key), slot_to_row(one.slot), one.seq) for key, one in rows],
    )


def keep_imported(connection: sqlite3.Connection, rows: Iterable[tuple[CounterKey, Slot]]) -> None:
    """Write rows of `usage_imported`."""
    connection.executemany(
        "INSERT OR REPLACE INTO usage_imported VALUES (?, ?)",
        [(key_to_row(key), slot_to_row(slot)) for key, slot in rows],
    )


def delete(connection: sqlite3.Connection, keys: Iterable[CounterKey]) -> None:
    """Delete what was rolled into other counters."""
    gone = [(key_to_row(key),) for key in keys]
    connection.executemany("DELETE FROM usage_slots WHERE key = ?", gone)
    connection.executemany("DELETE FROM usage_imported WHERE key = ?", gone)


def _of(
    connection: sqlite3.Connection, query: str, keys: Iterable[CounterKey]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of some counters, as far as they are there, with their keys decoded."""
    named = {key_to_row(key): key for key in keys}
    for row, *values in asked(connection, f"{query} WHERE key IN (?)", list(named)):
        yield named[row], *values


def _decoded(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[CounterKey, Slot]]:
    for packed, slot in rows:
        key = key_from_row(packed)
        if key is not None and not isinstance(key, DiagnosticsKey):
            yield key, slot_from_row(slot)


@contextmanager
def ours(table: str) -> Iterator[None]:
    """Tell of a row that cannot be read as damage: nobody but us writes it."""
    try:
        yield
    except PeerError as error:
        hint = "restore the home from a backup, or move the database away: logs are read again"
        raise DamagedError(
            f"the table {table} holds a broken row: {error.message}", hint
        ) from error
