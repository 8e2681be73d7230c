"""What is spent under each budget in its window, kept up to date row by row.

Invariant: after `settle` a sum is what adding up all slots of its window would give, for whom each
slot was spent as far as that was ever known here. While there is no budget nothing is held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.budgets import USD, Spent, Who, Window, fits, who_of
from meshnode.core.errors import PeerError
from meshnode.core.ids import session_id_of
from meshnode.core.ledger import SLOT_S, Slot, SlotKey, key_from_row
from meshnode.core.prices import cost_nusd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cost import Prices
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions import SessionRecord
    from meshnode.core.settings import Terms
    from meshnode.core.tables import Tables

    Asked = Mapping[bytes, tuple[Terms, Window]]

ORIGINS_AT_ONCE = 32  # of whose ledgers all is read; then others get a turn
NOBODY = Who()


@dataclass(slots=True)
class _Sum:
    """One budget's: what each session adds to it."""

    terms: Terms
    window: Window
    tokens: int = 0
    nusd: int = 0
    unpriced: dict[str, int] = field(default_factory=dict)
    parts: dict[str, Spent] = field(default_factory=dict)

    def put(self, session: str, part: Spent) -> None:
        """Let a session add this instead of what it added before."""
        self._add(self.parts.pop(session, Spent()), -1)
        if part != Spent():
            self.parts[session] = part
            self._add(part, 1)

    def _add(self, part: Spent, sign: int) -> None:
        self.tokens += sign * part.tokens
        self.nusd += sign * part.nusd
        for model, tokens in part.unpriced.items():
            left = self.unpriced.pop(model, 0) + sign * tokens
            if left:
                self.unpriced[model] = left


class Outlays:
    """The sums of all budgets."""

    def __init__(self, tables: Tables, prices: Prices) -> None:
        self._tables = tables
        self._prices = prices
        self._forget()

    def _forget(self) -> None:
        self._sums: dict[bytes, _Sum] = {}
        self._since_s: int | None = None  # slots from then on are held
        self._slots: dict[str, dict[tuple[NodeId, SlotKey], Slot]] = {}  # by session
        self._of_origin: dict[NodeId, set[str]] = {}  # sessions in its ledger
        self._who: dict[str, tuple[bool, Who]] = {}  # of a session; whether its id proves it
        self._unread: dict[NodeId, None] = {}  # whose ledgers are to be read whole
        self._stale: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether `settle` has more to do: until then the sums lack something."""
        return bool(self._unread)

    def ask(self, asked: Asked) -> None:
        """Say which sums are wanted, by the ids of budgets."""
        if not asked:
            self._forget()
            return
        since_s = min(window.start_s for _, window in asked.values())
        if self._since_s is None or since_s < self._since_s:
            self._read_all()
        self._prune(since_s)
        kept = {
            budget_id: held
            for budget_id, (terms, window) in asked.items()
            if (held := self._sums.get(budget_id)) and (held.terms, held.window) == (terms, window)
        }
        fresh = {
            budget_id: _Sum(terms, window)
            for budget_id, (terms, window) in asked.items()
            if budget_id not in kept
        }
        self._sums = kept | fresh
        for session in self._slots if fresh else ():
            self._add_up(session, fresh.values())

    def touch(self, origin: NodeId, row_key: bytes) -> None:
        """Take a ledger row that has changed."""
        if self._since_s is None:
            return
        try:
            key = key_from_row(row_key)
        except PeerError:
            return  # unreadable rows are passed over everywhere
        if not isinstance(key, SlotKey) or key.start_s + SLOT_S <= self._since_s:
            return
        row = self._tables.ledger_row(origin, row_key)
        slots = self._slots.setdefault(key.session, {})
        slots.pop((origin, key), None)
        if row is not None and isinstance(row[1], Slot):
            slots[origin, key] = row[1]
            self._of_origin.setdefault(origin, set()).add(key.session)
        self._stale.add(key.session)

    def touch_all(self, origin: NodeId) -> None:
        """Note that all rows of a node may have changed."""
        if self._since_s is not None:
            self._unread[origin] = None

    def touch_session(self, origin: NodeId, session: str) -> None:
        """Take a session's row that has changed; whose it was stays known when it is gone."""
        if self._since_s is None:
            return
        record = self._tables.session(origin, session)
        if record is not None:
            self._learn(origin, record)

    def settle(self) -> None:
        """Add up what has changed; again while `busy`."""
        for origin in list(self._unread)[:ORIGINS_AT_ONCE]:
            del self._unread[origin]
            self._read(origin)
        stale, self._stale = self._stale, set()
        for session in stale:
            self._add_up(session, self._sums.values())

    def spent(self, budget_id: bytes) -> Spent:
        """Return a sum."""
        held = self._sums[budget_id]
        return Spent(held.tokens, held.nusd, dict(held.unpriced))

    def _read_all(self) -> None:
        self._since_s = 0
        for origin, record in self._tables.sessions(forgotten=True):
            self._learn(origin, record)
        self._unread = dict.fromkeys(self._tables.origins())

    def _read(self, origin: NodeId) -> None:
        for session in self._of_origin.pop(origin, set()):
            slots = self._slots.get(session, {})
            for place in [place for place in slots if place[0] == origin]:
                del slots[place]
            self._stale.add(session)
        for row_key in self._tables.ledger_keys(origin):
            self.touch(origin, row_key)

    def _prune(self, since_s: int) -> None:
        """Let go of slots from before all windows."""
        self._since_s = since_s
        for session, slots in list(self._slots.items()):
            for place in [place for place in slots if place[1].start_s + SLOT_S <= since_s]:
                del slots[place]
            if not slots:
                del self._slots[session]
        listed = {record.session_id for _, record in self._tables.sessions(forgotten=True)}
        for session in self._who.keys() - self._slots.keys() - listed:
            del self._who[session]

    def _learn(self, origin: NodeId, record: SessionRecord) -> None:
        session = record.session_id
        proved = session == session_id_of(origin, record.start or record.session_epoch)
        known = self._who.get(session)
        if known is not None and (known[0] > proved or known == (proved, who_of(record))):
            return
        self._who[session] = proved, who_of(record)
        self._stale.add(session)

    def _add_up(self, session: str, sums: Iterable[_Sum]) -> None:
        slots = self._slots.get(session, {})
        _, who = self._who.get(session, (False, NOBODY))
        for held in sums:
            held.put(session, self._part(held, slots, who))

    def _part(self, held: _Sum, slots: Mapping[tuple[NodeId, SlotKey], Slot], who: Who) -> Spent:
        tokens = nusd = 0
        unpriced: dict[str, int] = {}
        for key, slot in _within(held, slots, who):
            tokens += slot.usage.total
            if held.terms.unit != USD:
                continue
            priced = self._prices.rates(key.model, slot.provider, key.tier, key.start_s)
            if priced is None:
                unpriced[key.model] = unpriced.get(key.model, 0) + slot.usage.total
            else:
                nusd += cost_nusd(slot.usage, priced.rates, slot.records)
        return Spent(tokens, nusd, unpriced)


def _within(
    held: _Sum, slots: Mapping[tuple[NodeId, SlotKey], Slot], who: Who
) -> Iterator[tuple[SlotKey, Slot]]:
    window = held.window
    for (_, key), slot in slots.items():
        whose = Who(
            slot.owner or who.owner,
            slot.agent or who.agent,
            slot.project or who.project,
            who.specializations,
        )
        if window.start_s <= key.start_s < window.end_s and fits(held.terms, whose):
            yield key, slot
