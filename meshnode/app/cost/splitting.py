"""Counting the rows of cells that are not whole in one group: a cell is split, and its sum with it.

Invariant: a row is counted where app/cost/costing.py would count it. Whose the rows of a part are
and what a cell is of are known, so their keys tell where they go; and of those that most of a cell
goes with, none has to be read: they are what its sum has left without the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.cost.costing import Costing, span_of
from meshnode.app.cost.cutting import OF_WHOSE, Span, Texts
from meshnode.app.cost.tally import Lot
from meshnode.app.pieces import chunks
from meshnode.core.ledger.counts import counter_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cost.cells import Cells
    from meshnode.app.cost.cost import Adding
    from meshnode.app.cost.costing import Steps
    from meshnode.app.cost.shelves import Part, Whose
    from meshnode.app.cost.tally import GroupKey
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Counter
    from meshnode.core.tables.tables import Tables

ROWS_AT_ONCE = 128  # of one cell, between two chances to pause; of more, each row is read


class Splitting(Costing):
    """One query on its way to an answer, from the rows of cells."""

    def __init__(
        self,
        tables: Tables,
        replicas: Mapping[NodeId, Replica],
        cells: Cells,
        adding: Adding,
    ) -> None:
        super().__init__(tables, replicas, adding)
        self._cells = cells
        self._takes_time = False  # over what an owner's rows say, so that none of it may move
        by, session = self._cutting.by, self._cutting.query.session
        self._of_part = [(n, word) for n, word in enumerate(by) if word in OF_WHOSE | {"node"}]
        self._of_session = "session" in by or bool(session)
        self._doubted: dict[Part, set[int]] = {}  # cells of which a session may know more
        self._selected: dict[int, bool] = {}  # by cell
        self._lot_at: dict[tuple[int, int], Lot | None] = {}  # by cell, and time of the row

    def _parts(self, origins: Iterable[NodeId]) -> Iterator[Part]:
        self._takes_time = True
        for origin in origins:
            shelf = self._cells.shelves.get(origin)
            yield from list(shelf.parts.values()) if shelf else ()

    def _all_rows_of_cells(self, origins: list[NodeId]) -> Steps:
        """Read all selected rows of owners that are counted."""
        selected: set[int] = set()
        for some in chunks(list(self._cells.totals)):
            selected.update(filter(self._selects, some))
            yield
        yield from self._rows_of_cells(origins, selected)

    def _rows_of_cells(self, origins: list[NodeId], numbers: set[int]) -> Steps:
        """Read the rows of these cells, and the selected ones of those in doubt."""
        for part in self._parts(origins):
            yield
            asked = part.cells.keys() & numbers
            for some in chunks(self._doubted.get(part, set()).union(asked)):
                for number in some:
                    if self._selects(number):
                        yield from self._rows_of_cell(part, number)
                yield

    def _rows_of_cell(self, part: Part, number: int) -> Steps:
        cell = part.cells.get(number)
        if cell and cell.rows <= ROWS_AT_ONCE and part.whose is not None and self._cells.has(part):
            self._split(part, part.whose, number)
            yield
            return
        for some in chunks(dict.fromkeys(cell.keys) if cell else ()):
            for key in some:
                row = self._cells.row_in(part, number, key)
                if row is not None:
                    self._add(part.origin, *row)
            yield

    def _split(self, part: Part, whose: Whose, number: int) -> None:
        """Count the rows of a cell. Its sum is known: so most of those alike need not be read."""
        lots = self._lots(part, whose, number)
        *others, most = sorted(lots, key=lambda lot: len(lots[lot]))
        rest = part.cells[number].counts
        for lot in others:
            rows = [self._cells.row_in(part, number, key) for key in lots[lot]]
            counts = sum(weight.counts for _, weight in filter(None, rows))
            self._add_to(lot, counts)
            rest -= counts
        self._add_to(most, rest)

    def _lots(self, part: Part, whose: Whose, number: int) -> dict[Lot | None, list[bytes]]:
        """Tell where the rows of a cell are counted, by their keys; count their sessions."""
        lots: dict[Lot | None, list[bytes]] = {}
        for key in self._cells.keys_of(part, number):
            counter = counter_of(key)
            if counter is not None:
                lot = self._lot(part, whose, number, counter)
                lots.setdefault(lot, []).append(key)
                if lot is not None:
                    self.adding.sessions.see(lot.group, counter.session)
        return lots

    def _lot(self, part: Part, whose: Whose, number: int, counter: Counter) -> Lot | None:
        texts = Texts(part.origin, counter.session, *whose)
        if self._of_session or counter.session in self._known:
            what = self._cells.place(number).what
            return self.adding.lot(what, span_of(counter), self._filled(texts))
        time = number, counter.number
        if time not in self._lot_at:
            what = self._cells.place(number).what
            self._lot_at[time] = self.adding.lot(what, span_of(counter), texts)
        lot = self._lot_at[time]
        return lot and Lot(self._at(lot.group, part), lot.kind)

    def _add_to(self, lot: Lot | None, counts: int) -> None:
        if lot is not None:
            self.adding.tally.add(*lot, counts)

    def _at(self, group: GroupKey, part: Part) -> GroupKey:
        """Return a group as it is at one part."""
        if not self._of_part:
            return group
        placed = list(group)
        for place, word in self._of_part:
            placed[place] = part.origin if word == "node" else getattr(part.whose, word, "")
        return tuple(placed)

    def _selects(self, number: int) -> bool:
        found = self._selected.get(number)
        if found is None:
            found = self._selected[number] = self._cutting.selects(self._span(number))
        return found

    def _span(self, number: int) -> Span:
        place = self._cells.place(number)
        return Span(place.kind, place.start_s, place.end_s)
