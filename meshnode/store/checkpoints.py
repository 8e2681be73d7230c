"""Checkpoints of the log of usage on disk, and dropping records that are old behind them.

Invariant: the first record that is kept follows seq 1 or a signed checkpoint that says what was
dropped; of a dropped record its key's hash stays, so that it is never counted again. Slots stay,
texts go with their record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.checkpoints import CHECKPOINT
from meshnode.core.keys import Signed
from meshnode.core.ledger import Buckets, Slot
from meshnode.core.usage_log import START_HASH
from meshnode.store import ledger, rounds, usage_log
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    Sign = Callable[[int, bytes, tuple[int, ...]], Signed]
    """Signs what is known of a seq: its hash, and the totals; none if records are dropped."""

DROPPED_AT_ONCE = 2000  # so that nobody waits long for the database


def newest(connection: sqlite3.Connection) -> int:
    """Return the seq of the newest checkpoint, 0 without any."""
    (seq,) = connection.execute("SELECT ifnull(max(seq), 0) FROM usage_checkpoints").fetchone()
    return int(seq)


def write(connection: sqlite3.Connection, sign: Sign) -> tuple[int, bytes] | None:
    """Sign where the log is now; return that, None if a checkpoint says so already."""
    with transaction(connection):
        seq, hash_ = usage_log.tail(connection)
        if seq <= newest(connection):
            return None
        _keep(connection, seq, sign(seq, hash_, totals(connection)))
    return seq, hash_


def kept(connection: sqlite3.Connection) -> list[Signed]:
    """Return all checkpoints, the first first. Nothing in them is verified."""
    query = "SELECT CAST(payload AS BLOB), CAST(signature AS BLOB) FROM usage_checkpoints"
    found = connection.execute(f"{query} ORDER BY seq")
    return [Signed(CHECKPOINT, payload, signature) for payload, signature in found]


def totals(connection: sqlite3.Connection) -> tuple[int, ...]:
    """Add up all counters: records, then the buckets. Raises DamagedError."""
    slots = [slot for _, slot in ledger.slots(connection) if isinstance(slot, Slot)]
    counts = (slot.usage.counts for slot in slots)
    zeros = (0,) * len(Buckets().counts)
    return (sum(slot.records for slot in slots), *map(sum, zip(zeros, *counts, strict=True)))


def drop(
    connection: sqlite3.Connection, before_ms: int, now_ms: int, sign: Sign
) -> tuple[int, bytes] | None:
    """Drop the oldest records that were recorded before a time: DROPPED_AT_ONCE at most.

    Return the last seq of them and its hash, None if there was nothing to do. The last record of
    the log always stays, since the next one is chained to it.

    A clock that was wrong for a moment neither keeps nor takes what was recorded beside it: their
    order is true. What seems to be recorded after `now_ms` is as old as what follows it, and
    nothing goes that follows a record of between the two times.
    """
    with transaction(connection):
        old: list[tuple[int, str, bytes]] = []
        query = "SELECT seq, idem_key, recorded_ms, hash FROM usage_log WHERE seq <= ? ORDER BY seq"
        values = (_last_old(connection, before_ms, now_ms), DROPPED_AT_ONCE)
        for seq, key, recorded_ms, hash_ in connection.execute(f"{query} LIMIT ?", values):
            if not isinstance(recorded_ms, int) or not isinstance(key, str):
                return None  # `audit --verify` says what is wrong with it
            old.append((seq, key, bytes(hash_)))
        if not old:
            return None
        seq, _, hash_ = old[-1]
        hash_ = hash_ or START_HASH
        connection.executemany(
            "INSERT OR IGNORE INTO usage_dropped VALUES (?)",
            [(usage_log.mark_of(key),) for _, key, _ in old],
        )
        connection.execute("DELETE FROM usage_log WHERE seq <= ?", (seq,))
        rounds.forget(connection, (key for _, key, _ in old))
        connection.execute("DELETE FROM usage_checkpoints WHERE seq <= ?", (seq,))
        _keep(connection, seq, sign(seq, hash_, ()))
    return seq, hash_


def _last_old(connection: sqlite3.Connection, before_ms: int, now_ms: int) -> int:
    """Return the seq up to which records are old; 0 if none are."""
    last, _ = usage_log.tail(connection)
    young = """SELECT seq FROM usage_log WHERE NOT (recorded_ms < ? OR recorded_ms > ?)
        ORDER BY seq LIMIT 1"""
    (end,) = connection.execute(young, (before_ms, now_ms)).fetchone() or (last,)
    old = "SELECT seq FROM usage_log WHERE seq < ? AND recorded_ms < ? ORDER BY seq DESC LIMIT 1"
    (found,) = connection.execute(old, (min(end, last), before_ms)).fetchone() or (0,)
    return int(found)


def _keep(connection: sqlite3.Connection, seq: int, signed: Signed) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO usage_checkpoints VALUES (?, ?, ?)",
        (seq, signed.payload, signed.signature),
    )
