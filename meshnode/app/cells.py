"""Roll-ups of all ledgers: what each owner has used of each model a day, and in which sessions.

A cell is one (model, provider, tier) on one UTC day, or one of the months that are all that is left
of old days. Rows are added to their cells as they come, and taken out again with what they counted.

Invariants. A cell holds exactly its rows: an owner's ledger is either wholly in here, or waits and
is not in here at all. Memory is bounded by the rows that are held anyway (docs/performance.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshnode.app.pieces import LOOKS
from meshnode.app.tally import Combination
from meshnode.core.counts import MONTHS, SLOTS, counter_of, weight_of
from meshnode.core.errors import PeerError
from meshnode.core.ledger import LEDGER, SLOT_S, Diagnostics, DiagnosticsKey
from meshnode.core.ledger_rows import diagnostics_from_row, key_from_row
from meshnode.core.periods import DAY_S, month_start_s
from meshnode.core.rows import BUCKETS, bucket_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.core.counts import Counter, Weight
    from meshnode.core.effects import Announce
    from meshnode.core.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.rows import Row

KINDS_MAX = 1 << 16  # of (model, provider, tier); more, most of them gone: all is built anew
SPARE_KEYS = 16  # of rows that a cell no longer has, before it lets go of them
_SLOTS_A_DAY = DAY_S // SLOT_S
_SEEN_PARTS = 256  # of the set of all sessions, so that none takes long to grow
_NUMBER_BITS, _KIND_BITS, _ROWS_BITS = 24, 2, 20  # slots to the year 9955 are 2**23 days


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


class Shape:
    """The cells of a session of one owner: one object for all sessions in the same."""

    __slots__ = ("cells", "held", "sessions")

    def __init__(self, cells: tuple[int, ...]) -> None:
        self.cells = cells
        self.held = 0  # by patterns
        self.sessions = 0  # of owners that are counted


class Pattern:
    """The same with the number of rows in each cell."""

    __slots__ = ("cells", "held", "shape")

    def __init__(self, cells: tuple[int, ...], shape: Shape) -> None:
        self.cells = cells  # each with the number of its rows
        self.shape = shape
        self.held = 0  # by sessions, also of owners that are being counted


class Cell:
    """What the rows of one owner in one cell add up to (core/counts.py), and their keys.

    Of `keys` some may be gone, and some may stand twice.
    """

    __slots__ = ("counts", "keys", "rows")

    def __init__(self) -> None:
        self.counts = 0
        self.rows = 0
        self.keys: list[bytes] = []


class Shelf:
    """What one owner has used."""

    def __init__(self) -> None:
        self.cells: dict[int, Cell] = {}
        self.sessions: dict[int, Pattern] = {}  # by the hash of the session
        self.diagnostics: dict[bytes, Diagnostics] = {}
        self.buckets = 0  # of the ledger, counted so far


class Cells:
    """The roll-ups of all owners. `begin` once the feeds are there; `take` whatever changes."""

    def __init__(self, replicas: Mapping[NodeId, Replica]) -> None:
        self._replicas = replicas
        self._numbers: dict[Combination, int] = {}
        self._what: list[Combination] = []
        self._waiting: dict[NodeId, None] = {}
        self._building: tuple[NodeId, Shelf] | None = None
        self._begun = False
        self._kinds_max = KINDS_MAX  # more while so many are held
        self.run = 0  # how often all was built anew: numbers of cells are of one run
        self.totals: dict[int, int] = {}  # of all owners that are counted, by the cell's number
        self.shelves: dict[NodeId, Shelf] = {}  # of the owners that are counted
        self._patterns: dict[tuple[int, ...], Pattern] = {}
        self.shapes: dict[tuple[int, ...], Shape] = {}
        self.shared: dict[int, set[NodeId]] = {}  # sessions of several owners
        self._seen: list[set[int]] = [set() for _ in range(_SEEN_PARTS)]
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
        shelf = self.shelves.get(origin)
        counted = shelf is not None
        if shelf is None and self._building is not None and self._building[0] == origin:
            shelf = self._building[1]
        if shelf is None:
            self._waiting[origin] = None  # its rows are read when its turn comes
            return
        changed = []
        for key, (before, after) in rows.items():
            if counted or bucket_of(key) < shelf.buckets:
                changed += self._change(origin, shelf, key, (before, after))
        if counted:
            self.on_rows(origin, changed)
        if len(self._what) > self._kinds_max:
            self._start_anew()

    def _change(
        self, origin: NodeId, shelf: Shelf, key: bytes, rows: tuple[Row | None, Row | None]
    ) -> list[Changed]:
        counter = counter_of(key)
        if counter is None:
            self._diagnose(shelf, key, rows[1])
            return []
        before, after = (_weight(row) for row in rows)
        is_counted = origin in self.shelves
        session = hash(counter.session)
        old = None if before is None else self.number_of(counter, before.provider)
        new = None if after is None else self.number_of(counter, after.provider)
        if old is not None and before is not None:
            self._add(shelf, old, -before.counts, counted=is_counted)
        if new is not None and after is not None:
            self._add(shelf, new, after.counts, counted=is_counted)
        if new != old:
            if new is not None:
                shelf.cells[new].keys.append(key)
                self._put(origin, shelf, (session, new), 1)
            if old is not None:
                self._put(origin, shelf, (session, old), -1)
        return [Changed(counter, before, after, old, new)]

    def _add(self, shelf: Shelf, number: int, counts: int, *, counted: bool) -> None:
        cell = shelf.cells.get(number)
        if cell is None:
            cell = shelf.cells[number] = Cell()
        cell.counts += counts
        if counted:
            self._total(number, counts)

    def _total(self, number: int, counts: int) -> None:
        total = self.totals.get(number, 0) + counts
        if total:
            self.totals[number] = total
        else:
            self.totals.pop(number, None)

    def _put(self, origin: NodeId, shelf: Shelf, row: tuple[int, int], by: int) -> None:
        """Give a cell, and its session, one row more or less."""
        session, number = row
        cell = shelf.cells[number]
        cell.rows += by
        if not cell.rows:
            del shelf.cells[number]
        elif len(cell.keys) > 2 * cell.rows + SPARE_KEYS:
            replica = self._replicas.get(origin)
            held = replica.rows.tables.get(LEDGER, {}) if replica else {}
            cell.keys = [key for key in dict.fromkeys(cell.keys) if key in held]
        self._move(origin, shelf, session, _with(shelf.sessions.get(session), number, by))

    def _move(self, origin: NodeId, shelf: Shelf, session: int, cells: tuple[int, ...]) -> None:
        before = shelf.sessions.get(session)
        is_counted = origin in self.shelves
        if cells:
            after = shelf.sessions[session] = self._held(cells)
            after.shape.sessions += is_counted
            if before is None and is_counted:
                self._appears(origin, session)
        else:
            del shelf.sessions[session]
            if is_counted:
                self._disappears(origin, session)
        if before is not None:
            before.shape.sessions -= is_counted
            self._release(before)

    def _held(self, cells: tuple[int, ...]) -> Pattern:
        pattern = self._patterns.get(cells)
        if pattern is None:
            numbers = tuple([cell >> _ROWS_BITS for cell in cells])
            shape = self.shapes.get(numbers)
            if shape is None:
                shape = self.shapes[numbers] = Shape(numbers)
            shape.held += 1
            pattern = self._patterns[cells] = Pattern(cells, shape)
        pattern.held += 1
        return pattern

    def _release(self, pattern: Pattern) -> None:
        pattern.held -= 1
        if pattern.held:
            return
        del self._patterns[pattern.cells]
        pattern.shape.held -= 1
        if not pattern.shape.held:
            del self.shapes[pattern.shape.cells]

    def _appears(self, origin: NodeId, session: int) -> None:
        seen = self._seen[session % _SEEN_PARTS]
        if session not in seen:
            seen.add(session)
            return
        owners = self.shared.get(session)
        if owners is None:
            owners = {one for one, shelf in self.shelves.items() if session in shelf.sessions}
            self.shared[session] = owners
        owners.add(origin)

    def _disappears(self, origin: NodeId, session: int) -> None:
        owners = self.shared.get(session)
        if owners is None:
            self._seen[session % _SEEN_PARTS].discard(session)
            return
        owners.discard(origin)
        if len(owners) == 1:
            del self.shared[session]

    def owners_of(self, session: int) -> list[NodeId]:
        """Return which of the owners that are counted have a session of this hash."""
        if session not in self._seen[session % _SEEN_PARTS]:
            return []
        owners = self.shared.get(session)
        if owners is not None:
            return sorted(owners)
        return [one for one, shelf in self.shelves.items() if session in shelf.sessions]

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
        if self._building is not None and self._building[0] == origin:
            self._let_go(self._building[1], counted=False)
            self._building = None
        shelf = self.shelves.get(origin)
        if shelf is None:
            return
        self.on_replaced(shelf)
        for session in shelf.sessions:
            self._disappears(origin, session)
        del self.shelves[origin]
        for number, cell in shelf.cells.items():
            self._total(number, -cell.counts)
        self._let_go(shelf, counted=True)

    def _let_go(self, shelf: Shelf, *, counted: bool) -> None:
        for pattern in shelf.sessions.values():
            pattern.shape.sessions -= counted
            self._release(pattern)

    def _start_anew(self) -> None:
        """Build all anew, but only if most kinds are gone: who says many for good gains nothing."""
        shelves = [*self.shelves.values(), *([self._building[1]] if self._building else [])]
        held = {one >> _NUMBER_BITS + _KIND_BITS for shelf in shelves for one in shelf.cells}
        self._kinds_max = max(KINDS_MAX, 2 * len(held))
        if len(self._what) <= self._kinds_max:
            return
        for origin in [*self.shelves, *([self._building[0]] if self._building else [])]:
            self._drop(origin)
        self._numbers, self._what, self.run = {}, [], self.run + 1
        self.begin()

    def build(self) -> Iterator[None]:
        """Count the owners that wait; at each yield may be a pause, and anything may change."""
        while self._waiting:
            origin = next(iter(self._waiting))
            del self._waiting[origin]
            shelf = Shelf()
            self._building = (origin, shelf)
            yield from self._count(origin, shelf)

    def _count(self, origin: NodeId, shelf: Shelf) -> Iterator[None]:
        rows = 0
        for number in range(BUCKETS):
            replica = self._replicas.get(origin)
            found = replica.rows.bucket(LEDGER, number) if replica else {}
            for key, row in found.items():
                self._change(origin, shelf, key, (None, row))
            shelf.buckets = number + 1
            rows += len(found)
            if rows >= LOOKS:
                rows = 0
                yield
                if self._building is None or self._building[1] is not shelf:
                    return  # replaced meanwhile: it waits again
        self._building = None
        self.shelves[origin] = shelf
        for cell, held in shelf.cells.items():
            self._total(cell, held.counts)
        for session, pattern in shelf.sessions.items():
            pattern.shape.sessions += 1
            self._appears(origin, session)
        self.on_replaced(shelf)
        yield


class Changed(NamedTuple):
    """A row of a counter before and after, and the numbers of its cells."""

    counter: Counter
    before: Weight | None
    after: Weight | None
    old: int | None
    new: int | None


def _weight(row: Row | None) -> Weight | None:
    """Decode a row; one that counts nothing is none."""
    weight = None if row is None else weight_of(row.value)
    return weight if weight is not None and weight.counts else None


def _with(pattern: Pattern | None, number: int, by: int) -> tuple[int, ...]:
    """Return the cells of a session with one row more or less in one of them."""
    cells = pattern.cells if pattern else ()
    for place, cell in enumerate(cells):
        if cell >> _ROWS_BITS == number:
            rows = (cell & ((1 << _ROWS_BITS) - 1)) + by
            same = (number << _ROWS_BITS | rows,) if rows else ()
            return cells[:place] + same + cells[place + 1 :]
    return tuple(sorted((*cells, number << _ROWS_BITS | by)))
