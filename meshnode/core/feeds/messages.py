"""What neighbours say to each other over a link; wire/links.py gives each its protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.feeds.feed import Flush
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from meshnode.core.feeds.headers import Head, Header
    from meshnode.core.feeds.rows import Manifest as Buckets
    from meshnode.core.ids import NodeId


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life."""

    count: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole of a small feed: its rows, canonical MessagePack."""

    header: Header
    rows: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """The hashes of all buckets of a feed, which its header proves."""

    header: Header
    buckets: Buckets


@dataclass(frozen=True, slots=True)
class BucketPull:
    """A request for buckets of a feed, as its `Manifest` at `head` named them."""

    origin: NodeId
    head: Head
    wanted: dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class BucketRows:
    """Whole buckets of a feed; `last` if no more are sent unless asked for."""

    origin: NodeId
    rows: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Fork:
    """One header: what the sender holds where the receiver said it holds something else.

    Two: the proof that their owner's epoch has two histories.
    """

    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class Digest:
    """What the sender holds, in two hashes of 16 bytes.

    `cut_s` is the latest expiry of a control entry that the sender has dropped, seconds since 1970.
    Who `asks` is answered also when both hold the same.
    """

    feeds_root: bytes
    control_root: bytes
    cut_s: int = 0
    asks: bool = False


@dataclass(frozen=True, slots=True)
class BucketHashes:
    """What the sender holds, in BUCKETS hashes of 8 bytes for feeds and as many for control."""

    feeds: tuple[bytes, ...]
    control: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Vector:
    """What the sender holds; all that it holds in the buckets named, elsewhere only news.

    `states` are the first 16 bytes of the state hash at each position.
    """

    positions: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()
    feed_buckets: frozenset[int] = frozenset()
    control_buckets: frozenset[int] = frozenset()
    states: dict[NodeId, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Have:
    """What the sender has received and does not send unasked."""

    positions: dict[NodeId, Head]


@dataclass(frozen=True, slots=True)
class Pull:
    """A request for what comes after these positions, and for these control entries.

    With `graft`, later news of these origins shall come unasked; of all, if none is named.
    """

    after: dict[NodeId, Head]
    control_ids: frozenset[bytes] = frozenset()
    graft: bool = False


@dataclass(frozen=True, slots=True)
class Prune:
    """News of these origins came from elsewhere first: announce them, do not send them."""

    origins: frozenset[NodeId]


@dataclass(frozen=True, slots=True)
class Members:
    """Where other members may be dialled. `full`: the sender has links enough, try those."""

    addresses: dict[NodeId, tuple[str, ...]] = field(default_factory=dict)
    full: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Has the receiver heard this neighbour of its lately? Answered with `Heard`."""

    about: NodeId


@dataclass(frozen=True, slots=True)
class Heard:
    """How long ago the sender heard its neighbour; None if it has no working link with it."""

    about: NodeId
    ago_s: float | None


@dataclass(frozen=True, slots=True)
class Order:
    """A request, sealed to the receiver; answered with `Reply`. `number` is the sender's."""

    number: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to an order, sealed by its owner; or why some node on the way could not go on."""

    number: int
    sealed: bytes = b""
    error: tuple[str, str, str] = ("", "", "")  # code, message, hint


@dataclass(frozen=True, slots=True)
class Routed:
    """Something for a node that is not linked with its sender, on its way along `route`.

    `at` is the place in the route of whoever receives this frame.
    """

    route: tuple[NodeId, ...]
    at: int
    body: Ask | Heard | Order | Reply


@dataclass(frozen=True, slots=True)
class Farewell:
    """The sender lets the link go."""

    reason: str


@dataclass(frozen=True, slots=True)
class Known:
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
