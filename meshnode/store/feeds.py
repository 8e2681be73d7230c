"""Feeds and the control set on disk: the newest header of each feed, and its rows.

Invariants. A feed's header and rows change in one transaction, so what is on disk is a state that
its owner signed. What is not, because the disk has changed it, is left out and named, never given
out. A checksum beside each row tells which of them still are what was written, for the one feed
that no peer may be able to return: our own.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from meshnode.core.control.entries import entry_id_of
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import FLUSH, Header, parse_header
from meshnode.core.feeds.rows import Row, Rows, all_rows
from meshnode.core.ids import node_key_of
from meshnode.core.keys import Signed, verify
from meshnode.store import forks
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.rows import Place
    from meshnode.core.ids import NodeId


class Damaged(msgspec.Struct, frozen=True):
    """A feed of which the disk holds something else than its owner signed.

    `origin` is as the disk has it. `header` is the owner's newest, if that at least is intact.
    """

    origin: str
    reason: str
    header: Header | None = None


class Held(msgspec.Struct):
    """Everything replicated that the disk can prove, and what it has damaged."""

    feeds: list[tuple[Header, Rows]]
    control: list[Signed]
    damaged: list[Damaged] = msgspec.field(default_factory=list)
    damaged_entries: int = 0


def save(
    connection: sqlite3.Connection,
    changes: Iterable[Change],
    entries: Iterable[Signed],
    dropped: Iterable[bytes] = (),
) -> None:
    """Write changes of feeds and control entries, and delete dropped ones, in one transaction."""
    with transaction(connection):
        for change in changes:
            _save_change(connection, change)
        for entry in entries:
            _put_entry(connection, entry)
        connection.executemany("DELETE FROM control WHERE id = ?", [(one,) for one in dropped])


def _save_change(connection: sqlite3.Connection, change: Change) -> None:
    origin = change.origin
    if change.flush is None:
        connection.execute("DELETE FROM rows WHERE origin = ?", (origin,))
    connection.executemany(
        "DELETE FROM rows WHERE origin = ? AND tab = ? AND key = ?",
        [(origin, table, key) for (table, key), row in change.rows.items() if row is None],
    )
    _put_rows(connection, origin, change.rows)
    forks.drop_cleared(connection, origin, change.header.epoch)
    _put_header(connection, change.header)


def _put_header(connection: sqlite3.Connection, header: Header) -> None:
    signed = header.signed
    if signed is None:
        raise ValueError("only signed headers are stored")
    connection.execute(
        "INSERT OR REPLACE INTO feeds VALUES (?, ?, ?)",
        (header.origin, signed.payload, signed.signature),
    )


def _put_entry(connection: sqlite3.Connection, entry: Signed) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO control VALUES (?, ?, ?, ?)",
        (entry_id_of(entry), entry.type, entry.payload, entry.signature),
    )


def _put_rows(
    connection: sqlite3.Connection, origin: str, rows: Mapping[Place, Row | None]
) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (origin, *place, row.epoch, row.seq, row.value, _checksum(place, row))
            for place, row in rows.items()
            if row is not None
        ],
    )


def _checksum(place: Place, row: Row) -> int:
    written = b"%d.%d.%d.%b" % (row.epoch, row.seq, len(place[1]), place[0].encode())
    return crc32(row.value, crc32(place[1], crc32(written)))


def load(connection: sqlite3.Connection) -> Held:
    """Read everything replicated and prove it, one feed after the other; raises sqlite3.Error.

    A feed costs two hashes a row, which its replica needs anyway, and one signature.
    """
    held = Held([], [])
    with _no_texts(connection):
        found = connection.execute("SELECT CAST(origin AS BLOB), payload, signature FROM feeds")
        for origin, payload, signature in found.fetchall():
            fed = _proved(connection, origin, payload, signature)
            if isinstance(fed, Damaged):
                held.damaged.append(fed)
            else:
                held.feeds.append(fed)
        found = connection.execute(
            "SELECT CAST(id AS BLOB), CAST(type AS BLOB), payload, signature FROM control"
        )
        for entry_id, kind, payload, signature in found:
            entry = _entry(kind, payload, signature)
            if entry is None or entry_id_of(entry) != entry_id:
                held.damaged_entries += 1
            else:
                held.control.append(entry)
    return held


def load_own(connection: sqlite3.Connection, self_id: NodeId) -> Rows:
    """Read our own feed alone; of a damaged one, what is intact."""
    with _no_texts(connection):
        found = connection.execute(
            "SELECT CAST(origin AS BLOB), payload, signature FROM feeds WHERE origin = ?",
            (self_id,),
        ).fetchone()
        fed = None if found is None else _proved(connection, *found)
    if fed is not None and not isinstance(fed, Damaged):
        return fed[1]
    rows = Rows()
    for (table, key), row in salvaged(connection, self_id).items():
        rows.put(table, key, row)
    return rows


def salvaged(connection: sqlite3.Connection, origin: str) -> dict[Place, Row]:
    """Return those rows of a damaged feed that are what was written, as their checksums say."""
    rows: dict[Place, Row] = {}
    with _no_texts(connection):
        for record in _records(connection, origin):
            try:
                table, key, row = _row(record)
            except (ValueError, TypeError):
                continue
            if record[-1] in {None, _checksum((table, key), row)}:
                rows[table, key] = row
    return rows


def has_rows(connection: sqlite3.Connection, origin: str) -> bool:
    """Whether the disk has any row of a feed, with or without its header."""
    found = connection.execute("SELECT 1 FROM rows WHERE origin = ? LIMIT 1", (origin,))
    return found.fetchone() is not None


def has_table(connection: sqlite3.Connection, table: str) -> bool:
    """Whether the disk has any row of a table, of whichever feed."""
    found = connection.execute("SELECT 1 FROM rows WHERE tab = ? LIMIT 1", (table,))
    return found.fetchone() is not None


def drop(connection: sqlite3.Connection, origins: Iterable[str]) -> None:
    """Delete feeds with all their rows."""
    gone = [(origin,) for origin in origins]
    with transaction(connection):
        for table in ("rows", "feeds", "forks"):
            connection.executemany(f"DELETE FROM {table} WHERE origin = ?", gone)  # noqa: S608 - our own names


def rewrite(
    connection: sqlite3.Connection, held: Held, own: tuple[str, Mapping[Place, Row]] | None
) -> None:
    """Let the disk hold what it could prove, and nothing else: what peers return takes its place.

    `own` is what is intact of our own feed, if that is damaged: it stays, unproven, until our next
    flush, of a new epoch, makes it whole. Everything is written anew, because in a table whose keys
    are out of order a row may be read and yet not be found to be deleted.
    """
    with transaction(connection):
        connection.execute("DELETE FROM rows")
        connection.execute("DELETE FROM feeds")
        connection.execute("DELETE FROM control")
        for header, rows in held.feeds:
            _put_rows(connection, header.origin, all_rows(rows))
            _put_header(connection, header)
        for entry in held.control:
            _put_entry(connection, entry)
        if own is not None:
            _put_rows(connection, *own)
            for damaged in held.damaged:
                if damaged.header is not None and damaged.header.origin == own[0]:
                    _put_header(connection, damaged.header)


def _proved(
    connection: sqlite3.Connection, stored_as: bytes, payload: object, signature: object
) -> tuple[Header, Rows] | Damaged:
    """Read one feed; what its owner has not signed like that is damage."""
    origin = stored_as.decode("utf-8", "surrogateescape")
    header = None
    try:
        signed = _signed(FLUSH, payload, signature)
        parsed = parse_header(signed)
        verify(signed, FLUSH, node_key_of(parsed.origin))
        header = parsed
        if header.origin != origin:
            return Damaged(origin, "its header is of another feed")
        rows = Rows()
        for record in _records(connection, origin):
            rows.put(*_row(record))
    except (PeerError, ValueError, TypeError) as error:
        return Damaged(origin, str(error), header)
    if rows.state_hash() != header.state_hash:
        return Damaged(origin, "its rows are not as signed", header)
    return header, rows


class _Text(bytes):
    """What is stored as a text where there should be bytes, whatever bytes it has."""


@contextmanager
def _no_texts(connection: sqlite3.Connection) -> Iterator[None]:
    """Let no text that a flipped bit has made end the reading of all the others."""
    connection.text_factory = _Text
    try:
        yield
    finally:
        connection.text_factory = str


def _records(connection: sqlite3.Connection, origin: str) -> sqlite3.Cursor:
    """Read what is stored as the rows of a feed."""
    return connection.execute(
        "SELECT CAST(tab AS BLOB), key, epoch, seq, value, crc FROM rows WHERE origin = ?",
        (origin,),
    )


def _row(record: tuple[object, ...]) -> tuple[str, bytes, Row]:
    """Check what was stored as a row; raises ValueError or TypeError."""
    tab, key, epoch, seq, value, _ = record
    if type(tab) is not bytes or type(key) is not bytes or type(value) is not bytes:
        raise TypeError("a row whose table, key or value is of another type")
    if type(epoch) is not int or type(seq) is not int or epoch < 1 or seq < 1:
        raise ValueError("a row whose epoch or seq is out of range")
    return tab.decode(), key, Row(epoch, seq, value)


def _signed(kind: str, payload: object, signature: object) -> Signed:
    if type(payload) is not bytes or type(signature) is not bytes:
        raise TypeError("a signed value of another type")
    return Signed(kind, payload, signature)


def _entry(kind: bytes, payload: object, signature: object) -> Signed | None:
    try:
        return _signed(kind.decode(), payload, signature)
    except (ValueError, TypeError):
        return None
