"""Answering about cost: from the roll-ups where they are exact, from rows where nothing else is.

Invariant: the answer is the one that all rows would give (tests hold the two together). At every
yield there may be a pause (app/pieces.py), and what comes meanwhile may be counted.
"""

from __future__ import annotations

from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from meshnode.app.cost import Adding
from meshnode.app.cutting import OF_CELLS, OF_SESSIONS, Span, Texts
from meshnode.app.pieces import LOOKS, chunks
from meshnode.app.tally import Combination
from meshnode.core.counts import MONTHS, SLOTS, counter_of, weight_of
from meshnode.core.errors import PeerError
from meshnode.core.ledger import LEDGER, SLOT_S, Diagnostics, DiagnosticsKey
from meshnode.core.ledger_rows import diagnostics_from_row, key_from_row
from meshnode.core.periods import DAY_S, month_start_s

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from meshnode.app.cells import Cells, Shape, Shelf
    from meshnode.app.cutting import CostQuery
    from meshnode.app.tally import GroupKey, Kind, Rated
    from meshnode.core.counts import Counter as Counted
    from meshnode.core.counts import Weight
    from meshnode.core.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions import SessionRecord
    from meshnode.core.tables import Tables

    Steps = Iterator[None]

SESSIONS_AT_ONCE = 512  # counted between two chances to pause: each takes a tenth of a microsecond
TRIES = 3  # with roll-ups that are thrown away meanwhile; then all rows are read


class Whole(NamedTuple):
    """A cell that is in one group, and priced at once."""

    group: GroupKey
    kind: Kind


class Costing:
    """One query on its way to an answer, from all rows."""

    def __init__(self, tables: Tables, replicas: Mapping[NodeId, Replica], adding: Adding) -> None:
        self.adding = adding
        self._tables = tables
        self._replicas = replicas
        self._cutting = adding.cutting
        self._known: dict[str, SessionRecord] = {}

    def steps(self) -> Steps:
        """Add everything up."""
        yield from self._learn_sessions()
        yield from self._all_rows(self._origins())

    def _origins(self) -> list[NodeId]:
        node_id = self._cutting.query.node_id
        asked = list(self._replicas) if node_id is None else [node_id]
        return [origin for origin in asked if self._tables.shows_ledger(origin)]

    def _all_rows(self, origins: Iterable[NodeId]) -> Steps:
        for origin in origins:
            replica = self._replicas.get(origin)
            keys = list(replica.rows.tables.get(LEDGER, ())) if replica else []
            yield
            for some in chunks(keys):
                for key in some:
                    self._read(origin, key)
                yield

    def _read(self, origin: NodeId, key: bytes) -> None:
        """Count a row, if it is still there."""
        replica = self._replicas.get(origin)
        row = replica.rows.get(LEDGER, key) if replica else None
        if row is None:
            return
        counter, weight = counter_of(key), weight_of(row.value)
        if counter is None:
            self._diagnose(_diagnostics(key, row.value))
        elif weight is not None:
            self._add(origin, counter, weight)

    def _add(self, origin: NodeId, counter: Counted, weight: Weight) -> None:
        what = Combination(counter.model, weight.provider, counter.tier)
        texts = Texts(origin, counter.session, weight.agent, weight.owner, weight.project)
        self.adding.row(what, span_of(counter), self._filled(texts), weight.counts)

    def _filled(self, texts: Texts) -> Texts:
        """Fill in whose a row is, where the log does not say and the mesh knows the session."""
        record = self._known.get(texts.session)
        if record is None:
            return texts
        return texts._replace(
            agent=texts.agent or record.agent_id,
            owner=texts.owner or record.owner or "",
            project=texts.project or record.project or "",
        )

    def _learn_sessions(self) -> Steps:
        if not OF_SESSIONS.intersection(self._cutting.by):
            return
        sessions = self._tables.sessions(forgotten=True)
        for some in chunks(sessions):
            self._known.update((record.session_id, record) for _, record in some)
            yield

    def _diagnose(self, found: Iterable[Diagnostics]) -> None:
        self.adding.diagnostics = sum(found, self.adding.diagnostics)


class Shortcut(Costing):
    """One query on its way to an answer, from cells as far as they are exact."""

    def __init__(
        self,
        tables: Tables,
        replicas: Mapping[NodeId, Replica],
        cells: Cells,
        adding: Adding,
    ) -> None:
        super().__init__(tables, replicas, adding)
        self._cells = cells
        self._looked: dict[int, Whole | bool] = {}  # cells; True: its rows decide, False: not asked
        self._of_shape: dict[Shape, frozenset[GroupKey]] = {}
        self._found_at: dict[int, NodeId] = {}  # sessions whose rows were read, with an owner

    def steps(self) -> Steps:
        """Add everything up."""
        yield from self._learn_sessions()
        origins, shelves = self._origins(), self._cells.shelves
        counted = [origin for origin in origins if origin in shelves]
        for origin in counted:
            self._diagnose(shelves[origin].diagnostics.values())
        if OF_CELLS.issuperset(self._cutting.by) and not self._cutting.query.session:
            yield from self._from_cells(counted)
        else:
            yield from self._rows_of_cells(counted, None)
        yield from self._all_rows(origin for origin in origins if origin not in counted)
        yield from self._tell_apart(set(counted))

    def _from_cells(self, origins: list[NodeId]) -> Steps:
        if "node" in self._cutting.by or self._cutting.query.node_id is not None:
            for origin in origins:
                if origin in self._cells.shelves:
                    yield from self._add_shelf(origin, self._cells.shelves[origin])
        else:
            yield from self._add_totals(set(origins))
        yield from self._share(set(origins))
        parts = {number for number, found in self._looked.items() if found is True}
        if parts:
            yield from self._rows_of_cells(origins, parts)

    def _add_totals(self, origins: set[NodeId]) -> Steps:
        """Add the sums of all owners, less those that do not count."""
        cells = self._cells
        totals = dict(cells.totals)
        hidden = [shelf for origin, shelf in cells.shelves.items() if origin not in origins]
        for shelf in hidden:
            for number, cell in shelf.cells.items():
                totals[number] -= cell.counts
            yield
        for some in chunks(totals.items()):
            for number, counts in some:
                found = self._look(number) if counts else False
                if isinstance(found, Whole):
                    self.adding.tally.add(found.group, found.kind, counts)
            yield
        yield from self._count_all_sessions()
        for shelf in hidden:
            yield from self._count_sessions(shelf, None, -1)

    def _count_all_sessions(self) -> Steps:
        for some in chunks([(shape, shape.sessions) for shape in self._cells.shapes.values()]):
            for shape, sessions in some:
                self._count(self._groups_of(shape), sessions)
            yield

    def _add_shelf(self, origin: NodeId, shelf: Shelf) -> Steps:
        tally, looked = self.adding.tally, self._looked
        placed: dict[GroupKey, dict[Kind, int]] = {}
        all_whole = True
        for some in chunks(list(shelf.cells.items())):
            for number, cell in some:
                found = looked.get(number)
                if found is None:
                    found = self._look(number)
                if isinstance(found, Whole):
                    group, kind = found
                    kinds = placed.get(group)
                    if kinds is None:
                        kinds = placed[group] = tally.kinds(self._at(group, origin))
                    kinds[kind] = kinds.get(kind, 0) + cell.counts
                else:
                    all_whole = False
            yield
        if all_whole and len(placed) == 1:  # so each session is in that group, and once
            self._count([self._at(group, origin) for group in placed], len(shelf.sessions))
            return
        yield from self._count_sessions(shelf, origin, 1)

    def _count_sessions(self, shelf: Shelf, origin: NodeId | None, times: int) -> Steps:
        """Count the sessions of an owner in their groups; with `origin`, in those of that node."""
        often: Counter[frozenset[GroupKey]] = Counter()
        for some in chunks(list(shelf.sessions.values()), SESSIONS_AT_ONCE):
            shapes = list(map(_SHAPE, some))
            for new in chunks(set(shapes).difference(self._of_shape)):
                for shape in new:
                    self._groups_of(shape)
                yield
            often.update(map(self._of_shape.__getitem__, shapes))
            yield
        for groups, sessions in often.items():
            placed = groups if origin is None else {self._at(group, origin) for group in groups}
            self._count(placed, sessions * times)

    def _share(self, origins: set[NodeId]) -> Steps:
        """Count a session of several owners once where its groups are the same."""
        for place, (session, owners) in enumerate(list(self._cells.shared.items())):
            if place % LOOKS == LOOKS - 1:
                yield
            times: Counter[GroupKey | None] = Counter()
            for owner in owners & origins:
                groups = self._groups_at(owner, session)
                times.update([*groups, *([None] if groups else [])])
            for group, often in times.items():
                self.adding.counted[group] = self.adding.counted.get(group, 0) - (often - 1)

    def _groups_at(self, origin: NodeId, session: int) -> set[GroupKey]:
        """Return the groups that a session of an owner was counted in from cells."""
        shelf = self._cells.shelves.get(origin)
        pattern = shelf.sessions.get(session) if shelf else None
        groups = self._groups_of(pattern.shape) if pattern else ()
        return {self._at(group, origin) for group in groups}

    def _look(self, number: int) -> Whole | bool:
        found = self._looked.get(number)
        if found is None:
            found = self._looked[number] = self._judged(number)
        return found

    def _span(self, number: int) -> Span:
        place = self._cells.place(number)
        return Span(place.kind, place.start_s, place.end_s)

    def _judged(self, number: int) -> Whole | bool:
        place, span = self._cells.place(number), self._span(number)
        if not self._cutting.selects(span):
            return False
        priced_at_once = place.kind != SLOTS or self._is_priced_alike(place.what, span.start_s)
        if not self._cutting.is_whole(span) or not priced_at_once:
            return True
        group = self._cutting.key(place.what, span, Texts("", "", "", "", ""))
        return Whole(group, self.adding.kind(place.what, span))

    def _is_priced_alike(self, what: Combination, day_s: int) -> bool:
        at_one_time = self._cutting.query.prices_at_s is not None
        return at_one_time or self.adding.rated.is_alike(what, day_s)

    def _groups_of(self, shape: Shape) -> frozenset[GroupKey]:
        groups = self._of_shape.get(shape)
        if groups is None:
            found = map(self._looked.get, shape.cells)  # what was not looked at was not counted
            groups = frozenset([one.group for one in found if isinstance(one, Whole)])
            self._of_shape[shape] = groups
        return groups

    def _at(self, group: GroupKey, origin: NodeId) -> GroupKey:
        """Return a group as it is at one owner."""
        by = self._cutting.by
        if "node" not in by:
            return group
        place = by.index("node")
        return (*group[:place], origin, *group[place + 1 :])

    def _count(self, groups: Iterable[GroupKey], sessions: int) -> None:
        counted, some = self.adding.counted, False
        for group in groups:
            counted[group] = counted.get(group, 0) + sessions
            some = True
        if some:
            counted[None] = counted.get(None, 0) + sessions

    def _rows_of_cells(self, origins: list[NodeId], parts: set[int] | None) -> Steps:
        """Read the rows of these cells, or of all that are selected."""
        for origin in origins:
            shelf = self._cells.shelves.get(origin)
            if shelf is None:
                continue
            for number in shelf.cells.keys() & parts if parts is not None else list(shelf.cells):
                if parts is None and not self._cutting.selects(self._span(number)):
                    continue
                cell = shelf.cells.get(number)
                for some in chunks(dict.fromkeys(cell.keys) if cell else ()):
                    for key in some:
                        self._read_in(origin, key, number)
                    yield
            yield

    def _read_in(self, origin: NodeId, key: bytes, number: int) -> None:
        """Count a row, if it is still there, and in that cell."""
        replica = self._replicas.get(origin)
        row = replica.rows.get(LEDGER, key) if replica else None
        counter, weight = counter_of(key), weight_of(row.value) if row else None
        if counter is None or weight is None:
            return
        if self._cells.number_of(counter, weight.provider) == number:
            self._found_at[hash(counter.session)] = origin
            self._add(origin, counter, weight)

    def _tell_apart(self, origins: set[NodeId]) -> Steps:
        """Take out of the sessions that rows have shown those that cells have counted."""
        if not self.adding.counted:
            return
        for group, sessions in self.adding.seen.items():
            for some in chunks(list(sessions)):
                for session in some:
                    if self._is_counted(group, session, origins):
                        sessions.discard(session)
                yield

    def _is_counted(self, group: GroupKey | None, session: int, origins: set[NodeId]) -> bool:
        owners: Iterable[NodeId] = self._cells.shared.get(session, ())
        if not owners and session in self._found_at:
            owners = (self._found_at[session],)
        for owner in origins.intersection(owners or self._cells.owners_of(session)):
            groups = self._groups_at(owner, session)
            if group in groups or (group is None and groups):
                return True
        return False


_SHAPE = attrgetter("shape")  # of a pattern


def steps_of(
    tables: Tables,
    replicas: Mapping[NodeId, Replica],
    cells: Cells | None,
    asked: tuple[CostQuery, Rated],
) -> Generator[None, None, Adding]:
    """Add up what a query asks for; raises UsageError at the first step."""
    for _ in range(TRIES):
        if cells is None:
            break
        shortcut, run = Shortcut(tables, replicas, cells, Adding(*asked)), cells.run
        for _ in shortcut.steps():
            yield
            if cells.run != run:
                break
        else:
            return shortcut.adding
    costing = Costing(tables, replicas, Adding(*asked))
    yield from costing.steps()
    return costing.adding


def span_of(counter: Counted) -> Span:
    """Return the time of a row."""
    if counter.kind == SLOTS:
        return Span(SLOTS, counter.number * SLOT_S, (counter.number + 1) * SLOT_S)
    if counter.kind == MONTHS:
        return Span(MONTHS, month_start_s(counter.number), month_start_s(counter.number + 1))
    return Span(counter.kind, counter.number * DAY_S, (counter.number + 1) * DAY_S)


def _diagnostics(key: bytes, value: bytes) -> list[Diagnostics]:
    try:
        found = isinstance(key_from_row(key), DiagnosticsKey)
        return [diagnostics_from_row(value)] if found else []
    except PeerError:
        return []
