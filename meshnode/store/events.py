"""The event log on disk, so that it outlives a restart: the newest events, packed.

Invariant: a run goes on after a restart only where the node said at its end that nothing was lost;
otherwise a new run begins, and no position of an earlier one is good any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.app.events import EVENTS_MAX, Event
from meshnode.app.things import Kind, Op
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, op TEXT NOT NULL,
    names TEXT NOT NULL, packed BLOB NOT NULL
);
"""
_LOG, _RUN, _STOPPED = "events_log", "events_run", "events_stopped"


@dataclass(frozen=True, slots=True)
class Held:
    """The log as the disk has it; `stopped` is what the node left, if it was stopped in order."""

    log_id: str
    run: int
    stopped: bytes | None
    events: list[Event]


def begin(connection: sqlite3.Connection, fresh_id: str) -> Held:
    """Begin or go on with a run; what the last one left is handed out once."""
    with transaction(connection):
        log_id = _recall(connection, _LOG)
        stopped = _recall(connection, _STOPPED)
        run = int(_recall(connection, _RUN) or b"0") + (stopped is None)
        _remember(connection, _LOG, log_id or fresh_id.encode())
        _remember(connection, _RUN, str(run).encode())
        connection.execute("DELETE FROM meta WHERE key = ?", (_STOPPED,))
    events = load(connection)
    return Held((log_id or fresh_id.encode()).decode(), run, stopped, events)


def load(connection: sqlite3.Connection) -> list[Event]:
    """Read the newest EVENTS_MAX events, the oldest first; rows that make no sense are left out."""
    found = connection.execute(
        "SELECT seq, at_s, kind, op, names, packed FROM events ORDER BY seq DESC LIMIT ?",
        (EVENTS_MAX,),
    ).fetchall()
    events = []
    for seq, at_s, kind, op, names, packed in reversed(found):
        try:
            told = tuple(str(name) for name in json.loads(names))
            events.append(Event(seq, at_s, Kind(kind), Op(op), told, packed=bytes(packed)))
        except (ValueError, TypeError, RecursionError):
            continue
    return events


def save(
    connection: sqlite3.Connection, events: Iterable[Event], gone: Sequence[int], up_to: int
) -> None:
    """Write packed events; delete those named, and all up to a seq."""
    rows = [
        (one.seq, one.at_s, one.kind, one.op, json.dumps(one.names), one.packed) for one in events
    ]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq in gone])
        connection.execute("DELETE FROM events WHERE seq <= ?", (up_to,))


def stop(connection: sqlite3.Connection, left: bytes) -> None:
    """Say that everything given out is here, so that the next start may go on."""
    with transaction(connection):
        _remember(connection, _STOPPED, left)


def _recall(connection: sqlite3.Connection, key: str) -> bytes | None:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if found is None else bytes(found[0])


def _remember(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
