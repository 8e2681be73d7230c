"""What was spent, session by session and model by model, followed while somebody watches.

Invariant: totals are cumulative, so whoever misses one of them loses no money. While nobody watches
nothing is added up and no price is looked for: it is only noted what has changed, and given out
when somebody watches again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.app.cost import CostGroup
from meshnode.core.errors import PeerError
from meshnode.core.ledger import COUNT_MAX, Buckets, CounterKey, DiagnosticsKey, Slot
from meshnode.core.ledger_rows import key_from_row
from meshnode.core.prices import cost_pusd, rounded_nusd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshnode.app.tally import Prices
    from meshnode.core.ids import NodeId
    from meshnode.core.tables import Tables

Counter = tuple["NodeId", str, str]  # whose ledger, which session, which model


@dataclass(slots=True)
class Spent:
    """What one session has spent so far, and the model it used last."""

    usage: Buckets = field(default_factory=Buckets)
    pusd: int | None = None
    model: str | None = None
    records: int = 0
    _latest: tuple[int, str] = (-1, "")

    @property
    def nusd(self) -> int | None:
        """What it cost, in nano-USD; None if nothing of it has a price."""
        return None if self.pusd is None else rounded_nusd(self.pusd)

    def add(self, key: CounterKey, slot: Slot, prices: Prices) -> None:
        """Count a slot."""
        self.usage += slot.usage
        self.records = min(self.records + slot.records, COUNT_MAX)
        priced = prices.rates(key.model, slot.provider, key.tier, key.start_s)
        if priced is not None:
            self.pusd = (self.pusd or 0) + cost_pusd(slot.usage, priced.rates, slot.records)
        if (key.start_s, key.model) > self._latest:
            self._latest, self.model = (key.start_s, key.model), key.model


class Spending:
    """The counters of all ledgers, as far as somebody watches them."""

    def __init__(self, tables: Tables, prices: Prices, name_of: Callable[[NodeId], str]) -> None:
        self._tables = tables
        self._prices = prices
        self._name_of = name_of
        self._slots: dict[str, dict[NodeId, dict[CounterKey, Slot]]] = {}
        self._pending: set[Counter] = set()  # at most as many as there are ledger rows
        self._doubted: set[str] = set()  # sessions told of while nobody followed
        self.shown: dict[Counter, CostGroup] = {}
        self.followed = False

    @property
    def waiting(self) -> bool:
        """Whether totals wait to be worked out."""
        return self.followed and bool(self._pending)

    def touch(self, origin: NodeId, row_key: bytes) -> None:
        """Note that a ledger row has changed."""
        try:
            key = key_from_row(row_key)
        except PeerError:
            return  # unreadable rows are passed over everywhere
        if key is None or isinstance(key, DiagnosticsKey):
            return
        self._pending.add((origin, key.session, key.model))
        if self.followed:
            row = self._tables.ledger_row(origin, row_key)
            slots = self._slots.setdefault(key.session, {}).setdefault(origin, {})
            slots.pop(key, None)
            if row is not None and isinstance(row[1], Slot):
                slots[key] = row[1]

    def touch_all(self, origin: NodeId) -> None:
        """Note that all ledger rows of a node may have changed."""
        if self.followed:
            for counter in self.shown:
                if counter[0] == origin:
                    self._pending.add(counter)
                    self._slots.get(counter[1], {}).pop(origin, None)
        for row_key in self._tables.ledger_keys(origin):
            self.touch(origin, row_key)

    def doubt(self, session: str) -> None:
        """Note that a session was told of with what it had spent when last somebody watched."""
        self._doubted.add(session)

    def pending(self) -> list[Counter]:
        """Return what has changed and was not given out."""
        return sorted(self._pending)

    def restore(self, pending: Iterable[Counter]) -> None:
        """Take up what had not been given out when this node stopped."""
        self._pending.update(pending)

    def follow(self) -> tuple[set[str], list[tuple[CostGroup | None, CostGroup | None]]]:
        """Begin to add up. Returns the sessions in doubt, and counters changed meanwhile."""
        self.followed = True
        for origin, (key, value) in self._tables.ledger():
            if not isinstance(key, DiagnosticsKey) and isinstance(value, Slot):
                self._slots.setdefault(key.session, {}).setdefault(origin, {})[key] = value
        counters = {
            (origin, session, key.model)
            for session, by_origin in self._slots.items()
            for origin, slots in by_origin.items()
            for key in slots
        }
        for counter in counters - self._pending:
            group = self._group(counter)
            if group is not None:
                self.shown[counter] = group
        doubted, self._doubted = self._doubted, set()
        sessions, changed = self.settle()
        return doubted | sessions, changed

    def stop(self) -> None:
        """Follow no more: nobody watches."""
        self.followed = False
        self._slots = {}
        self.shown = {}

    def settle(self) -> tuple[set[str], list[tuple[CostGroup | None, CostGroup | None]]]:
        """Work out what has changed: the sessions, and each counter before and after."""
        pending, self._pending = self._pending, set()
        changed: list[tuple[CostGroup | None, CostGroup | None]] = []
        for counter in sorted(pending):
            before, after = self.shown.pop(counter, None), self._group(counter)
            if after is not None:
                self.shown[counter] = after
            if before != after:
                changed.append((before, after))
        return {session for _, session, _ in pending}, changed

    def of_session(self, session: str) -> Spent:
        """Add up one session over all ledgers."""
        spent = Spent()
        for slots in self._slots.get(session, {}).values():
            for key, slot in slots.items():
                spent.add(key, slot, self._prices)
        return spent

    def _group(self, counter: Counter) -> CostGroup | None:
        origin, session, model = counter
        spent = Spent()
        for key, slot in self._slots.get(session, {}).get(origin, {}).items():
            if key.model == model:
                spent.add(key, slot, self._prices)
        if spent.model is None:
            return None
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
