"""The replay journal: every command this node has taken, until it could no longer be replayed.

Invariant: a command id is inserted, synced, before its command is executed, and marked, synced,
before its execution begins, with its insertion or later; the same id with the same content returns
what became of it, with other content it is refused. What expires is forgotten together with a
synced note of the time it was, so that a clock set back later is noticed. A new database draws a
new random generation, so that nothing signed for the old one matches.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from meshnode.app.ports import Undone
from meshnode.core.commands.commands import COMMAND, RECEIPT
from meshnode.core.errors import ConflictError, ExhaustedError, MeshError
from meshnode.core.keys import Signed
from meshnode.store.facts import recall
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from meshnode.app.ports import JournalEntry

COMMANDS_MAX = 100_000  # unexpired ones; more: RefusedError
SIGNER_MAX = 25_000  # under one grant, so that three thieves who flood leave room for others
RESERVED = 10  # one in so many places, of all and of each signer, is for kills alone
DIGITS_MAX = 20  # of a generation
ANOTHER_ID = "use a new --command-id"
_GENERATION = "journal_generation"
_FLOOR = "clock_floor"

Result = TypeVar("Result")
Held = Counter[bytes]  # how many unexpired commands there are, by signer


def begin(
    connection: sqlite3.Connection, entry: JournalEntry, now_s: float, held: Held | None = None
) -> Signed | None:
    """Insert a command; None if it is new, its receipt if it was answered before.

    `held` is what `count` has returned, kept up to date here: count anew if the transaction fails.
    Raises ConflictError if the id is known with other content, or its execution was interrupted,
    RefusedError without room.
    """
    with transaction(connection):
        if held is None:
            held = count(connection)
        held.subtract(_forget(connection, now_s))
        known = _known(connection, entry.command_id)
        if known is not None:
            return _answered(entry, *known)
        _check_room(entry, held)
        _insert(connection, entry)
        held[entry.signer] += 1
        return None


def together(
    connection: sqlite3.Connection, works: Sequence[Callable[[sqlite3.Connection], Result]]
) -> list[Result | MeshError]:
    """Do several things in one transaction, which is synced once; a refusal is one's own affair."""
    results: list[Result | MeshError] = []
    with transaction(connection):
        for work in works:
            try:
                results.append(work(connection))
            except MeshError as refusal:
                results.append(refusal)
    return results


def answered(connection: sqlite3.Connection, entry: JournalEntry) -> Signed | None:
    """Return the receipt of a command, None if it is not known; raises ConflictError."""
    known = _known(connection, entry.command_id)
    return None if known is None else _answered(entry, *known)


def execute(connection: sqlite3.Connection, command_id: bytes) -> None:
    """Mark a command whose execution begins now."""
    with transaction(connection):
        connection.execute(
            "UPDATE journal SET state = 'executing' WHERE command_id = ?", (command_id,)
        )


def finish(connection: sqlite3.Connection, command_id: bytes, receipt: Signed) -> None:
    """Keep what became of a command, and drop the command itself."""
    with transaction(connection):
        connection.execute(
            "UPDATE journal SET state = 'done', payload = ?, signature = ?,"
            " command = NULL, mark = NULL WHERE command_id = ?",
            (receipt.payload, receipt.signature, command_id),
        )


def undone(connection: sqlite3.Connection) -> list[Undone]:
    """Return what was taken and not finished when the node ended, as far as it is legible."""
    query = (
        "SELECT CAST(hash AS BLOB), CAST(state AS TEXT), CAST(command AS BLOB),"
        " CAST(mark AS BLOB) FROM journal WHERE state <> 'done' AND command IS NOT NULL"
    )
    found = [
        (content, Undone(Signed(COMMAND, command, mark), state != "accepted"))
        for content, state, command, mark in connection.execute(query)
        if mark is not None
    ]
    return [one for content, one in found if one.command.hash == content]


def count(connection: sqlite3.Connection) -> Held:
    """Count the commands of each signer."""
    query = "SELECT CAST(signer AS BLOB), count(*) FROM journal GROUP BY 1"
    return Counter(dict(connection.execute(query).fetchall()))


def generation(connection: sqlite3.Connection, fresh: int) -> int:
    """Return this database's generation, `fresh` if it has none yet, or one that is spoilt."""
    with transaction(connection):
        value = recall(connection, _GENERATION)
        if value is None or not value.isdigit() or len(value) > DIGITS_MAX:
            value = str(fresh).encode()
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_GENERATION, value))
    return int(value)


def floor(connection: sqlite3.Connection) -> float:
    """Return the latest time that is noted, 0.0 if there is none, or one that is spoilt."""
    value = recall(connection, _FLOOR)
    if value is None or not value.isdigit() or len(value) > DIGITS_MAX:
        return 0.0
    return float(value)


def raise_floor(connection: sqlite3.Connection, now_s: float) -> None:
    """Note what time it is, unless a later one is noted."""
    if int(now_s) > floor(connection):
        with transaction(connection):
            _note(connection, now_s)


def _forget(connection: sqlite3.Connection, now_s: float) -> Held:
    """Forget what has expired; returns how many that were, by signer."""
    query = "SELECT CAST(signer AS BLOB), count(*) FROM journal WHERE expires_s < ? GROUP BY 1"
    forgotten = Counter(dict(connection.execute(query, (int(now_s),)).fetchall()))
    if forgotten:
        connection.execute("DELETE FROM journal WHERE expires_s < ?", (int(now_s),))
        if int(now_s) > floor(connection):
            _note(connection, now_s)
    return forgotten


def _note(connection: sqlite3.Connection, now_s: float) -> None:
    value = str(int(now_s)).encode()
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_FLOOR, value))


def _known(
    connection: sqlite3.Connection, command_id: bytes
) -> tuple[bytes, bytes | None, bytes | None] | None:
    found: tuple[bytes, bytes | None, bytes | None] | None = connection.execute(
        "SELECT CAST(hash AS BLOB), CAST(payload AS BLOB), CAST(signature AS BLOB)"
        " FROM journal WHERE command_id = ?",
        (command_id,),
    ).fetchone()
    return found


def _answered(
    entry: JournalEntry, content: bytes, payload: bytes | None, signature: bytes | None
) -> Signed:
    if content != entry.content_hash:
        raise ConflictError("another command was sent with the same id", ANOTHER_ID)
    if payload is None or signature is None:
        raise ConflictError(
            "this node stopped while it executed this command: the outcome is not known",
            "look at the session, then decide on a new command",
        )
    return Signed(RECEIPT, payload, signature)


def _check_room(entry: JournalEntry, held: Held) -> None:
    later = "try again when older commands expire: most do within minutes"
    if sum(held.values()) >= _places(COMMANDS_MAX, entry):
        kills = "" if entry.is_stop else "; it takes kills only"
        raise ExhaustedError(f"this node's journal is full{kills}", later)
    if held[entry.signer] >= _places(SIGNER_MAX, entry):
        raise ExhaustedError("this signer's share of the node's journal is full", later)


def _places(most: int, entry: JournalEntry) -> int:
    return most if entry.is_stop else most - most // RESERVED


def _insert(connection: sqlite3.Connection, entry: JournalEntry) -> None:
    command = entry.command
    connection.execute(
        "INSERT INTO journal (command_id, hash, expires_s, state, signer, command, mark)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            entry.command_id,
            entry.content_hash,
            entry.expires_s,
            "executing" if entry.begins else "accepted",
            entry.signer,
            command and command.payload,
            command and command.signature,
        ),
    )
