"""Answering about cost from the roll-ups, and from rows where those are not exact.

Invariant: the answer is the one that all rows would give (tests hold the two together). At every
yield there may be a pause (app/pieces.py), and what comes meanwhile may be counted.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from meshnode.app.cost.cost import Adding
from meshnode.app.cost.costing import Costing, whose_of
from meshnode.app.cost.cutting import OF_CELLS, OF_WHOSE, Texts
from meshnode.app.cost.shelves import Whose
from meshnode.app.cost.splitting import Splitting
from meshnode.app.cost.tally import Lot
from meshnode.app.pieces import LOOKS, chunks
from meshnode.core.ledger.counts import SLOTS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from meshnode.app.cost.cells import Cells
    from meshnode.app.cost.costing import Steps
    from meshnode.app.cost.cutting import CostQuery
    from meshnode.app.cost.shelves import Part, Shape, Shelf
    from meshnode.app.cost.tally import Combination, GroupKey, Kind, Rated
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.tables.tables import Tables

SESSIONS_AT_ONCE = 512  # counted between two chances to pause: each takes a tenth of a microsecond
TRIES = 3  # with roll-ups of which some are thrown away meanwhile; then all rows are read


class Placed(NamedTuple):
    """Where sums of cells were added, and whether that was all of them."""

    groups: list[GroupKey]
    all: bool


class Shortcut(Splitting):
    """One query on its way to an answer, from cells as far as they are exact."""

    def __init__(
        self,
        tables: Tables,
        replicas: Mapping[NodeId, Replica],
        cells: Cells,
        adding: Adding,
    ) -> None:
        super().__init__(tables, replicas, cells, adding)
        self._counted: dict[NodeId, Shelf] = {}  # the owners that are not read row by row
        self._moves: dict[NodeId, int] = {}  # of theirs, so far
        self._looked: dict[int, Lot | bool] = {}  # cells; True: its rows decide, False: not asked
        self._of_shape: dict[Shape, frozenset[GroupKey]] = {}
        self._helpful: dict[tuple[str, ...], set[int]] = {}  # sessions that say what rows do not

    def steps(self) -> Steps:
        """Add everything up."""
        yield from self._learn_sessions()
        origins, shelves = self._origins(), self._cells.shelves
        self._counted = {origin: shelves[origin] for origin in origins if origin in shelves}
        self._moves = {origin: shelf.moves for origin, shelf in self._counted.items()}
        counted = list(self._counted)
        for shelf in self._counted.values():
            self._diagnose(shelf.diagnostics.values())
        if OF_CELLS.issuperset(self._cutting.by) and not self._cutting.query.session:
            yield from self._from_cells(counted)
        else:
            yield from self._all_rows_of_cells(counted)
        yield from self._all_rows(origin for origin in origins if origin not in self._counted)
        yield from self.adding.sessions.tell_apart(partial(self._counted_at, origins=set(counted)))

    def stands(self) -> bool:
        """Whether all that this counts is still there, and where it was: if not, it lacks some."""
        shelves = self._cells.shelves
        if any(shelves.get(origin) is not shelf for origin, shelf in self._counted.items()):
            return False
        moved = any(shelf.moves != self._moves[origin] for origin, shelf in self._counted.items())
        return not (moved and self._takes_time)

    def _from_cells(self, origins: list[NodeId]) -> Steps:
        if OF_WHOSE.intersection(self._cutting.by):
            for part in self._parts(origins):
                yield from self._doubt(part)
                yield from self._add_part(part)
        elif self._of_part or self._cutting.query.node_id is not None:
            for origin in origins:
                if origin in self._cells.shelves:
                    yield from self._add_shelf(self._cells.shelves[origin])
        else:
            yield from self._add_totals(set(origins))
        yield from self._share(set(origins))
        numbers = {number for number, found in self._looked.items() if found is True}
        if numbers or self._doubted:
            yield from self._rows_of_cells(origins, numbers)

    def _doubt(self, part: Part) -> Steps:
        """Find the cells of which a part does not tell whose all is: a session may know better."""
        if part.whose is None:
            self._doubted[part] = set(part.cells)
            return
        asked = zip(Whose._fields, part.whose, strict=True)
        lacks = tuple(word for word, text in asked if not text and word in self._cutting.by)
        if not lacks or not self._known:
            return
        helpful = self._helpful.get(lacks)
        if helpful is None:
            helpful = self._helpful[lacks] = set()
            for told in chunks(self._known.items()):
                whose = ((one, whose_of(record)) for one, (_, record) in told)
                helps = [one for one, said in whose if any(getattr(said, word) for word in lacks)]
                helpful.update(map(hash, helps))
                yield
        for some in chunks(list(part.sessions), SESSIONS_AT_ONCE):
            for session in helpful.intersection(some):
                pattern = part.sessions.get(session)
                cells = pattern.shape.cells if pattern else ()
                self._doubted.setdefault(part, set()).update(cells)
            yield

    def _add_totals(self, origins: set[NodeId]) -> Steps:
        """Add the sums of all owners, less those that do not count."""
        cells = self._cells
        totals = dict(cells.totals)
        # All at one time: who is counted from now on is read row by row.
        shapes = [(shape, shape.sessions) for shape in cells.patterns.shapes.values()]
        hidden = [shelf for origin, shelf in cells.shelves.items() if origin not in origins]
        for shelf in hidden:
            for number, counts in shelf.totals.items():
                totals[number] = totals.get(number, 0) - counts
            yield
        for some in chunks(totals.items()):
            for number, counts in some:
                found = self._look(number) if counts else False
                if isinstance(found, Lot):
                    self.adding.tally.add(found.group, found.kind, counts)
            yield
        yield from self._count_shapes(shapes)
        for shelf in hidden:
            yield from self._count_sessions(list(shelf.parts.values()), -1)

    def _count_shapes(self, shapes: Iterable[tuple[Shape, int]]) -> Steps:
        for some in chunks(shapes):
            for shape, sessions in some:
                self.adding.sessions.count(self._groups_of(shape), sessions)
            yield

    def _add_shelf(self, shelf: Shelf) -> Steps:
        parts = list(shelf.parts.values())
        if parts:
            placed = yield from self._add_sums(list(shelf.totals.items()), parts[0])
            yield from self._add_sessions(parts, placed)

    def _add_part(self, part: Part) -> Steps:
        doubted = self._doubted.get(part, ())
        cells = list(part.cells.items())
        sums = ((number, cell.counts) for number, cell in cells if number not in doubted)
        placed = yield from self._add_sums(sums, part)
        yield from self._add_sessions([part], placed._replace(all=placed.all and not doubted))

    def _add_sums(
        self, sums: Iterable[tuple[int, int]], part: Part
    ) -> Generator[None, None, Placed]:
        """Add sums of cells, as they are in a part."""
        tally, looked = self.adding.tally, self._looked
        placed: dict[GroupKey, dict[Kind, int]] = {}
        all_whole = True
        for some in chunks(sums):
            for number, counts in some:
                found = looked.get(number)
                if found is None:
                    found = self._look(number)
                if isinstance(found, Lot):
                    group, kind = found
                    kinds = placed.get(group)
                    if kinds is None:
                        kinds = placed[group] = tally.kinds(self._at(group, part))
                    kinds[kind] = kinds.get(kind, 0) + counts
                else:
                    all_whole = False
            yield
        return Placed([self._at(group, part) for group in placed], all_whole)

    def _add_sessions(self, parts: list[Part], placed: Placed) -> Steps:
        """Count sessions of parts that stand alike: in one group, or each in those of its cells."""
        if placed.all and len(placed.groups) == 1:
            self.adding.sessions.count(placed.groups, sum(len(part.sessions) for part in parts))
        elif placed.groups:
            yield from self._count_sessions(parts, 1)

    def _count_sessions(self, parts: list[Part], times: int) -> Steps:
        often: Counter[frozenset[GroupKey]] = Counter()
        patterns = chain.from_iterable([list(part.sessions.values()) for part in parts])
        for some in chunks(patterns, SESSIONS_AT_ONCE):
            shapes = list(map(_SHAPE, some))
            if self._doubted.get(parts[0]):
                often.update([self._groups_in(parts[0], shape) for shape in shapes])
                yield
                continue
            for new in chunks(set(shapes).difference(self._of_shape)):
                for shape in new:
                    self._groups_of(shape)
                yield
            often.update(map(self._of_shape.__getitem__, shapes))
            yield
        for groups, sessions in often.items():
            self.adding.sessions.count(
                {self._at(group, parts[0]) for group in groups}, sessions * times
            )

    def _share(self, origins: set[NodeId]) -> Steps:
        """Count a session of several parts once where its groups are the same."""
        for place, (session, parts) in enumerate(list(self._cells.shared.items())):
            if place % LOOKS == LOOKS - 1:
                yield
            groups = [self._groups_at(part, session) for part in parts if part.origin in origins]
            for each in groups:
                self.adding.sessions.count(each, -1)
            self.adding.sessions.count(frozenset().union(*groups), 1)

    def _groups_at(self, part: Part, session: int) -> set[GroupKey]:
        """Return the groups that a session of a part was counted in from cells."""
        pattern = part.sessions.get(session)
        groups = self._groups_in(part, pattern.shape) if pattern else ()
        return {self._at(group, part) for group in groups}

    def _look(self, number: int) -> Lot | bool:
        found = self._looked.get(number)
        if found is None:
            found = self._looked[number] = self._judged(number)
        return found

    def _judged(self, number: int) -> Lot | bool:
        place, span = self._cells.place(number), self._span(number)
        if not self._selects(number):
            return False
        priced_at_once = place.kind != SLOTS or self._is_priced_alike(place.what, span.start_s)
        if not self._cutting.is_whole(span) or not priced_at_once:
            return True
        group = self._cutting.key(place.what, span, Texts("", "", "", "", ""))
        return Lot(group, self.adding.kind(place.what, span))

    def _is_priced_alike(self, what: Combination, day_s: int) -> bool:
        at_one_time = self._cutting.query.prices_at_s is not None
        return at_one_time or self.adding.rated.is_alike(what, day_s)

    def _groups_of(self, shape: Shape) -> frozenset[GroupKey]:
        groups = self._of_shape.get(shape)
        if groups is None:
            groups = self._of_shape[shape] = self._groups_among(shape.cells)
        return groups

    def _groups_in(self, part: Part, shape: Shape) -> frozenset[GroupKey]:
        doubted = self._doubted.get(part)
        if not doubted or doubted.isdisjoint(shape.cells):
            return self._groups_of(shape)
        return self._groups_among(number for number in shape.cells if number not in doubted)

    def _groups_among(self, numbers: Iterable[int]) -> frozenset[GroupKey]:
        found = map(self._looked.get, numbers)  # what was not looked at was not counted
        return frozenset([one.group for one in found if isinstance(one, Lot)])

    def _counted_at(self, session: int, origins: set[NodeId]) -> frozenset[GroupKey]:
        """Return the groups that a session was counted in from cells."""
        parts = [part for part in self._cells.parts_of(session) if part.origin in origins]
        return frozenset().union(*(self._groups_at(part, session) for part in parts))


_SHAPE = attrgetter("shape")  # of a pattern


def steps_of(
    tables: Tables,
    replicas: Mapping[NodeId, Replica],
    cells: Cells | None,
    asked: tuple[CostQuery, Rated],
) -> Generator[None, None, Adding]:
    """Add up what a query asks for.

    Raises UsageError at the first step for what cannot be asked, later for too many groups.
    """
    for _ in range(TRIES):
        if cells is None:
            break
        shortcut, seen = Shortcut(tables, replicas, cells, Adding(*asked)), (0, 0)
        for _ in shortcut.steps():
            yield
            if (cells.drops, cells.moves) != seen:
                seen = cells.drops, cells.moves
                if not shortcut.stands():
                    break
        else:
            if shortcut.stands():
                return shortcut.adding
    costing = Costing(tables, replicas, Adding(*asked))
    yield from costing.steps()
    return costing.adding
