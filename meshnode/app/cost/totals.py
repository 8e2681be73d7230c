"""What sessions have spent, by session: kept as rows change, for those that were asked for.

Invariant: what is kept of a session is the sum of its rows at all owners that are counted, or
nothing is kept. At most SESSIONS_MAX are; what is asked for beyond is added up each time, from the
cells it is in. While many rows wait to be counted, some of them may be missing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from meshnode.app.cost.costing import span_of
from meshnode.app.cost.spending import Spent
from meshnode.app.cost.tally import Combination, Unit, Use, used_last
from meshnode.app.pieces import LOOKS, chunks
from meshnode.core.ledger.counts import counter_of, exactly, unpacked, weight_of
from meshnode.core.ledger.ledger import LEDGER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cost.cells import Cells, Changed
    from meshnode.app.cost.shelves import Part, Shelf
    from meshnode.app.cost.tally import Rated
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Counter, Weight
    from meshnode.core.tables.tables import Tables

SESSIONS_MAX = 32_768  # about 1 KiB each; more: the ones that were asked for first are let go
WAITING_ROWS_MAX = 3000  # of owners that are not counted yet; more: only those of owners named
NAMED_ROWS_MAX = 30_000  # of owners named; more, and what they spent is less until it is counted


class Kept:
    """The rows of one session, added up by what is priced alike."""

    __slots__ = (
        *("_changed", "_counts", "_last_s", "_priced", "_pusd", "_source", "_spent", "_units"),
    )

    def __init__(self) -> None:
        self._units: dict[Unit, int] = {}
        self._counts = 0  # of all units
        self._last_s: float | None = None  # None: to be looked for
        self._changed: dict[Unit, int] = {}  # since it was priced, and what it was priced at
        self._source = ""  # of the prices
        self._priced = 0  # how many units have a price
        self._pusd = 0
        self._spent: Spent | None = None  # None: to be made anew, or nothing is

    def add(self, counter: Counter, weight: Weight, counts: int) -> None:
        """Count a row, or what it grew by; a row that is taken out counts less than nothing."""
        start_s = span_of(counter).start_s
        # By slot, though most days have one price: to know that, a price must be looked for.
        unit = Unit(Combination(counter.model, weight.provider, counter.tier), start_s)
        self._put(unit, counts)

    def follow(self, counter: Counter, before: Weight | None, after: Weight | None) -> None:
        """Count a row that has changed."""
        if before and after and before.provider == after.provider:
            self.add(counter, after, after.counts - before.counts)
            return
        for weight, sign in ((before, -1), (after, 1)):
            if weight is not None:
                self.add(counter, weight, sign * weight.counts)

    def join(self, other: Kept) -> None:
        """Add what another holds."""
        for unit, counts in other._units.items():
            self._put(unit, counts)

    def _put(self, unit: Unit, counts: int) -> None:
        before = self._units.get(unit, 0)
        self._changed.setdefault(unit, before)
        self._spent = None
        self._counts += counts
        if before + counts:
            self._units[unit] = before + counts
            if self._last_s is not None:
                self._last_s = max(self._last_s, unit.at_s)
        elif self._units.pop(unit, None) is not None:
            self._last_s = None

    def settle(self, rated: Rated) -> Iterator[None]:
        """Price what has changed; a chance to pause at each yield."""
        if self._source != rated.source:
            self._source, self._changed = rated.source, dict.fromkeys(self._units, 0)
            self._priced = self._pusd = 0
            self._spent = None
        while self._changed:
            for unit in list(islice(self._changed, LOOKS)):
                before, after = self._changed.pop(unit), self._units.get(unit, 0)
                kind = rated.kind(unit)
                if kind.rates is not None:
                    self._pusd += (kind.cost_pusd(after) or 0) - (kind.cost_pusd(before) or 0)
                    self._priced += (after != 0) - (before != 0)
            yield

    def spent(self, rated: Rated) -> Spent | None:
        """Return what is spent, priced; None if nothing is."""
        if self._spent is not None and self._source == rated.source:
            return self._spent
        for _ in self.settle(rated):
            pass
        if not self._units:
            return None
        if self._last_s is None:
            self._last_s = max(unit.at_s for unit in self._units)
        records, usage = unpacked(self._counts)
        pusd = self._pusd if self._priced else None
        self._spent = Spent(usage, pusd, used_last(self._lately(self._last_s)), records)
        return self._spent

    def _lately(self, last_s: float) -> Iterator[Use]:
        for unit, counts in self._units.items():
            if unit.at_s == last_s:
                yield Use(last_s, unit.what.model, exactly(counts)[1].uncapped)


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
        self._warming: list[dict[str, Kept | None]] = []  # being added up
        self._changed: dict[str, None] = {}  # of those that are kept, since they were priced
        self._source = ""  # of the prices of the others
        self._cold = False  # whether listed sessions were let go of
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
            told = ((one, kept_of[one]) for one in sessions)
            priced = ((one, kept.spent(rated)) for one, kept in told if kept)
            return {one: whole for one, whole in priced if whole}
        spent: dict[str, Spent] = {}
        for session in sessions:
            kept = found[session] if session in found else self._kept[session]
            parts = [one for one in (kept, more.get(session)) if one is not None]
            added = (parts[0] if len(parts) == 1 else joined(parts)).spent(self._rated)
            if added is not None:
                spent[session] = added
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
        room = NAMED_ROWS_MAX
        found: dict[str, Kept | None] = dict.fromkeys(sessions)
        for origin in waiting:
            for _ in self._read(origin, list(islice(rows[origin], room)), None, found):
                pass
            room = max(0, room - len(rows[origin]))
        return found

    def settle(self) -> Iterator[None]:
        """Do piece by piece what `spent` would do at once; a chance to pause at each yield."""
        if self._cold:
            yield from self.warm()
        if self._source != self._rated.refresh():
            self._source = self._rated.source
            self._changed = dict.fromkeys(self._kept)
        while self._changed:
            session = next(iter(self._changed))
            kept = self._kept.get(session)
            if kept is not None:
                yield from kept.settle(self._rated)
                kept.spent(self._rated)
            self._changed.pop(session, None)

    def warm(self) -> Iterator[None]:
        """Add up the sessions that are listed, as far as there is room; chances to pause too."""
        self._cold = False
        listed: dict[str, NodeId] = {}
        for some in chunks(self._tables.sessions()):
            listed.update((record.session_id, owner) for owner, record in some)
            yield
        new = [session for session in listed if session not in self._kept]
        room = max(0, SESSIONS_MAX - len(self._kept))
        found: dict[str, Kept | None] = dict.fromkeys(new[:room])
        self._warming.append(found)  # what changes meanwhile is taken out
        try:
            yield from self._add_up({session: listed[session] for session in new[:room]}, found)
        finally:
            self._warming = [one for one in self._warming if one is not found]
        self._keep(found)

    def _keep(self, found: Mapping[str, Kept | None]) -> None:
        for session, kept in found.items():
            while len(self._kept) >= SESSIONS_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[session] = kept
            self._changed[session] = None

    def _add_up(
        self, sessions: Mapping[str, NodeId], found: dict[str, Kept | None]
    ) -> Iterator[None]:
        """Read the rows of sessions, cell by cell, of all owners that are counted."""
        cells: dict[Part, set[int]] = {}
        for session in map(hash, sessions):
            for part in self._cells.parts_of(session):
                if self._tables.shows_ledger(part.origin):
                    cells.setdefault(part, set()).update(part.sessions[session].shape.cells)
        for part, numbers in cells.items():
            for number in numbers:
                cell = part.cells.get(number)
                keys = list(dict.fromkeys(cell.keys)) if cell else []
                yield from self._read(part.origin, keys, (part, number), found)

    def _read(
        self,
        origin: NodeId,
        keys: list[bytes],
        cell: tuple[Part, int] | None,
        found: dict[str, Kept | None],
    ) -> Iterator[None]:
        for place, key in enumerate(keys):
            if place % LOOKS == LOOKS - 1:
                yield
            counter, row = counter_of(key), self._replicas[origin].rows.get(LEDGER, key)
            if counter is None or row is None or counter.session not in found:
                continue
            weight = weight_of(row.value)
            if weight is None or not weight.counts:
                continue
            if cell is not None and not self._cells.is_in(*cell, counter, weight):
                continue
            kept = found[counter.session]
            if kept is None:
                kept = found[counter.session] = Kept()
            kept.add(counter, weight, weight.counts)

    def _take(self, origin: NodeId, rows: list[Changed]) -> None:
        """Follow rows of an owner that is counted."""
        if not self._tables.shows_ledger(origin):
            return
        for counter, before, after in rows:
            session = counter.session
            for warming in self._warming:
                warming.pop(session, None)
            if session not in self._kept:
                continue
            kept = self._kept[session]
            if kept is None:
                kept = self._kept[session] = Kept()
            kept.follow(counter, before, after)
            self._changed[session] = None

    def _doubt(self, shelf: Shelf) -> None:
        """Let go of what is kept of the sessions of an owner whose rows are gone, or new."""
        for kept in (self._kept, *self._warming):
            named = {hash(one): one for one in kept}
            sessions = (part.sessions.keys() & named.keys() for part in shelf.parts.values())
            gone = {named[session] for some in sessions for session in some}
            self._cold |= bool(gone)
            for session in gone:
                del kept[session]
