"""Checkpoints of the log of usage on disk, and dropping records that are old behind them.

Invariant: the first record that is kept follows seq 1 or a signed checkpoint that says what was
dropped; of a dropped record its key's hash stays, so that it is never counted again. Slots stay,
texts go with their record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.keys import Signed
from meshnode.core.ledger.checkpoints import CHECKPOINT, checkpoint_from_signed
from meshnode.core.ledger.ledger import Buckets, Slot
from meshnode.core.ledger.usage_log import START_HASH
from meshnode.store import ledger, rounds, usage_log
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.checkpoints import Checkpoint
    from meshnode.core.ledger.usage_log import Entry

    Sign = Callable[[int, bytes, tuple[int, ...]], Signed]
    """Signs what is known of a seq: its hash, and the totals; none if records are dropped."""

ADDED_AT_ONCE = 2000  # records; so that nobody waits long for the database
DROPPED_AT_ONCE = 2000  # likewise


def newest(connection: sqlite3.Connection) -> int:
    """Return the seq of the newest checkpoint, 0 without any."""
    (seq,) = connection.execute("SELECT ifnull(max(seq), 0) FROM usage_checkpoints").fetchone()
    return int(seq)


def write(connection: sqlite3.Connection, node: NodeId, sign: Sign) -> tuple[int, bytes] | None:
    """Sign where the log is, up to ADDED_AT_ONCE records behind the checkpoint before.

    Return that, None if a checkpoint says so already. The totals are those of the checkpoint before
    and what the records behind it change; only without one, all counters are added up.
    """
    with transaction(connection):
        seq, hash_ = usage_log.tail(connection)
        if seq <= newest(connection):
            return None
        adding = Adding(_newest_whole(connection, node))
        try:
            seq, hash_ = adding.take_page(connection) or (seq, hash_)
        except DamagedError:  # `audit --verify` names it
            adding.totals = None  # they may be half added
        sums = totals(connection) if adding.totals is None else adding.totals
        _keep(connection, seq, sign(seq, hash_, sums))
    return seq, hash_


class Adding:
    """What all counters add up to behind a checkpoint; `totals` are None once that is not known."""

    def __init__(self, since: Checkpoint | None) -> None:
        self.since = since
        self.totals = since.totals if since else None

    def take_page(self, connection: sqlite3.Connection) -> tuple[int, bytes] | None:
        """Count what follows the checkpoint; return the last seq and its hash. DamagedError."""
        before, totals = self.since, self.totals
        if before is None:
            return None
        self.totals = None
        page = usage_log.page(connection, before.seq, ADDED_AT_ONCE)
        if not page or page[-1][0].seq != before.seq + len(page):
            return None  # some are gone
        self.totals = totals
        for entry, _ in page:
            self.take(connection, entry)
        return None if self.totals is None else (page[-1][0].seq, page[-1][1] or START_HASH)

    def take(self, connection: sqlite3.Connection, entry: Entry) -> None:
        """Count a record, and take back the one that it corrects."""
        if self.since is None or entry.seq <= self.since.seq:
            return
        self._add(entry, 1)
        if entry.revision:
            known = usage_log.revisions(connection, entry.record.idem_key)
            before = [one for one in known if one.revision == entry.revision - 1]
            if not before:  # dropped: what it said is not known any more
                self.totals = None
            for one in before:
                self._add(one, -1)

    def _add(self, entry: Entry, sign: int) -> None:
        if self.totals is not None:
            counts = (1, *entry.record.usage.counts)
            self.totals = tuple(
                total + sign * count for total, count in zip(self.totals, counts, strict=True)
            )


def _newest_whole(connection: sqlite3.Connection, node: NodeId) -> Checkpoint | None:
    """Return the newest checkpoint that has totals, if it is one that this node has signed."""
    for signed in _newest_first(connection):
        try:
            found = checkpoint_from_signed(signed, node)
        except PeerError:
            return None
        if found.totals:
            return found
    return None


def kept(connection: sqlite3.Connection) -> list[Signed]:
    """Return all checkpoints, the first first. Nothing in them is verified."""
    return list(_newest_first(connection))[::-1]


def _newest_first(connection: sqlite3.Connection) -> Iterator[Signed]:
    query = "SELECT CAST(payload AS BLOB), CAST(signature AS BLOB) FROM usage_checkpoints"
    for payload, signature in connection.execute(f"{query} ORDER BY seq DESC"):
        yield Signed(CHECKPOINT, payload, signature)


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
