"""The rows of one feed, table by table, and the hash that names exactly this set of rows.

A Merkle tree of three levels (Merkle, 1987): rows fall into BUCKETS buckets of their table by the
CRC-32 of their key, bucket hashes make table roots, and those the state hash.

Invariant: the hashes follow every change at the cost of its bucket, and nothing remains of a row, a
bucket or a table once it is deleted. (A sum or an XOR of row hashes could be forged in no time.)
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
from msgspec.structs import force_setattr

from meshnode.core.packing import pack_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BUCKETS = 256  # of each table
_ROW = Struct(">IQQ")  # length of the key, epoch, seq
ROW_BYTES = 48  # more than MessagePack adds to the key and the value of a row in its table

Place = tuple[str, bytes]
"""Where a row is: its table and its key."""

Manifest = dict[str, dict[int, bytes]]
"""The hash of each bucket that holds rows, by table."""


class Row(msgspec.Struct, frozen=True, eq=False):
    """A value, and the write that put it there."""

    epoch: int
    seq: int
    value: bytes
    meaning: object = None  # of the value, once decoded; rows are alike without it

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return self._written == other._written

    def __hash__(self) -> int:
        return hash(self._written)

    @property
    def _written(self) -> tuple[int, int, bytes]:
        return self.epoch, self.seq, self.value

    def decoded(self, decode: Callable[[bytes], object]) -> object:
        """Return what the value means, worked out once; a table has one decoder."""
        if self.meaning is None:
            force_setattr(self, "meaning", decode(self.value))
        return self.meaning


class Rows:
    """The tables of one feed and their hashes, kept bucket by bucket as rows change."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, Row]] = {}
        self._buckets: dict[str, dict[int, dict[bytes, bytes]]] = {}  # row hashes by key
        self._bucket_hashes: Manifest = {}
        self._roots: dict[str, bytes] = {}  # of the tables that have not changed since
        self.bytes = 0  # of keys and values

    def put(self, table: str, key: bytes, row: Row | None) -> None:
        """Set or delete one row."""
        number = bucket_of(key)
        before = self.get(table, key)
        if before is not None:
            self.bytes -= len(key) + len(before.value)
        if row is not None:
            self.bytes += len(key) + len(row.value)
            self.tables.setdefault(table, {})[key] = row
            bucket = self._buckets.setdefault(table, {}).setdefault(number, {})
            bucket[key] = row_hash(key, row)
        elif before is not None:
            self._delete(table, key, number)
        self._bucket_hashes.get(table, {}).pop(number, None)
        self._roots.pop(table, None)

    def _delete(self, table: str, key: bytes, number: int) -> None:
        """Leave nothing behind of a row, nor of a bucket or a table that it was the last of."""
        del self.tables[table][key]
        del self._buckets[table][number][key]
        if not self._buckets[table][number]:
            del self._buckets[table][number]
        if not self.tables[table]:
            del self.tables[table], self._buckets[table]
            self._bucket_hashes.pop(table, None)

    def get(self, table: str, key: bytes) -> Row | None:
        """Return one row."""
        return self.tables.get(table, {}).get(key)

    def count(self) -> int:
        """Return how many rows there are."""
        return sum(len(rows) for rows in self.tables.values())

    def bucket(self, table: str, number: int) -> dict[bytes, Row]:
        """Return the rows of one bucket, by key."""
        rows = self.tables.get(table, {})
        return {key: rows[key] for key in self._buckets.get(table, {}).get(number, ())}

    def fill(self, table: str, number: int, rows: Mapping[bytes, Row]) -> bytes:
        """Set a whole bucket that holds nothing yet; return its hash."""
        hashes = {key: row_hash(key, row) for key, row in rows.items()}
        self.tables.setdefault(table, {}).update(rows)
        self._buckets.setdefault(table, {})[number] = hashes
        self.bytes += sum(len(key) + len(row.value) for key, row in rows.items())
        digest = self._bucket_hashes.setdefault(table, {})[number] = bucket_hash(hashes)
        self._roots.pop(table, None)
        return digest

    def empty(self, table: str, number: int) -> None:
        """Delete a whole bucket."""
        for key in self.bucket(table, number):
            self.put(table, key, None)

    def bucket_bytes(self, table: str, number: int) -> int:
        """Return about how many bytes the rows of a bucket take on the wire."""
        rows = self.tables.get(table, {})
        keys = self._buckets.get(table, {}).get(number, ())
        return sum(len(key) + len(rows[key].value) + ROW_BYTES for key in keys)

    def manifest(self) -> Manifest:
        """Return the hash of each bucket that holds rows, by table."""
        return {table: dict(self._hashes_of(table)) for table in self._buckets}

    def _hashes_of(self, table: str) -> dict[int, bytes]:
        hashes = self._bucket_hashes.setdefault(table, {})
        for number, bucket in self._buckets[table].items():
            if number not in hashes:
                hashes[number] = bucket_hash(bucket)
        return hashes

    def state_hash(self) -> bytes:
        """Return 32 bytes that name exactly this set of rows."""
        for table in self._buckets.keys() - self._roots.keys():
            self._roots[table] = table_root(self._hashes_of(table))
        return _hash_of_roots(self._roots)


def bucket_of(key: bytes) -> int:
    """Return the bucket of a key, 0 to 255: the lowest byte of its CRC-32 (ISO 3309)."""
    return crc32(key) & 0xFF


def row_hash(key: bytes, row: Row) -> bytes:
    """Hash a row, its key and its write included; raises OverflowError."""
    try:
        prefix = _ROW.pack(len(key), row.epoch, row.seq)
    except StructError as error:
        raise OverflowError("a row whose epoch or seq is out of range") from error
    return sha256(prefix + key + row.value).digest()


def bucket_hash(bucket: Mapping[bytes, bytes]) -> bytes:
    """Hash the row hashes of a bucket, in the order of their keys."""
    return sha256(b"".join([bucket[key] for key in sorted(bucket)])).digest()


def state_hash(manifest: Mapping[str, Mapping[int, bytes]]) -> bytes:
    """Hash the tables' roots: return what a set of rows with these buckets is named."""
    return _hash_of_roots({table: table_root(held) for table, held in manifest.items() if held})


def table_root(buckets: Mapping[int, bytes]) -> bytes:
    """Hash the hashes of a table's non-empty buckets, in order."""
    return sha256(b"".join([bytes([n]) + buckets[n] for n in sorted(buckets)])).digest()


def _hash_of_roots(roots: Mapping[str, bytes]) -> bytes:
    return sha256(pack_lists([[table, roots[table]] for table in sorted(roots)])).digest()


def all_rows(rows: Rows) -> dict[Place, Row | None]:
    """Return every row, by table and key."""
    return {(table, key): row for table, held in rows.tables.items() for key, row in held.items()}
