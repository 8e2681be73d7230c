"""The feed that a node writes itself.

Invariants. Each write takes the next seq of the epoch, deletions too. What was once published is
never unsaid: a history that the disk has lost is left for an epoch above it. Who sees that another
process with this key has left what it writes itself, for an epoch above, writes nothing more.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError, RefusedError
from meshnode.core.feed import (
    BUCKET_BYTES_MAX,
    TABLES_MAX,
    Change,
    Flush,
    Op,
    Replica,
    check_op,
    delta_to_bytes,
)
from meshnode.core.headers import NOTHING, Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.rows import ROW_BYTES, Row, Rows, all_rows, bucket_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from meshnode.core.genesis import Limits
    from meshnode.core.keys import Key
    from meshnode.core.rows import Place

    Values = Mapping[bytes, bytes | None]
    """Rows of a table by key; None: to be deleted."""
    Merge = Callable[[str, Mapping[bytes, bytes], Mapping[bytes, bytes]], dict[bytes, bytes | None]]
    """Says, of a table, what we say in it and what our lost history says, where that is joined."""

# Of the rows and the bytes of a feed, what no table takes from the others: a ledger grows with use,
# and a session must be opened, or a registration taken back, however much was used.
OTHERS_PART = 10
FRAMING_BYTES = 16  # more than MessagePack adds to one write
CLONED_HINT = (
    "stop one of them; the one that stays: restart it, or give the other a home of its own"
)
FULL_HINT = (
    "do it on another node, or take back what nobody needs to find there: session-mesh unregister"
)


def _size(key: bytes, row: Row | None) -> int:
    return 0 if row is None else len(key) + len(row.value)


def _value(row: Row | None) -> bytes | None:
    return None if row is None else row.value


def _ours(
    table: str, ours: Mapping[bytes, bytes], theirs: Mapping[bytes, bytes]
) -> dict[bytes, bytes | None]:
    del table, ours, theirs
    return {}


class OwnFeed(Replica):
    """The feed that this node writes. Writes wait until `flush` groups, signs and applies them."""

    def __init__(
        self, key: Key, mesh_id: str, limits: Limits, boot: int, merge: Merge = _ours
    ) -> None:
        super().__init__(node_id_of(key.public), limits)
        self._key = key
        self._merge = merge  # of what was written since our start with what our disk has lost
        self.mesh_id = mesh_id
        self._boot = boot
        self._pending: dict[Place, bytes | None] = {}
        self._adding = Counter[str]()  # rows that those add, by table
        self._bytes = Counter[str]()  # of keys and values, by table
        self._written: set[Place] = set()
        self._repeated: set[Place] = set()  # of the pending ones
        self._together: dict[Place, tuple[Place, ...]] = {}  # what leaves in one flush with what
        self.epoch = 1
        self.restored = NOTHING  # how far this history goes back: to our disk, or what we took up
        self.cloned = False  # another process runs with our key: nothing is written any more
        self._left_boot = 0  # whose history we last left

    def restore(self, header: Header, rows: Rows) -> None:
        """Start from what the disk holds."""
        self.header, self.rows, self.epoch = header, rows, header.epoch
        for (table, key), row in all_rows(rows).items():
            self._bytes[table] += _size(key, row)
        self._count_added()
        self.restored = header.head

    def has_written(self, header: Header) -> bool:
        """Whether this history holds a header of ours: from before our start, or of this boot."""
        return header.boot == self._boot or header.head <= self.restored

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Plan a write; a later one to the same key replaces it.

        Raises ExhaustedError for a row too many: the whole mesh would refuse the flush, for ever;
        RefusedError once another process has answered with our key.
        """
        self._check(table, key, value)
        if self.latest(table, key) != value:
            self._check_room(table, {key: value})
        self._plan(table, key, value)

    def write_together(self, table: str, values: Values) -> list[Place]:
        """Plan writes that leave in one flush; they must fit one. Returns those that say news.

        What goes makes room for what comes, so a full feed takes them too if they do not add rows.
        Raises as `write` does, and then plans none.
        """
        for key, value in values.items():
            self._check(table, key, value)
        held = self.rows.tables.get(table, {})
        added = sum(value is not None and key not in held for key, value in values.items())
        if added > sum(value is None and key in held for key, value in values.items()):
            self._check_room(table, values)
        for key, value in values.items():
            self._plan(table, key, value)
        places = [(table, key) for key in values if (table, key) in self._pending]
        for place in places:
            self._together[place] = tuple(places)
        return places

    def _check(self, table: str, key: bytes, value: bytes | None) -> None:
        if self.cloned:
            raise RefusedError("another machine runs with a copy of this home", CLONED_HINT)
        check_op(Op(table, key, value), self._limits)

    def _check_room(self, table: str, values: Values) -> None:
        added = sum(value is not None and self._adds((table, key)) for key, value in values.items())
        most = self._limits.rows_max
        of_one = most - most // OTHERS_PART
        held = len(self.rows.tables.get(table, ())) + self._adding[table]
        if added and self.rows.count() + self._adding.total() + added > most:
            raise ExhaustedError(f"this node publishes {most} rows already", FULL_HINT)
        if added and held + added > of_one:
            said = f"this node publishes {held} rows of its table {table} already"
            raise ExhaustedError(said, FULL_HINT)
        for key, value in values.items():
            if value is not None and self._is_full(table, key, len(key) + len(value)):
                said = "this node publishes as many bytes as the mesh allows"
                raise ExhaustedError(said, FULL_HINT)

    def _adds(self, place: Place) -> bool:
        """Whether a value there would be one row more once pending writes are out."""
        return self.rows.get(*place) is None and self._pending.get(place) is None

    def _plan(self, table: str, key: bytes, value: bytes | None) -> None:
        row = self.rows.get(table, key)
        self._written.add((table, key))
        if (table, key) in self._pending:
            self._unplan((table, key))  # flushes keep the order of the latest writes
        if (row.value if row else None) != value or (table, key) in self._repeated:
            self._adding[table] += row is None and value is not None
            self._pending[table, key] = value

    def _unplan(self, place: Place) -> bytes | None:
        value = self._pending.pop(place)
        self._adding[place[0]] -= value is not None and self.rows.get(*place) is None
        return value

    def _count_added(self) -> None:
        waiting = self._pending.items()
        rows = self.rows
        self._adding = Counter(p[0] for p, v in waiting if v is not None and rows.get(*p) is None)

    def _is_full(self, table: str, key: bytes, size: int) -> bool:
        """Whether a write might lead beyond what the mesh allows; what is pending has a quarter."""
        rows, most = self.rows, self._limits.feed_bytes_max * 3 // 4
        held = rows.get(table, key)
        grows_by = size - _size(key, held)
        if held is not None and grows_by <= 0:
            return False
        of_one = self._bytes[table] + grows_by if held is None else 0  # what is out may grow
        if rows.bytes + grows_by > most or of_one > most - most // OTHERS_PART:
            return True
        if table not in rows.tables and len(rows.tables) >= TABLES_MAX * 3 // 4:
            return True
        if rows.bytes + rows.count() * ROW_BYTES + grows_by <= BUCKET_BYTES_MAX * 3 // 4:
            return False
        return rows.bucket_bytes(table, bucket_of(key)) + grows_by > BUCKET_BYTES_MAX * 3 // 4

    def repeat(self, table: str, key: bytes) -> None:
        """Write a row anew as it is, unless another value for it waits already."""
        row = self.rows.get(table, key)
        if row is not None and (table, key) not in self._pending and not self.cloned:
            self._pending[table, key] = row.value
            self._repeated.add((table, key))

    def latest(self, table: str, key: bytes) -> bytes | None:
        """Return the value that readers will see once pending writes are out."""
        if (table, key) in self._pending:
            return self._pending[table, key]
        row = self.rows.get(table, key)
        return None if row is None else row.value

    def keys(self, table: str) -> set[bytes]:
        """Return the keys that a table will have once pending writes are out."""
        keys = set(self.rows.tables.get(table, ()))
        for (name, key), value in self._pending.items():
            if name == table:
                (keys.discard if value is None else keys.add)(key)
        return keys

    def values(self, table: str) -> dict[bytes, bytes]:
        """Return what a table will say once pending writes are out."""
        values = {key: row.value for key, row in self.rows.tables.get(table, {}).items()}
        for (name, key), value in self._pending.items():
            if name == table and value is None:
                values.pop(key, None)
            elif name == table and value is not None:
                values[key] = value
        return values

    def is_pending(self, table: str, key: bytes) -> bool:
        """Whether a write to this key waits for a flush."""
        return (table, key) in self._pending

    def waits_only_for(self, places: AbstractSet[Place]) -> bool:
        """Whether nothing waits for a flush but writes to these."""
        return bool(places) and self._pending.keys() <= places

    @property
    def waiting(self) -> bool:
        """Whether writes wait for a flush."""
        return bool(self._pending)

    def continue_after(self, header: Header, rows: Rows) -> None:
        """Leave the history of our disk for one that we once published and our disk has lost.

        Every row is written anew in an epoch above both: what was written since our start, and
        beneath it what that history says; what it has deleted does not come back. Of a row that
        both say, `merge` decides.
        """
        self._left_boot = header.boot
        self._repeated.clear()
        self._together.clear()
        held, theirs = all_rows(self.rows), all_rows(rows)
        joined = self._joined(rows)
        self._pending = {
            place: joined[place] if place in joined else self._merged(place, theirs.get(place))
            for place in {**held, **theirs, **self._pending, **joined}
        }
        for place in [p for p, v in self._pending.items() if v is None and p not in held]:
            del self._pending[place]  # nothing to delete
        self._count_added()
        self._open_epoch_above(header.epoch)
        self.restored = header.head

    def _merged(self, place: Place, theirs: Row | None) -> bytes | None:
        return self.latest(*place) if place in self._written else _value(theirs)

    def _joined(self, theirs: Rows) -> dict[Place, bytes | None]:
        joined: dict[Place, bytes | None] = {}
        for table in theirs.tables:
            said = [(key, self.latest(table, key)) for name, key in self._written if name == table]
            ours = {key: value for key, value in said if value is not None}
            lost = {key: row.value for key, row in theirs.tables[table].items()}
            for key, value in self._merge(table, ours, lost).items():
                joined[table, key] = value
        return joined

    def is_clone(self, header: Header) -> bool:
        """Whether a process has opened an epoch over what we write, above ours.

        It must have heard our boot, so it has run since our start: nothing that an old disk, a
        distant part of the mesh or a liar remembers says that. Of two that leave each other at
        once, one goes on.
        """
        later = (header.epoch, header.boot) > (self.epoch, self._boot)
        return header.left == self._boot != 0 and later

    def stop_writing(self) -> None:
        """Leave the feed to the other process."""
        self.cloned = True
        self._pending.clear()
        self._adding.clear()

    def leave_epoch(self, epoch: int) -> None:
        """Write every row anew above an epoch in which our key has signed two histories."""
        for place, row in all_rows(self.rows).items():
            self._pending.setdefault(place, _value(row))
        self._open_epoch_above(epoch)

    def _open_epoch_above(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch) + 1
        if not self._pending:  # all was deleted: others must hear of the new epoch all the same
            self._pending["node", b""] = None

    def flush(self, now_s: float) -> Change | None:
        """Apply as many pending writes as one flush may hold; None if there is nothing to write."""
        ops = self._take()
        if not ops:
            return None
        head = self.head
        first_seq = head.seq + 1 if head.epoch == self.epoch else 1
        changed: dict[Place, Row | None] = {}
        before = {(op.table, op.key): self.rows.get(op.table, op.key) for op in ops}
        for seq, op in enumerate(ops, first_seq):
            row = None if op.value is None else Row(self.epoch, seq, op.value)
            self.rows.put(op.table, op.key, row)
            told = before[op.table, op.key]
            self._bytes[op.table] += _size(op.key, row) - _size(op.key, told)
            changed[op.table, op.key] = row
        delta = delta_to_bytes(ops)
        last_seq = first_seq + len(ops) - 1
        header = Header(
            self.mesh_id,
            self.origin,
            self.epoch,
            self._boot,
            first_seq,
            last_seq,
            sha256(delta).digest(),
            self.rows.state_hash(),
            now_s,
            self._left_boot,
        )
        self.header = sign_header(self._key, header)
        return Change(self.origin, self.header, Flush(self.header, delta), changed, before)

    def _take(self) -> list[Op]:
        ops: list[Op] = []
        room = self._limits.flush_bytes_max
        for place in list(self._pending):
            if place not in self._pending:
                continue  # it went with others
            some = [one for one in self._together.get(place, (place,)) if one in self._pending]
            room -= sum(self._size(*one) for one in some)
            if ops and room < 0:
                break
            for one in some:
                ops.append(Op(*one, self._unplan(one)))
                self._repeated.discard(one)
                self._together.pop(one, None)
        return ops

    def _size(self, table: str, key: bytes) -> int:
        value = self._pending[table, key]
        return len(table.encode()) + len(key) + len(value or b"") + FRAMING_BYTES
