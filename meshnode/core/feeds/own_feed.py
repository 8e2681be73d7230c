"""The feed that a node writes itself.

Invariants. Each write takes the next seq of the epoch, deletions too. What was once published is
never unsaid: a history that the disk has lost is left for an epoch above it. Nothing is signed that
readers refuse: they would never hold anything later. Who gives way to another process with this
key (`clones`) writes nothing more.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError, RefusedError
from meshnode.core.feeds.clones import Clones
from meshnode.core.feeds.feed import Change, Flush, Op, Replica, check_op, delta_to_bytes, fits
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.heads import NOTHING
from meshnode.core.feeds.room import ALWAYS, Growth, Room, Share, growth_of
from meshnode.core.feeds.rows import Row, Rows, all_rows
from meshnode.core.ids import node_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from meshnode.core.feeds.rows import Place
    from meshnode.core.keys import Key
    from meshnode.core.membership.genesis import Limits

    Values = Mapping[bytes, bytes | None]
    """Rows of a table by key; None: to be deleted."""
    Merge = Callable[[str, Mapping[bytes, bytes], Mapping[bytes, bytes]], dict[bytes, bytes | None]]
    """Says, of a table, what we say in it and what our lost history says, where that is joined."""

# What is left out first: all of it is on our disk, and said again as there is room.
LEDGER = "ledger"
RECORD: Place = ("node", b"")
NOTHING_NEW: Values = MappingProxyType({})
FRAMING_BYTES = 16  # more than MessagePack adds to one write
CLONED_HINT = (
    "stop one of them; the one that stays: restart it, or give the other a home of its own"
)
FULL_HINT = (
    "do it on another node, or take back what nobody needs to find there: session-mesh unregister"
)


def _size(key: bytes, value: bytes | None) -> int | None:
    return None if value is None else len(key) + len(value)


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
        self._dropped: set[Place] = set()  # rows that the first flush of an epoch is without
        self._room = Room(limits)
        self.left_out = 0  # rows that were planned or out, and had no room
        self._written: set[Place] = set()
        self._repeated: set[Place] = set()  # of the pending ones
        self._together: dict[Place, Sequence[Place]] = {}  # what leaves in one flush with what
        self.epoch = 1
        self.restored = NOTHING  # how far this history goes back: to our disk, or what we took up
        self.clones = Clones(boot)
        self.cloned = False  # another process runs with our key: nothing is written any more
        self._left_boot = 0  # whose history we last left

    def restore(self, header: Header, rows: Rows) -> None:
        """Start from what the disk holds; of what no reader takes, in an epoch above, with less."""
        self.header, self.rows, self.epoch = header, rows, header.epoch
        self.restored = header.head
        self.clones.began_with(header)
        self._room = Room(self._limits)
        self._room.count(rows)
        if self._room.is_overfull():
            self._keep({place: _value(row) for place, row in all_rows(rows).items()})
        if self._dropped:
            self._open_epoch_above(self.epoch)

    def has_written(self, header: Header) -> bool:
        """Whether this history holds a header of ours: of this run, or from before our start."""
        return header.head <= (self.head if header.boot == self._boot else self.restored)

    def write(self, table: str, key: bytes, value: bytes | None) -> None:
        """Plan a write; a later one to the same key replaces it.

        Raises ExhaustedError for what has no room: the whole mesh would refuse the flush, for ever;
        RefusedError once another process has answered with our key.
        """
        self._check(table, key, value)
        self._plan(table, {key: value}, [self._unit((table, key))])

    def write_together(self, table: str, values: Values) -> list[Place]:
        """Plan writes that leave in one flush; they must fit one. Returns those that say news.

        What goes makes room for what comes, so a full feed takes them too if they do not add to it.
        Raises as `write` does, and then plans none.
        """
        for key, value in values.items():
            self._check(table, key, value)
        # What some of them were to leave with already leaves with the others, too.
        units = {unit[0]: unit for key in values for unit in [self._unit((table, key))]}.values()
        self._plan(table, values, units)
        unit = [place for one in units for place in one]
        places = [place for place in unit if place in self._pending]
        for place in unit:
            self._together.pop(place, None)
        self._together |= dict.fromkeys(places, places)
        return [place for place in places if place[1] in values]

    def check_sole(self) -> None:
        """Raise RefusedError once another process with our key goes on instead of us."""
        if self.cloned:
            raise RefusedError("another machine runs with a copy of this home", CLONED_HINT)

    def _check(self, table: str, key: bytes, value: bytes | None) -> None:
        self.check_sole()
        check_op(Op(table, key, value), self._limits)

    def _plan(self, table: str, values: Values, units: Collection[Sequence[Place]]) -> None:
        """Plan writes that leave in one flush with all of these units, if there is room."""
        more = self._growth(table, (place for unit in units for place in unit), values)
        for unit in units:
            more -= self._growth(table, unit)
        said = self._room.refusal(table, more)
        if said:
            raise ExhaustedError(said, FULL_HINT)
        self._room.add(table, more)
        for key, value in values.items():
            place = table, key
            self._written.add(place)
            self._pending.pop(place, None)  # flushes keep the order of the latest writes
            if _value(self._out(place)) != value or place in self._repeated:
                self._pending[place] = value

    def _unit(self, place: Place) -> Sequence[Place]:
        """Return what leaves in one flush with a row, itself included."""
        return self._together.get(place) or (place,)

    def _growth(self, table: str, unit: Iterable[Place], planned: Values = NOTHING_NEW) -> Growth:
        """Return by how much rows that leave together grow with what waits, or is planned."""
        moves = (
            (key, _size(key, _value(self._out((table, key)))), _size(key, value))
            for _, key in unit
            for value in [planned[key] if key in planned else self.latest(table, key)]
        )
        return growth_of(table, moves).at_least_nothing()

    def _out(self, place: Place) -> Row | None:
        """Return a row that is out, and stays so until it is written anew."""
        return None if place in self._dropped else self.rows.get(*place)

    def _rows_of(self, table: str) -> Mapping[bytes, Row]:
        rows = self.rows.tables.get(table, {})
        if not self._dropped:
            return rows
        return {key: row for key, row in rows.items() if (table, key) not in self._dropped}

    def repeat(self, table: str, key: bytes) -> None:
        """Write a row anew as it is, unless another value for it waits already."""
        row = self._out((table, key))
        if row is not None and (table, key) not in self._pending and not self.cloned:
            self._pending[table, key] = row.value
            self._repeated.add((table, key))

    def latest(self, table: str, key: bytes) -> bytes | None:
        """Return the value that readers will see once pending writes are out."""
        if (table, key) in self._pending:
            return self._pending[table, key]
        return _value(self._out((table, key)))

    def keys(self, table: str) -> set[bytes]:
        """Return the keys that a table will have once pending writes are out."""
        keys = set(self._rows_of(table))
        for (name, key), value in self._pending.items():
            if name == table:
                (keys.discard if value is None else keys.add)(key)
        return keys

    def values(self, table: str) -> dict[bytes, bytes]:
        """Return what a table will say once pending writes are out."""
        values = {key: row.value for key, row in self._rows_of(table).items()}
        for (name, key), value in self._pending.items():
            if name == table and value is None:
                values.pop(key, None)
            elif name == table and value is not None:
                values[key] = value
        return values

    def share(self, table: str) -> Share:
        """Return what a table has once pending writes are out, and may have."""
        return self._room.share(table)

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
        both say, `merge` decides. If all of it has no room, what our own disk can say again is
        left out first.
        """
        self._left_boot = header.boot
        self._repeated.clear()
        self._together.clear()
        held, theirs = all_rows(self.rows), all_rows(rows)
        joined = self._joined(rows)
        planned = {
            place: joined[place] if place in joined else self._merged(place, theirs.get(place))
            for place in {**held, **theirs, **self._pending, **joined}
        }
        self._pending = self._keep(planned, theirs.keys() | joined.keys())
        self._open_epoch_above(header.epoch)
        self.clones.continued_after(header, self.epoch)
        self.restored = header.head

    def _keep(
        self, planned: Mapping[Place, bytes | None], lost: AbstractSet[Place] = frozenset()
    ) -> dict[Place, bytes | None]:
        """Return what of the rows that an epoch begins with has room; it begins without the others.

        The ledger comes last, but for what is `lost` here: its share is ours alone, nobody else's.
        """

        def rank(place: Place) -> tuple[bool, bool, bool, bool]:
            is_ledger = place[0] == LEDGER
            is_ours = place in self._written
            return place not in ALWAYS, is_ledger and place not in lost, is_ledger, not is_ours

        kept: dict[Place, bytes | None] = {}
        self._room = Room(self._limits)
        for place in sorted((p for p, value in planned.items() if value is not None), key=rank):
            table, key = place
            value = planned[place]
            sizes = [_size(key, one) or 0 for one in (value, _value(self.rows.get(*place)))]
            growth = growth_of(table, [(key, None, max(sizes))])
            if self._room.refusal(table, growth, at_all=table != LEDGER or place in lost):
                self.left_out += 1
                continue
            self._room.add(table, growth)
            kept[place] = value
        self._dropped = {place for place in all_rows(self.rows) if place not in kept}
        return kept

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

    def stop_writing(self) -> None:
        """Leave the feed to the other process."""
        self.cloned = True
        self._pending.clear()
        self._dropped.clear()

    def leave_epoch(self, epoch: int) -> None:
        """Write every row anew above an epoch in which our key has signed two histories."""
        for place in all_rows(self.rows):
            if (row := self._out(place)) is not None:
                self._pending.setdefault(place, row.value)
        self._open_epoch_above(epoch)

    def _open_epoch_above(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch) + 1
        if not self._pending:  # others must hear of the new epoch all the same
            self._pending[RECORD] = _value(self._out(RECORD))
            self._repeated.add(RECORD)

    def flush(self, now_s: float) -> Change | None:
        """Apply as many pending writes as one flush may hold; None if there is nothing to write."""
        ops = self._take()
        if not ops:
            return None
        places = [*self._dropped, *((op.table, op.key) for op in ops)]
        before = {place: self.rows.get(*place) for place in places}
        self._apply(ops)
        if not fits(self.rows, self._limits, ops):  # it was let in by mistake
            for place, row in before.items():
                self.rows.put(*place, row)
            self._begin_anew(ops)
            return self.flush(now_s)
        self._dropped.clear()
        first_seq, delta = self._next_seq, delta_to_bytes(ops)
        header = Header(
            self.mesh_id,
            self.origin,
            self.epoch,
            self._boot,
            first_seq,
            first_seq + len(ops) - 1,
            sha256(delta).digest(),
            self.rows.state_hash(),
            now_s,
            self._left_boot,
        )
        self.header = sign_header(self._key, header)
        changed = {place: self.rows.get(*place) for place in before}
        return Change(self.origin, self.header, Flush(self.header, delta), changed, before)

    @property
    def _next_seq(self) -> int:
        head = self.head
        return head.seq + 1 if head.epoch == self.epoch else 1

    def _apply(self, ops: Iterable[Op]) -> None:
        for place in self._dropped:
            self.rows.put(*place, None)
        for seq, op in enumerate(ops, self._next_seq):
            row = None if op.value is None else Row(self.epoch, seq, op.value)
            self.rows.put(op.table, op.key, row)

    def _begin_anew(self, ops: Iterable[Op]) -> None:
        """Leave out, in an epoch above, what no reader would take."""
        planned = {place: _value(self._out(place)) for place in all_rows(self.rows)}
        planned |= {(op.table, op.key): op.value for op in ops} | self._pending
        self._together.clear()
        self._pending = self._keep(planned)
        self._open_epoch_above(self.epoch)

    def _take(self) -> list[Op]:
        ops: list[Op] = []
        room = self._limits.flush_bytes_max
        for place in list(self._pending):
            if place not in self._pending:
                continue  # it went with others
            unit = [one for one in self._unit(place) if one in self._pending]
            takes = list(accumulate(self._size(*one) for one in unit))
            if ops and takes[-1] > room:
                break
            # What together is more than a flush, nobody would take: it is parted.
            count = max(1, sum(size <= room for size in takes))
            room -= takes[count - 1]
            ops += self._leave(unit[:count])
        return ops

    def _leave(self, leaving: Sequence[Place]) -> list[Op]:
        """Take writes of one unit out of what waits, and count them as they will be out."""
        table, unit = leaving[0][0], self._unit(leaving[0])
        waited = self._growth(table, unit)
        outs = [(key, _value(self._out((table, key)))) for _, key in leaving]
        grown = growth_of(
            table,
            [(key, _size(key, out), _size(key, self._pending[table, key])) for key, out in outs],
        )
        ops = [Op(*place, self._pending.pop(place)) for place in leaving]
        self._repeated.difference_update(leaving)
        left = [place for place in unit if place in self._pending]
        for place in unit:
            self._together.pop(place, None)
        self._together |= dict.fromkeys(left, left)
        if left or grown != waited:
            self._room.add(table, grown)
            self._room.add(table, self._growth(table, left) - waited)
        return ops

    def _size(self, table: str, key: bytes) -> int:
        value = self._pending[table, key]
        return len(table.encode()) + len(key) + len(value or b"") + FRAMING_BYTES
