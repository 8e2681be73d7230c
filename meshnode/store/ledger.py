"""The ledger on disk: the log of records, how far each file is read, and the slots they add up to.

Invariant: records, places and slots change in one transaction, so a crash neither loses nor repeats
a record. Functions are synchronous; the caller owns the connection and its lock. No prompt text is
kept, but for rounds where their texts are asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import astuple, replace

from meshnode.core.errors import ConflictError, PeerError
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import (
    INCOMPLETE,
    Diagnostics,
    DiagnosticsKey,
    Slots,
    StoredReader,
    added_up,
    merged,
)
from meshnode.core.ledger.ledger_rows import diagnostics_from_row, diagnostics_to_row
from meshnode.core.ledger.tiers import anywhere
from meshnode.core.ledger.usage_log import Entry, preferred, says_the_same
from meshnode.store import aliases, counters, elsewhere, log_sessions, rounds, usage_log
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshnode.core.ledger.ledger import (
        Added,
        Batch,
        CounterKey,
        LedgerRow,
        Round,
        Slot,
        UsageRecord,
    )


PLACES_MAX = 200_000  # files of one reader; those beyond are not remembered, and read again


class Mark(msgspec.Struct, frozen=True):
    """How the ledger is: what was written after it is found by `slots(seq)`."""

    seq: int
    commits: int


_NO_CHARGE = Charge()
# What a log's name has behind it then, or before its extension.
_ROTATED = re.compile(
    r"([.-]\d[\dTZ_.:-]*)?(\.gz)?$|-\d{4}-?\d\d-?\d\d[\dTZ_.:-]*(?=\.[a-zA-Z]\w*(\.gz)?$)", re.ASCII
)


def unpriced(record: UsageRecord) -> Charge:
    """Charge nothing that is known: what a process without prices does."""
    del record
    return _NO_CHARGE


def commit(
    connection: sqlite3.Connection,
    batch: Batch,
    now_ms: int,
    price: Callable[[UsageRecord], Charge] = unpriced,
) -> list[LedgerRow]:
    """Keep what a reader read, all or nothing; return the rows to publish.

    A record whose key is known counts as a duplicate; if it is the one that counts from now on, it
    becomes a further revision and the slots are corrected. Raises DamagedError and sqlite3.Error,
    and ConflictError where another process has read on from the places that this reading began
    from; then nothing has changed.
    """
    with transaction(connection):
        if _is_overtaken(connection, batch):
            raise ConflictError("another process has read on from these places")
        before = _diagnostics(connection, batch.key) or Diagnostics()
        seq, before_hash = usage_log.tail(connection)
        records = aliases.settled(connection, batch.records)
        superseded = frozenset(batch.superseded)
        counting = [one for one in records if one.idem_key not in superseded]
        known, fresh = _news(connection, counting if superseded else records)
        counted, nothing = aliases.supersede(connection, batch.superseded)
        known, fresh = known | counted, [*fresh, *nothing]
        # Those of the very records: one that was made of two is priced anew.
        charges = dict(zip(map(id, batch.records), batch.charges, strict=False))
        entries = [
            Entry(
                number,
                known[record.idem_key].revision + 1 if record.idem_key in known else 0,
                now_ms,
                record,
                charges.get(id(record)) or price(record),
            )
            for number, record in enumerate(fresh, seq + 1)
        ]
        right = usage_log.append(connection, usage_log.chain_on(before_hash, entries))
        _keep_texts(connection, batch.rounds, known, fresh)
        wrong = [known[one.idem_key].record for one in fresh if one.idem_key in known]
        slots = _count(connection, added_up(wrong), right, (seq + len(fresh), now_ms / 1000))
        first = len(fresh) - len(wrong)
        incomplete = before.incomplete + _incomplete(fresh) - _incomplete(wrong)
        again = _again(records, known) - first
        told = before + batch.diagnostics
        after = replace(
            told,
            records=before.records + first,
            requests_without_usage=max(told.requests_without_usage, 0),
            duplicates_ignored=told.duplicates_ignored + again,
            quarantined=max(told.quarantined, 0),
            unparsable_lines=max(told.unparsable_lines, 0),
            partial_tail_bytes=batch.diagnostics.partial_tail_bytes,
            incomplete=max(incomplete, 0),
        )
        others = _ended(connection, batch.key, -incomplete) if incomplete < 0 else []
        _keep_places(connection, batch)
        connection.execute(
            "INSERT OR REPLACE INTO usage_readers VALUES (?, ?, ?, ?)",
            (*astuple(batch.key), batch.path, diagnostics_to_row(after)),
        )
    returned = counters.imported_of(connection, [key for key, _ in slots])
    changed = elsewhere.beyond(connection, _with_returned(slots, returned))
    if after != before:
        changed.append((batch.key, after))
    return [*changed, *others]


def load(connection: sqlite3.Connection, key: DiagnosticsKey) -> StoredReader | None:
    """Return how far a reader had read, None if it never has. Raises DamagedError."""
    diagnostics = _diagnostics(connection, key)
    if diagnostics is None:
        return None
    places = connection.execute(
        "SELECT CAST(file AS BLOB), CAST(place AS BLOB) FROM usage_places"
        " WHERE source = ? AND path_hash = ? LIMIT ?",
        (*astuple(key), PLACES_MAX),
    )
    return StoredReader(dict(places), diagnostics)


def readers(connection: sqlite3.Connection) -> list[tuple[str, str, Diagnostics]]:
    """Return the source, the path and the counts of every reader."""
    found = connection.execute(
        "SELECT source, path, CAST(diagnostics AS BLOB) FROM usage_readers ORDER BY source, path"
    )
    with counters.ours("usage_readers"):
        return [(source, path, diagnostics_from_row(packed)) for source, path, packed in found]


def mark(connection: sqlite3.Connection) -> Mark:
    """Return the log's last seq, and a number that another process's commit changes."""
    seq, _ = usage_log.tail(connection)  # first: what another commits in between is after it
    (commits,) = connection.execute("PRAGMA data_version").fetchone()
    return Mark(seq, commits)


def forget_places(connection: sqlite3.Connection, key: DiagnosticsKey) -> None:
    """Let a reader begin anew: it counts nothing twice, since its records stay.

    What it read and left out is counted anew: no key would tell that it was counted before.
    """
    with transaction(connection):
        before = _diagnostics(connection, key)
        if before is not None:
            kept = Diagnostics(records=before.records, incomplete=before.incomplete)
            connection.execute(
                "UPDATE usage_readers SET diagnostics = ? WHERE source = ? AND path_hash = ?",
                (diagnostics_to_row(kept), *astuple(key)),
            )
        connection.execute(
            "DELETE FROM usage_places WHERE source = ? AND path_hash = ?", astuple(key)
        )


def slots(connection: sqlite3.Connection, after_seq: int = -1) -> list[LedgerRow]:
    """Return what was counted: slots that changed after a seq, all readers' diagnostics."""
    rows: list[LedgerRow] = [*counters.counted(connection, after_seq)]
    with counters.ours("usage_readers"):
        found = connection.execute(
            "SELECT source, path_hash, CAST(diagnostics AS BLOB) FROM usage_readers"
        )
        for source, path_hash, packed in found:
            rows.append((DiagnosticsKey(source, path_hash), diagnostics_from_row(packed)))
    return rows


def published(connection: sqlite3.Connection, after_seq: int = -1) -> list[LedgerRow]:
    """Return what is to be published: the same, and what peers have returned beyond it.

    What the ledger of a node says whose place this one has taken is left out.
    """
    returned = counters.imported(connection)
    rows = _with_returned(slots(connection, after_seq), returned)
    if after_seq < 0:
        counted = {key for key, _ in rows}
        rows += [(key, slot) for key, slot in returned.items() if key not in counted]
    return elsewhere.beyond(connection, rows)


def _with_returned(
    rows: Iterable[LedgerRow], returned: Mapping[CounterKey, Slot]
) -> list[LedgerRow]:
    found: list[LedgerRow] = []
    for key, value in rows:
        if isinstance(key, DiagnosticsKey) or isinstance(value, Diagnostics):
            found.append((key, value))  # type: ignore[arg-type] # a reader's key has a reader's row
        else:
            beyond = returned.get(key)
            found.append((key, value if beyond is None else merged(value, beyond)))
    return found


def _count(
    connection: sqlite3.Connection,
    wrong: Sequence[Added],
    right: Sequence[Added],
    now: tuple[int, float],
) -> list[tuple[CounterKey, Slot]]:
    """Correct the counters; `now`: the log's last seq, and the time. Return what changed.

    What is told late is counted where its slot was rolled into, or would be by now.
    """
    seq, now_s = now
    keys = {key for key, _ in (*wrong, *right)}
    places, counted = counters.places_of(connection, keys, now_s)
    with counters.ours("usage_slots"):
        if any(counted.keys().isdisjoint(places[key]) for key, _ in wrong):
            raise PeerError("the slot of a counted record is gone")
    kept = {key: slot for key, (slot, _) in counted.items()}
    changed = Slots(kept, places).correct(wrong, right)
    rows = [(key, counters.Counted(slot, seq)) for key, slot in changed]
    counters.keep_counted(connection, rows)
    return changed


def _news(
    connection: sqlite3.Connection, records: Iterable[UsageRecord]
) -> tuple[dict[str, Entry], list[UsageRecord]]:
    """Return what counted so far of these keys, and what counts from now on where that differs."""
    by_key: dict[str, UsageRecord] = {}
    for record in records:
        other = by_key.get(record.idem_key)
        by_key[record.idem_key] = record if other is None else preferred(other, record)
    known = usage_log.latest(connection, list(by_key))
    dropped = usage_log.dropped(connection, (key for key in by_key if key not in known))
    if not known and not dropped:
        return known, list(log_sessions.attributed(connection, [*by_key.values()]))
    fresh: list[UsageRecord] = []
    unknown: list[UsageRecord] = []
    for key, record in by_key.items():
        counted = known.get(key)
        if counted is None:
            if key not in dropped:
                unknown.append(record)
            continue
        better = preferred(counted.record, log_sessions.as_counted(counted.record, record))
        if better is not counted.record:
            fresh.append(better)
    return known, [*fresh, *log_sessions.attributed(connection, unknown)]


def _keep_texts(
    connection: sqlite3.Connection,
    told: Sequence[Round],
    known: Mapping[str, Entry],
    fresh: Sequence[UsageRecord],
) -> None:
    counting = {key: entry.record for key, entry in known.items()}
    renewed = {one.idem_key: one for one in fresh}
    others = [
        one.idem_key
        for one in fresh
        if one.idem_key in counting and not says_the_same(counting[one.idem_key], one)
    ]
    rounds.drop(connection, others)
    rounds.keep(connection, told, counting | renewed)


def _again(records: Iterable[UsageRecord], known: Mapping[str, Entry]) -> int:
    """Count the lines but those that are what counts: those are only read again."""
    return sum(
        one.idem_key not in known or not _is_itself(known[one.idem_key].record, one)
        for one in records
    )


def _is_itself(counted: UsageRecord, record: UsageRecord) -> bool:
    """Tell whether a record was made of the line that counts; a log may be rotated since.

    Older versions passed over the place that a response was kept in.
    """
    told = log_sessions.as_counted(counted, record)
    if counted.tier == anywhere(told.tier):
        told = msgspec.structs.replace(told, tier=counted.tier)
    if counted.offset != record.offset or not says_the_same(counted, told):
        return False
    names = counted.file, record.file
    return names[0] == names[1] or len({_ROTATED.sub("", name) for name in names}) == 1


def _ended(connection: sqlite3.Connection, key: DiagnosticsKey, responses: int) -> list[LedgerRow]:
    """Take responses that have ended off the counts of others who read the same source."""
    changed: list[LedgerRow] = []
    query = """SELECT path_hash, CAST(diagnostics AS BLOB) FROM usage_readers
        WHERE source = ? AND path_hash != ? ORDER BY path_hash"""
    for path_hash, packed in connection.execute(query, astuple(key)).fetchall():
        with counters.ours("usage_readers"):
            counted = diagnostics_from_row(packed)
        fewer = min(counted.incomplete, responses)
        if fewer:
            responses -= fewer
            after = replace(counted, incomplete=counted.incomplete - fewer)
            connection.execute(
                "UPDATE usage_readers SET diagnostics = ? WHERE source = ? AND path_hash = ?",
                (diagnostics_to_row(after), key.source, path_hash),
            )
            changed.append((DiagnosticsKey(key.source, path_hash), after))
    return changed


def _is_overtaken(connection: sqlite3.Connection, batch: Batch) -> bool:
    if batch.began is None or len(batch.began) >= PLACES_MAX:  # not all that there are were loaded
        return False
    query = """SELECT CAST(place AS BLOB) FROM usage_places
        WHERE source = ? AND path_hash = ? AND file = ?"""
    for file in batch.places:
        (place,) = connection.execute(query, (*astuple(batch.key), file)).fetchone() or (b"",)
        if place != batch.began.get(file, b""):
            return True
    return False


def _keep_places(connection: sqlite3.Connection, batch: Batch) -> None:
    reader = astuple(batch.key)
    connection.executemany(
        "INSERT OR REPLACE INTO usage_places VALUES (?, ?, ?, ?)",
        [(*reader, file, place) for file, place in batch.places.items() if place],
    )
    connection.executemany(
        "DELETE FROM usage_places WHERE source = ? AND path_hash = ? AND file = ?",
        [(*reader, file) for file, place in batch.places.items() if not place],
    )


def _diagnostics(connection: sqlite3.Connection, key: DiagnosticsKey) -> Diagnostics | None:
    row = connection.execute(
        "SELECT CAST(diagnostics AS BLOB) FROM usage_readers WHERE source = ? AND path_hash = ?",
        astuple(key),
    ).fetchone()
    with counters.ours("usage_readers"):
        return diagnostics_from_row(row[0]) if row else None


def _incomplete(records: Iterable[UsageRecord]) -> int:
    return sum(INCOMPLETE in record.flags for record in records)
