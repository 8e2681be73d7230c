"""The replay journal: every command this node has taken, until it could no longer be replayed.

Invariant: a command id is inserted, synced, before its command is executed; the same id with the
same content returns what became of it, with other content it is refused. A new database draws a new
random generation, so that nothing signed for the old one matches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.commands import RECEIPT
from meshnode.core.errors import ConflictError, RefusedError
from meshnode.core.keys import Signed
from meshnode.store.facts import recall
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3

    from meshnode.app.ports import JournalEntry

COMMANDS_MAX = 100_000  # more unexpired ones: RefusedError
DIGITS_MAX = 20  # of a generation
_GENERATION = "journal_generation"
SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    command_id BLOB PRIMARY KEY, hash BLOB NOT NULL, expires_s INTEGER NOT NULL,
    payload BLOB, signature BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS journal_expires ON journal (expires_s);
"""


def begin(connection: sqlite3.Connection, entry: JournalEntry, now_s: float) -> Signed | None:
    """Insert a command; None if it is new, its receipt if it was answered before.

    Raises ConflictError if the id is known with other content, or its execution was interrupted.
    """
    with transaction(connection):
        connection.execute("DELETE FROM journal WHERE expires_s < ?", (int(now_s),))
        known = connection.execute(
            "SELECT CAST(hash AS BLOB), CAST(payload AS BLOB), CAST(signature AS BLOB)"
            " FROM journal WHERE command_id = ?",
            (entry.command_id,),
        ).fetchone()
        if known is None:
            _insert(connection, entry)
            return None
    content, payload, signature = known
    if content != entry.content_hash:
        raise ConflictError("another command was sent with the same id", "use a new --command-id")
    if payload is None or signature is None:
        raise ConflictError(
            "this node stopped while it executed this command: the outcome is not known",
            "look at the session, then decide on a new command",
        )
    return Signed(RECEIPT, payload, signature)


def _insert(connection: sqlite3.Connection, entry: JournalEntry) -> None:
    (count,) = connection.execute("SELECT count(*) FROM journal").fetchone()
    if count >= COMMANDS_MAX:
        raise RefusedError("this node's journal is full", "try again when older commands expire")
    connection.execute(
        "INSERT INTO journal VALUES (?, ?, ?, NULL, NULL)",
        (entry.command_id, entry.content_hash, entry.expires_s),
    )


def finish(connection: sqlite3.Connection, command_id: bytes, receipt: Signed) -> None:
    """Keep what became of a command."""
    with transaction(connection):
        connection.execute(
            "UPDATE journal SET payload = ?, signature = ? WHERE command_id = ?",
            (receipt.payload, receipt.signature, command_id),
        )


def generation(connection: sqlite3.Connection, fresh: int) -> int:
    """Return this database's generation, `fresh` if it has none yet, or one that is spoilt."""
    with transaction(connection):
        value = recall(connection, _GENERATION)
        if value is None or not value.isdigit() or len(value) > DIGITS_MAX:
            value = str(fresh).encode()
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_GENERATION, value))
    return int(value)
