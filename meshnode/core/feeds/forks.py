"""Two histories of one epoch of a feed: how they are proved, and what all do about it.

A fork proof is two headers of one owner, both signed, of one epoch, that speak of the same write
and differ. Invariant: whoever holds a proof shows nothing of that epoch but the member record, and
takes nothing of it; so all who hold it show the same, whichever history they had. Only a higher
epoch, which the owner alone can open, clears it. What was held of the epoch is kept, unshown: its
owner may need it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import Header
from meshnode.core.feeds.heads import Head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.core.ids import NodeId

FORKED_SEQ = 1 << 63  # above every seq that a header may have

Proof = tuple[Header, Header]


def is_fork(one: Header, other: Header) -> bool:
    """Whether two verified headers prove that their owner's epoch has two histories."""
    same_epoch = (one.mesh, one.origin, one.epoch) == (other.mesh, other.origin, other.epoch)
    first, last = max(one.first_seq, other.first_seq), min(one.last_seq, other.last_seq)
    return same_epoch and first <= last and _payload(one) != _payload(other)


def proof_of(headers: tuple[Header, ...]) -> Proof:
    """Return two headers as a proof; raises PeerError if they are none."""
    if len(headers) != 2 or not is_fork(*headers):  # noqa: PLR2004 - a pair
        raise PeerError("two headers that prove no fork")
    return headers[0], headers[1]


class Forks:
    """The epochs in quarantine, one of each origin at most."""

    def __init__(self) -> None:
        self._proofs: dict[NodeId, Proof] = {}

    def add(self, proof: Proof) -> bool:
        """Take a proof; False if this epoch, or a higher one, is in quarantine already."""
        origin = proof[0].origin
        known = self._proofs.get(origin)
        if known is not None and known[0].epoch >= proof[0].epoch:
            return False
        self._proofs[origin] = proof
        return True

    def get(self, origin: NodeId) -> Proof | None:
        """Return the proof against an origin."""
        return self._proofs.get(origin)

    def has(self, origin: NodeId) -> bool:
        """Whether the rows of an origin are in quarantine."""
        return origin in self._proofs

    def head(self, origin: NodeId) -> Head | None:
        """Return the position that an origin in quarantine has for everybody."""
        proof = self._proofs.get(origin)
        return None if proof is None else Head(proof[0].epoch, FORKED_SEQ)

    def clear(self, origin: NodeId) -> None:
        """End a quarantine: the owner has opened a higher epoch."""
        self._proofs.pop(origin, None)

    def __iter__(self) -> Iterator[Proof]:
        return iter(self._proofs.values())


def _payload(header: Header) -> bytes:
    if header.signed is None:
        raise ValueError("only signed headers prove anything")
    return header.signed.payload
