"""Checkpoints of the ledger's log: where it was and what it added up to, signed by its node.

Invariant: a log whose records were edited, removed, reordered or cut off is told from one as
written, unless whoever did it has the node's key. What the node itself drops, it says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.commands.audit import Wrong
from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.ledger.usage_log import HASH_BYTES, START_HASH, chained
from meshnode.core.packing import typed, unpack_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.core.ledger.usage_log import Entry

CHECKPOINT = "ledger_checkpoint"  # the type that is signed, and the kind of its audit record


class Checkpoint(msgspec.Struct, frozen=True):
    """`hash` covers the log up to `seq`; `totals` are all counters then: records, and the buckets.

    `dropped`: the records up to there were dropped for their age, and `totals` are empty.
    """

    node: NodeId
    seq: int
    hash: bytes
    at_ms: int
    totals: tuple[int, ...] = ()
    dropped: bool = False


def sign_checkpoint(key: Key, checkpoint: Checkpoint) -> Signed:
    """Sign a checkpoint by itself, so that it proves something wherever it is kept."""
    return key.sign(
        CHECKPOINT,
        {
            "node": checkpoint.node,
            "seq": checkpoint.seq,
            "hash": checkpoint.hash,
            "at": checkpoint.at_ms,
            "totals": [str(count) for count in checkpoint.totals],  # sums may pass 64 bits
            "dropped": checkpoint.dropped,
        },
    )


def checkpoint_from_signed(signed: Signed, node: NodeId) -> Checkpoint:
    """Verify that this node signed it, and decode; raises PeerError."""
    verify(signed, CHECKPOINT, node_key_of(node))
    value = unpack_map(signed.payload)
    try:
        checkpoint = Checkpoint(
            node=NodeId(typed(value["node"], str)),
            seq=typed(value["seq"], int),
            hash=typed(value["hash"], bytes),
            at_ms=typed(value["at"], int),
            totals=tuple(int(typed(count, str)) for count in typed(value["totals"], list)),
            dropped=typed(value["dropped"], bool),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError("not a checkpoint of a ledger") from error
    if checkpoint.node != node or len(checkpoint.hash) != HASH_BYTES or checkpoint.seq < 1:
        raise PeerError("not a checkpoint of this node's ledger")
    return checkpoint


@dataclass(slots=True)
class ChainWalk:
    """One pass over the log in the order of its seqs; it stops at the first record that is wrong.

    `hashes` are what was said of the log at some seqs, by checkpoints and by the audit log.
    """

    base: Checkpoint | None
    hashes: Mapping[int, bytes]
    seq: int = field(init=False)
    hash: bytes = field(init=False)
    count: int = 0
    wrong: Wrong | None = None

    def __post_init__(self) -> None:
        self.seq = self.base.seq if self.base else 0
        self.hash = self.base.hash if self.base else START_HASH

    def take(self, entry: Entry, said: bytes) -> None:
        """Look at the next record, with the hash that stands beside it."""
        if self.wrong is not None:
            return
        due = self.seq + 1
        if entry.seq != due:
            self.wrong = Wrong(due, f"it was removed: {entry.seq} follows {self.seq}")
            return
        if said or self.hash != START_HASH:  # records from before there was a chain have no hash
            if chained(self.hash, entry) != said:
                self.wrong = Wrong(due, "it was edited, or put where another one was")
                return
            self.hash = said
        self.seq = due
        self.count += 1
        if self.hashes.get(due, self.hash) != self.hash:
            self.wrong = Wrong(due, "the log was rewritten up to here: a checkpoint says otherwise")

    def broken(self) -> None:
        """Note that what follows makes no sense."""
        self.wrong = self.wrong or Wrong(self.seq + 1, "it was edited: a field makes no sense")

    def end(self) -> Wrong | None:
        """Return the first record that is wrong, those cut off at the end included."""
        last = max(self.hashes, default=0)
        if self.wrong is None and last > self.seq:
            said = f"records were cut off, or an old copy was put back: {last} were written"
            self.wrong = Wrong(self.seq + 1, said)
        return self.wrong
