"""The audit log on disk: written with whatever transaction comes next, read record by record.

Invariant: a record is chained to the one before it in the transaction that writes both, and no seq
is ever given out twice by one log. Records are dropped from the oldest on, in the transaction that
writes the record which says so.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.core.commands.audit import (
    DROPPED,
    HASH_BYTES,
    LOG_MAX,
    TEXTS,
    AuditRecord,
    Kept,
    cut_texts,
    dropped_detail,
    start_hash,
)
from meshnode.store.facts import recall
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshnode.app.ports import Sought

RECORDS_MAX = 100_000  # more: the oldest DROPPED_AT_ONCE are dropped
DROPPED_AT_ONCE = 1_000
KEPT_MAX = 2 * RECORDS_MAX  # read of a disk, whatever somebody has put there
KEPT_MS = 400 * 86_400_000  # older records are dropped, once some are SLACK_MS older than that
SLACK_MS = 30 * 86_400_000
LATE_S = 600.0  # for which all records must say that it is so late: a clock may jump for a moment
WAITING_MAX = 4_096  # records that wait for a disk, 80 ms of its time; more are only counted
LOST = "records_lost"
_LOG = "audit_log"
_INSERT = f"INSERT OR REPLACE INTO audit VALUES ({', '.join('?' * (len(TEXTS) + 3))})"  # noqa: S608 - our own names; replaces what no node has written
_BYTES = ", ".join(f"CAST({name} AS BLOB)" for name in (*TEXTS, "hash"))
_READ = f"SELECT seq, at_ms, {_BYTES} FROM audit"  # noqa: S608 - our own names; as bytes: a text that is no UTF-8 would end the reading of all


class Tail(msgspec.Struct, frozen=True):
    """Where a log is on this disk; `first` and `first_at_ms` are of the oldest record kept."""

    log: int
    seq: int
    hash: bytes
    first: int = 1
    first_at_ms: int = 0


class Noted(msgspec.Struct, frozen=True):
    """What is to be recorded, without its place in the log.

    `steady_s`: when it was, on a clock that does not jump; where it is not given, nothing is old.
    """

    at_ms: int
    texts: Mapping[str, str]
    steady_s: float = 0.0


def tail_of(connection: sqlite3.Connection, node_key: bytes) -> Tail | None:
    """Return where the log is; None if there never was one."""
    said = recall(connection, _LOG)
    if said is None:
        return None
    log = int(said) if said.isdigit() and int(said) <= LOG_MAX else 1
    first, last = (
        connection.execute(f"SELECT seq, at_ms, hash FROM audit ORDER BY seq {order}").fetchone()  # noqa: S608 - one of two words
        for order in ("ASC", "DESC")
    )
    if first is None or last is None:
        return Tail(log, 0, start_hash(node_key, log))
    seq, _, chain = last
    whole = isinstance(chain, bytes) and len(chain) == HASH_BYTES
    at_ms = first[1] if isinstance(first[1], int) else 0
    return Tail(log, seq, chain if whole else bytes(HASH_BYTES), first[0], at_ms)


def begin(connection: sqlite3.Connection, node_key: bytes, fresh_log: int) -> Tail:
    """Return where the log is; one that never was begins, under a random number."""
    tail = tail_of(connection, node_key)
    if tail is None:
        with transaction(connection):
            said = (_LOG, str(fresh_log).encode())
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", said)
        tail = Tail(fresh_log, 0, start_hash(node_key, fresh_log))
    return tail


def newest(connection: sqlite3.Connection, sought: Sought) -> list[Kept]:
    """Return the newest records that are sought, the oldest of them first."""
    where = ["at_ms >= ?"]
    values: list[object] = [sought.since_ms]
    if sought.session:
        where.append("substr(session, 1, ?) = ?")
        values += [len(sought.session), sought.session]
    if sought.kinds:
        where.append(f"kind IN ({', '.join('?' * len(sought.kinds))})")
        values += sought.kinds
    query = f"{_READ} WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    return [_kept(row) for row in connection.execute(query, (*values, sought.limit))][::-1]


def page(connection: sqlite3.Connection, after: int, limit: int) -> list[Kept]:
    """Return the records that follow a seq, in their order."""
    query = f"{_READ} WHERE seq > ? ORDER BY seq LIMIT ?"
    return [_kept(row) for row in connection.execute(query, (after, limit)).fetchall()]


def hash_at(connection: sqlite3.Connection, seq: int) -> bytes | None:
    """Return the hash kept with a record; None if there is no such record."""
    query = "SELECT CAST(hash AS BLOB) FROM audit WHERE seq = ?"
    row = connection.execute(query, (seq,)).fetchone()
    return None if row is None else bytes(row[0])


def _kept(row: Sequence[object]) -> Kept:
    seq, at_ms, *texts, chain = row
    place = seq if isinstance(seq, int) else 0
    chain = chain if isinstance(chain, bytes) else b""
    try:
        named = {
            name: raw.decode()
            for name, raw in zip(TEXTS, texts, strict=True)
            if isinstance(raw, bytes)
        }
    except UnicodeDecodeError:
        return Kept(place, None, chain)
    sound = len(named) == len(TEXTS) and cut_texts(named) == named
    if not sound or not isinstance(at_ms, int) or at_ms < 0 or place < 1:
        return Kept(place, None, chain)
    return Kept(place, AuditRecord(place, at_ms, **named), chain)


class AuditRider:
    """Records that wait, and where the log is once they are written.

    `put` is called on the loop's thread, all else on the database's. `on_arrived` hears, there, of
    every new tail; `on_trouble` of a table that takes no records, though the disk works.
    """

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.on_arrived: Callable[[Tail], None] = lambda _tail: None
        self.on_trouble: Callable[[str], None] = lambda _words: None
        self._waiting: deque[Noted] = deque()
        self._lost = 0
        self._lost_told = 0
        self._boarded = 0
        self._lost_boarded = 0
        self._next = tail
        self._late_since_s: float | None = None  # by the steady clock; None: it is not

    @property
    def waiting(self) -> bool:
        """Whether records wait."""
        return bool(self._waiting)

    def put(self, noted: Noted) -> None:
        """Let a record wait for the next transaction."""
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
        else:
            self._waiting.append(noted)

    def board(self, connection: sqlite3.Connection) -> None:
        """Write what waits. Raises sqlite3.Error for a disk that fails."""
        count = len(self._waiting)
        if count == 0:
            return
        noted = [self._waiting[at] for at in range(count)]
        lost = self._lost
        if lost > self._lost_told:
            said = {"kind": LOST, "detail": f"{lost - self._lost_told}, while the disk took none"}
            noted.append(replace(noted[-1], texts=said))
        connection.execute("SAVEPOINT audit")
        try:
            self._next = self._write(connection, noted)
        except sqlite3.Error as error:
            if (getattr(error, "sqlite_errorcode", 1) & 0xFF) != sqlite3.SQLITE_ERROR:
                raise
            connection.execute("ROLLBACK TO audit")
            self.on_trouble(str(error))
        else:
            self._boarded, self._lost_boarded = count, lost
        connection.execute("RELEASE audit")

    def arrived(self) -> None:
        """Take the records off the list, and go on from the new tail."""
        if self._boarded == 0:
            return
        for _ in range(self._boarded):
            self._waiting.popleft()
        self._boarded, self._lost_told, self.tail = 0, self._lost_boarded, self._next
        self.on_arrived(self.tail)

    def missed(self) -> None:
        """Keep the records for the next transaction."""
        self._boarded = 0

    def _write(self, connection: sqlite3.Connection, noted: Iterable[Noted]) -> Tail:
        tail = self.tail
        for one in noted:
            tail = _append(connection, tail, one)
            is_late = self._is_late(one, tail)
            if is_late or tail.seq - tail.first >= RECORDS_MAX:
                tail = _drop(connection, tail, one.at_ms)
        return tail

    def _is_late(self, noted: Noted, tail: Tail) -> bool:
        """Whether the oldest records are too old, by all that was noted for LATE_S."""
        if noted.at_ms - tail.first_at_ms <= KEPT_MS + SLACK_MS:
            self._late_since_s = None
        elif self._late_since_s is None:
            self._late_since_s = noted.steady_s
        elif noted.steady_s - self._late_since_s >= LATE_S:
            self._late_since_s = noted.steady_s
            return True
        return False


def _append(connection: sqlite3.Connection, tail: Tail, noted: Noted) -> Tail:
    record = AuditRecord(tail.seq + 1, noted.at_ms, **cut_texts(noted.texts))
    chain = record.hash_after(tail.hash)
    connection.execute(_INSERT, (*record.values, chain))
    begun = {} if tail.seq else {"first": record.seq, "first_at_ms": record.at_ms}
    return replace(tail, seq=record.seq, hash=chain, **begun)


def _drop(connection: sqlite3.Connection, tail: Tail, now_ms: int) -> Tail:
    """Drop the oldest DROPPED_AT_ONCE records; only old ones of them, unless there are too many."""
    up_to = tail.first + DROPPED_AT_ONCE - 1
    if tail.seq - tail.first < RECORDS_MAX:
        query = "SELECT min(seq) - 1 FROM audit WHERE at_ms >= ?"
        (last_old,) = connection.execute(query, (now_ms - KEPT_MS,)).fetchone()
        up_to = min(up_to, last_old)
    up_to = min(up_to, tail.seq - 1)
    chain = hash_at(connection, up_to)
    if chain is None:  # somebody else has dropped it: nothing is said about what is not known
        return replace(tail, first_at_ms=now_ms)
    connection.execute("DELETE FROM audit WHERE seq <= ?", (up_to,))
    said = Noted(now_ms, {"kind": DROPPED, "detail": dropped_detail(up_to, chain)})
    tail = _append(connection, tail, said)
    query = "SELECT seq, at_ms FROM audit ORDER BY seq LIMIT 1"
    first, first_at_ms = connection.execute(query).fetchone()
    return replace(tail, first=first, first_at_ms=first_at_ms)


def write_waiting(connection: sqlite3.Connection) -> None:
    """Commit a transaction that carries nothing but its rider."""
    with transaction(connection):
        pass
