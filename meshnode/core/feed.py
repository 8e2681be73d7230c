"""A feed: one node's rows, which it alone writes and everybody holds.

Invariants. Each write takes the next seq of the feed's epoch, deletions too. A header, signed once,
proves both a flush (delta_hash) and the whole state after it (state_hash), so any relay can serve
either and forge neither. Applying a flush reaches exactly the state that its header names, or
changes nothing. Whether a header, a flush or a snapshot is accepted depends only on its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite
from typing import TYPE_CHECKING, Any

from meshnode.core.errors import PeerError, RefusedError
from meshnode.core.ids import NodeId, node_id_of, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import pack, typed, unpack, unpack_map
from meshnode.core.rows import Row, Rows, all_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meshnode.core.genesis import Limits

FLUSH = "flush"  # the signature type of headers
HASH_BYTES = 32
TABLE_CHARS_MAX = 32
KEY_BYTES_MAX = 1024
FRAMING_BYTES = 16  # more than MessagePack adds to one write


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """How far a feed is known."""

    epoch: int
    seq: int


NOTHING = Head(0, 0)


@dataclass(frozen=True, slots=True)
class Op:
    """One write: a value, or None to delete."""

    table: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Header:
    """What the owner signs about a flush. `at_s` is its own clock, for people only."""

    mesh: str
    origin: NodeId
    epoch: int
    boot: int
    first_seq: int
    last_seq: int
    delta_hash: bytes
    state_hash: bytes
    at_s: float
    signed: Signed | None = None

    @property
    def head(self) -> Head:
        """The position after this flush."""
        return Head(self.epoch, self.last_seq)


@dataclass(frozen=True, slots=True)
class Flush:
    """A group of writes with its proof.

    `eager` if it travels along the origin's tree, `flooded` if it goes to everybody at once;
    neither if it was asked for.
    """

    header: Header
    delta: bytes
    eager: bool = False
    flooded: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a feed went through: a flush applied, or everything replaced by a snapshot."""

    origin: NodeId
    header: Header
    flush: Flush | None
    rows: Mapping[tuple[str, bytes], Row | None]  # written (or deleted: None); all rows if replaced


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
        _check_op(op, limits)
    return ops


def _op_from(table: object, key: object, value: object) -> Op:
    if not isinstance(table, str) or not isinstance(key, bytes):
        raise TypeError("a write without a table or a key")
    if value is not None and not isinstance(value, bytes):
        raise TypeError("a write whose value is no bytes")
    return Op(table, key, value)


def rows_from_parts(parts: Iterable[bytes], limits: Limits) -> Rows:
    """Decode the rows of a snapshot; raises PeerError, also for what the genesis does not allow."""
    rows = Rows()
    count = 0
    try:
        for part in parts:
            written = unpack(part)
            count += len(written)
            if count > limits.rows_max:
                raise PeerError(f"a feed of more than {limits.rows_max} rows")
            for table, key, epoch, seq, value in written:
                op = _op_from(table, key, typed(value, bytes))
                _check_op(op, limits)
                rows.put(op.table, op.key, Row(_number(epoch), _number(seq), value))
    except (TypeError, ValueError, OverflowError) as error:
        raise PeerError("a snapshot whose rows are malformed") from error
    return rows


def _number(value: object) -> int:
    number: int = typed(value, int)
    if not 0 < number < 1 << 63:
        raise ValueError("an epoch or a seq out of range")
    return number


def _check_op(op: Op, limits: Limits) -> None:
    if not 0 < len(op.table) <= TABLE_CHARS_MAX or len(op.key) > KEY_BYTES_MAX:
        raise PeerError("a write whose table or key is too long")
    if op.value is not None and len(op.value) > limits.row_bytes_max:
        raise PeerError(f"a row of {len(op.value)} bytes: the mesh allows {limits.row_bytes_max}")


class ForkError(PeerError):
    """The flush continues another history than the one held here. Nothing changed."""


_HEADER_FIELDS: dict[str, tuple[type, ...]] = {
    "mesh": (str,),
    "origin": (str,),
    "epoch": (int,),
    "boot": (int,),
    "first": (int,),
    "last": (int,),
    "delta": (bytes,),
    "state": (bytes,),
    "at": (int, float),
}


def sign_header(key: Key, header: Header) -> Header:
    """Return the header with its signature."""
    value: dict[str, Any] = {
        "mesh": header.mesh,
        "origin": header.origin,
        "epoch": header.epoch,
        "boot": header.boot,
        "first": header.first_seq,
        "last": header.last_seq,
        "delta": header.delta_hash,
        "state": header.state_hash,
        "at": header.at_s,
    }
    return replace(header, signed=key.sign(FLUSH, value))


def header_from_signed(signed: Signed, mesh_id: str) -> Header:
    """Decode and verify a header; raises PeerError."""
    header = parse_header(signed)
    verify_header(header, mesh_id)
    return header


def verify_header(header: Header, mesh_id: str) -> None:
    """Raise PeerError unless the owner of the feed has signed this header, for this mesh."""
    if header.mesh != mesh_id:
        raise PeerError("a flush of another mesh")
    if header.signed is None:
        raise PeerError("a flush header without a signature")
    verify(header.signed, FLUSH, node_key_of(header.origin))


def parse_header(signed: Signed) -> Header:
    """Decode a header, unverified; raises PeerError."""
    value = unpack_map(signed.payload)
    for name, kinds in _HEADER_FIELDS.items():
        if type(value.get(name)) not in kinds:
            raise PeerError(f"a flush header without a proper {name}")
    header = Header(
        value["mesh"],
        NodeId(value["origin"]),
        value["epoch"],
        value["boot"],
        value["first"],
        value["last"],
        value["delta"],
        value["state"],
        value["at"],
        signed,
    )
    if not (0 < header.epoch < 1 << 63 and 0 < header.first_seq < 1 << 63):
        raise PeerError("a flush header whose epoch or seq is out of range")
    if not (0 <= header.boot < 1 << 64 and isfinite(header.at_s)):
        raise PeerError("a flush header whose boot or time is out of range")
    if header.last_seq >= 1 << 63 or header.last_seq < header.first_seq - 1:
        raise PeerError("a flush header whose seqs do not fit")
    return header


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
        after: dict[tuple[str, bytes], Row | None] = {}
        for seq, op in enumerate(ops, header.first_seq):
            row = None if op.value is None else Row(header.epoch, seq, op.value)
            self.rows.put(op.table, op.key, row)
            after[op.table, op.key] = row
        proved = self.rows.state_hash() == header.state_hash
        if not proved or not self._fits():
            for (table, key), row in before.items():
                self.rows.put(table, key, row)
            if proved:
                raise PeerError("a feed with more rows or bytes than the mesh allows")
            raise ForkError("a flush that does not lead to the state its header names")
        self.header = header
        return Change(self.origin, header, flush, after)

    def _fits(self) -> bool:
        limits = self._limits
        return self.rows.count() <= limits.rows_max and self.rows.bytes <= limits.feed_bytes_max

    def replace(self, header: Header, rows: Rows) -> Change:
        """Take over a snapshot whose rows were proved against the header."""
        self.rows = rows
        self.header = header
        return Change(self.origin, header, None, all_rows(rows))


def _value(row: Row | None) -> bytes | None:
    return None if row is None else row.value


class OwnFeed(Replica):
    """The feed that this node writes. Writes wait until `flush` groups, signs and applies them."""

    def __init__(self, key: Key, mesh_id: str, limits: Limits, boot: int) -> None:
        super().__init__(node_id_of(key.public), limits)
        self._key = key
        self._mesh_id = mesh_id
        self._boot = boot
        self._pending: dict[tuple[str, bytes], bytes | None] = {}
        self._written: set[tuple[str, bytes]] = set()
        self.epoch = 1
        self.restored = NOTHING  # how far this history goes back: to our disk, or what we took up

    def restore(self, header: Header, rows: Rows) -> None:
        """Start from what the disk holds."""
        self.header, self.rows, self.epoch = header, rows, header.epoch
        self.restored = header.head

    def has_written(self, header: Header) -> bool:
        """Whether this history holds a header of ours: from before our start, or of this boot."""
        return header.boot == self._boot or header.head <= self.restored

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Plan a write; a later one to the same key replaces it.

        Raises RefusedError for a row too many: the whole mesh would refuse the flush, for ever.
        """
        _check_op(Op(table, key, value), self._limits)
        row = self.rows.get(table, key)
        added = row is None and value is not None and (table, key) not in self._pending
        if added and self.rows.count() + len(self._pending) >= self._limits.rows_max:
            raise RefusedError(f"this node publishes {self._limits.rows_max} rows already")
        grows_by = len(key) + len(value or b"")
        if value is not None and self.rows.bytes + grows_by > self._limits.feed_bytes_max * 3 // 4:
            raise RefusedError("this node publishes as many bytes as the mesh allows")
        self._written.add((table, key))
        if (row.value if row else None) == value:
            self._pending.pop((table, key), None)
        else:
            self._pending[table, key] = value

    def latest(self, table: str, key: bytes) -> bytes | None:
        """Return the value that readers will see once pending writes are out."""
        if (table, key) in self._pending:
            return self._pending[table, key]
        row = self.rows.get(table, key)
        return None if row is None else row.value

    def is_pending(self, table: str, key: bytes) -> bool:
        """Whether a write to this key waits for a flush."""
        return (table, key) in self._pending

    @property
    def waiting(self) -> bool:
        """Whether writes wait for a flush."""
        return bool(self._pending)

    def continue_after(self, header: Header, rows: Rows) -> None:
        """Leave the history of our disk for one that we once published and our disk has lost.

        Every row is written anew in an epoch above both: what was written since our start, and
        beneath it what that history says; what it has deleted does not come back.
        """
        held, theirs = all_rows(self.rows), all_rows(rows)
        self._pending = {
            place: self.latest(*place) if place in self._written else _value(theirs.get(place))
            for place in {**held, **theirs, **self._pending}
        }
        for place in [p for p, v in self._pending.items() if v is None and p not in held]:
            del self._pending[place]  # nothing to delete
        self.epoch = max(self.epoch, header.epoch) + 1
        self.restored = header.head

    def flush(self, now_s: float) -> Change | None:
        """Apply as many pending writes as one flush may hold; None if there is nothing to write."""
        ops = self._take()
        if not ops:
            return None
        head = self.head
        first_seq = head.seq + 1 if head.epoch == self.epoch else 1
        changed: dict[tuple[str, bytes], Row | None] = {}
        for seq, op in enumerate(ops, first_seq):
            row = None if op.value is None else Row(self.epoch, seq, op.value)
            self.rows.put(op.table, op.key, row)
            changed[op.table, op.key] = row
        delta = delta_to_bytes(ops)
        last_seq = first_seq + len(ops) - 1
        header = Header(
            self._mesh_id,
            self.origin,
            self.epoch,
            self._boot,
            first_seq,
            last_seq,
            sha256(delta).digest(),
            self.rows.state_hash(),
            now_s,
        )
        self.header = sign_header(self._key, header)
        return Change(self.origin, self.header, Flush(self.header, delta), changed)

    def _take(self) -> list[Op]:
        ops: list[Op] = []
        room = self._limits.flush_bytes_max
        for (table, key), value in list(self._pending.items()):
            room -= len(table.encode()) + len(key) + len(value or b"") + FRAMING_BYTES
            if ops and room < 0:
                break
            ops.append(Op(table, key, value))
            del self._pending[table, key]
        return ops
