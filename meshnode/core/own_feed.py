"""The feed that a node writes itself.

Invariants. Each write takes the next seq of the epoch, deletions too. What was once published is
never unsaid: a history that the disk has lost is left for an epoch above it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.errors import RefusedError
from meshnode.core.feed import Change, Flush, Op, Replica, check_op, delta_to_bytes
from meshnode.core.headers import NOTHING, Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.rows import Row, Rows, all_rows

if TYPE_CHECKING:
    from meshnode.core.genesis import Limits
    from meshnode.core.keys import Key

FRAMING_BYTES = 16  # more than MessagePack adds to one write


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
        check_op(Op(table, key, value), self._limits)
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
