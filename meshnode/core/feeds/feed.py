"""A feed: one node's rows, which it alone writes and everybody holds.

Invariants. Each write takes the next seq of the feed's epoch, deletions too. A header, signed once,
proves both a flush (delta_hash) and the whole state after it (state_hash), so any relay can serve
either and forge neither. Applying a flush reaches exactly the state that its header names, or
changes nothing. Whether a header, a flush or a snapshot is accepted depends only on its bytes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.rows import ROW_BYTES, Row, Rows, all_rows, bucket_of
from meshnode.core.packing import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.rows import Place
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Limits

TABLE_CHARS_MAX = 32
KEY_BYTES_MAX = 1024
SEQ_MAX = (1 << 63) - 1
TABLES_MAX = 64  # of one feed: as many as a manifest can name in one frame
BUCKET_BYTES_MAX = 768 << 10  # so that each can be sent, and proved, in one frame


class Op(msgspec.Struct, frozen=True):
    """One write: a value, or None to delete."""

    table: str
    key: bytes
    value: bytes | None


class Flush(msgspec.Struct, frozen=True):
    """A group of writes with its proof.

    `eager` if it travels along the origin's tree, `flooded` if it goes to everybody at once;
    neither if it was asked for.
    """

    header: Header
    delta: bytes
    eager: bool = False
    flooded: bool = False


class Change(msgspec.Struct, frozen=True):
    """What a feed went through: a flush applied, or everything replaced by a snapshot."""

    origin: NodeId
    header: Header
    flush: Flush | None
    rows: Mapping[Place, Row | None]  # written (or deleted: None); all rows if replaced
    before: Mapping[Place, Row | None] = msgspec.field(default_factory=dict)  # by the flush

    @property
    def written(self) -> dict[Place, tuple[Row | None, Row | None]]:
        """Each row that a flush wrote, before and after; nothing if everything was replaced."""
        return {place: (row, self.rows[place]) for place, row in self.before.items()}


def delta_to_bytes(ops: Iterable[Op]) -> bytes:
    """Encode the writes of a flush."""
    return pack([[op.table, op.key, op.value] for op in ops])


def delta_from_bytes(delta: bytes, limits: Limits) -> list[Op]:
    """Decode the writes of a flush; raises PeerError, also for what the genesis does not allow."""
    if len(delta) > limits.flush_bytes_max:
        raise PeerError(f"a flush of {len(delta)} bytes: the mesh allows {limits.flush_bytes_max}")
    try:
        ops = [_op_from(*parts) for parts in unpack(delta)]
    except (TypeError, ValueError) as error:
        raise PeerError("a delta is no list of writes") from error
    for op in ops:
        check_op(op, limits)
    return ops


def _op_from(table: object, key: object, value: object) -> Op:
    if not isinstance(table, str) or not isinstance(key, bytes):
        raise TypeError("a write without a table or a key")
    if value is not None and not isinstance(value, bytes):
        raise TypeError("a write whose value is no bytes")
    return Op(table, key, value)


def checked_row(
    table: object, key: object, epoch: object, seq: object, value: object, *, limits: Limits
) -> tuple[str, bytes, Row]:
    """Return a row of a snapshot; raises TypeError, ValueError, and PeerError as `check_op`."""
    if not (isinstance(table, str) and isinstance(key, bytes) and isinstance(value, bytes)):
        raise TypeError("a row that is no table, key and value")
    if type(epoch) is not int or type(seq) is not int:
        raise TypeError("an epoch or a seq that is no number")
    if not (0 < epoch <= SEQ_MAX and 0 < seq <= SEQ_MAX):
        raise ValueError("an epoch or a seq out of range")
    check_op(Op(table, key, value), limits)
    return table, key, Row(epoch, seq, value)


def check_op(op: Op, limits: Limits) -> None:
    """Raise PeerError for a write that the genesis does not allow."""
    if not 0 < len(op.table) <= TABLE_CHARS_MAX or len(op.key) > KEY_BYTES_MAX:
        raise PeerError("a write whose table or key is too long")
    if op.value is not None and len(op.value) > limits.row_bytes_max:
        raise PeerError(f"a row of {len(op.value)} bytes: the mesh allows {limits.row_bytes_max}")


class ForkError(PeerError):
    """The flush continues another history than the one held here. Nothing changed."""


class Replica:
    """A feed as this node holds it; also the base of its own."""

    def __init__(self, origin: NodeId, limits: Limits) -> None:
        self.origin = origin
        self.rows = Rows()
        self.header: Header | None = None
        self._limits = limits

    @property
    def head(self) -> Head:
        """The newest position held."""
        return NOTHING if self.header is None else self.header.head

    def follows(self, header: Header) -> bool:
        """Whether a flush with this header can be applied right now."""
        head = self.head
        return header.epoch == head.epoch and header.first_seq == head.seq + 1

    def apply(self, flush: Flush) -> Change:
        """Apply a verified flush that follows; raises PeerError, having changed nothing."""
        header = flush.header
        if sha256(flush.delta).digest() != header.delta_hash:
            raise PeerError("a flush whose delta does not match its header")
        ops = delta_from_bytes(flush.delta, self._limits)
        if len(ops) != header.last_seq - header.first_seq + 1:
            raise PeerError("a flush with more or fewer writes than its header says")
        before = {(op.table, op.key): self.rows.get(op.table, op.key) for op in ops}
        after: dict[Place, Row | None] = {}
        for seq, op in enumerate(ops, header.first_seq):
            row = None if op.value is None else Row(header.epoch, seq, op.value)
            self.rows.put(op.table, op.key, row)
            after[op.table, op.key] = row
        proved = self.rows.state_hash() == header.state_hash
        if not proved or not fits(self.rows, self._limits, ops):
            for (table, key), row in before.items():
                self.rows.put(table, key, row)
            if proved:
                raise PeerError("a feed with more rows or bytes than the mesh allows")
            raise ForkError("a flush that does not lead to the state its header names")
        self.header = header
        return Change(self.origin, header, flush, after, before)

    def replace(self, header: Header, rows: Rows) -> Change:
        """Take over a snapshot whose rows were proved against the header."""
        self.rows = rows
        self.header = header
        return Change(self.origin, header, None, all_rows(rows))


def too_large(rows: Rows, limits: Limits) -> bool:
    """Whether a feed, or the part of it that is here, is beyond what the genesis allows."""
    many = rows.count() > limits.rows_max or len(rows.tables) > TABLES_MAX
    return many or rows.bytes > limits.feed_bytes_max


def fits(rows: Rows, limits: Limits, written: Iterable[Op] | None = None) -> bool:
    """Whether a feed is within what the genesis allows, and can be sent bucket by bucket.

    With `written`, only the buckets of these writes are looked at.
    """
    if too_large(rows, limits):
        return False
    if rows.bytes + rows.count() * ROW_BYTES <= BUCKET_BYTES_MAX:
        return True
    if written is None:
        places = {(table, number) for table, held in rows.manifest().items() for number in held}
    else:
        places = {(op.table, bucket_of(op.key)) for op in written}
    return all(rows.bucket_bytes(*place) <= BUCKET_BYTES_MAX for place in places)
