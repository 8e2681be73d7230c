"""Whose the sessions of usage logs are: which session of the mesh had which, and when.

Invariant: a response is told under a session of the mesh only where that session's supervisor has
said that its own process, and nobody else's, had the log session when the response was made; or
where what peers have returned says so. What is counted stays as it was counted. Functions are
synchronous, and change nothing outside the caller's transaction unless they say so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import slot_key_of
from meshnode.core.ledger.log_sessions import SOURCES, Whose
from meshnode.core.ledger.marks import marked, session_in
from meshnode.core.ledger.rollups import month_key_of
from meshnode.store import counters, rollups
from meshnode.store.asking import asked
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.core.ledger.ledger import CounterKey, Slot, UsageRecord
    from meshnode.core.ledger.log_sessions import LogSession
    from meshnode.core.periods import MonthKey

    Had = tuple[float, float, Whose]
    """From when until when a log session was whose."""

KEPT_MAX = 50_000  # of all sessions; beyond, those that ended go first, then the oldest


def keep(connection: sqlite3.Connection, had: Iterable[tuple[Whose, LogSession]]) -> None:
    """Keep which log sessions were had, in one transaction of its own."""
    rows = [(one.name, one.source, one.since_s, one.until_s, *whose) for whose, one in had]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO log_sessions VALUES (?,?,?,?,?,?,?)", rows)
        beyond = "DELETE FROM log_sessions WHERE rowid IN (SELECT rowid FROM log_sessions"
        order = "ORDER BY until_s = ? DESC, since_s DESC LIMIT -1 OFFSET ?"
        connection.execute(f"{beyond} {order})", (math.inf, KEPT_MAX))


def still_had(connection: sqlite3.Connection) -> dict[tuple[str, str], tuple[str, float]]:
    """Return what was had when somebody last looked: whose, and since when."""
    query = "SELECT source, name, session, since_s FROM log_sessions WHERE until_s = ?"
    found = connection.execute(query, (math.inf,))
    return {(source, name): (session, since_s) for source, name, session, since_s in found}


def sources(connection: sqlite3.Connection) -> set[str]:
    """Return the sources of all log sessions that sessions of the mesh had."""
    return {source for (source,) in connection.execute("SELECT DISTINCT source FROM log_sessions")}


def forget(connection: sqlite3.Connection, before_s: float) -> None:
    """Forget what ended before a time, in one transaction of its own."""
    with transaction(connection):
        connection.execute("DELETE FROM log_sessions WHERE until_s < ?", (before_s,))


def attributed(
    connection: sqlite3.Connection, records: Sequence[UsageRecord]
) -> Sequence[UsageRecord]:
    """Return records that were never counted as they are to be counted, in their order."""
    had = _had(connection, {one.session for one in records})
    is_returned = connection.execute("SELECT 1 FROM usage_imported LIMIT 1").fetchone() is not None
    if not had and not is_returned:
        return records
    returned = _Returned(connection) if is_returned else None
    found = []
    for one in records:
        whose = returned.whose(one) if returned else None
        whose = whose or _whose(had.get((one.source, one.session), ()), one)
        found.append(one if whose is None else _told_under(one, whose))
    return found


def as_counted(known: UsageRecord, record: UsageRecord) -> UsageRecord:
    """Return what a log says anew of a response as that is counted already."""
    session = session_in(known.session, known.tier)
    if session == known.session:
        return record
    return _told_under(record, Whose(session, known.agent, known.owner))


def _told_under(record: UsageRecord, whose: Whose) -> UsageRecord:
    tier = marked(record.tier, whose.session)
    return msgspec.structs.replace(record, agent=whose.agent, owner=whose.owner, tier=tier)


def _had(connection: sqlite3.Connection, names: set[str]) -> Mapping[tuple[str, str], list[Had]]:
    found: dict[tuple[str, str], list[Had]] = {}
    if connection.execute("SELECT 1 FROM log_sessions LIMIT 1").fetchone() is not None:
        query = "SELECT * FROM log_sessions WHERE name IN (?)"
        for name, source, since_s, until_s, *whose in asked(connection, query, list(names)):
            found.setdefault((source, name), []).append((since_s, until_s, Whose(*whose)))
    return found


def _whose(had: Iterable[Had], record: UsageRecord) -> Whose | None:
    """Return whose a response is: nobody's where two have had its log session at once."""
    found = {whose for since_s, until_s, whose in had if since_s <= record.at_s < until_s}
    return found.pop() if len(found) == 1 else None


class _Returned:
    """What a lost disk has counted, as peers have returned it: it is told as it was then.

    Or it would be counted twice: as they say, and as a log does that is read anew.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._months: dict[MonthKey, Mapping[CounterKey, Slot]] = {}

    def whose(self, record: UsageRecord) -> Whose | None:
        if record.source not in SOURCES:
            return None
        month = month_key_of(slot_key_of(record))
        if month not in self._months:
            keys = rollups.of_months(self._connection, [month])
            self._months[month] = counters.imported_of(self._connection, keys)
        for key, slot in self._months[month].items():
            session = session_in("", key.tier)
            if session and key.start_s <= record.at_s < key.end_s:
                return Whose(session, slot.agent, slot.owner)  # the only one: see `levelled`
        return None
