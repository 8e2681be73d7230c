"""The rows of one feed, table by table, and the hash that names exactly this set of rows.

Invariant: the hashes follow every change at the cost of its bucket, and nothing remains of a row, a
bucket or a table once it is deleted. (A sum or an XOR of row hashes could be forged in no time.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Row:
    """A value, and the write that put it there."""

    epoch: int
    seq: int
    value: bytes
    _decoded: object = field(default=None, compare=False, repr=False)

    def decoded(self, decode: Callable[[bytes], object]) -> object:
        """Return what the value means, worked out once; a table has one decoder."""
        if self._decoded is None:
            object.__setattr__(self, "_decoded", decode(self.value))
        return self._decoded


class Rows:
    """The tables of one feed and their hashes, kept bucket by bucket as rows change."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, Row]] = {}
        self._buckets: dict[str, dict[int, dict[bytes, bytes]]] = {}
        self._bucket_hashes: dict[str, dict[int, bytes]] = {}
        self.bytes = 0  # of keys and values

    def put(self, table: str, key: bytes, row: Row | None) -> None:
        """Set or delete one row."""
        digest = sha256(key).digest()
        before = self.get(table, key)
        if before is not None:
            self.bytes -= len(key) + len(before.value)
        if row is not None:
            self.bytes += len(key) + len(row.value)
            self.tables.setdefault(table, {})[key] = row
            bucket = self._buckets.setdefault(table, {}).setdefault(digest[0], {})
            bucket[digest] = row_hash(row)
        elif before is not None:
            self._delete(table, key, digest)
        self._bucket_hashes.get(table, {}).pop(digest[0], None)

    def _delete(self, table: str, key: bytes, digest: bytes) -> None:
        """Leave nothing behind of a row, nor of a bucket or a table that it was the last of."""
        del self.tables[table][key]
        del self._buckets[table][digest[0]][digest]
        if not self._buckets[table][digest[0]]:
            del self._buckets[table][digest[0]]
        if not self.tables[table]:
            del self.tables[table], self._buckets[table]
            self._bucket_hashes.pop(table, None)

    def get(self, table: str, key: bytes) -> Row | None:
        """Return one row."""
        return self.tables.get(table, {}).get(key)

    def count(self) -> int:
        """Return how many rows there are."""
        return sum(len(rows) for rows in self.tables.values())

    def manifest(self) -> dict[str, dict[int, bytes]]:
        """Return the hash of each bucket that holds rows, by table."""
        for table, buckets in self._buckets.items():
            hashes = self._bucket_hashes.setdefault(table, {})
            for number, bucket in buckets.items():
                if number not in hashes and bucket:
                    hashes[number] = bucket_hash(bucket)
        return {table: dict(hashes) for table, hashes in self._bucket_hashes.items() if hashes}

    def state_hash(self) -> bytes:
        """Return 32 bytes that name exactly this set of rows."""
        return state_hash(self.manifest())


def row_hash(row: Row) -> bytes:
    """Hash a row, its write included."""
    prefix = row.epoch.to_bytes(8, "big") + row.seq.to_bytes(8, "big")
    return sha256(prefix + row.value).digest()


def bucket_hash(bucket: Mapping[bytes, bytes]) -> bytes:
    """Hash the sorted key hashes and row hashes of a bucket."""
    return sha256(b"".join(key + bucket[key] for key in sorted(bucket))).digest()


def state_hash(manifest: Mapping[str, Mapping[int, bytes]]) -> bytes:
    """Hash the tables' roots; each root is the hash of its non-empty buckets, in order."""
    roots = [
        (table, sha256(b"".join(bytes([n]) + buckets[n] for n in sorted(buckets))).digest())
        for table, buckets in sorted(manifest.items())
        if buckets
    ]
    return sha256(pack([[table, root] for table, root in roots])).digest()


def all_rows(rows: Rows) -> dict[tuple[str, bytes], Row | None]:
    """Return every row, by table and key."""
    return {(table, key): row for table, held in rows.tables.items() for key, row in held.items()}
