"""The event log on disk, so that it outlives a restart: the newest events, packed.

Invariant: a run goes on after a restart only where the node said at its end that nothing was lost;
otherwise a new run begins, and no position of an earlier one is good any more.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING

import msgspec

from meshnode.app.events.events import EVENTS_MAX, LOG_CHARS, SEQ_MAX, Event
from meshnode.app.events.things import Kind, Op
from meshnode.store.facts import recall
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

RUN_CHARS_MAX = 8  # in decimal digits; what says more is spoilt
_LOG, _RUN, _STOPPED = "events_log", "events_run", "events_stopped"


class Held(msgspec.Struct, frozen=True):
    """The log as the disk has it; `stopped` is what the node left, if it was stopped in order.

    Up to the seq `spoilt` some events make no sense any more, and are missing.
    """

    log_id: str
    run: int
    stopped: bytes | None
    events: list[Event]
    spoilt: int = 0


def begin(connection: sqlite3.Connection, fresh_id: str) -> Held:
    """Begin or go on with a run; what the last one left is handed out once.

    Where the disk has spoilt which log or which run it was, another log begins.
    """
    with transaction(connection):
        log_id, said = recall(connection, _LOG), recall(connection, _RUN)
        stopped = recall(connection, _STOPPED)
        known = log_id is not None and len(log_id) == LOG_CHARS and log_id.isalnum()
        if not known or said is None or not said.isdigit() or len(said) > RUN_CHARS_MAX:
            log_id, said, stopped = fresh_id.encode(), b"0", None
        run = int(said) + (stopped is None)
        _remember(connection, _LOG, log_id or b"")
        _remember(connection, _RUN, str(run).encode())
        connection.execute("DELETE FROM meta WHERE key = ?", (_STOPPED,))
    return Held((log_id or b"").decode(), run, stopped, *_read(connection))


def load(connection: sqlite3.Connection) -> list[Event]:
    """Read the newest EVENTS_MAX events, the oldest first; rows that make no sense are left out."""
    return _read(connection)[0]


def _read(connection: sqlite3.Connection) -> tuple[list[Event], int]:
    found = connection.execute(  # as bytes: a text that is no UTF-8 would end the reading of all
        "SELECT seq, CASE typeof(at_s) WHEN 'real' THEN at_s END,"
        " CAST(kind AS BLOB), CAST(op AS BLOB), CAST(names AS BLOB),"
        " CASE typeof(packed) WHEN 'blob' THEN packed END"
        " FROM events WHERE seq BETWEEN 1 AND ? ORDER BY seq DESC LIMIT ?",
        (SEQ_MAX, EVENTS_MAX),
    )
    events, spoilt = [], 0
    for row in reversed(found.fetchall()):
        try:
            events.append(_event(*row))
        except (ValueError, TypeError, AttributeError, RecursionError):
            spoilt = row[0]
    return events, spoilt


def _event(
    seq: int, at_s: float | None, kind: bytes, op: bytes, names: bytes, packed: bytes | None
) -> Event:
    """Decode a row; raises ValueError, TypeError or AttributeError if it makes no sense."""
    told = tuple(str(name) for name in json.loads(names))
    if at_s is None or packed is None or not isfinite(at_s):
        raise ValueError("no event")
    return Event(seq, at_s, Kind(kind.decode()), Op(op.decode()), told, packed=packed)


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


def _remember(connection: sqlite3.Connection, key: str, value: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
