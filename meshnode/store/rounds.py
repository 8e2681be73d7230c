"""The texts of rounds on disk, beside the log of usage, for as long as there is room.

Invariant: a session keeps at most SESSION_BYTES_MAX and all sessions at most BYTES_MAX of texts:
the oldest go first, and nothing that is counted goes with them. Functions are synchronous, and
change nothing outside the caller's transaction unless they say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError, PeerError
from meshnode.core.ledger.rounds import texts_from_bytes, texts_to_bytes
from meshnode.core.ledger.usage_log import says_the_same
from meshnode.store.asking import asked
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.core.ledger.ledger import Round, UsageRecord
    from meshnode.core.ledger.rounds import Texts


SESSION_BYTES_MAX = 32 << 20
BYTES_MAX = 1 << 30
DROPPED_AT_ONCE = 1000  # so that nobody waits long for the database


def keep(
    connection: sqlite3.Connection, rounds: Iterable[Round], counting: Mapping[str, UsageRecord]
) -> None:
    """Keep the texts of lines that count, the first of each response.

    `counting`: the record of each that counts now. What another line said is nobody's business who
    may read this one: it may be of another session.
    """
    sessions: set[str] = set()
    for one in rounds:
        record, counted = one.record, counting.get(one.record.idem_key)
        if counted is not None and says_the_same(counted, record):
            said = texts_to_bytes(one.texts)
            connection.execute(
                "INSERT OR IGNORE INTO usage_rounds VALUES (?, ?, ?, ?, ?)",
                (record.idem_key, record.session, counted.at_s, len(said), said),
            )
            sessions.add(record.session)
    for session in sessions:
        _drop_oldest(connection, session)


def drop(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Drop the texts of responses of which another line counts now."""
    drop = "DELETE FROM usage_rounds WHERE idem_key = ?"
    connection.executemany(drop, [(key,) for key in keys])


def texts_of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Texts]:
    """Return what is kept of some responses. Raises DamagedError."""
    query = "SELECT idem_key, CAST(said AS BLOB) FROM usage_rounds WHERE idem_key IN (?)"
    found = asked(connection, query, keys)
    try:
        return {key: texts_from_bytes(said) for key, said in found}
    except PeerError as error:
        hint = "restore the home from a backup, or delete the rows: only texts are lost"
        raise DamagedError("the table usage_rounds holds a broken row", hint) from error


def prune(connection: sqlite3.Connection) -> bool:
    """Drop the oldest texts beyond BYTES_MAX; tell whether there may be more to drop.

    One transaction of its own, of at most DROPPED_AT_ONCE rows.
    """
    (held,) = connection.execute("SELECT total(size) FROM usage_rounds").fetchone()
    excess = held - BYTES_MAX
    old: list[tuple[str]] = []
    query = "SELECT idem_key, size FROM usage_rounds ORDER BY at_s LIMIT ?"
    for key, size in connection.execute(query, (DROPPED_AT_ONCE,)):
        if excess <= 0:
            break
        old.append((key,))
        excess -= size
    if old:
        with transaction(connection):
            connection.executemany("DELETE FROM usage_rounds WHERE idem_key = ?", old)
    return len(old) == DROPPED_AT_ONCE


def forget(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Drop the texts of responses of which no record is left."""
    connection.executemany(
        "DELETE FROM usage_rounds WHERE idem_key = ? AND NOT EXISTS"
        " (SELECT 1 FROM usage_log WHERE usage_log.idem_key = usage_rounds.idem_key)",
        [(key,) for key in keys],
    )


def _drop_oldest(connection: sqlite3.Connection, session: str) -> None:
    query = (  # of one moment, the last to come is the newest
        "SELECT size, at_s, rowid FROM usage_rounds WHERE session = ?"
        " ORDER BY at_s DESC, rowid DESC"
    )
    held = 0
    for size, *place in connection.execute(query, (session,)):
        held += size
        if held > SESSION_BYTES_MAX:
            drop = "DELETE FROM usage_rounds WHERE session = ? AND (at_s, rowid) <= (?, ?)"
            connection.execute(drop, (session, *place))
            return
