"""Roll-ups of all ledgers: what each owner has used of each model a day, and in which sessions.

A cell is one (model, provider, tier) on one UTC day, or one of the months that are all that is left
of old days, in one part of an owner's ledger (app/cost/shelves.py). Rows are added to their cells
as they come, and taken out again with what they counted.

Invariants. A cell holds exactly its rows: an owner's ledger is either wholly in here, or waits and
is not in here at all. Memory is bounded by the rows that are held anyway (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshnode.app.cost.shelves import Cell, Part, Patterns, Shelf, added_to, whose_of
from meshnode.app.cost.tally import Combination
from meshnode.app.pieces import LOOKS
from meshnode.core.errors import PeerError
from meshnode.core.feeds.rows import BUCKETS, bucket_of
from meshnode.core.ledger.counts import MONTHS, SLOTS, counter_of, weight_of
from meshnode.core.ledger.ledger import LEDGER, SLOT_S, DiagnosticsKey
from meshnode.core.ledger.ledger_rows import diagnostics_from_row, key_from_row
from meshnode.core.periods import DAY_S, month_start_s

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from meshnode.core.effects import Announce
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.feeds.rows import Row
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Counter, Weight

KINDS_MAX = 1 << 16  # of (model, provider, tier); more, most of them gone: all is built anew
SPARE_KEYS = 16  # of rows that a cell no longer has, before it lets go of them
_SLOTS_A_DAY = DAY_S // SLOT_S
_SEEN_PARTS = 256  # of the index of all sessions, so that none takes long to grow
_NUMBER_BITS, _KIND_BITS = 24, 2  # slots to the year 9955 are 2**23 days


class Place(NamedTuple):
    """Which cell: what, of which kind of counters, and on which day, or in which month."""

    what: Combination
    kind: int
    number: int

    @property
    def start_s(self) -> int:
        """Where it begins, seconds since 1970."""
        return month_start_s(self.number) if self.kind == MONTHS else self.number * DAY_S

    @property
    def end_s(self) -> int:
        """Where it ends, seconds since 1970."""
        if self.kind == MONTHS:
            return month_start_s(self.number + 1)
        return (self.number + 1) * DAY_S


class Cells:
    """The roll-ups of all owners. `begin` once the feeds are there; `take` whatever changes."""

    def __init__(self, replicas: Mapping[NodeId, Replica]) -> None:
        self._replicas = replicas
        self._numbers: dict[Combination, int] = {}
        self._what: list[Combination] = []
        self._waiting: dict[NodeId, None] = {}
        self._building: Shelf | None = None
        self._begun = False
        self._kinds_max = KINDS_MAX  # more while so many are held
        self.drops = 0  # of owners: numbers of cells hold while no owner that has them is dropped
        self.moves = 0  # of what rows say, to others
        self.totals: dict[int, int] = {}  # of all owners that are counted, by the cell's number
        self.shelves: dict[NodeId, Shelf] = {}  # of the owners that are counted
        self.patterns = Patterns()
        self.shared: dict[int, set[Part]] = {}  # sessions that are in several
        self._seen: list[dict[int, Part]] = [{} for _ in range(_SEEN_PARTS)]
        self.on_rows: Callable[[NodeId, list[Changed]], None] = lambda _origin, _rows: None
        self.on_replaced: Callable[[Shelf], None] = lambda _shelf: None  # gone, or new

    @property
    def waiting(self) -> bool:
        """Whether an owner is still to be counted."""
        return bool(self._waiting or self._building)

    def begin(self) -> None:
        """Count everything, from now on piece by piece."""
        self._begun = True
        self._waiting = dict.fromkeys(self._replicas)

    def place(self, number: int) -> Place:
        """Say which cell a number is."""
        rest, day = number >> _NUMBER_BITS, number & ((1 << _NUMBER_BITS) - 1)
        return Place(self._what[rest >> _KIND_BITS], rest & ((1 << _KIND_BITS) - 1), day)

    def number_of(self, counter: Counter, provider: str) -> int:
        """Return the number of the cell of a row."""
        what = Combination(counter.model, provider, counter.tier)
        place = self._numbers.get(what)
        if place is None:
            place = self._numbers[what] = len(self._what)
            self._what.append(what)
        day = counter.number // _SLOTS_A_DAY if counter.kind == SLOTS else counter.number
        return ((place << _KIND_BITS | counter.kind) << _NUMBER_BITS) | day

    def take(self, news: Announce) -> None:
        """Follow what the mesh announces. Every change must come, and in its order."""
        origin = news.origin
        if origin is None or not self._begun:
            return
        if news.replaced:
            self._drop(origin)
            self._waiting[origin] = None
            return
        rows = {key: change for (table, key), change in news.written.items() if table == LEDGER}
        if rows:
            self._write(origin, rows)

    def _write(self, origin: NodeId, rows: Mapping[bytes, tuple[Row | None, Row | None]]) -> None:
        counted = origin in self.shelves
        shelf = self._shelf(origin)
        if shelf is None:
            self._waiting[origin] = None  # its rows are read when its turn comes
            return
        changed = []
        for key, (before, after) in rows.items():
            if counted or bucket_of(key) < shelf.buckets:
                changed += self._change(shelf, key, (before, after))
        if counted:
            self.on_rows(origin, changed)
        if len(self._what) > self._kinds_max:
            self._start_anew()

    def _shelf(self, origin: NodeId) -> Shelf | None:
        building = self._building
        if building is not None and building.origin == origin:
            return building
        return self.shelves.get(origin)

    def _change(
        self, shelf: Shelf, key: bytes, rows: tuple[Row | None, Row | None]
    ) -> list[Changed]:
        counter = counter_of(key)
        if counter is None:
            self._diagnose(shelf, key, rows[1])
            return []
        before, after = (_weight(row) for row in rows)
        part = shelf.part_of(before) if before else None
        if before and not (after and before[1:] == after[1:] and before.counts <= after.counts):
            shelf.moves += 1  # rolled up, corrected, or somebody else's
            self.moves += 1
        if part and before and after and before[1:] == after[1:]:
            number = self.number_of(counter, after.provider)
            self._count(shelf, part, number, after.counts - before.counts)
        else:
            for weight, by in ((after, 1), (before, -1)):
                if weight is not None:
                    self._put(shelf, key, (counter, weight), by)
        return [Changed(counter, before, after)]

    def _put(self, shelf: Shelf, key: bytes, row: tuple[Counter, Weight], by: int) -> None:
        """Put a row into its cell, or with -1 take it out."""
        counter, weight = row
        part, number = shelf.put(weight, by), self.number_of(counter, weight.provider)
        cell = self._count(shelf, part, number, by * weight.counts)
        cell.rows += by
        if by > 0:
            cell.keys.append(key)
        if not cell.rows:
            del part.cells[number]
        elif len(cell.keys) > 2 * cell.rows + SPARE_KEYS:
            self._tidy(part, number, cell)
        self._move(part, hash(counter.session), number, by)
        if not part.cells:
            del shelf.parts[part.whose]

    def _count(self, shelf: Shelf, part: Part, number: int, counts: int) -> Cell:
        cell = part.cells.get(number)
        if cell is None:
            cell = part.cells[number] = Cell()
        cell.counts += counts
        added_to(shelf.totals, number, counts)
        if shelf.origin in self.shelves:
            added_to(self.totals, number, counts)
        return cell

    def _tidy(self, part: Part, number: int, cell: Cell) -> None:
        cell.keys = [one for one in dict.fromkeys(cell.keys) if self.row_in(part, number, one)]

    def keys_of(self, part: Part, number: int) -> list[bytes]:
        """Return the keys of all rows in a cell, and no others."""
        cell = part.cells[number]
        if len(cell.keys) != cell.rows:
            self._tidy(part, number, cell)
        return cell.keys

    def has(self, part: Part) -> bool:
        """Whether a part is one of an owner that is counted: it may be gone, or made anew."""
        shelf = self.shelves.get(part.origin)
        return shelf is not None and shelf.parts.get(part.whose) is part

    def row_in(self, part: Part, number: int, key: bytes) -> tuple[Counter, Weight] | None:
        """Decode a row of a cell; None if it is not in it, or not any more."""
        replica = self._replicas.get(part.origin)
        counter = counter_of(key)
        weight = _weight(replica.rows.get(LEDGER, key) if replica else None)
        if counter is None or weight is None:
            return None
        return (counter, weight) if self.is_in(part, number, counter, weight) else None

    def is_in(self, part: Part, number: int, counter: Counter, weight: Weight) -> bool:
        """Whether a cell is that of a row: `Cell.keys` may hold more."""
        if part.whose is None:
            shelf = self._shelf(part.origin)
            is_there = shelf is not None and shelf.part_of(weight) is part
        else:
            is_there = whose_of(weight) == part.whose
        return is_there and self.number_of(counter, weight.provider) == number

    def _move(self, part: Part, session: int, number: int, by: int) -> None:
        """Let a session have one row more or less in a cell."""
        is_counted = part.origin in self.shelves
        before = part.sessions.get(session)
        if before is not None:
            before.shape.sessions -= is_counted
        after = self.patterns.moved(before, number, by)
        if after is not None:
            part.sessions[session] = after
            after.shape.sessions += is_counted
            if before is None and is_counted:
                self._appears(part, session)
            return
        del part.sessions[session]
        if is_counted:
            self._disappears(part, session)

    def _appears(self, part: Part, session: int) -> None:
        first = self._seen[session % _SEEN_PARTS].setdefault(session, part)
        if first is not part:
            self.shared.setdefault(session, {first}).add(part)

    def _disappears(self, part: Part, session: int) -> None:
        seen, parts = self._seen[session % _SEEN_PARTS], self.shared.get(session)
        if parts is None:
            del seen[session]
            return
        parts.discard(part)
        seen[session] = next(iter(parts))
        if len(parts) == 1:
            del self.shared[session]

    def parts_of(self, session: int) -> Collection[Part]:
        """Return the parts, of owners that are counted, that have a session of this hash."""
        parts = self.shared.get(session)
        if parts is not None:
            return parts
        first = self._seen[session % _SEEN_PARTS].get(session)
        return () if first is None else (first,)

    def _diagnose(self, shelf: Shelf, key: bytes, row: Row | None) -> None:
        shelf.diagnostics.pop(key, None)
        if row is None:
            return
        try:
            if isinstance(key_from_row(key), DiagnosticsKey):
                shelf.diagnostics[key] = diagnostics_from_row(row.value)
        except PeerError:
            return  # unreadable rows are passed over everywhere

    def _drop(self, origin: NodeId) -> None:
        if self._building is not None and self._building.origin == origin:
            self._let_go(self._building, counted=False)
            self._building = None
        shelf = self.shelves.get(origin)
        if shelf is None:
            return
        self.on_replaced(shelf)
        for part in shelf.parts.values():
            for session in part.sessions:
                self._disappears(part, session)
        del self.shelves[origin]
        self.drops += 1
        for number, counts in shelf.totals.items():
            added_to(self.totals, number, -counts)
        self._let_go(shelf, counted=True)

    def _let_go(self, shelf: Shelf, *, counted: bool) -> None:
        for part in shelf.parts.values():
            for pattern in part.sessions.values():
                pattern.shape.sessions -= counted
                self.patterns.release(pattern)

    def _start_anew(self) -> None:
        """Build all anew, but only if most kinds are gone: who says many for good gains nothing."""
        shelves = [*self.shelves.values(), *([self._building] if self._building else [])]
        held = {one >> _NUMBER_BITS + _KIND_BITS for shelf in shelves for one in shelf.totals}
        self._kinds_max = max(KINDS_MAX, 2 * len(held))
        if len(self._what) <= self._kinds_max:
            return
        for shelf in shelves:
            self._drop(shelf.origin)
        self._numbers, self._what = {}, []
        self.begin()

    def build(self) -> Iterator[None]:
        """Count the owners that wait; at each yield may be a pause, and anything may change."""
        while self._waiting:
            origin = next(iter(self._waiting))
            del self._waiting[origin]
            self._building = shelf = Shelf(origin)
            yield from self._fill(shelf)

    def _fill(self, shelf: Shelf) -> Iterator[None]:
        rows = 0
        for number in range(BUCKETS):
            replica = self._replicas.get(shelf.origin)
            found = replica.rows.bucket(LEDGER, number) if replica else {}
            for key, row in found.items():
                self._change(shelf, key, (None, row))
            shelf.buckets = number + 1
            rows += len(found)
            if rows >= LOOKS:
                rows = 0
                yield
                if self._building is not shelf:
                    return  # replaced meanwhile: it waits again
        self._building = None
        self.shelves[shelf.origin] = shelf
        for number, counts in shelf.totals.items():
            added_to(self.totals, number, counts)
        for part in shelf.parts.values():
            for session, pattern in part.sessions.items():
                pattern.shape.sessions += 1
                self._appears(part, session)
        self.on_replaced(shelf)
        yield


class Changed(NamedTuple):
    """A row of a counter before and after."""

    counter: Counter
    before: Weight | None
    after: Weight | None


def _weight(row: Row | None) -> Weight | None:
    """Decode a row; one that counts nothing is none."""
    weight = None if row is None else weight_of(row.value)
    return weight if weight is not None and weight.counts else None
