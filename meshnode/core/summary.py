"""Hashes over a changing set of things, so that two nodes find out quickly where they differ.

A tree of two levels (Merkle, 1987): one root over BUCKETS buckets, each over the things whose name
hashes into it. Invariant: equal sets have equal roots; a change costs the hash of one bucket.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

BUCKETS = 64
BUCKET_HASH_BYTES = 8
ROOT_BYTES = 16

Name = TypeVar("Name", bound="str | bytes")


class Summary(Generic[Name]):
    """The names of things, by bucket, and what `describe` says of each, hashed."""

    def __init__(self, describe: Callable[[Name], bytes]) -> None:
        self._describe = describe
        self._names: list[list[Name]] = [[] for _ in range(BUCKETS)]
        self._hashes: list[bytes | None] = [None] * BUCKETS
        self._root: bytes | None = None

    def add(self, name: Name) -> None:
        """Take in a thing that is not here yet."""
        self._names[bucket_of(name)].append(name)
        self.changed(name)

    def remove(self, name: Name) -> None:
        """Take a thing out that is here."""
        self._names[bucket_of(name)].remove(name)
        self.changed(name)

    def changed(self, name: Name) -> None:
        """Note that a thing is described differently now."""
        self._hashes[bucket_of(name)] = None
        self._root = None

    def hashes(self) -> tuple[bytes, ...]:
        """Return the hash of each bucket."""
        for number, known in enumerate(self._hashes):
            if known is None:
                self._names[number].sort()
                self._hashes[number] = self._hash(self._names[number])
        return tuple(known or b"" for known in self._hashes)

    def root(self) -> bytes:
        """Return one hash over everything."""
        if self._root is None:
            self._root = _root_of(self.hashes())
        return self._root

    def root_without(self, names: AbstractSet[Name]) -> bytes:
        """Return what the root would be if these things were not here."""
        if not names:
            return self.root()
        hashes = list(self.hashes())
        for number, held in enumerate(self._names):
            rest = [name for name in held if name not in names]
            if len(rest) < len(held):  # asking each name for its bucket costs ten times as much
                hashes[number] = self._hash(rest)
        return _root_of(hashes)

    def differing(self, theirs: Sequence[bytes]) -> frozenset[int]:
        """Return the buckets whose hashes are not those of another set."""
        ours = self.hashes()
        return frozenset(n for n in range(BUCKETS) if ours[n] != theirs[n])

    def within(self, buckets: frozenset[int]) -> Iterator[Name]:
        """Return the names in these buckets."""
        for number in sorted(buckets):
            yield from self._names[number]

    def _hash(self, names: Iterable[Name]) -> bytes:
        return sha256(b"".join(map(self._describe, names))).digest()[:BUCKET_HASH_BYTES]


def _root_of(hashes: Iterable[bytes]) -> bytes:
    return sha256(b"".join(hashes)).digest()[:ROOT_BYTES]


@lru_cache(maxsize=1 << 14)
def bucket_of(name: str | bytes) -> int:
    """Return the bucket of a name."""
    raw = name.encode() if isinstance(name, str) else name
    return sha256(raw).digest()[0] % BUCKETS
