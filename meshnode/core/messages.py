"""What neighbours say to each other over a link; wire/links.py gives each its protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.feed import Flush, Head, Header
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life."""

    count: int


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A part of a snapshot: rows, and whether they are the last."""

    header: Header
    rows: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Digest:
    """What the sender holds, in two hashes of 16 bytes."""

    feeds_root: bytes
    control_root: bytes


@dataclass(frozen=True, slots=True)
class Vector:
    """What the sender holds; if not `full`, only news of it."""

    positions: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()
    full: bool = False


@dataclass(frozen=True, slots=True)
class Pull:
    """A request for what comes after these positions, and for these control entries."""

    after: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Members:
    """Where other members may be dialled."""

    addresses: dict[NodeId, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Farewell:
    """The sender lets the link go."""

    reason: str


Message = Pulse | Flush | SnapshotChunk | Digest | Vector | Pull | Signed | Members | Farewell
