"""Repairing the gaps between two neighbours.

They compare one hash; if it differs, the hashes of 64 buckets; then what they hold in the buckets
that differ; then the missing flushes or whole feeds travel, a few feeds at a time.

Invariant: two nodes that talk long enough hold the same; a whole feed is always an answer: a relay
that lacks any needed flush offers the newest state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.core.effects import Effect, Send
from meshnode.core.feeds.feed import Flush, Replica
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.intake import Intake, Outcome
from meshnode.core.feeds.messages import (
    BucketHashes,
    BucketPull,
    Digest,
    Fork,
    Have,
    Manifest,
    Message,
    Pull,
    Vector,
)
from meshnode.core.feeds.snapshots import answers, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshnode.core.control.control import ControlSet
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.membership.genesis import Genesis, Limits

POSITIONS_MAX = 1_000  # in one frame, give or take a bucket; more travel in several
ANSWERED_MAX = 256  # messages for one request; of more feeds the asker is told the positions
HURRIES_MAX = 60  # comparisons beside those that are due, until one ends well; then as they come
PUSHED_MAX = 16  # feeds sent to a neighbour that did not ask; of more it is told the positions


class Replication(Intake):
    """All feeds and the control set, and what neighbours say of theirs."""

    def __init__(
        self,
        genesis: Genesis,
        own: OwnFeed,
        control: ControlSet,
        replica: Callable[[NodeId, Limits], Replica] = Replica,
        admits: Callable[[NodeId, Rows], bool] = lambda _origin, _rows: True,
    ) -> None:
        super().__init__(genesis, own, replica, admits)
        self.control = control
        self.abreast = False  # whether our control set has held all that a neighbour's did, lately
        self.was_abreast = False  # whether it had before a doubt
        self._hurries = 0
        self._owed: dict[NodeId, Head] = {}  # who asked for our feed while it was ahead of our disk

    def tick(self, now_s: float) -> list[Effect]:
        """Turn to others for feeds that were asked for and did not come."""
        self._assemblies.expire(now_s)
        return self._ask_more(now_s) if self.fetching else []

    def digest(self) -> Digest:
        """Say what is held, in two hashes."""
        asks = not self.abreast
        return Digest(self._feeds.root(), self.control.root(), self.control.cut_s, asks)

    def doubt(self) -> None:
        """Want to know anew whether our control set holds all that a neighbour's does."""
        self.was_abreast |= self.abreast
        self.abreast, self._hurries = False, 0

    def hurry(self) -> bool:
        """Whether to compare now: until our control set is known to be a neighbour's."""
        if self.abreast or self._hurries >= HURRIES_MAX:
            return False
        self._hurries += 1
        return True

    def bucket_hashes(self) -> BucketHashes:
        """Say what is held, in the hashes of all buckets."""
        return BucketHashes(self._feeds.hashes(), self.control.summary.hashes())

    def ask_for_own(self) -> Pull:
        """Ask a neighbour what it holds of our feed that our disk does not."""
        return Pull({self.own.origin: self.own.restored})

    def on_digest(self, peer: NodeId, digest: Digest) -> Outcome:
        """Answer a neighbour whose holdings differ with the hashes of all buckets."""
        control = self.control.root(digest.cut_s)  # what has expired there is not missing there
        self.abreast |= digest.control_root == control
        outcome = Outcome([Send(peer, self._answer(digest))] if digest.asks else [])
        if (digest.feeds_root, digest.control_root) == (self._feeds.root(), control):
            return outcome
        if digest.feeds_root == self._feeds.root() and digest.cut_s < self.control.cut_s:
            # Let it leave out what has expired here.
            outcome.effects.append(Send(peer, self.digest()))
        else:
            outcome.effects.append(Send(peer, self.bucket_hashes()))
        return outcome

    def _answer(self, digest: Digest) -> Digest:
        """Say what is held but for what has expired here or there, so that it can be compared."""
        cut_s = max(digest.cut_s, self.control.cut_s)
        return Digest(self._feeds.root(), self.control.root(cut_s), cut_s)

    def on_bucket_hashes(self, peer: NodeId, theirs: BucketHashes) -> Outcome:
        """Name all that is held in the buckets that differ."""
        feeds = self._feeds.differing(theirs.feeds)
        control = self.control.summary.differing(theirs.control)
        self.abreast |= not control
        return Outcome([Send(peer, vector) for vector in self._vectors(feeds, control)])

    def _vectors(self, feeds: frozenset[int], control: frozenset[int]) -> Iterator[Vector]:
        """Describe some buckets in frames of bounded size, each bucket whole in one of them."""
        held: list[NodeId] = []
        within: set[int] = set()
        for number in sorted(feeds):
            within.add(number)
            held += self._feeds.within(frozenset({number}))
            if len(held) > POSITIONS_MAX:
                yield self._vector(held, frozenset(within))
                held, within = [], set()
        if within or control:
            ids = frozenset(self.control.summary.within(control))
            yield self._vector(held, frozenset(within), ids, control)

    def _vector(
        self,
        origins: Iterable[NodeId],
        within: frozenset[int] = frozenset(),
        control_ids: frozenset[bytes] = frozenset(),
        control_buckets: frozenset[int] = frozenset(),
    ) -> Vector:
        heads = {origin: self._shown(origin) for origin in origins}
        positions = {origin: head for origin, head in heads.items() if head != NOTHING}
        states = {o: state for o in positions if (state := self._state(o))}
        return Vector(positions, control_ids, within, control_buckets, states)

    def on_vector(self, peer: NodeId, vector: Vector, now_s: float) -> Outcome:
        """Send what the neighbour lacks, ask for what we lack, a few feeds at a time."""
        outcome = Outcome(theirs=vector.positions)
        self.fetching.give_up(now_s)
        for origin, theirs in vector.positions.items():
            self._compare(peer, origin, theirs, vector.states.get(origin), outcome, now_s)
        outcome.effects += self._ask_more(now_s)
        missing = frozenset(i for i in vector.control_ids if self.control.get(i) is None)
        if missing:
            outcome.effects.append(Send(peer, Pull({}, missing)))
        behind = {
            origin: vector.positions.get(origin, NOTHING)
            for origin in self._feeds.within(vector.feed_buckets)
            if self._shown(origin) > vector.positions.get(origin, NOTHING)
        }
        if len(behind) > PUSHED_MAX:  # it asks for them at its own pace
            outcome.effects.append(Send(peer, self._vector(behind)))
            behind = {}
        held = frozenset(self.control.summary.within(vector.control_buckets))
        outcome.effects += self._serve(peer, Pull(behind, held - vector.control_ids))
        return outcome

    def _compare(
        self,
        peer: NodeId,
        origin: NodeId,
        theirs: Head,
        state: bytes | None,
        outcome: Outcome,
        now_s: float,
    ) -> None:
        ours = self.head_of(origin)
        differs = theirs == ours and state and state != self._state(origin)
        if self.is_ours(origin):
            if theirs > ours or (differs and theirs == self._shown(origin)):
                outcome.effects += self._pull(peer, origin, NOTHING, now_s).effects
        elif theirs > ours:
            self.fetching.offered(peer, origin, theirs)
        elif differs and not self.forks.has(origin):
            header = self.replicas[origin].header
            outcome.effects += [Send(peer, Fork((header,)))] if header else []

    def on_have(self, have: Have) -> Outcome:
        """Find out what of the announced is missing here: it may be on its way."""
        missing = {
            origin: head
            for origin, head in have.positions.items()
            if not self.is_ours(origin) and head > self.head_of(origin)
        }
        return Outcome(missing=missing, theirs=have.positions)

    def graft(self, origins: list[NodeId]) -> Pull:
        """Ask for what is missing of these origins, and for what comes after it, unasked."""
        return Pull({origin: self.head_of(origin) for origin in origins}, graft=True)

    def on_pull(self, peer: NodeId, pull: Pull) -> Outcome:
        """Serve a neighbour. The one flush that it missed of a tree, those below it lack too."""
        effects = self._serve(peer, pull)
        alone = pull.graft and len(pull.after) == len(effects) == 1
        return Outcome([_along_tree(effect) for effect in effects] if alone else effects)

    def on_bucket_pull(self, peer: NodeId, pull: BucketPull) -> Outcome:
        """Send buckets as they are now, and first their hashes if they have changed meanwhile."""
        replica = self.replicas.get(pull.origin)
        if replica is None or replica.header is None or replica.head != self._held(pull.origin):
            return Outcome()  # nothing here, or rows ahead of our disk: others have them, or later
        messages: list[Message] = list(answers(pull, replica.rows))
        if replica.head != pull.head:
            messages.insert(0, Manifest(replica.header, replica.rows.manifest()))
        return Outcome([Send(peer, message) for message in messages])

    def on_control(self, entry: Signed, wall_s: float) -> Outcome:
        """Store an entry of the control set; raises PeerError if its bytes are not acceptable.

        `wall_s` is seconds since 1970.
        """
        return Outcome(entries=[entry]) if self.control.add(entry, wall_s) else Outcome()

    def _serve(self, peer: NodeId, pull: Pull) -> list[Effect]:
        messages: list[Message] = []
        # In the order in which they became acceptable here: admins before those whom they admit.
        messages += self.control.chosen(pull.control_ids)
        later: list[NodeId] = []
        for origin, after in pull.after.items():
            room = ANSWERED_MAX - len(messages)
            answer = self._since(peer, origin, after) if room > 0 else None
            if answer is not None and (len(answer) <= room or not messages):
                messages += answer
            elif self._shown(origin) > after:
                later.append(origin)
        if later:  # it asks for them at its own pace
            messages.append(self._vector(later[:POSITIONS_MAX]))
        return [Send(peer, message) for message in messages]

    def _since(self, peer: NodeId, origin: NodeId, after: Head) -> list[Message]:
        replica, proof = self.replicas.get(origin), self.forks.get(origin)
        if replica is None or replica.header is None:
            return []
        held = self._held(origin)
        # Who holds one history of two needs the proof alone: neither leads on.
        proved = proof is not None and proof[0].epoch == after.epoch and peer != origin
        messages: list[Message] = []
        if held > after and not proved:
            messages += self._recent.since(origin, after, held)
            if not messages and replica.head == held:
                messages.append(whole(replica.header, replica.rows))
        if not messages and replica.head > held:  # our disk is behind: answered once it is not
            self._owed[peer] = after
        if proof is not None and proof[0].epoch >= after.epoch:
            messages.append(Fork(proof))
        return messages

    def forget_peer(self, peer: NodeId) -> None:
        """Expect nothing more of a lost neighbour; what it has half sent, others can complete."""
        self.fetching.forget_peer(peer)
        self._assemblies.forget_peer(peer)
        self._owed.pop(peer, None)

    def pay(self) -> list[Effect]:
        """Answer who asked for our feed while it was ahead of our disk; called once it is not."""
        owed, self._owed = self._owed, {}
        origin = self.own.origin
        return [
            Send(peer, message)
            for peer, after in owed.items()
            for message in self._since(peer, origin, after)
        ]


def _along_tree(effect: Effect) -> Effect:
    """Let a flush that answers a graft be passed on like other news."""
    if isinstance(effect, Send) and isinstance(effect.message, Flush):
        return Send(effect.peer, replace(effect.message, eager=True))
    return effect
