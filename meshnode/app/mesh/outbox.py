"""What waits to be written to one link: bounded, urgent things first, nothing dropped in silence.

Invariant: at most OUTBOX_BYTES_MAX wait, and CONTROL_BYTES_MAX more of control entries, which go
first: behind what it shall stop, a revocation would come too late. At the bound, news and repair
are dropped and `overflowed` is set; once the box is empty again its owner starts a reconciliation,
which repairs the rest.
A box that parts gives out what waits in it, up to PARTING_BYTES_MAX, and a farewell last.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.messages import (
    BucketPull,
    BucketRows,
    Digest,
    Farewell,
    Fork,
    Have,
    Manifest,
    Members,
    Message,
    Order,
    Prune,
    Pull,
    Pulse,
    Reply,
    Routed,
    Snapshot,
    Vector,
)
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId

OUTBOX_BYTES_MAX = 8 << 20
CONTROL_BYTES_MAX = 1 << 20  # beyond it, for entries of the control set
URGENT_BYTES_MAX = 24 << 10  # of something routed; what is larger waits its turn
PARTING_BYTES_MAX = 1 << 20  # the rest is left to whoever else has it
HAVE_POSITIONS_MAX = 1_000  # announcements that wait are put together up to so many
PRUNED_MAX = 1_000  # origins, likewise
ENTRY_BYTES = 120  # of a position, an id or a step in memory
HASH_BYTES_HELD = 34  # of a bucket's hash and number
MESSAGE_BYTES = 200  # what a message costs beside its payload


class Outbox:
    """A queue of messages with three priorities.

    Pulses, digests, announcements and prunes that wait stand for later ones of their kind.
    """

    def __init__(self) -> None:
        self._first: deque[Message] = deque()
        self._urgent: deque[Message] = deque()
        self._rest: deque[Message] = deque()
        self._bytes = 0
        self.closed = False
        self.overflowed = False

    def put(self, message: Message) -> None:
        """Add a message; never waits."""
        if self._says_nothing_new(message):
            return
        size = _size_of(message)
        is_control = isinstance(message, Signed)
        room = OUTBOX_BYTES_MAX + (CONTROL_BYTES_MAX if is_control else 0)
        if self._bytes + size > room and not isinstance(message, Farewell):
            self.overflowed = True
            return
        urgent = isinstance(message, Pulse | Routed | Fork | Farewell)
        if size > URGENT_BYTES_MAX and isinstance(message, Routed):
            urgent = False  # a piece of output: pulses do not queue behind many of those
        (self._first if is_control else self._urgent if urgent else self._rest).append(message)
        self._bytes += size

    def _says_nothing_new(self, message: Message) -> bool:
        """Whether something that waits says it already, or can say it too."""
        match message:
            case Pulse():
                return any(isinstance(waiting, Pulse) for waiting in self._urgent)
            case Digest():  # an older one starts the same comparison
                return any(isinstance(waiting, Digest) for waiting in self._rest)
            case Have(positions):
                return self._announces_too(positions)
            case Prune(origins):
                return self._prunes_too(origins)
            case _:
                return False

    def _announces_too(self, positions: dict[NodeId, Head]) -> bool:
        """Let an announcement that waits say these positions too."""
        for waiting in self._rest:
            if (
                isinstance(waiting, Have)
                and len(waiting.positions) + len(positions) <= HAVE_POSITIONS_MAX
            ):
                waiting.positions.update(positions)
                return True
        return False

    def _prunes_too(self, origins: frozenset[NodeId]) -> bool:
        """Let a prune that waits name these origins too."""
        for place, waiting in enumerate(self._rest):
            if isinstance(waiting, Prune):
                both = waiting.origins | origins
                if len(both) > PRUNED_MAX:
                    return False
                self._bytes += ENTRY_BYTES * (len(both) - len(waiting.origins))
                self._rest[place] = Prune(both)
                return True
        return False

    def part(self, farewell: Farewell) -> None:
        """Keep what waits, in its order and up to the bound; the farewell comes last."""
        self.closed = True
        waiting = (*self._first, *self._urgent, *self._rest)
        self._first.clear()
        self._urgent.clear()
        self._rest.clear()
        self._bytes = 0
        for message in waiting:
            size = _size_of(message)
            if self._bytes + size > PARTING_BYTES_MAX:
                break
            self._urgent.append(message)
            self._bytes += size
        self._urgent.append(farewell)
        self._bytes += _size_of(farewell)

    def close(self) -> None:
        """Keep a waiting farewell, whatever else waits."""
        self.closed = True
        self._first.clear()
        self._rest.clear()
        self._urgent = deque(m for m in self._urgent if isinstance(m, Farewell))

    def pop(self) -> Message | None:
        """Take the next message; None if nothing waits."""
        waiting = self._first or self._urgent or self._rest
        if not waiting:
            return None
        message = waiting.popleft()
        self._bytes -= _size_of(message)
        return message

    def emptied_after_overflow(self) -> bool:
        """Whether messages were dropped and the box is empty again; asked once an overflow."""
        if not self.overflowed or self._first or self._urgent or self._rest:
            return False
        self.overflowed = False
        return True


def _size_of(message: Message) -> int:  # noqa: C901, PLR0911, PLR0912 - one case a message
    match message:
        case Flush():
            return MESSAGE_BYTES + len(message.delta)
        case Snapshot() | BucketRows():
            return MESSAGE_BYTES + len(message.rows)
        case Manifest():
            return MESSAGE_BYTES + sum(
                HASH_BYTES_HELD * len(one) for one in message.buckets.values()
            )
        case BucketPull():
            return MESSAGE_BYTES + sum(map(len, message.wanted.values()))
        case Signed():
            return MESSAGE_BYTES + len(message.payload)
        case Vector() | Pull():
            positions = message.positions if isinstance(message, Vector) else message.after
            return MESSAGE_BYTES + ENTRY_BYTES * (len(positions) + len(message.control_ids))
        case Have(positions):  # it may grow while it waits, up to the bound
            return MESSAGE_BYTES + ENTRY_BYTES * max(len(positions), HAVE_POSITIONS_MAX)
        case Prune():
            return MESSAGE_BYTES + ENTRY_BYTES * len(message.origins)
        case Members():
            return MESSAGE_BYTES + ENTRY_BYTES * 10 * len(message.addresses)
        case Routed(route, _, body):
            size = len(body.sealed) if isinstance(body, Order | Reply) else 0
            return MESSAGE_BYTES + ENTRY_BYTES * len(route) + size
        case _:
            return MESSAGE_BYTES
