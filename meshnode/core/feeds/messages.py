"""What neighbours say to each other over a link; wire/links.py gives each its protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.feeds.feed import Flush
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.heads import Head
    from meshnode.core.feeds.rows import Manifest as Buckets
    from meshnode.core.ids import NodeId


class Pulse(msgspec.Struct, frozen=True):
    """A sign of life."""

    count: int


class Snapshot(msgspec.Struct, frozen=True):
    """The whole of a small feed: its rows, canonical MessagePack."""

    header: Header
    rows: bytes


class Manifest(msgspec.Struct, frozen=True):
    """The hashes of all buckets of a feed, which its header proves."""

    header: Header
    buckets: Buckets


class BucketPull(msgspec.Struct, frozen=True):
    """A request for buckets of a feed, as its `Manifest` at `head` named them."""

    origin: NodeId
    head: Head
    wanted: dict[str, list[int]]


class BucketRows(msgspec.Struct, frozen=True):
    """Whole buckets of a feed; `last` if no more are sent unless asked for."""

    origin: NodeId
    rows: bytes
    last: bool


class Fork(msgspec.Struct, frozen=True):
    """One header: what the sender holds where the receiver said it holds something else.

    Two: the proof that their owner's epoch has two histories.
    """

    headers: tuple[Header, ...]


class Digest(msgspec.Struct, frozen=True):
    """What the sender holds, in two hashes of 16 bytes.

    `cut_s` is the latest expiry of a control entry that the sender has dropped, seconds since 1970.
    Who `asks` is answered also when both hold the same.
    """

    feeds_root: bytes
    control_root: bytes
    cut_s: int = 0
    asks: bool = False


class BucketHashes(msgspec.Struct, frozen=True):
    """What the sender holds, in BUCKETS hashes of 8 bytes for feeds and as many for control."""

    feeds: tuple[bytes, ...]
    control: tuple[bytes, ...]


class Vector(msgspec.Struct, frozen=True):
    """What the sender holds; all that it holds in the buckets named, elsewhere only news.

    `states` are the first 16 bytes of the state hash at each position.
    """

    positions: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()
    feed_buckets: frozenset[int] = frozenset()
    control_buckets: frozenset[int] = frozenset()
    states: dict[NodeId, bytes] = msgspec.field(default_factory=dict)


class Have(msgspec.Struct, frozen=True):
    """What the sender has received and does not send unasked."""

    positions: dict[NodeId, Head]


class Pull(msgspec.Struct, frozen=True):
    """A request for what comes after these positions, and for these control entries.

    With `graft`, later news of these origins shall come unasked; of all, if none is named.
    """

    after: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()
    graft: bool = False


class Prune(msgspec.Struct, frozen=True):
    """News of these origins came from elsewhere first: announce them, do not send them."""

    origins: frozenset[NodeId]


class Members(msgspec.Struct, frozen=True):
    """Where other members may be dialled. `full`: the sender has links enough, try those."""

    addresses: dict[NodeId, tuple[str, ...]] = msgspec.field(default_factory=dict)
    full: bool = False


class Ask(msgspec.Struct, frozen=True):
    """Has the receiver heard this neighbour of its lately? Answered with `Heard`."""

    about: NodeId


class Heard(msgspec.Struct, frozen=True):
    """How long ago the sender heard its neighbour; None if it has no working link with it."""

    about: NodeId
    ago_s: float | None


class Order(msgspec.Struct, frozen=True):
    """A request, sealed to the receiver; answered with `Reply`. `number` is the sender's."""

    number: int
    sealed: bytes


class Reply(msgspec.Struct, frozen=True):
    """The answer to an order, sealed by its owner; or why some node on the way could not go on."""

    number: int
    sealed: bytes = b""
    error: tuple[str, str, str] = ("", "", "")  # code, message, hint


class Routed(msgspec.Struct, frozen=True):
    """Something for a node that is not linked with its sender, on its way along `route`.

    `at` is the place in the route of whoever receives this frame.
    """

    route: tuple[NodeId, ...]
    at: int
    body: Ask | Heard | Order | Reply


class Farewell(msgspec.Struct, frozen=True):
    """The sender lets the link go."""

    reason: str


class Known(msgspec.Struct, frozen=True):
    """What a flush becomes at the border if it is held already: nothing of it was verified."""

    origin: NodeId
    eager: bool
    head: Head


Message = (
    Pulse
    | Flush
    | Snapshot
    | Manifest
    | BucketPull
    | BucketRows
    | Fork
    | Digest
    | BucketHashes
    | Vector
    | Have
    | Pull
    | Prune
    | Signed
    | Members
    | Routed
    | Farewell
)
