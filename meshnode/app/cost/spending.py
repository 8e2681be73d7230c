"""What was spent, session by session and model by model, followed while somebody watches.

Invariant: totals are cumulative, so whoever misses one of them loses no money. While nobody watches
nothing is added up and no price is looked for: it is only noted what has changed, and given out
when somebody watches again.

No piece is long: all ledgers are read with chances to pause, and of what has changed ROWS_AT_ONCE
rows are looked at by one call of `settle`; `busy` says that there is more.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from meshnode.app.cost.cost import CostGroup
from meshnode.app.cost.costing import span_of
from meshnode.app.cost.tally import Combination, Rated, Unit, Use, UsedLast, used_last
from meshnode.app.pieces import LOOKS, chunks
from meshnode.core.ledger.counts import counter_of, exactly, unpacked, weight_of
from meshnode.core.ledger.ledger import COUNT_MAX, LEDGER, Buckets
from meshnode.core.ledger.marks import unmarked
from meshnode.core.ledger.prices import cost_pusd, rounded_nusd

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from meshnode.app.cost.tally import Kind, Prices
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Counter as RowKey
    from meshnode.core.ledger.ledger import CounterKey, Slot
    from meshnode.core.tables.tables import Tables

    Difference = tuple[CostGroup | None, CostGroup | None]  # before and after

Counter = tuple["NodeId", str, str]  # whose ledger, which session, which model
PENDING_MAX = 10_000  # noted while nobody follows; more: of their owners all is in doubt
ROWS_AT_ONCE = 512  # looked at by one call of `settle`, of microseconds each
PRICE_ROWS = 100  # that a look for a price counts as
_COUNTER_ROWS = 8  # that one more counter counts as


class Spent(msgspec.Struct):
    """What one session has spent so far, and the model it used last (`tally.UsedLast`)."""

    usage: Buckets = msgspec.field(default_factory=Buckets)
    pusd: int | None = None
    model: str | None = None
    records: int = 0
    _last: UsedLast = msgspec.field(default_factory=UsedLast)

    @property
    def nusd(self) -> int | None:
        """What it cost, in nano-USD; None if nothing of it has a price."""
        return None if self.pusd is None else rounded_nusd(self.pusd)

    def add(self, key: CounterKey, slot: Slot, prices: Prices) -> None:
        """Count a slot."""
        self.usage += slot.usage
        self.records = min(self.records + slot.records, COUNT_MAX)
        priced = prices.rates(key.model, slot.provider, unmarked(key.tier), key.start_s)
        if priced is not None:
            self.pusd = (self.pusd or 0) + cost_pusd(slot.usage, priced.rates, slot.records)
        self._last.add(Use(key.start_s, key.model, slot.usage.uncapped))
        self.model = self._last.model


class _Sum(NamedTuple):
    """What one counter adds up to; `counts` as in core/ledger/counts.py."""

    counts: int
    pusd: int | None
    latest: Use


class Spending:
    """The counters of all ledgers, as far as somebody watches them."""

    def __init__(
        self,
        tables: Tables,
        replicas: Mapping[NodeId, Replica],
        prices: Prices,
        name_of: Callable[[NodeId], str],
    ) -> None:
        self._tables = tables
        self._replicas = replicas
        self._rated = Rated(prices)
        self._name_of = name_of
        self._rows: dict[NodeId, dict[tuple[str, str], dict[bytes, tuple[Unit, int]]]] = {}
        self._units: dict[Unit, Unit] = {}  # one object for all that is equal
        self._sums: dict[str, dict[Counter, _Sum]] = {}  # by session
        self._pending: dict[Counter, None] = {}
        self._settling: dict[Counter, None] = {}  # of those, what is being worked out
        self._unread: dict[NodeId, list[bytes] | None] = {}  # keys of rows in doubt; None: all
        self._sessions: Collection[str] | None = None  # which rows are held of; None: of all
        self.shown: dict[Counter, CostGroup] = {}
        self.held = False  # whether rows are taken as they change
        self.followed = False  # whether all that is held was told of, too

    @property
    def waiting(self) -> bool:
        """Whether totals wait to be worked out."""
        return self.followed and self.in_doubt

    @property
    def busy(self) -> bool:
        """Whether `settle` has begun what it has not ended."""
        return self.held and bool(self._unread or self._settling)

    @property
    def in_doubt(self) -> bool:
        """Whether anything may have changed that was not given out."""
        return bool(self._pending or self._settling or self._unread)

    def touch(self, origin: NodeId, row_key: bytes) -> None:
        """Note that a ledger row has changed."""
        counter = counter_of(row_key)
        if counter is None or (not self.held and self._unread.get(origin, ()) is None):
            return
        self._pending[origin, counter.session, counter.model] = None
        if self.held:
            self._take(origin, row_key, counter)
        elif len(self._pending) > PENDING_MAX:
            self._unread.update((one, None) for one, _, _ in self._pending)
            self._pending = {}

    def touch_all(self, origin: NodeId) -> None:
        """Note that all ledger rows of a node may have changed."""
        gone = self._rows.pop(origin, {})
        self._pending.update(((origin, *counter), None) for counter in gone)
        self._unread[origin] = None

    def pending(self) -> list[Counter] | None:
        """Return what has changed and was not given out; None if that is more than PENDING_MAX."""
        found = {*self._pending, *self._settling}
        for origin in self._unread:
            for counter in filter(None, map(counter_of, self._tables.ledger_keys(origin))):
                found.add((origin, counter.session, counter.model))
                if len(found) > PENDING_MAX:
                    return None
        return sorted(found) if len(found) <= PENDING_MAX else None

    def restore(self, pending: Iterable[Counter]) -> None:
        """Take up what had not been given out when this node stopped."""
        self._pending.update(dict.fromkeys(pending))

    def read(self, sessions: Collection[str] | None = None) -> Iterator[None]:
        """Begin to hold rows: of all sessions, or of these and those that are pending.

        Read all ledgers, with a chance to pause at each yield. Then `settle` works out what was
        pending until it is not `busy`, and whoever calls sets `followed`, or calls `stop`.
        """
        self.stop()
        self.held = True
        yield from self._reread_all()
        if sessions is not None:
            self._sessions = {*sessions, *(session for _, session, _ in self._pending)}
        yield from self._read_all()
        yield from self._reread_all()
        yield from self._add_up_others()
        for some in chunks(list(self._pending)):
            for counter in filter(lambda one: self._holds(one[1]), some):
                self._settling[counter] = self._pending.pop(counter, None)
            yield

    def stop(self) -> None:
        """Follow no more: nobody watches."""
        self.followed = self.held = False
        self._pending |= self._settling
        self._settling, self._rows, self._units, self._sums, self.shown = {}, {}, {}, {}, {}
        self._sessions = None

    def settle(self) -> tuple[set[str], list[Difference]]:
        """Work out some of what has changed: the sessions, and each counter before and after."""
        left, sessions = ROWS_AT_ONCE, set[str]()
        changed: list[Difference] = []
        while self._unread and left > 0:
            left -= self._reread(left)
        if self._sessions is None and not self._unread and not self._settling:
            self._rated.refresh()
            self._settling, self._pending = self._pending, {}
        while self._settling and left > 0:
            counter = next(iter(self._settling))
            left -= PRICE_ROWS * self._look_for_prices(counter, left // PRICE_ROWS + 1)
            if left <= 0:
                break  # it goes on with this one
            del self._settling[counter]
            before = self.shown.pop(counter, None)
            after, rows = self._add_up(counter)
            left -= _COUNTER_ROWS + rows
            sessions.add(counter[1])
            if before != after:
                changed.append((before, after))
        return sessions, changed

    def of_session(self, session: str) -> Spent:
        """Add up one session over all ledgers, as far as it is settled."""
        sums = self._sums.get(session, {}).values()
        return _spent([(one.counts, one.pusd) for one in sums], [one.latest for one in sums])

    def _holds(self, session: str) -> bool:
        return self._sessions is None or session in self._sessions

    def _reread(self, most: int) -> int:
        """Note some rows of a node in doubt; returns how many were looked at."""
        origin = next(iter(self._unread))
        unread = self._unread.pop(origin)
        if unread is None:
            unread = self._tables.ledger_keys(origin)
        some = unread[-most:]
        del unread[-most:]
        for row_key in some:
            self.touch(origin, row_key)
        if unread:
            self._unread[origin] = unread
        return 1 + len(some)

    def _reread_all(self) -> Iterator[None]:
        while self._unread:
            self._reread(LOOKS)
            yield

    def _read_all(self) -> Iterator[None]:
        for origin in list(self._replicas):
            for some in chunks(self._tables.ledger_keys(origin)):
                for row_key in some:
                    self._take(origin, row_key, counter_of(row_key))
                yield

    def _add_up_others(self) -> Iterator[None]:
        """Show what is not pending: it is as it was told."""
        self._rated.refresh()
        for origin, held in list(self._rows.items()):
            for counter in [(origin, *of) for of in held]:
                while self._look_for_prices(counter, 1):
                    yield
                if counter not in self._pending:
                    self._add_up(counter)
                yield

    def _take(self, origin: NodeId, row_key: bytes, counter: RowKey | None) -> None:
        """Hold a row as it is now, if that is asked for."""
        if counter is None or not self._holds(counter.session):
            return
        held = self._rows.setdefault(origin, {})
        rows = held.setdefault((counter.session, counter.model), {})
        rows.pop(row_key, None)
        replica = self._replicas.get(origin)
        row = replica.rows.get(LEDGER, row_key) if replica else None
        weight = weight_of(row.value) if row and self._tables.shows_ledger(origin) else None
        if weight is not None and weight.counts:
            what = Combination(counter.model, weight.provider, counter.tier)
            unit = Unit(what, span_of(counter).start_s)
            rows[row_key] = self._units.setdefault(unit, unit), weight.counts
        if not rows:
            del held[counter.session, counter.model]

    def _rows_of(self, counter: Counter) -> Mapping[bytes, tuple[Unit, int]]:
        origin, session, model = counter
        return self._rows.get(origin, {}).get((session, model), {})

    def _look_for_prices(self, counter: Counter, most: int) -> int:
        """Look for prices of a counter that are not known yet; returns how many."""
        units = (unit for unit, _ in self._rows_of(counter).values())
        some = list(islice((unit for unit in units if not self._rated.knows(unit)), most))
        for unit in some:
            self._rated.kind(unit)
        return len(some)

    def _add_up(self, counter: Counter) -> tuple[CostGroup | None, int]:
        """Add up a counter, and show it; returns it, and of how many rows."""
        rows = self._rows_of(counter)
        sums = self._sums.setdefault(counter[1], {})
        sums.pop(counter, None)
        if rows:
            added = sums[counter] = self._sum_of(counter[2], rows.values())
            self.shown[counter] = self._group(counter, _spent([(added.counts, added.pusd)], ()))
        if not sums:
            del self._sums[counter[1]]
        return self.shown.get(counter), len(rows)

    def _sum_of(self, model: str, rows: Collection[tuple[Unit, int]]) -> _Sum:
        kinds: dict[Kind, int] = {}
        for unit, counts in rows:
            kind = self._rated.kind(unit)
            kinds[kind] = kinds.get(kind, 0) + counts
        last_s = max(unit.at_s for unit, _ in rows)
        lately = sum(counts for unit, counts in rows if unit.at_s == last_s)
        counts, pusd = _joined((counts, kind.cost_pusd(counts)) for kind, counts in kinds.items())
        return _Sum(counts, pusd, Use(last_s, model, exactly(lately)[1].uncapped))

    def _group(self, counter: Counter, spent: Spent) -> CostGroup:
        origin, session, model = counter
        return CostGroup(
            key={
                "node_id": origin,
                "node": self._name_of(origin),
                "session": session,
                "model": model,
            },
            records=spent.records,
            sessions=1,
            models=(model,),
            usage=spent.usage,
            cost_nusd=spent.nusd,
        )


def _spent(priced: Iterable[tuple[int, int | None]], uses: Iterable[Use]) -> Spent:
    counts, pusd = _joined(priced)
    records, usage = unpacked(counts)
    return Spent(usage, pusd, used_last(uses), records)


def _joined(priced: Iterable[tuple[int, int | None]]) -> tuple[int, int | None]:
    """Add up counts, and what of them has a price."""
    counts, pusd = 0, None
    for more, cost in priced:
        counts += more
        pusd = cost if pusd is None else pusd + (cost or 0)
    return counts, pusd
