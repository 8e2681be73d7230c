"""Whole feeds in chunks: cutting them up, and putting them together again.

Invariant: what is half received is bounded by neighbour, in number and in bytes, and goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.messages import SnapshotChunk
from meshnode.core.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.core.headers import Head, Header
    from meshnode.core.ids import NodeId
    from meshnode.core.rows import Rows

CHUNK_BYTES_MAX = 32 << 10
ASSEMBLIES_OF_PEER_MAX = 4  # half received from one neighbour; more: its oldest is dropped
PART_BYTES = 1024  # what a chunk costs at least, so that empty ones come to an end


def snapshot_chunks(header: Header, rows: Rows) -> Iterator[SnapshotChunk]:
    """Cut a feed's rows into chunks of about CHUNK_BYTES_MAX."""
    part: list[list[object]] = []
    size = 0
    for table, held in rows.tables.items():
        for key, row in held.items():
            if size > CHUNK_BYTES_MAX:
                yield SnapshotChunk(header, pack(part), last=False)
                part, size = [], 0
            part.append([table, key, row.epoch, row.seq, row.value])
            size += len(key) + len(row.value) + 40
    yield SnapshotChunk(header, pack(part), last=True)


@dataclass(slots=True)
class _Assembly:
    parts: list[bytes] = field(default_factory=list)
    bytes: int = 0


class Assemblies:
    """Snapshots of which some chunks are here."""

    def __init__(self, feed_bytes_max: int) -> None:
        self._bytes_max = 2 * feed_bytes_max  # framing included
        self._assemblies: dict[tuple[NodeId, Head, NodeId], _Assembly] = {}

    def collected(self, peer: NodeId, chunk: SnapshotChunk) -> list[bytes] | None:
        """Put a chunk to those before it; returns all once the last is here; raises PeerError."""
        place = (chunk.header.origin, chunk.header.head, peer)
        if place not in self._assemblies:
            theirs = [other for other in self._assemblies if other[2] == peer]
            if len(theirs) >= ASSEMBLIES_OF_PEER_MAX:
                del self._assemblies[theirs[0]]
            self._assemblies[place] = _Assembly()
        assembly = self._assemblies[place]
        assembly.parts.append(chunk.rows)
        assembly.bytes += len(chunk.rows) + PART_BYTES
        if assembly.bytes > self._bytes_max:
            del self._assemblies[place]
            raise PeerError("a snapshot larger than the mesh allows")
        return self._assemblies.pop(place).parts if chunk.last else None

    def forget_peer(self, peer: NodeId) -> None:
        """Drop what a lost neighbour has half sent."""
        for place in [place for place in self._assemblies if place[2] == peer]:
            del self._assemblies[place]
