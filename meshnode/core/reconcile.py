"""Holding all feeds and the control set, and repairing the gaps between two neighbours.

Two neighbours compare one hash; if it differs, the hashes of 64 buckets; then what they hold in the
buckets that differ; then the missing flushes or snapshots travel.

Invariant: whatever the order, loss or repetition of messages, the head of a held feed only grows,
and a snapshot is always an answer: a relay that lacks any needed flush sends the whole state.
Nothing is held that its owner's signature does not prove.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meshnode.core.control import entry_id_of
from meshnode.core.effects import Effect, Report, Send
from meshnode.core.errors import PeerError
from meshnode.core.feed import Change, Flush, ForkError, Replica, rows_from_parts
from meshnode.core.headers import NOTHING, Head, Header
from meshnode.core.messages import (
    BucketHashes,
    Digest,
    Have,
    Known,
    Message,
    Pull,
    SnapshotChunk,
    Vector,
)
from meshnode.core.packing import pack
from meshnode.core.snapshots import Assemblies, snapshot_chunks
from meshnode.core.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.core.control import ControlSet
    from meshnode.core.genesis import Genesis, Limits
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.own_feed import OwnFeed
    from meshnode.core.rows import Rows

FLUSHES_BYTES_MAX = 256 << 10  # kept per origin; older gaps are filled by a snapshot
EARLY_MAX = 16  # flushes of one origin that came before one that they follow; more: pulled
EARLY_BYTES_MAX = 4 << 20  # of all origins together; more: pulled
FEEDS_MAX = 10_000  # more origins: PeerError, the link is kept
POSITIONS_MAX = 1_000  # in one frame, give or take a bucket; more travel in several
PULL_AGAIN_S = 2.0


@dataclass(slots=True)
class Outcome:
    """What a message led to: answers, and what is new here and so worth passing on."""

    effects: list[Effect] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    entries: list[Signed] = field(default_factory=list)
    duplicate_of: NodeId | None = None  # news that came along a tree and was here already
    missing: dict[NodeId, Head] = field(default_factory=dict)  # announced; may be on its way


class Replication:
    """Everything replicated that one node holds."""

    def __init__(
        self,
        genesis: Genesis,
        own: OwnFeed,
        control: ControlSet,
        replica: Callable[[NodeId, Limits], Replica] = Replica,
        admits: Callable[[NodeId, Rows], bool] = lambda _origin, _rows: True,
    ) -> None:
        self.own = own
        self._admits = admits
        self._new_replica = replica
        self.control = control
        self.replicas: dict[NodeId, Replica] = {own.origin: own}
        self._limits = genesis.limits
        self._recent: dict[NodeId, deque[Flush]] = {}
        self._recent_bytes: dict[NodeId, int] = {}
        self._early: dict[NodeId, dict[int, Flush]] = {}  # by first seq
        self._early_bytes = 0
        self._pulled_at_s: dict[tuple[NodeId, NodeId, bool], float] = {}
        self._published = NOTHING  # our own head that is on disk: what neighbours may hear of
        self._assemblies = Assemblies(genesis.limits.feed_bytes_max)
        self._feeds: Summary[NodeId] = Summary(self._describe)
        self._feeds.add(own.origin)

    def restore(self, header: Header, rows: Rows) -> None:
        """Take a feed from our own disk."""
        if header.origin == self.own.origin:
            self.own.restore(header, rows)
            self._published = header.head
        else:
            self._replica(header.origin).replace(header, rows)
        self._feeds.changed(header.origin)

    def remember(self, flush: Flush) -> None:
        """Keep a flush for neighbours that lag a little, the oldest going first."""
        origin = flush.header.origin
        if origin == self.own.origin:
            self._published = flush.header.head
        self._feeds.changed(origin)
        recent = self._recent.setdefault(origin, deque())
        recent.append(replace(flush, eager=False, flooded=False))
        size = self._recent_bytes.get(origin, 0) + len(flush.delta)
        while size > FLUSHES_BYTES_MAX:
            size -= len(recent.popleft().delta)
        self._recent_bytes[origin] = size

    def digest(self) -> Digest:
        """Say what is held, in two hashes."""
        return Digest(self._feeds.root(), self.control.summary.root())

    def bucket_hashes(self) -> BucketHashes:
        """Say what is held, in the hashes of all buckets."""
        return BucketHashes(self._feeds.hashes(), self.control.summary.hashes())

    def ask_for_own(self) -> Pull:
        """Ask a neighbour what it holds of our feed that our disk does not."""
        return Pull({self.own.origin: self.own.restored})

    def on_digest(self, peer: NodeId, digest: Digest) -> Outcome:
        """Answer a neighbour whose holdings differ with the hashes of all buckets."""
        same = digest == self.digest()
        return Outcome() if same else Outcome([Send(peer, self.bucket_hashes())])

    def on_bucket_hashes(self, peer: NodeId, theirs: BucketHashes) -> Outcome:
        """Name all that is held in the buckets that differ."""
        feeds = self._feeds.differing(theirs.feeds)
        control = self.control.summary.differing(theirs.control)
        return Outcome([Send(peer, vector) for vector in self._vectors(feeds, control)])

    def _vectors(self, feeds: frozenset[int], control: frozenset[int]) -> Iterator[Vector]:
        """Describe some buckets in frames of bounded size, each bucket whole in one of them."""
        held: dict[NodeId, Head] = {}
        within: set[int] = set()
        for number in sorted(feeds):
            within.add(number)
            heads = {o: self._shown(o) for o in self._feeds.within(frozenset({number}))}
            held.update((origin, head) for origin, head in heads.items() if head != NOTHING)
            if len(held) > POSITIONS_MAX:
                yield Vector(held, feed_buckets=frozenset(within))
                held, within = {}, set()
        if within or control:
            ids = frozenset(self.control.summary.within(control))
            yield Vector(held, ids, frozenset(within), control)

    def on_vector(self, peer: NodeId, vector: Vector, now_s: float) -> Outcome:
        """Send what the neighbour lacks, ask for what we lack."""
        outcome = Outcome()
        wanted: dict[NodeId, Head] = {}
        for origin, theirs in vector.positions.items():
            ours = self.head_of(origin)
            after = NOTHING if origin == self.own.origin else ours
            if theirs > ours and self._may_pull(peer, origin, after, now_s):
                wanted[origin] = after
        missing = frozenset(i for i in vector.control_ids if self.control.get(i) is None)
        if wanted or missing:
            outcome.effects.append(Send(peer, Pull(wanted, missing)))
        behind = {
            origin: vector.positions.get(origin, NOTHING)
            for origin in self._feeds.within(vector.feed_buckets)
            if self._shown(origin) > vector.positions.get(origin, NOTHING)
        }
        held = frozenset(self.control.summary.within(vector.control_buckets))
        outcome.effects += self._serve(peer, Pull(behind, held - vector.control_ids))
        return outcome

    def on_have(self, have: Have) -> Outcome:
        """Find out what of the announced is missing here: it may be on its way."""
        missing = {
            origin: head
            for origin, head in have.positions.items()
            if origin != self.own.origin and head > self.head_of(origin)
        }
        return Outcome(missing=missing)

    def graft(self, origins: list[NodeId]) -> Pull:
        """Ask for what is missing of these origins, and for what comes after it, unasked."""
        return Pull({origin: self.head_of(origin) for origin in origins}, graft=True)

    def on_pull(self, peer: NodeId, pull: Pull) -> Outcome:
        """Serve a neighbour."""
        return Outcome(self._serve(peer, pull))

    def on_control(self, entry: Signed) -> Outcome:
        """Store an entry of the control set; raises PeerError if its bytes are not acceptable."""
        return Outcome(entries=[entry]) if self.control.add(entry) else Outcome()

    def holds(self, header: Header) -> bool:
        """Whether news with this header, true or not, could tell nothing new."""
        if header.origin == self.own.origin:
            return self.own.has_written(header)
        return header.head <= self.head_of(header.origin)

    def on_known(self, known: Known) -> Outcome:
        """Note news that were held already."""
        ours = known.origin == self.own.origin
        return Outcome(duplicate_of=known.origin if known.eager and not ours else None)

    def on_flush(  # noqa: PLR0911 - one case what it may find here
        self, peer: NodeId, flush: Flush, now_s: float
    ) -> Outcome:
        """Apply a flush, or ask for what lies between; raises PeerError, having changed nothing."""
        header = flush.header
        if header.origin == self.own.origin:
            return self._on_own(peer, header, now_s)
        replica = self.replicas.get(header.origin)
        if replica is None:  # its snapshot says whether it is a member's
            return self._pull(peer, header.origin, NOTHING, now_s)
        if header.head <= replica.head:
            return self.on_known(Known(header.origin, flush.eager))
        if not replica.follows(header):
            if self._kept_early(flush, replica.head):
                return Outcome(missing={header.origin: header.head})
            return self._replacing(peer, header, replica.head, now_s)
        return self._applied(peer, replica, flush, now_s)

    def _applied(self, peer: NodeId, replica: Replica, flush: Flush, now_s: float) -> Outcome:
        """Apply a flush, and what follows it and came before it; raises PeerError."""
        try:
            outcome = Outcome(changes=[self._apply(replica, flush)])
        except ForkError as error:
            return self._forked(peer, flush.header, error, now_s)
        early = self._take_early(replica.origin)
        while (following := early.get(replica.head.seq + 1)) and replica.follows(following.header):
            try:
                outcome.changes.append(self._apply(replica, following))
            except PeerError as error:
                outcome.effects.append(Report("frame_refused", peer, error.message))
                break
        return outcome

    def _take_early(self, origin: NodeId) -> dict[int, Flush]:
        early = self._early.pop(origin, {})
        self._early_bytes -= sum(len(flush.delta) for flush in early.values())
        return early

    def _apply(self, replica: Replica, flush: Flush) -> Change:
        change = replica.apply(flush)
        self.remember(flush)
        return change

    def _kept_early(self, flush: Flush, head: Head) -> bool:
        """Keep a flush that came before one it follows, if there is room."""
        header = flush.header
        early = self._early.get(header.origin, {})
        room = self._early_bytes + len(flush.delta) <= EARLY_BYTES_MAX and len(early) < EARLY_MAX
        if head == NOTHING or header.epoch != head.epoch or header.first_seq in early or not room:
            return False
        self._early.setdefault(header.origin, {})[header.first_seq] = flush
        self._early_bytes += len(flush.delta)
        return True

    def on_snapshot_chunk(self, peer: NodeId, chunk: SnapshotChunk) -> Outcome:
        """Collect a snapshot; once whole and proved, it replaces what is held of that feed."""
        header = chunk.header
        ours = header.origin == self.own.origin
        if self.own.has_written(header) if ours else header.head <= self.head_of(header.origin):
            return Outcome()
        parts = self._assemblies.collected(peer, chunk)
        if parts is None:
            return Outcome()
        rows = rows_from_parts(parts, self._limits)
        if rows.state_hash() != header.state_hash:
            raise PeerError("a snapshot whose rows do not match its header")
        if header.origin not in self.replicas and not self._admits(header.origin, rows):
            raise PeerError(f"a feed of {header.origin[:12]}, whom nobody has admitted")
        self._pulled_at_s.pop((peer, header.origin, True), None)
        self._pulled_at_s.pop((peer, header.origin, False), None)
        if ours:
            return self._continue_after(header, rows)
        self._take_early(header.origin)
        self._recent.pop(header.origin, None)  # what was kept no longer joins up
        self._recent_bytes.pop(header.origin, None)
        replica = self._replica(header.origin)
        lost = self._lost_rows(peer, header)
        change = replica.replace(header, rows)
        self._feeds.changed(header.origin)
        return Outcome(lost, changes=[change])

    def forget_peer(self, peer: NodeId) -> None:
        """Drop what a lost neighbour has half sent."""
        self._assemblies.forget_peer(peer)

    def _on_own(self, peer: NodeId, header: Header, now_s: float) -> Outcome:
        if self.own.has_written(header):
            return Outcome()
        return self._pull(peer, header.origin, NOTHING, now_s)

    def _forked(self, peer: NodeId, header: Header, error: ForkError, now_s: float) -> Outcome:
        """Two histories of one feed: its newest snapshot decides."""
        outcome = self._replacing(peer, header, NOTHING, now_s)
        outcome.effects.append(Report("feed_forked", peer, error.message))
        return outcome

    def _replacing(self, peer: NodeId, header: Header, after: Head, now_s: float) -> Outcome:
        outcome = self._pull(peer, header.origin, after, now_s)
        if outcome.effects:
            outcome.effects += self._lost_rows(peer, header)
        return outcome

    def _lost_rows(self, peer: NodeId, header: Header) -> list[Effect]:
        """Before a restarted owner's feed replaces what is held of it, show the owner what is held.

        Its disk may have lost that, and its new history reached beyond before anybody was linked.
        """
        replica = self.replicas.get(header.origin)
        held = None if replica is None else replica.header
        if replica is None or held is None or peer != header.origin or held.boot == header.boot:
            return []
        return [Send(peer, part) for part in snapshot_chunks(held, replica.rows)]

    def _continue_after(self, header: Header, rows: Rows) -> Outcome:
        """Our disk is older than what we once published: keep those rows, leave that history."""
        self.own.continue_after(header, rows)
        detail = f"peers hold our feed up to {header.epoch}.{header.last_seq}: epoch raised"
        return Outcome([Report("epoch_raised", None, detail)])

    def _shown(self, origin: NodeId) -> Head:
        return self._published if origin == self.own.origin else self.head_of(origin)

    def _replica(self, origin: NodeId) -> Replica:
        replica = self.replicas.get(origin)
        if replica is None:
            if len(self.replicas) >= FEEDS_MAX:
                raise PeerError(f"more than {FEEDS_MAX} feeds")
            replica = self.replicas[origin] = self._new_replica(origin, self._limits)
            self._feeds.add(origin)
        return replica

    def head_of(self, origin: NodeId) -> Head:
        """Return how far a feed is held."""
        replica = self.replicas.get(origin)
        return NOTHING if replica is None else replica.head

    def _describe(self, origin: NodeId) -> bytes:
        head = self._shown(origin)
        return b"" if head == NOTHING else pack([origin, head.epoch, head.seq])

    def _may_pull(self, peer: NodeId, origin: NodeId, after: Head, now_s: float) -> bool:
        """Whether to ask now, a whole feed also though a part was just asked for.

        Each neighbour counts by itself, or a liar would keep the others from being asked.
        """
        asked = (peer, origin, after == NOTHING)
        if now_s - self._pulled_at_s.get(asked, -PULL_AGAIN_S) < PULL_AGAIN_S:
            return False
        if len(self._pulled_at_s) >= 2 * FEEDS_MAX:
            self._pulled_at_s.clear()
        self._pulled_at_s[asked] = now_s
        return True

    def _pull(self, peer: NodeId, origin: NodeId, after: Head, now_s: float) -> Outcome:
        if not self._may_pull(peer, origin, after, now_s):
            return Outcome()
        return Outcome([Send(peer, Pull({origin: after}))])

    def _serve(self, peer: NodeId, pull: Pull) -> list[Effect]:
        messages: list[Message] = []
        # In the order in which they became acceptable here: admins before those whom they admit.
        messages += [e for e in self.control.entries() if entry_id_of(e) in pull.control_ids]
        for origin, after in pull.after.items():
            replica = self.replicas.get(origin)
            if replica is not None and replica.header is not None and self._shown(origin) > after:
                messages += self._since(replica, replica.header, after)
        return [Send(peer, message) for message in messages]

    def _since(self, replica: Replica, header: Header, after: Head) -> list[Message]:
        kept = [f for f in self._recent.get(replica.origin, ()) if f.header.head > after]
        first = kept[0].header if kept else None
        joins = first and first.epoch == after.epoch and first.first_seq == after.seq + 1
        if joins and kept[-1].header.head == self._shown(replica.origin):
            return list(kept)
        if replica.head != self._shown(replica.origin):
            return []  # our rows are ahead of our disk: the flush follows once it is synced
        return list(snapshot_chunks(header, replica.rows))
