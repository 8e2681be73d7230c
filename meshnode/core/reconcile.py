"""Holding all feeds and the control set, and repairing the gaps between two neighbours.

Invariant: whatever the order, loss or repetition of messages, the head of a held feed only grows,
and a snapshot is always an answer: a relay that lacks any needed flush sends the whole state.
Nothing is held that its owner's signature does not prove.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.control import entry_id_of
from meshnode.core.effects import Effect, Report, Send
from meshnode.core.errors import PeerError
from meshnode.core.feed import (
    NOTHING,
    Change,
    Flush,
    ForkError,
    Head,
    Header,
    OwnFeed,
    Replica,
    rows_from_parts,
)
from meshnode.core.messages import Digest, Message, Pull, SnapshotChunk, Vector
from meshnode.core.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.core.control import ControlSet
    from meshnode.core.genesis import Genesis, Limits
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.rows import Rows

FLUSHES_BYTES_MAX = 256 << 10  # kept per origin; older gaps are filled by a snapshot
CHUNK_BYTES_MAX = 32 << 10
FEEDS_MAX = 10_000  # more origins: PeerError, the link is kept
ASSEMBLIES_OF_PEER_MAX = 4  # half received from one neighbour; more: its oldest is dropped
PART_BYTES = 1024  # what a chunk costs at least, so that empty ones come to an end
PULL_AGAIN_S = 2.0


@dataclass(slots=True)
class Outcome:
    """What a message led to: answers, and what is new here and so worth passing on."""

    effects: list[Effect] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    entries: list[Signed] = field(default_factory=list)


@dataclass(slots=True)
class _Assembly:
    parts: list[bytes] = field(default_factory=list)
    bytes: int = 0


class Replication:
    """Everything replicated that one node holds."""

    def __init__(
        self,
        genesis: Genesis,
        own: OwnFeed,
        control: ControlSet,
        replica: Callable[[NodeId, Limits], Replica] = Replica,
    ) -> None:
        self.own = own
        self._new_replica = replica
        self.control = control
        self.replicas: dict[NodeId, Replica] = {own.origin: own}
        self._limits = genesis.limits
        self._recent: dict[NodeId, deque[Flush]] = {}
        self._recent_bytes: dict[NodeId, int] = {}
        self._pulled_at_s: dict[tuple[NodeId, bool], float] = {}
        self._published = NOTHING  # our own head that is on disk: what neighbours may hear of
        self._assemblies: dict[tuple[NodeId, Head, NodeId], _Assembly] = {}

    def restore(self, header: Header, rows: Rows) -> None:
        """Take a feed from our own disk."""
        if header.origin == self.own.origin:
            self.own.restore(header, rows)
            self._published = header.head
        else:
            self._replica(header.origin).replace(header, rows)

    def remember(self, flush: Flush) -> None:
        """Keep a flush for neighbours that lag a little, the oldest going first."""
        origin = flush.header.origin
        if origin == self.own.origin:
            self._published = flush.header.head
        recent = self._recent.setdefault(origin, deque())
        recent.append(flush)
        size = self._recent_bytes.get(origin, 0) + len(flush.delta)
        while size > FLUSHES_BYTES_MAX:
            size -= len(recent.popleft().delta)
        self._recent_bytes[origin] = size

    def digest(self) -> Digest:
        """Say what is held, in two hashes."""
        heads = [[origin, head.epoch, head.seq] for origin, head in sorted(self._heads().items())]
        return Digest(sha256(pack(heads)).digest()[:16], self.control.root)

    def vector(self) -> Vector:
        """Say what is held, in full."""
        return Vector(self._heads(), self.control.ids, full=True)

    def ask_for_own(self) -> Pull:
        """Ask a neighbour what it holds of our feed that our disk does not."""
        return Pull({self.own.origin: self.own.restored})

    def on_digest(self, peer: NodeId, digest: Digest) -> Outcome:
        """Answer a neighbour whose holdings differ with all that is held here."""
        same = digest == self.digest()
        return Outcome() if same else Outcome([Send(peer, self.vector())])

    def on_vector(self, peer: NodeId, vector: Vector, now_s: float) -> Outcome:
        """Send what the neighbour lacks, ask for what we lack."""
        outcome = Outcome()
        wanted: dict[NodeId, Head] = {}
        for origin, theirs in vector.positions.items():
            ours = self._head_of(origin)
            after = NOTHING if origin == self.own.origin else ours
            if theirs > ours and self._may_pull(origin, after, now_s):
                wanted[origin] = after
        missing = vector.control_ids - self.control.ids
        if wanted or missing:
            outcome.effects.append(Send(peer, Pull(wanted, missing)))
        if vector.full:
            behind = {
                origin: vector.positions.get(origin, NOTHING)
                for origin, head in self._heads().items()
                if head > vector.positions.get(origin, NOTHING)
            }
            lacking = self.control.ids - vector.control_ids
            outcome.effects += self._serve(peer, Pull(behind, lacking))
        return outcome

    def on_pull(self, peer: NodeId, pull: Pull) -> Outcome:
        """Serve a neighbour."""
        return Outcome(self._serve(peer, pull))

    def on_control(self, entry: Signed) -> Outcome:
        """Store an entry of the control set; raises PeerError if its bytes are not acceptable."""
        return Outcome(entries=[entry]) if self.control.add(entry) else Outcome()

    def on_flush(self, peer: NodeId, flush: Flush, now_s: float) -> Outcome:
        """Apply a flush, or ask for what lies between; raises PeerError, having changed nothing."""
        header = flush.header
        if header.origin == self.own.origin:
            return self._on_own(peer, header, now_s)
        replica = self._replica(header.origin)
        if header.head <= replica.head:
            return Outcome()
        if not replica.follows(header):
            return self._replacing(peer, header, replica.head, now_s)
        try:
            change = replica.apply(flush)
        except ForkError as error:
            return self._forked(peer, header, error, now_s)
        self.remember(flush)
        return Outcome(changes=[change])

    def on_snapshot_chunk(self, peer: NodeId, chunk: SnapshotChunk) -> Outcome:
        """Collect a snapshot; once whole and proved, it replaces what is held of that feed."""
        header = chunk.header
        ours = header.origin == self.own.origin
        if self.own.has_written(header) if ours else header.head <= self._head_of(header.origin):
            return Outcome()
        parts = self._collected(peer, chunk)
        if parts is None:
            return Outcome()
        rows = rows_from_parts(parts, self._limits)
        if rows.state_hash() != header.state_hash:
            raise PeerError("a snapshot whose rows do not match its header")
        self._pulled_at_s.pop((header.origin, True), None)
        self._pulled_at_s.pop((header.origin, False), None)
        if ours:
            return self._continue_after(header, rows)
        self._recent.pop(header.origin, None)  # what was kept no longer joins up
        self._recent_bytes.pop(header.origin, None)
        replica = self._replica(header.origin)
        lost = self._lost_rows(peer, header)
        return Outcome(lost, changes=[replica.replace(header, rows)])

    def _collected(self, peer: NodeId, chunk: SnapshotChunk) -> list[bytes] | None:
        """Put a chunk to those before it; returns all once the last is here."""
        place = (chunk.header.origin, chunk.header.head, peer)
        if place not in self._assemblies:
            theirs = [other for other in self._assemblies if other[2] == peer]
            if len(theirs) >= ASSEMBLIES_OF_PEER_MAX:
                del self._assemblies[theirs[0]]
            self._assemblies[place] = _Assembly()
        assembly = self._assemblies[place]
        assembly.parts.append(chunk.rows)
        assembly.bytes += len(chunk.rows) + PART_BYTES
        if assembly.bytes > 2 * self._limits.feed_bytes_max:  # framing included
            del self._assemblies[place]
            raise PeerError("a snapshot larger than the mesh allows")
        return self._assemblies.pop(place).parts if chunk.last else None

    def forget_peer(self, peer: NodeId) -> None:
        """Drop what a lost neighbour has half sent."""
        for place in [place for place in self._assemblies if place[2] == peer]:
            del self._assemblies[place]

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
        return self._published if origin == self.own.origin else self._head_of(origin)

    def _replica(self, origin: NodeId) -> Replica:
        replica = self.replicas.get(origin)
        if replica is None:
            if len(self.replicas) >= FEEDS_MAX:
                raise PeerError(f"more than {FEEDS_MAX} feeds")
            replica = self.replicas[origin] = self._new_replica(origin, self._limits)
        return replica

    def _head_of(self, origin: NodeId) -> Head:
        replica = self.replicas.get(origin)
        return NOTHING if replica is None else replica.head

    def _heads(self) -> dict[NodeId, Head]:
        """Return what neighbours may know that we hold."""
        heads = {origin: replica.head for origin, replica in self.replicas.items()}
        heads[self.own.origin] = self._published
        return {origin: head for origin, head in heads.items() if head != NOTHING}

    def _may_pull(self, origin: NodeId, after: Head, now_s: float) -> bool:
        asked = (origin, after == NOTHING)  # a whole feed is asked for though a part just was
        if now_s - self._pulled_at_s.get(asked, -PULL_AGAIN_S) < PULL_AGAIN_S:
            return False
        if len(self._pulled_at_s) >= 2 * FEEDS_MAX:
            self._pulled_at_s.clear()
        self._pulled_at_s[asked] = now_s
        return True

    def _pull(self, peer: NodeId, origin: NodeId, after: Head, now_s: float) -> Outcome:
        if not self._may_pull(origin, after, now_s):
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
