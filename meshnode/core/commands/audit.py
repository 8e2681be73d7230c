"""A node's audit log: records chained by their hashes, and the signed heads that hold it to them.

Invariant: a record's hash covers it and all before it (Haber and Stornetta, 1991), so that whoever
knows the hash at one seq notices any other history up to there. Any bytes decode to a value or
raise PeerError. No field of a record is longer than its bound; longer words are cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import pack, typed, unpack, unpack_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AUDIT = "audit"  # the table in every node's feed: one row, the head of its log
AUDIT_HEAD = "audit_head"  # the type of a signed head
HASH_BYTES = 32
SEQ_MAX = (1 << 63) - 1
LOG_MAX = (1 << 64) - 1
DROPPED = "records_dropped"  # the kind of a record that says what was dropped before it
_DROPPED = re.compile(r"up to ([1-9][0-9]{0,18}) with hash ([0-9a-f]{64})")
CHARS_MAX = {"detail": 512, "agent": 256, "owner": 256}  # of other texts: NAME_CHARS_MAX
NAME_CHARS_MAX = 64


class AuditRecord(msgspec.Struct, frozen=True):
    """One thing that happened at a node. Texts that do not apply are empty."""

    seq: int  # from 1
    at_ms: int  # milliseconds since 1970, UTC, by the node's clock
    kind: str
    session: str = ""
    agent: str = ""
    owner: str = ""  # of the session
    command: str = ""  # its id
    actor: str = ""  # id of the key whose word it was
    action: str = ""  # of the command
    outcome: str = ""
    detail: str = ""

    @property
    def values(self) -> tuple[int | str, ...]:
        """All fields in their order; `astuple` would copy each, for ten times as long."""
        return tuple(_values(self))

    def to_bytes(self) -> bytes:
        """Encode: the MessagePack array of all fields in their order."""
        return pack(self.values)

    def hash_after(self, previous: bytes) -> bytes:
        """Return the hash of the log up to here, given that of the record before."""
        return sha256(b"smesh/v1/audit\0" + previous + self.to_bytes()).digest()


_NAMES = AuditRecord.__struct_fields__
TEXTS = _NAMES[2:]
_values = attrgetter(*_NAMES)


def cut_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts that a record may have: of valid Unicode, and none too long."""
    return {
        name: text.encode(errors="replace").decode()[: CHARS_MAX.get(name, NAME_CHARS_MAX)]
        for name, text in texts.items()
    }


def record_from_bytes(packed: bytes) -> AuditRecord:
    """Decode a record; raises PeerError."""
    try:
        seq, at_ms, *texts = typed(unpack(packed), list)
        numbers = typed(seq, int), typed(at_ms, int)
        named = dict(zip(TEXTS, (typed(text, str) for text in texts), strict=True))
    except (TypeError, ValueError) as error:
        raise PeerError("not an audit record") from error
    if not 0 < numbers[0] <= SEQ_MAX or not 0 <= numbers[1] <= SEQ_MAX or cut_texts(named) != named:
        raise PeerError("an audit record with a field out of its bounds")
    return AuditRecord(*numbers, **named)


def start_hash(node_key: bytes, log: int) -> bytes:
    """Return what the first record of a log is chained to: its node, and the log's random number.

    A node that lost its disk begins another log; it must not pass for the first one.
    """
    return sha256(b"smesh/v1/audit-start\0" + node_key + log.to_bytes(8, "big")).digest()


class AuditHead(msgspec.Struct, frozen=True):
    """Where a node says its log is: `hash` covers the records up to `seq`."""

    node: NodeId
    log: int
    seq: int
    hash: bytes
    at_ms: int


def sign_head(key: Key, head: AuditHead) -> Signed:
    """Sign a head by itself, so that two of them prove something wherever they are shown."""
    said = {"node": head.node, "log": head.log, "seq": head.seq, "hash": head.hash}
    return key.sign(AUDIT_HEAD, {**said, "at": head.at_ms})


def head_from_signed(signed: Signed) -> AuditHead:
    """Verify that the node it names signed it, and decode; raises PeerError."""
    value = unpack_map(signed.payload)
    try:
        head = AuditHead(
            node=NodeId(typed(value["node"], str)),
            log=typed(value["log"], int),
            seq=typed(value["seq"], int),
            hash=typed(value["hash"], bytes),
            at_ms=typed(value["at"], int),
        )
    except (KeyError, TypeError) as error:
        raise PeerError(f"not the head of an audit log: {error}") from error
    bounded = 0 < head.seq <= SEQ_MAX and 0 < head.log <= LOG_MAX and 0 <= head.at_ms <= SEQ_MAX
    if not bounded or len(head.hash) != HASH_BYTES:
        raise PeerError("the head of an audit log with a field out of its bounds")
    verify(signed, AUDIT_HEAD, node_key_of(head.node))
    return head


def head_to_row(signed: Signed) -> bytes:
    """Encode for the `audit` table."""
    return pack(signed.to_list())


def head_from_row(row: bytes, origin: NodeId) -> tuple[AuditHead, Signed]:
    """Decode a row of the `audit` table; raises PeerError unless its writer signed it."""
    try:
        payload, signature = unpack(row)
        signed = Signed(AUDIT_HEAD, typed(payload, bytes), typed(signature, bytes))
    except (TypeError, ValueError) as error:
        raise PeerError("not an audit row") from error
    head = head_from_signed(signed)
    if head.node != origin:
        raise PeerError("the head of another node's audit log")
    return head, signed


def dropped_detail(seq: int, chain: bytes) -> str:
    """Say that the records up to a seq were dropped, and what their hash was."""
    return f"up to {seq} with hash {chain.hex()}"


class Base(msgspec.Struct, frozen=True):
    """What the first record kept is chained to: everything up to `seq` was dropped."""

    seq: int
    hash: bytes


def base_of(records: Iterable[AuditRecord], first: int) -> Base | None:
    """Return what records say of the dropping of all before a seq, else of what was dropped last.

    While a log is read more may be dropped: then the newest such record is of a later seq.
    """
    said = [base_from_detail(record.detail) for record in records if record.kind == DROPPED]
    fitting = [base for base in said if base is not None and base.seq == first - 1]
    return (fitting or said or [None])[-1]


def base_from_detail(detail: str) -> Base | None:
    """Return what `dropped_detail` has said; None for other words."""
    found = _DROPPED.fullmatch(detail)
    return None if found is None else Base(int(found[1]), bytes.fromhex(found[2]))


class Kept(msgspec.Struct, frozen=True):
    """A record as a disk has it: `record` is None if it makes no sense."""

    seq: int
    record: AuditRecord | None
    hash: bytes


class Wrong(msgspec.Struct, frozen=True):
    """The first record that is not as it was written, and what seems to have happened to it."""

    seq: int
    what: str


def contradiction(earlier: AuditHead, later: AuditHead) -> Wrong | None:
    """Say what two heads of one node prove, of which it has published one after the other.

    Two hashes of one record prove it to anybody. The rest rests on who saw which first.
    """
    if earlier.log != later.log:
        return Wrong(1, f"another log is in the place of one with {earlier.seq} records")
    if earlier.seq == later.seq and earlier.hash != later.hash:
        return Wrong(later.seq, f"record {later.seq} has two hashes, both signed by the node")
    if later.seq < earlier.seq:
        said = f"the log went back from record {earlier.seq} to {later.seq}"
        return Wrong(later.seq + 1, said)
    return None


@dataclass(slots=True)
class Walk:
    """One pass over a log in the order of its disk; it stops at the first record that is wrong."""

    node_key: bytes
    log: int
    base: Base | None = None
    at_seqs: frozenset[int] = frozenset()  # where hashes are wanted, to compare with heads
    wrong: Wrong | None = None
    count: int = 0
    seq: int = field(init=False)
    hash: bytes = field(init=False)
    hashes: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        base = self.base or Base(0, start_hash(self.node_key, self.log))
        self.seq, self.hash = base.seq, base.hash
        self._note()

    def take(self, kept: Kept) -> None:
        """Look at the next record."""
        if self.wrong is not None:
            return
        due = self.seq + 1
        if kept.seq != due:
            self.wrong = Wrong(due, f"it was removed: {kept.seq} follows {self.seq}")
        elif kept.record is None:
            self.wrong = Wrong(due, "it was edited: a field makes no sense")
        elif kept.record.hash_after(self.hash) != kept.hash:
            self.wrong = Wrong(due, "it was edited, or put where another one was")
        else:
            self.seq, self.hash = due, kept.hash
            self.count += 1
            self._note()

    def compare(self, heads: Iterable[AuditHead]) -> Wrong | None:
        """Return the first record that is not the one which a head of this node speaks of."""
        if self.wrong is not None:
            return self.wrong
        agreed = self.base.seq if self.base else 0
        for head in sorted(heads, key=lambda one: one.seq):
            if head.log != self.log:
                said = f"the whole log was replaced: one of {head.seq} records was here before"
                return Wrong(1, said)
            if head.seq > self.seq:
                said = f"records were cut off, or an old copy was put back: {head.seq} were written"
                return Wrong(self.seq + 1, said)
            found = self.hashes.get(head.seq)
            if found is not None and found != head.hash:
                said = f"the log was rewritten from some record after {agreed} on"
                return Wrong(head.seq, said)
            agreed = max(agreed, head.seq)
        return None

    def _note(self) -> None:
        if self.seq in self.at_seqs:
            self.hashes[self.seq] = self.hash


def walked(
    node: NodeId, log: int, kept: Iterable[Kept], heads: Iterable[AuditHead]
) -> tuple[Walk, Wrong | None]:
    """Verify a whole log, and against what was seen of it; return how far it is right."""
    kept, heads = list(kept), list(heads)
    records = [one.record for one in kept if one.record is not None]
    base = base_of(records, kept[0].seq) if kept and kept[0].seq != 1 else None
    walk = Walk(node_key_of(node), log, base, frozenset(head.seq for head in heads))
    for one in kept:
        walk.take(one)
    return walk, walk.compare(heads)
