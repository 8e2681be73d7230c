"""What neighbours send of feeds: flushes, whole feeds, and proofs that a feed has two histories.

Invariant: whatever the order, loss or repetition of messages, a feed is only ever replaced by a
later state that its owner has signed, and of an epoch with two histories nothing more is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.effects import Effect, Report, Send
from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Change, Flush, ForkError, Replica
from meshnode.core.feeds.fetching import AGAIN_S, Fetching
from meshnode.core.feeds.forks import Proof, is_fork, proof_of
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.feeds.holdings import FEEDS_MAX, Holdings
from meshnode.core.feeds.messages import BucketRows, Fork, Known, Manifest, Pull, Snapshot
from meshnode.core.feeds.snapshots import Assemblies, Assembly, check_size, rows_of, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.feeds.rows import Rows
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.membership.genesis import Genesis, Limits


class Outcome(msgspec.Struct):
    """What a message led to: answers, and what is new here and so worth passing on."""

    effects: list[Effect] = msgspec.field(default_factory=list)
    changes: list[Change] = msgspec.field(default_factory=list)
    entries: list[Signed] = msgspec.field(default_factory=list)
    forks: list[Proof] = msgspec.field(default_factory=list)  # whose rows are no longer shown
    duplicate_of: NodeId | None = None  # news that came along a tree and was here already
    missing: dict[NodeId, Head] = msgspec.field(
        default_factory=dict
    )  # announced; may be on its way
    theirs: Mapping[NodeId, Head] = msgspec.field(
        default_factory=dict
    )  # what the sender holds, it says


class Intake(Holdings):
    """Feeds, and what is on its way to them."""

    def __init__(
        self,
        genesis: Genesis,
        own: OwnFeed,
        replica: Callable[[NodeId, Limits], Replica] = Replica,
        admits: Callable[[NodeId, Rows], bool] = lambda _origin, _rows: True,
    ) -> None:
        super().__init__(genesis, own, replica)
        self._admits = admits
        self.fetching = Fetching()
        self._assemblies = Assemblies(genesis.limits)
        self._pulled_at_s: dict[tuple[NodeId, NodeId, bool], float] = {}

    def holds(self, header: Header) -> bool:
        """Whether news with this header, true or not, could tell nothing new."""
        if self.is_ours(header.origin):
            return self.own.has_written(header)
        if header.head > self.head_of(header.origin):
            return False
        kept = self._recent.like(header)
        return kept is None or self.forks.has(header.origin) or _same(kept, header)

    def on_known(self, known: Known) -> Outcome:
        """Note news that were held already."""
        ours = self.is_ours(known.origin)
        duplicate_of = known.origin if known.eager and not ours else None
        return Outcome(duplicate_of=duplicate_of, theirs={known.origin: known.head})

    def on_flush(  # noqa: PLR0911 - one case what it may find here
        self, peer: NodeId, flush: Flush, now_s: float
    ) -> Outcome:
        """Apply a flush, or ask for what lies between; raises PeerError, having changed nothing."""
        header = flush.header
        if self.is_ours(header.origin):
            return self._on_own(peer, header, now_s)
        replica = self.replicas.get(header.origin)
        if replica is None:  # its snapshot says whether it is a member's
            return Outcome(self._fetch(peer, header, now_s))
        kept = self._recent.like(header)
        if kept is not None and is_fork(kept, header):
            return self._quarantined((kept, header))
        if header.head <= self.head_of(header.origin):
            return self.on_known(Known(header.origin, flush.eager, header.head))
        if not replica.follows(header):
            if self._early.keep(flush, replica.head):
                return Outcome(missing={header.origin: header.head})
            asks = self._fetch(peer, header, now_s)
            return Outcome(asks + self._lost_rows(header) if asks else [])
        return self._applied(peer, replica, flush, now_s)

    def _applied(self, peer: NodeId, replica: Replica, flush: Flush, now_s: float) -> Outcome:
        """Apply a flush, and what follows it and came before it; raises PeerError."""
        try:
            outcome = Outcome(changes=[self._apply(replica, flush)])
        except ForkError as error:
            return self._diverged(peer, replica, flush.header, error, now_s)
        early = self._early.take(replica.origin)
        while (following := early.get(replica.head.seq + 1)) and replica.follows(following.header):
            try:
                outcome.changes.append(self._apply(replica, following))
            except PeerError as error:
                outcome.effects.append(Report("frame_refused", peer, error.message))
                break
        for later in early.values():  # behind another gap
            if later.header.head > replica.head and not replica.follows(later.header):
                self._early.keep(later, replica.head)
        self.fetching.held(replica.origin, replica.head)
        outcome.effects += self._ask_more(now_s)
        return outcome

    def _apply(self, replica: Replica, flush: Flush) -> Change:
        change = replica.apply(flush)
        self.remember(flush)
        return change

    def _diverged(
        self, peer: NodeId, replica: Replica, header: Header, error: ForkError, now_s: float
    ) -> Outcome:
        """Two histories of one feed: its newest snapshot decides, unless a proof is found."""
        outcome = self._pull(peer, header.origin, NOTHING, now_s)
        outcome.effects += self._lost_rows(header) if outcome.effects else []
        outcome.effects.append(Report("feed_forked", peer, error.message))
        if replica.header is not None and replica.header.epoch == header.epoch:
            outcome.effects.append(Send(peer, Fork((replica.header,))))
        return outcome

    def _lost_rows(self, header: Header) -> list[Effect]:
        """Before a restarted owner's feed replaces what is held of it, show the owner what is held.

        Its disk may have lost that, and its new history reached beyond before anybody was linked.
        """
        replica = self.replicas.get(header.origin)
        held = None if replica is None else replica.header
        if replica is None or held is None or held.boot == header.boot:
            return []
        return [Send(header.origin, whole(held, replica.rows))]  # if it is a neighbour of ours

    def on_snapshot(self, peer: NodeId, snapshot: Snapshot, now_s: float) -> Outcome:
        """Take a small feed, once proved, in place of what is held of it; raises PeerError."""
        known = self._nothing_new(snapshot.header)
        if known is not None:
            return known
        rows = rows_of(snapshot, self._limits)
        return self._replaced(peer, snapshot.header, rows, now_s)

    def on_manifest(self, peer: NodeId, manifest: Manifest, now_s: float) -> Outcome:
        """Ask for the buckets of a feed that are not held; raises PeerError."""
        answer = self._nothing_new(manifest.header)
        if answer is not None:
            return answer
        replica = self.replicas.get(manifest.header.origin)
        known = self._assemblies.get(manifest.header.origin)
        assembly = self._assemblies.begin(peer, manifest, replica.rows if replica else None, now_s)
        if assembly is None:
            return Outcome()  # another one is on its way
        if assembly is not known:
            self.fetching.came(peer, manifest.header.origin, now_s)
        return self._continued(peer, assembly, now_s)

    def on_bucket_rows(self, peer: NodeId, message: BucketRows, now_s: float) -> Outcome:
        """Put buckets to those of their feed; once it is whole, it replaces what is held."""
        assembly = self._assemblies.get(message.origin)
        if assembly is None or self._nothing_new(assembly.header) is not None:
            self._assemblies.drop(message.origin)
            return Outcome()
        if not self._assemblies.take(message, now_s):
            return Outcome()  # whoever sends nothing that is missing is not asked for more
        if not assembly.admitted:  # the member record comes first
            self._check_admitted(message.origin, assembly.rows)
            assembly.admitted = True
        self.fetching.came(peer, message.origin, now_s)
        if assembly.missing and not message.last:
            return Outcome()
        return self._continued(peer, assembly, now_s)

    def _continued(self, peer: NodeId, assembly: Assembly, now_s: float) -> Outcome:
        if assembly.missing:
            return Outcome([Send(peer, assembly.asks())])
        self._assemblies.drop(assembly.header.origin)
        check_size(assembly.rows, self._limits)
        return self._replaced(peer, assembly.header, assembly.rows, now_s)

    def _check_admitted(self, origin: NodeId, rows: Rows) -> None:
        """Raise PeerError for a new feed unless it proves that its writer is a member."""
        if origin not in self.replicas and not self._admits(origin, rows):
            self._assemblies.drop(origin)
            raise PeerError(f"a feed of {origin[:12]}, whom nobody has admitted")

    def _nothing_new(self, header: Header) -> Outcome | None:
        """Return what follows from a snapshot that is not to be taken; None if it is."""
        if self.is_ours(header.origin):
            return Outcome() if self.own.has_written(header) else self._cloned(header)
        if header.head > self.head_of(header.origin):
            return None
        held = self.replicas[header.origin].header if header.origin in self.replicas else None
        if held is not None and is_fork(held, header):
            return self._quarantined((held, header))
        return Outcome()

    def _replaced(self, peer: NodeId, header: Header, rows: Rows, now_s: float) -> Outcome:
        origin = header.origin
        self._check_admitted(origin, rows)
        self._pulled_at_s.pop((peer, origin, True), None)
        self._pulled_at_s.pop((peer, origin, False), None)
        if self.is_ours(origin):
            return self._continue_after(header, rows)
        self._early.take(origin)
        self._recent.drop(origin)
        replica = self._replica(origin)
        lost = self._lost_rows(header)
        self.forks.clear(origin)
        change = replica.replace(header, rows)
        self._moved(header)
        self.fetching.held(origin, header.head)
        return Outcome(lost + self._ask_more(now_s), changes=[change])

    def on_fork(self, peer: NodeId, fork: Fork, now_s: float) -> Outcome:
        """Take a proof, or find one: a neighbour says what it holds where we hold something else.

        Raises PeerError for two headers that prove nothing.
        """
        origin = fork.headers[0].origin
        if len(fork.headers) > 1:
            proof = proof_of(fork.headers)
            if self.is_ours(origin):
                return self._own_fork(peer, proof, now_s)
            return self._quarantined(proof)
        (header,) = fork.headers
        if self.is_ours(origin):
            return self._on_own(peer, header, now_s)
        replica = self.replicas.get(origin)
        held = (replica.header if replica else None, self._recent.like(header))
        for kept in held:
            if kept is not None and is_fork(kept, header):
                return self._quarantined((kept, header))
        return Outcome()

    def _quarantined(self, proof: Proof) -> Outcome:
        """Show nothing more of an epoch with two histories, and tell everybody."""
        origin = proof[0].origin
        replica = self.replicas.get(origin)
        if replica is None or replica.header is None or replica.head.epoch > proof[0].epoch:
            return Outcome()  # nobody we know, or cleared since
        if not self.forks.add(proof):
            return Outcome()
        self._early.take(origin)
        self._assemblies.drop(origin)
        self._feeds.changed(origin)
        self.fetching.held(origin, self.head_of(origin))
        return Outcome(forks=[proof])

    def _own_fork(self, peer: NodeId, proof: Proof, now_s: float) -> Outcome:
        """Leave an epoch in which our key has signed two histories, with all we hold of it."""
        outcome = Outcome()
        for header in proof:
            outcome.effects += self._on_own(peer, header, now_s).effects
        if proof[0].epoch >= self.own.epoch and self.is_ours(self.own.origin):
            self.own.leave_epoch(proof[0].epoch)
            detail = f"two histories of our epoch {proof[0].epoch} were published: epoch raised"
            outcome.effects.append(Report("epoch_raised", None, detail))
        return outcome

    def _on_own(self, peer: NodeId, header: Header, now_s: float) -> Outcome:
        if self.own.has_written(header):
            return Outcome()
        return self._cloned(header) or self._pull(peer, header.origin, NOTHING, now_s)

    def _cloned(self, header: Header) -> Outcome | None:
        """Stop writing if another process goes on with our key; None if none does, or we do."""
        if not self.own.clones.gives_way_to(header, self.own.epoch):
            return None
        self.own.stop_writing()
        detail = f"another machine publishes with this node's key, in epoch {header.epoch}"
        return Outcome([Report("cloned_home", None, detail)])

    def _continue_after(self, header: Header, rows: Rows) -> Outcome:
        """Our disk is older than what we once published: keep those rows, leave that history."""
        self.own.continue_after(header, rows)
        detail = f"peers hold our feed up to {header.epoch}.{header.last_seq}: epoch raised"
        reports: list[Effect] = [Report("epoch_raised", None, detail)]
        if self.own.clones.runs_beside(header):
            detail = f"another machine has run with a copy of this home, in epoch {header.epoch}"
            reports.append(Report("copied_home", None, detail))
        return Outcome(reports)

    def _may_pull(self, peer: NodeId, origin: NodeId, after: Head, now_s: float) -> bool:
        """Whether to ask now, a whole feed also though a part was just asked for.

        Each neighbour counts by itself, or a liar would keep the others from being asked.
        """
        asked = (peer, origin, after == NOTHING)
        if now_s - self._pulled_at_s.get(asked, -AGAIN_S) < AGAIN_S:
            return False
        if len(self._pulled_at_s) >= 2 * FEEDS_MAX:
            self._pulled_at_s.clear()
        self._pulled_at_s[asked] = now_s
        return True

    def _pull(self, peer: NodeId, origin: NodeId, after: Head, now_s: float) -> Outcome:
        if not self._may_pull(peer, origin, after, now_s):
            return Outcome()
        return Outcome([Send(peer, Pull({origin: after}))])

    def _fetch(self, peer: NodeId, header: Header, now_s: float) -> list[Effect]:
        """Ask for what leads to a header, if there is room, and nobody was just asked for it."""
        self.fetching.give_up(now_s)
        self.fetching.offered(peer, header.origin, header.head)
        return self._ask_more(now_s)

    def _ask_more(self, now_s: float) -> list[Effect]:
        self.fetching.give_up(now_s)
        return [
            Send(peer, Pull({origin: self._held(origin) for origin in origins}))
            for peer, origins in self.fetching.asks(now_s).items()
        ]


def _same(one: Header, other: Header) -> bool:
    """Whether two headers are the same one: what an owner signs twice, it signs alike."""
    return one.signed == other.signed
