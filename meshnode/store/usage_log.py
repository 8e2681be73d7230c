"""The raw log of usage on disk: what it says twice is kept once, in `usage_kinds`.

Invariant: rows of `usage_log` are only added, in the order of their seq, each with the hash that
chains it to the one before. Records older than the chain have an empty hash. Functions are
synchronous, and change nothing outside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import DamagedError
from meshnode.core.ids import is_session_id
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    SLOT_MAX,
    SLOT_S,
    Buckets,
    Slots,
    UsageRecord,
    added,
    bucketwise,
    counters_of,
    slot_number,
)
from meshnode.core.ledger.marks import MARK
from meshnode.core.ledger.usage_log import HASH_BYTES, START_HASH, Entry, chained
from meshnode.core.packing import typed
from meshnode.store.asking import asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from meshnode.core.ledger.ledger import Added, CounterKey, Counters, Slot


NEWEST_OF = 1000  # records: they are told in the order of logs, which is not that of time
_INTEGER_MAX = 1 << 63
_BROKEN = "the table usage_log holds a broken row"
_HINT = "restore the home from a backup, or move the database away: logs are read again"
_KIND = "session, source, project, agent, owner, model, provider, tier, flags, file, price_source"
_NUMBERS = "seq, idem_key, revision, recorded_ms, rank, at_s, byte_offset, cost_nusd, hash"
_COUNTS = "input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, web_search"
_FROM = "usage_log JOIN usage_kinds ON usage_kinds.id = kind"
_READ = f"SELECT {_NUMBERS}, {_COUNTS}, {_KIND} FROM {_FROM}"  # noqa: S608 - our own names
_INSERT = f"INSERT INTO usage_log VALUES ({', '.join('?' * 17)})"  # noqa: S608 - no values
_COUNTS_NOW = """NOT EXISTS (SELECT 1 FROM usage_log AS later
    WHERE later.idem_key = usage_log.idem_key AND later.revision > usage_log.revision)"""
_INSERT_KIND = f"INSERT INTO usage_kinds (id, {_KIND}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 - no values
_OF_KIND = f"SELECT id FROM usage_kinds WHERE ({_KIND}) = ({', '.join('?' * 11)})"  # noqa: S608 - no values
_ANY_KIND = "SELECT 1 FROM usage_kinds WHERE session = ? LIMIT 1"
# Under the name that its log has for it, or the mesh: that is the mark of a tier.
_OF_NAME = f"""(SELECT id FROM usage_kinds WHERE session = :name UNION
    SELECT id FROM usage_kinds WHERE :is_id AND instr(tier || '>', '{MARK}' || :name || '>'))"""  # noqa: S608 - our own names
_OF_SESSION = f"""{_READ} WHERE kind IN {_OF_NAME} AND seq > :after
    AND {_COUNTS_NOW} ORDER BY seq LIMIT :limit"""
_SEQS = f"""SELECT seq FROM usage_log WHERE kind IN {_OF_NAME}
    AND {_COUNTS_NOW} ORDER BY at_s, seq"""  # noqa: S608 - our own names
_KINDS = """SELECT id, file, session, model, tier, source, agent, owner, project, provider
    FROM usage_kinds"""
_SOURCE = 3  # among what kinds say
_SUMS = ", ".join(f"sum({name})" for name in _COUNTS.split(", "))
_SLOTS = f"""SELECT kind, CAST(at_s / {SLOT_S} AS INTEGER) AS slot, count(*), {_SUMS} FROM usage_log
    WHERE idem_key NOT IN (SELECT idem_key FROM usage_log WHERE revision > 0) OR {_COUNTS_NOW}
    GROUP BY kind, slot"""  # noqa: S608 - our own names; few have revisions, so few are looked up
_TIMES = f"""SELECT kind, min(at_s), max(at_s) FROM usage_log
    WHERE at_s >= ? AND at_s < ? AND {_COUNTS_NOW} GROUP BY kind"""  # noqa: S608 - our own names


def append(connection: sqlite3.Connection, entries: Iterable[tuple[Entry, bytes]]) -> list[Added]:
    """Add entries with their hashes; they must follow the log's end. Return what they add up to.

    Raises DamagedError.
    """
    kinds = _Kinds(connection)
    told: defaultdict[tuple[int, int], list[tuple[int, ...]]] = defaultdict(list)
    try:
        connection.executemany(_INSERT, (_row(*one, kinds, told) for one in entries))
        connection.executemany(_INSERT_KIND, kinds.fresh)
    except (sqlite3.IntegrityError, OverflowError) as error:  # a kind that records had is gone
        raise DamagedError("the tables usage_log and usage_kinds do not fit", _HINT) from error
    counters = {kind: _counters(texts) for texts, kind in kinds.items()}
    return [
        added(counters[kind], slot, len(counts), bucketwise(counts))
        for (kind, slot), counts in told.items()
    ]


def newest_s(connection: sqlite3.Connection) -> float:
    """Return up to when something was used for sure, in seconds since 1970; 0: nothing is held.

    Of the records that came last, as they are dated or, if that is earlier, were written down: one
    may be dated years ahead.
    """
    query = """SELECT max(min(at_s, recorded_ms / 1000.0)) FROM
        (SELECT at_s, recorded_ms FROM usage_log ORDER BY seq DESC LIMIT ?)"""
    ((found,),) = connection.execute(query, (NEWEST_OF,))
    return found if isinstance(found, float) else 0.0


def tail(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Return the last seq and its hash: (0, START_HASH) of an empty log."""
    query = "SELECT seq, CAST(hash AS BLOB) FROM usage_log ORDER BY seq DESC LIMIT 1"
    seq, hash_ = connection.execute(query).fetchone() or (0, b"")
    return seq, hash_ if len(hash_) == HASH_BYTES else START_HASH


def last_before(connection: sqlite3.Connection, recorded_ms: int) -> int:
    """Return the seq after which all was recorded at a time or later; looks from the end."""
    query = "SELECT seq FROM usage_log WHERE recorded_ms < ? ORDER BY seq DESC LIMIT 1"
    (seq,) = connection.execute(query, (recorded_ms,)).fetchone() or (0,)
    return int(seq)


def latest(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Entry]:
    """Return what counts of each of these keys, as far as they are known."""
    found: dict[str, Entry] = {}
    if connection.execute("SELECT 1 FROM usage_log LIMIT 1").fetchone() is None:
        return found
    query = f"{_READ} WHERE idem_key IN (?) ORDER BY revision"
    found.update((e.record.idem_key, e) for e, _ in _entries(asked(connection, query, keys)))
    return found


def revisions(connection: sqlite3.Connection, idem_key: str) -> list[Entry]:
    """Return all that was ever recorded of one response, the first first."""
    query = f"{_READ} WHERE idem_key = ? ORDER BY revision"
    return [entry for entry, _ in _entries(connection.execute(query, (idem_key,)))]


def beside(connection: sqlite3.Connection, start: str) -> list[Entry]:
    """Return all that was recorded under keys that are a text with a number behind it."""
    query = f"""{_READ} WHERE idem_key > ? AND idem_key < ? || ':'
        ORDER BY length(idem_key), idem_key, revision"""
    return [entry for entry, _ in _entries(connection.execute(query, (start, start)))]


def of_session(
    connection: sqlite3.Connection, session: str, after_seq: int, limit: int
) -> list[Entry]:
    """Return what counts of a session, in the order it was recorded, after a seq."""
    values = {**_named(session), "after": after_seq, "limit": limit}
    return [entry for entry, _ in _entries(connection.execute(_OF_SESSION, values))]


def mark_of(idem_key: str) -> int:
    """Return what is left of a key whose records are dropped: 64 bits of its hash."""
    return int.from_bytes(sha256(idem_key.encode()).digest()[:8], "big", signed=True)


def dropped(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    """Return which of these keys were counted in records that are dropped by now."""
    if connection.execute("SELECT 1 FROM usage_dropped LIMIT 1").fetchone() is None:
        return set()
    marks = {mark_of(key): key for key in keys}
    query = "SELECT mark FROM usage_dropped WHERE mark IN (?)"
    return {marks[mark] for (mark,) in asked(connection, query, list(marks))}


def seqs_of_session(connection: sqlite3.Connection, session: str) -> list[int]:
    """Return the seqs of what counts of a session, in the order of their times."""
    return [seq for (seq,) in connection.execute(_SEQS, _named(session))]


def at_seqs(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, Entry]:
    """Return some entries, as far as they are there."""
    rows = asked(connection, f"{_READ} WHERE seq IN (?)", seqs)
    return {entry.seq: entry for entry, _ in _entries(rows)}


def files(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return the sources and files of all records that there ever were; raises DamagedError."""
    found = set(connection.execute("SELECT source, file FROM usage_kinds"))
    if not {type(text) for one in found for text in one} <= {str}:
        raise DamagedError(_BROKEN, _HINT)
    return found


def slots_where(
    connection: sqlite3.Connection, is_wanted: Callable[[str, str], bool]
) -> list[tuple[CounterKey, Slot]]:
    """Add up to slots what counts of some sources and files, without the roll-ups of all."""
    kinds = _kinds_where(connection, is_wanted)
    rows = [row for row in connection.execute(_SLOTS) if row[0] in kinds]
    for column in zip(*rows, strict=True):
        if set(map(type, column)) != {int} or min(column) < 0:
            raise DamagedError(_BROKEN, _HINT)
    if any(slot > SLOT_MAX for _, slot, *_ in rows):
        raise DamagedError(_BROKEN, _HINT)
    slots = Slots()
    for kind, slot, records, *counts in rows:
        slots.add(*added(kinds[kind], slot, records, Buckets(*counts)))
    return list(slots)


def ends_where(
    connection: sqlite3.Connection,
    is_wanted: Callable[[str, str], bool],
    since_s: float,
    until_s: float,
) -> tuple[float, float] | None:
    """Return the first and the last time in a span that counts of some sources and files.

    In seconds since 1970; None if nothing does. Raises DamagedError.
    """
    kinds = _kinds_where(connection, is_wanted)
    rows = [ends for kind, *ends in connection.execute(_TIMES, (since_s, until_s)) if kind in kinds]
    return (min(first for first, _ in rows), max(last for _, last in rows)) if rows else None


def _kinds_where(
    connection: sqlite3.Connection, is_wanted: Callable[[str, str], bool]
) -> dict[int, Counters]:
    kinds: dict[int, Counters] = {}
    for kind, file, *said in connection.execute(_KINDS):
        if is_wanted(said[_SOURCE], file):
            if set(map(type, said)) != {str}:
                raise DamagedError(_BROKEN, _HINT)
            kinds[kind] = counters_of(tuple(said))
    return kinds


def page(connection: sqlite3.Connection, after_seq: int, limit: int) -> list[tuple[Entry, bytes]]:
    """Return the entries that follow a seq, each with its hash, in their order."""
    query = f"{_READ} WHERE seq > ? ORDER BY seq LIMIT ?"
    return list(_entries(connection.execute(query, (after_seq, limit))))


def chain_on(before: bytes, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Chain entries to a hash, and each to the one before it."""
    for entry in entries:
        before = chained(before, entry)
        yield entry, before


def _named(session: str) -> dict[str, str | bool]:
    return {"name": session, "is_id": is_session_id(session)}


def _counters(texts: Sequence[str]) -> Counters:
    session, source, project, agent, owner, model, provider, tier, *_ = texts
    return counters_of((session, model, tier, source, agent, owner, project, provider))


def _row(
    entry: Entry,
    hash_: bytes,
    kinds: _Kinds,
    told: defaultdict[tuple[int, int], list[tuple[int, ...]]],
) -> tuple[object, ...]:
    """Return an entry as it is kept; tell its counts by its kind and slot."""
    record, charge, counts = entry.record, entry.charge, entry.record.usage.counts
    texts = (
        record.session,
        record.source,
        record.project,
        record.agent,
        record.owner,
        record.model,
        record.provider,
        record.tier,
        " ".join(record.flags),
        record.file,
        charge.price_source,
    )
    kind = kinds[texts]
    told[kind, slot_number(record.at_s)].append(counts)
    return (
        entry.seq,
        record.idem_key,
        entry.revision,
        entry.recorded_ms,
        kind,
        record.rank,
        record.at_s,
        record.offset,
        *counts,
        charge.cost_nusd,
        hash_,
    )


class _Kinds(dict[tuple[str, ...], int]):
    """The ids of what records say alike; those that are `fresh` are still to be written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        (last,) = connection.execute("SELECT max(id) FROM usage_kinds").fetchone()
        self.fresh: list[tuple[object, ...]] = []
        self._connection = connection
        self._next = 1 + int(last or 0)
        self._known: dict[str, bool] = {}  # sessions; most are new, and theirs is not looked for

    def __missing__(self, texts: tuple[str, ...]) -> int:
        session = texts[0]
        if session not in self._known:
            found = self._connection.execute(_ANY_KIND, (session,)).fetchone()
            self._known[session] = found is not None
        known = self._known[session]
        row = self._connection.execute(_OF_KIND, texts).fetchone() if known else None
        if row is None:
            row = (self._next,)
            self.fresh.append((self._next, *texts))
            self._next += 1
        self[texts] = int(row[0])
        return self[texts]


def _entries(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Entry, bytes]]:
    try:
        for row in rows:
            yield _entry(row)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamagedError(_BROKEN, _HINT) from error


def _entry(row: Sequence[Any]) -> tuple[Entry, bytes]:
    seq, key, revision, recorded_ms, rank, at_s, offset, cost_nusd, hash_, *rest = row
    counts, texts = rest[:7], [typed(text, str) for text in rest[7:]]
    session, source, project, agent, owner, model, provider, tier, flags, file, price = texts
    record = UsageRecord(
        idem_key=str(key),
        source=source,
        at_s=float(at_s),
        session=session,
        project=project,
        agent=agent,
        owner=owner,
        model=model,
        provider=provider,
        tier=tier,
        usage=Buckets(*map(int, counts)),
        flags=tuple(flags.split()),
        rank=int(rank),
        file=file,
        offset=int(offset),
    )
    if not (0 <= record.at_s <= SLOT_MAX * SLOT_S and min(record.usage.counts) >= 0):
        raise ValueError("a time or a count that no reader gives")
    if not all(-_INTEGER_MAX <= number < _INTEGER_MAX for number in (record.rank, record.offset)):
        raise ValueError("a number that no reader gives")
    charge = Charge(None if cost_nusd is None else int(cost_nusd), price)
    numbers = (int(seq), int(revision), int(recorded_ms))
    return Entry(*numbers, record, charge), bytes(hash_)
