"""What sessions have spent, by session: kept as rows change, for those that were asked for.

Invariant: what is kept of a session is the sum of its rows at all owners that are counted, or
nothing is kept. At most SESSIONS_MAX are; what is asked for beyond is added up each time, from the
cells it is in. While many rows wait to be counted, those of its second owner may be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.costing import span_of
from meshnode.app.spending import Spent
from meshnode.app.tally import Combination, Unit, added_up
from meshnode.core.counts import counter_of, unpacked, weight_of
from meshnode.core.ledger import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cells import Cells, Changed, Shelf
    from meshnode.app.tally import Kind, Rated
    from meshnode.core.counts import Counter, Weight
    from meshnode.core.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.tables import Tables

SESSIONS_MAX = 32_768  # about 1 KiB each; more: the ones that were asked for first are let go
WAITING_ROWS_MAX = 3000  # of owners that are not counted yet; more: only those of owners named
PIECE_ROWS = 300  # looked at between two pauses


class Kept:
    """The rows of one session, added up by what is priced alike."""

    __slots__ = ("_latest", "_source", "_spent", "_units")

    def __init__(self) -> None:
        self._units: dict[Unit, int] = {}
        self._latest = (-1, "")
        self._spent: Spent | None = None
        self._source = ""  # of its prices

    def add(self, counter: Counter, weight: Weight, counts: int) -> None:
        """Count a row, or what it grew by."""
        start_s = span_of(counter).start_s
        # By slot, though most days have one price: to know that, a price must be looked for.
        unit = Unit(Combination(counter.model, weight.provider, counter.tier), start_s)
        self._units[unit] = self._units.get(unit, 0) + counts
        self._latest = max(self._latest, (start_s, counter.model))
        self._spent = None

    def join(self, other: Kept) -> None:
        """Add what another holds."""
        for unit, counts in other._units.items():
            self._units[unit] = self._units.get(unit, 0) + counts
        self._latest = max(self._latest, other._latest)

    def spent(self, rated: Rated) -> Spent:
        """Price what is kept, once."""
        if self._spent is None or self._source != rated.source:
            self._source = rated.source
            kinds: dict[Kind, int] = {}
            for unit, counts in self._units.items():
                kind = rated.kind(unit)
                kinds[kind] = kinds.get(kind, 0) + counts
            found = added_up(kinds)
            records, usage = unpacked(found.counts)
            self._spent = Spent(usage, found.pusd, self._latest[1], records)
        return self._spent


def joined(parts: Iterable[Kept]) -> Kept:
    """Return the sum of several."""
    whole = Kept()
    for part in parts:
        whole.join(part)
    return whole


class Totals:
    """The index from sessions to what they have spent."""

    def __init__(
        self, tables: Tables, replicas: Mapping[NodeId, Replica], cells: Cells, rated: Rated
    ) -> None:
        self._tables = tables
        self._replicas = replicas
        self._cells = cells
        self._rated = rated
        self._kept: dict[str, Kept | None] = {}  # None: it has no rows
        self._warming: dict[str, Kept | None] = {}  # being added up
        cells.on_rows = self._take
        cells.on_replaced = self._doubt

    def spent(self, sessions: Mapping[str, NodeId]) -> dict[str, Spent]:
        """Return what sessions have spent; `sessions` with one of their owners each."""
        self._rated.refresh()
        found: dict[str, Kept | None] = {one: None for one in sessions if one not in self._kept}
        if found:
            for _ in self._add_up({one: sessions[one] for one in found}, found):
                pass
        more = self._not_counted_yet(sessions)
        if not found and not more:  # nearly always, and there may be ten thousand
            kept_of, rated = self._kept, self._rated
            return {one: kept.spent(rated) for one in sessions if (kept := kept_of[one])}
        spent = {}
        for session in sessions:
            kept = found[session] if session in found else self._kept[session]
            parts = [one for one in (kept, more.get(session)) if one is not None]
            if parts:
                spent[session] = (parts[0] if len(parts) == 1 else joined(parts)).spent(self._rated)
        self._keep(found)
        return spent

    def _not_counted_yet(self, sessions: Mapping[str, NodeId]) -> Mapping[str, Kept | None]:
        """Read the rows of owners that wait: of those named, and of others if it takes no time."""
        shelves, replicas = self._cells.shelves, self._replicas
        waiting = [one for one in replicas if one not in shelves and self._tables.shows_ledger(one)]
        if not waiting:
            return {}
        rows = {one: replicas[one].rows.tables.get(LEDGER, {}) for one in waiting}
        if sum(map(len, rows.values())) > WAITING_ROWS_MAX:
            named = set(sessions.values())
            waiting = [origin for origin in waiting if origin in named]
        found: dict[str, Kept | None] = dict.fromkeys(sessions)
        for origin in waiting:
            for _ in self._read(origin, list(rows[origin]), None, found):
                pass
        return found

    def warm(self) -> Iterator[None]:
        """Add up the sessions that are listed, as far as there is room; a pause at each yield."""
        listed = {record.session_id: owner for owner, record in self._tables.sessions()}
        new = [session for session in listed if session not in self._kept]
        room = max(0, SESSIONS_MAX - len(self._kept))
        found: dict[str, Kept | None] = dict.fromkeys(new[:room])
        self._warming = found  # what changes meanwhile is taken out
        yield from self._add_up({session: listed[session] for session in new[:room]}, found)
        self._warming = {}
        self._keep(found)

    def _keep(self, found: Mapping[str, Kept | None]) -> None:
        for session, kept in found.items():
            while len(self._kept) >= SESSIONS_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[session] = kept

    def _add_up(
        self, sessions: Mapping[str, NodeId], found: dict[str, Kept | None]
    ) -> Iterator[None]:
        """Read the rows of sessions, cell by cell, of all owners that are counted."""
        cells: dict[NodeId, set[int]] = {}
        for session, owner in sessions.items():
            for origin in self._owners(hash(session), owner):
                pattern = self._cells.shelves[origin].sessions.get(hash(session))
                if pattern is not None and self._tables.shows_ledger(origin):
                    cells.setdefault(origin, set()).update(pattern.shape.cells)
        for origin, numbers in cells.items():
            for number in numbers:
                shelf = self._cells.shelves.get(origin)
                cell = shelf.cells.get(number) if shelf else None
                keys = list(dict.fromkeys(cell.keys)) if cell else []
                yield from self._read(origin, keys, number, found)

    def _owners(self, session: int, owner: NodeId) -> list[NodeId]:
        if session in self._cells.shared:
            return sorted(self._cells.shared[session])
        shelf = self._cells.shelves.get(owner)
        return [owner] if shelf and session in shelf.sessions else self._cells.owners_of(session)

    def _read(
        self, origin: NodeId, keys: list[bytes], number: int | None, found: dict[str, Kept | None]
    ) -> Iterator[None]:
        for place, key in enumerate(keys):
            if place % PIECE_ROWS == PIECE_ROWS - 1:
                yield
            counter, row = counter_of(key), self._replicas[origin].rows.get(LEDGER, key)
            if counter is None or row is None or counter.session not in found:
                continue
            weight = weight_of(row.value)
            if weight is None or not weight.counts:
                continue
            if number is not None and self._cells.number_of(counter, weight.provider) != number:
                continue
            kept = found[counter.session]
            if kept is None:
                kept = found[counter.session] = Kept()
            kept.add(counter, weight, weight.counts)

    def _take(self, origin: NodeId, rows: list[Changed]) -> None:
        """Follow rows of an owner that is counted."""
        if not self._tables.shows_ledger(origin):
            return
        for counter, before, after, old, new in rows:
            session = counter.session
            self._warming.pop(session, None)
            if session not in self._kept:
                continue
            kept = self._kept[session]
            if after is None or old not in (None, new):
                del self._kept[session]  # added up when it is asked for
                continue
            if kept is None:
                kept = self._kept[session] = Kept()
            kept.add(counter, after, after.counts - (before.counts if before else 0))

    def _doubt(self, shelf: Shelf) -> None:
        """Let go of what is kept of the sessions of an owner whose rows are gone, or new."""
        for kept in (self._kept, self._warming):
            for session in [one for one in kept if hash(one) in shelf.sessions]:
                del kept[session]
