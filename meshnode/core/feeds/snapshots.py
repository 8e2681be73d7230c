"""Whole feeds on their way: small ones in one message, others bucket by bucket.

A relay offers the hashes of all buckets, which the owner's header proves; the receiver asks for
those that it does not hold, a window at a time, of whichever neighbour it likes, and proves each by
its hash alone. So nothing is sent twice, a lost neighbour costs nothing, and a feed that changes
meanwhile costs only the buckets that changed.

Invariant: nothing enters an assembly that its owner has not signed; at most ASSEMBLIES_MAX feeds
are half received, none beyond what the genesis allows, and none for longer than it makes progress.
Anybody can sign hashes with a key of his own: of feeds that have not proved a member few are kept.
No neighbour can undo what others are sending: an older state takes no place of one that makes
progress, buckets that are not wanted change nothing, and whoever began most makes room.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import BUCKET_BYTES_MAX, TABLES_MAX, checked_row, fits, too_large
from meshnode.core.feeds.headers import HASH_BYTES
from meshnode.core.feeds.messages import BucketPull, BucketRows, Manifest, Snapshot
from meshnode.core.feeds.rows import BUCKETS, ROW_BYTES, Row, Rows, bucket_of
from meshnode.core.feeds.rows import state_hash as hash_of
from meshnode.core.packing import PACKED_BYTES_MAX, pack, pack_lists, typed, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.rows import Manifest as Hashes
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Limits

SMALL_BYTES_MAX = 32 << 10  # sent whole
SNAPSHOT_BYTES_MAX = 4 * SMALL_BYTES_MAX  # packed, with long names of tables; larger: PeerError
FRAME_BYTES = 32 << 10  # of rows in one frame, unless a single bucket has more
PACKED_ROWS_MAX = PACKED_BYTES_MAX - 1024  # of a bucket: its frame says whose they are, too
WINDOW_BYTES = 256 << 10  # of rows sent for one request
ASKED_MAX = 1024  # buckets named in one request
ASSEMBLIES_MAX = 64  # feeds half received; more: of whom began most, what stands still longest goes
UNPROVED_MAX = 1 << 17  # buckets, of all feeds whose member record is not here; more: the same
STANDS_S = 60.0  # without anything new; then it is dropped
ROWS_MAX = BUCKET_BYTES_MAX // ROW_BYTES  # in one message; more: PeerError
STILL_S = 2.0  # without anything new, until an older state may take its place
RECORD = ("node", bucket_of(b""))  # the bucket with the member record


def whole(header: Header, rows: Rows) -> Snapshot | Manifest:
    """Return a feed in one message, or the hashes to ask for it by."""
    if rows.bytes + rows.count() * ROW_BYTES <= SMALL_BYTES_MAX:
        entries = [
            [table, key, row.epoch, row.seq, row.value]
            for table, held in rows.tables.items()
            for key, row in held.items()
        ]
        return Snapshot(header, pack_lists(entries))
    return Manifest(header, rows.manifest())


def rows_of(snapshot: Snapshot, limits: Limits) -> Rows:
    """Return the rows of a small feed; raises PeerError unless its header proves them."""
    if len(snapshot.rows) > SNAPSHOT_BYTES_MAX:
        raise PeerError("a snapshot of a feed that is to be sent bucket by bucket")
    rows = Rows()
    for table, key, row in _entries(snapshot.rows, limits):
        rows.put(table, key, row)
    if rows.state_hash() != snapshot.header.state_hash:
        raise PeerError("a snapshot whose rows do not match its header")
    check_size(rows, limits)
    return rows


def check_size(rows: Rows, limits: Limits) -> None:
    """Raise PeerError for a whole feed that the mesh does not allow."""
    if not fits(rows, limits):
        raise PeerError("a feed with more rows or bytes than the mesh allows")


def answers(pull: BucketPull, rows: Rows) -> Iterator[BucketRows]:
    """Send the buckets asked for, up to WINDOW_BYTES, and say when that is all for now."""
    frame: list[list[object]] = []
    frame_bytes = sent_bytes = 0
    for table, numbers in pull.wanted.items():
        for number in numbers:
            size = rows.bucket_bytes(table, number)
            if sent_bytes and sent_bytes + size > WINDOW_BYTES:  # the last one is never empty
                yield BucketRows(pull.origin, _packed(frame), last=True)
                return
            if frame and frame_bytes + size > FRAME_BYTES:
                yield BucketRows(pull.origin, _packed(frame), last=False)
                frame, frame_bytes = [], 0
            frame += [
                [table, key, row.epoch, row.seq, row.value]
                for key, row in rows.bucket(table, number).items()
            ]
            frame_bytes += size
            sent_bytes += size
    yield BucketRows(pull.origin, _packed(frame), last=True)


def _packed(entries: list[list[object]]) -> bytes:
    """Encode rows; where the names of tables make a frame of them too large, each name once."""
    packed = pack_lists(entries)
    if len(packed) <= PACKED_ROWS_MAX:
        return packed
    tables = [None, *(table for table, *_ in entries)]
    named = [
        [None if table == before else table, *rest]
        for before, (table, *rest) in zip(tables, entries, strict=False)
    ]
    return pack_lists(named)


class Assembly(msgspec.Struct):
    """A feed of which some buckets are here."""

    header: Header
    rows: Rows
    missing: dict[tuple[str, int], bytes]  # the hashes of the buckets that are not
    begun_by: NodeId
    touched_s: float  # when anything of it came that was missing
    admitted: bool  # its member record was looked at, or the feed is held

    def asks(self) -> BucketPull:
        """Return what to ask for next; the member record first, which tells a member's feed."""
        wanted: dict[str, list[int]] = {}
        for table, number in sorted(self.missing, key=_node_first)[:ASKED_MAX]:
            wanted.setdefault(table, []).append(number)
        return BucketPull(self.header.origin, self.header.head, wanted)


def _node_first(place: tuple[str, int]) -> tuple[bool, str, int]:
    return (place != RECORD, *place)


class Assemblies:
    """Feeds that are half received, one of each origin."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._assemblies: dict[NodeId, Assembly] = {}

    def get(self, origin: NodeId) -> Assembly | None:
        """Return what is here of a feed."""
        return self._assemblies.get(origin)

    def begin(
        self, peer: NodeId, manifest: Manifest, held: Rows | None, now_s: float
    ) -> Assembly | None:
        """Start from what is held already, here or half received; raises PeerError.

        Returns None if a later state of this feed is on its way.
        """
        header, hashes = manifest.header, manifest.buckets
        if len(hashes) > TABLES_MAX or hash_of(hashes) != header.state_hash:
            raise PeerError("a manifest that does not match its header")
        before = self._assemblies.get(header.origin)
        if before is not None and before.header.signed == header.signed:
            return before
        moves = before is not None and now_s - before.touched_s < STILL_S
        if before is not None and moves and header.head <= before.header.head:
            return None
        self.drop(header.origin)
        known = [rows for rows in (before.rows if before else None, held) if rows is not None]
        rows, missing = _reused(hashes, known)
        proved = before is not None and before.admitted and RECORD not in missing
        if len(self._assemblies) >= ASSEMBLIES_MAX:
            self._make_room(Counter(one.begun_by for one in self._assemblies.values()))
        assembly = Assembly(header, rows, missing, peer, now_s, proved or held is not None)
        self._assemblies[header.origin] = assembly
        while (unproved := self._unproved()).total() > UNPROVED_MAX:
            self._make_room(unproved, among_unproved=True)
        return assembly

    def _unproved(self) -> Counter[NodeId]:
        """Count the buckets of feeds that have not proved a member, by who began them."""
        counts: Counter[NodeId] = Counter()
        for one in self._assemblies.values():
            counts[one.begun_by] += 0 if one.admitted else len(one.missing)
        return counts

    def _make_room(self, begun: Counter[NodeId], *, among_unproved: bool = False) -> None:
        """Drop, of whoever began most, what stands still longest."""
        (most, _), *_ = begun.most_common(1)
        theirs = (one for one in self._assemblies.values() if one.begun_by == most)
        some = (one for one in theirs if not (among_unproved and one.admitted))
        self.drop(min(some, key=lambda one: one.touched_s).header.origin)

    def expire(self, now_s: float) -> None:
        """Drop what has stood still for long: nobody seems to have the rest."""
        for origin, one in list(self._assemblies.items()):
            if now_s - one.touched_s >= STANDS_S:
                self.drop(origin)

    def forget_peer(self, peer: NodeId) -> None:
        """Drop what a lost neighbour began and nobody is known to be a member of."""
        for origin, one in list(self._assemblies.items()):
            if one.begun_by == peer and not one.admitted:
                self.drop(origin)

    def take(self, message: BucketRows, now_s: float) -> bool:
        """Put proved buckets to their feed; False if nothing came of it that is missing.

        Nothing is taken before the bucket with the member record, which is asked for first.

        Raises PeerError for a bucket that is not proved, and for a feed that grows too large.
        """
        assembly = self._assemblies.get(message.origin)
        if assembly is None:
            return False
        lacked = len(assembly.missing)
        came: dict[tuple[str, int], dict[bytes, Row]] = {}
        for table, key, row in _entries(message.rows, self._limits):
            came.setdefault((table, bucket_of(key)), {})[key] = row
        if RECORD in assembly.missing and RECORD not in came:
            return False
        for place, bucket in came.items():
            expected = assembly.missing.get(place)
            if expected is None:
                continue
            if assembly.rows.fill(*place, bucket) != expected:
                assembly.rows.empty(*place)
                raise PeerError("a bucket that is not what its feed's header says")
            del assembly.missing[place]
            assembly.touched_s = now_s
            if too_large(assembly.rows, self._limits):
                self.drop(message.origin)
                raise PeerError("a feed with more rows or bytes than the mesh allows")
        return len(assembly.missing) < lacked

    def drop(self, origin: NodeId) -> None:
        """Forget what is here of a feed: it is whole, or not wanted."""
        self._assemblies.pop(origin, None)

    def __len__(self) -> int:
        """Count the feeds that are half received."""
        return len(self._assemblies)


def _reused(hashes: Hashes, known: list[Rows]) -> tuple[Rows, dict[tuple[str, int], bytes]]:
    """Copy the buckets that are held as they shall be; name the others."""
    rows = Rows()
    missing: dict[tuple[str, int], bytes] = {}
    manifests = [(held, held.manifest()) for held in known]
    for table, buckets in hashes.items():
        for number, expected in buckets.items():
            for held, theirs in manifests:
                if theirs.get(table, {}).get(number) == expected:
                    rows.fill(table, number, held.bucket(table, number))
                    break
            else:
                missing[table, number] = expected
    return rows, missing


def _entries(packed: bytes, limits: Limits) -> Iterable[tuple[str, bytes, Row]]:
    """Decode rows; raises PeerError, also for what the genesis does not allow.

    A row without a table is of the table of the row before.
    """
    try:
        entries = unpack(packed)
        if len(entries) > ROWS_MAX:
            raise PeerError(f"more than {ROWS_MAX} rows in one message")
        table = None
        rows: list[tuple[str, bytes, Row]] = []
        for named, *rest in entries:
            table = table if named is None else named
            rows.append(checked_row(table, *rest, limits=limits))
        return rows  # noqa: TRY300 - the checks belong to the decoding
    except (TypeError, ValueError, OverflowError) as error:
        raise PeerError("rows that are malformed") from error


def hashes_to_bytes(hashes: Hashes) -> bytes:
    """Encode a manifest: a list of (table, numbers, a byte each, and hashes, 32 bytes each)."""
    return pack(
        [
            [table, bytes(sorted(buckets)), b"".join(buckets[n] for n in sorted(buckets))]
            for table, buckets in sorted(hashes.items())
        ]
    )


def hashes_from_bytes(packed: bytes) -> Hashes:
    """Decode a manifest; raises PeerError."""
    hashes: Hashes = {}
    try:
        for name, numbers, joined in unpack(packed):
            table, count = typed(name, str), len(typed(numbers, bytes))
            if count > BUCKETS or len(typed(joined, bytes)) != HASH_BYTES * count:
                raise PeerError("a manifest with more or fewer hashes than buckets")
            starts = range(0, HASH_BYTES * count, HASH_BYTES)
            parts = [joined[start : start + HASH_BYTES] for start in starts]
            hashes[table] = dict(zip(numbers, parts, strict=True))
    except (TypeError, ValueError) as error:
        raise PeerError("a manifest that is malformed") from error
    return hashes
