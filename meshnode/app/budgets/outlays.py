"""What is spent under each budget in its window, kept up to date row by row.

Invariant: once `busy` is over, a sum is what adding up all rows within its window would give, for
whom each was spent as far as that was ever known here; slots are kept for longer than a window
lasts. A call of `settle` looks at ROWS_AT_ONCE rows, so that nobody waits for a mesh that is added
up. While there is no budget nothing is held.
"""

from __future__ import annotations

from collections import Counter
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from meshnode.app.pieces import chunks
from meshnode.core.errors import PeerError
from meshnode.core.ledger.budgets import UNPRICED_SHOWN, USD, Spent, Who, Window, fits, who_of
from meshnode.core.ledger.ledger import DiagnosticsKey, Slot
from meshnode.core.ledger.ledger_rows import key_from_row
from meshnode.core.ledger.marks import FOLDED, session_in, unmarked
from meshnode.core.ledger.prices import cost_nusd
from meshnode.core.sessions.sessions import is_proved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cost.tally import Prices
    from meshnode.core.control.settings import Terms
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.ledger import CounterKey
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.core.tables.tables import Tables

    Asked = Mapping[bytes, tuple[Terms, Window]]
    Place = tuple[NodeId, CounterKey]
    Changes = dict["Place", "_Row | None"]  # rows as they were counted, None: not at all

ROWS_AT_ONCE = 2_000  # looked at; then others get a turn
PRICE_ROWS = 100  # that one look for a price counts as: of an unknown model it takes milliseconds
NOBODY = Who()


class _Row(msgspec.Struct):
    """One slot, priced once, until the lists change."""

    key: CounterKey
    slot: Slot
    nusd: int | None = None
    is_priced: bool = False

    def cost(self, prices: Prices) -> int | None:
        if not self.is_priced:
            key, slot = self.key, self.slot
            priced = prices.rates(key.model, slot.provider, unmarked(key.tier), key.start_s)
            if priced is not None:
                self.nusd = cost_nusd(slot.usage, priced.rates, slot.records)
            self.is_priced = True
        return self.nusd

    @property
    def session(self) -> str:
        return session_in(self.key.session, self.key.tier)


class _Part(msgspec.Struct):
    """What one session adds to one budget."""

    tokens: int = 0
    nusd: int = 0
    unpriced: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, row: _Row, prices: Prices | None, times: int = 1) -> None:
        tokens = row.slot.usage.total * times
        self.tokens += tokens
        if prices is not None:
            nusd = row.cost(prices)
            if nusd is None:
                self.unpriced[row.key.model] += tokens
            self.nusd += (nusd or 0) * times


class _Sum(msgspec.Struct):
    """One budget's: what each session adds to it."""

    terms: Terms
    window: Window
    total: _Part = msgspec.field(default_factory=_Part)
    parts: dict[str, _Part] = msgspec.field(default_factory=dict)
    unsure: int = 0  # tokens told without their session, of which only that would know
    known: Spent | None = None  # until something changes

    def covers(self, key: CounterKey) -> bool:
        """Whether all that a row counts falls into the window."""
        return self.window.start_s <= key.start_s and key.end_s <= self.window.end_s

    def put(self, session: str, part: _Part | None) -> None:
        """Let a session add this instead of what it added before."""
        before = self.parts.pop(session, None)
        if before is None and part is None:
            return
        self.known = None
        for one, sign in ((before, -1), (part, 1)):
            if one is not None:
                self.total.tokens += sign * one.tokens
                self.total.nusd += sign * one.nusd
                for model, tokens in one.unpriced.items():
                    self.total.unpriced[model] += sign * tokens
        if part is not None:
            self.parts[session] = part

    def change(self, row: _Row, prices: Prices, times: int) -> None:
        """Count one row of a session more, or with -1 less."""
        self.known = None
        used = prices if self.terms.unit == USD else None
        for part in (self.total, self.parts.setdefault(row.session, _Part())):
            part.add(row, used, times)

    def spent(self) -> Spent:
        """Return the sum; whoever makes up names of models makes it no longer to read."""
        if self.known is None:
            total = self.total
            unpriced = {model: tokens for model, tokens in total.unpriced.items() if tokens}
            most = dict(nsmallest(UNPRICED_SHOWN, unpriced.items(), lambda one: (-one[1], one[0])))
            more = len(unpriced) - len(most), sum(unpriced.values()) - sum(most.values())
            self.known = Spent(total.tokens, total.nusd, most, *more, self.unsure)
        return self.known


class Outlays:
    """The sums of all budgets."""

    def __init__(self, tables: Tables, prices: Prices) -> None:
        self._tables = tables
        self._prices = prices
        self._forget()

    def _forget(self) -> None:
        self._sums: dict[bytes, _Sum] = {}
        self._since_s: int | None = None  # slots from then on are held
        self._rows: dict[str, dict[Place, _Row]] = {}  # by session
        self._of_origin: dict[NodeId, set[str]] = {}  # sessions in its ledger
        self._who: dict[str, Who] = {}  # of sessions whose ids prove it
        self._fitting: dict[Who, list[_Sum]] = {}
        self._maybe: dict[Who, list[_Sum]] = {}  # fitting, if its session were known
        self._source = ""  # of the prices, once one was wanted
        self._unread: dict[NodeId, list[bytes] | None] = {}  # keys of rows; None: all there are
        self._stale: dict[str, Changes | None] = {}  # by session; None: all of it
        self._pruning: Iterator[int] | None = None
        self._listed: set[str] = set()  # sessions that were seen while that goes on

    @property
    def busy(self) -> bool:
        """Whether `settle` has more to do: until then the sums lack something."""
        return bool(self._unread or self._stale)

    def ask(self, asked: Asked) -> None:
        """Say which sums are wanted, by the ids of budgets."""
        if not asked:
            self._forget()
            return
        since_s = min(window.start_s for _, window in asked.values())
        if self._since_s is None or since_s < self._since_s:
            self._read_all()
        elif since_s > self._since_s:
            self._pruning = self._prune(since_s)
        self._since_s = since_s
        before, self._sums = self._sums, {}
        for budget_id, (terms, window) in asked.items():
            held = before.get(budget_id)
            is_same = held is not None and (held.terms, held.window) == (terms, window)
            self._sums[budget_id] = held if held and is_same else _Sum(terms, window)
        self._fitting, self._maybe = {}, {}
        if any(held is not before.get(one) for one, held in self._sums.items()):
            self._stale = dict.fromkeys([*self._stale, *self._rows])

    def take_prices(self) -> None:
        """Take up what has changed in the lists: then all is priced anew, what had no price too."""
        if not self._is_in_money or (self.busy and self._source):
            return  # first what was begun, or a file that changes each second would end nothing
        source = self._prices.source_text()
        if source == self._source:
            return
        self._source = source
        for rows in self._rows.values():
            for row in rows.values():
                row.is_priced, row.nusd = False, None
        self._stale = dict.fromkeys([*self._stale, *self._rows])

    @property
    def _is_in_money(self) -> bool:
        return any(held.terms.unit == USD for held in self._sums.values())

    def touch(self, origin: NodeId, row_key: bytes) -> None:
        """Take a ledger row that has changed."""
        if self._since_s is None:
            return
        try:
            key = key_from_row(row_key)
        except PeerError:
            return  # unreadable rows are passed over everywhere
        if key is None or isinstance(key, DiagnosticsKey) or key.end_s <= self._since_s:
            return
        row = self._tables.ledger_row(origin, row_key)
        session = session_in(key.session, key.tier)
        rows = self._rows.setdefault(session, {})
        before = rows.pop((origin, key), None)
        if row is not None and isinstance(row[1], Slot):
            rows[origin, key] = _Row(key, row[1])
            self._of_origin.setdefault(origin, set()).add(session)
        changes = self._stale.setdefault(session, {})
        if changes is not None:
            changes.setdefault((origin, key), before)

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
        """Add up some of what has changed; again while `busy`. Then let go of some that is old."""
        left = self._add_up_some(ROWS_AT_ONCE)
        while self._pruning is not None and left > 0:
            looked = next(self._pruning, None)
            if looked is None:
                self._pruning = None
            left -= looked or 0

    def _add_up_some(self, left: int) -> int:
        """Look at some rows; returns how many there could be more."""
        while self._unread and left > 0:
            left -= self._read(next(iter(self._unread)), left)
        while self._stale and left > 0:
            session = next(iter(self._stale))
            left -= PRICE_ROWS * self._look_for_prices(session, left // PRICE_ROWS + 1)
            if left <= 0:
                return left  # it goes on with this session
            changes = self._stale.pop(session)
            if changes is None:
                left -= 1 + len(self._rows.get(session, ()))
                self._add_up(session)
            else:
                left -= 1 + len(changes)
                self._follow(session, changes)
        return left

    def _look_for_prices(self, session: str, most: int) -> int:
        """Price some rows of a session that have not been yet; returns how many."""
        if not self._is_in_money:
            return 0
        rows, changes = self._rows.get(session, {}), self._stale[session]
        new = rows.values() if changes is None else map(rows.get, changes)
        some = list(islice((row for row in new if row and not row.is_priced), most))
        for row in some:
            row.cost(self._prices)
        return len(some)

    def spent(self, budget_id: bytes) -> Spent:
        """Return a sum."""
        return self._sums[budget_id].spent()

    def _read_all(self) -> None:
        self._pruning = None  # what it would let go of is read
        for origin, record in self._tables.sessions(forgotten=True):
            self._learn(origin, record)
        self._unread = dict.fromkeys(self._tables.origins())

    def _read(self, origin: NodeId, most: int) -> int:
        """Read some of a node's ledger; returns how many rows were looked at."""
        unread = self._unread[origin]
        if unread is None:
            for session in self._of_origin.pop(origin, set()):
                rows = self._rows.get(session, {})
                for place in [place for place in rows if place[0] == origin]:
                    del rows[place]
                self._stale[session] = None
            unread = self._unread[origin] = self._tables.ledger_keys(origin)
        some = unread[-most:]
        del unread[-most:]
        for row_key in some:
            self.touch(origin, row_key)
        if not unread:
            del self._unread[origin]
        return 1 + len(some)

    def _prune(self, since_s: int) -> Iterator[int]:
        """Let go of slots from before all windows; yields how many rows were looked at."""
        for session in list(self._rows):
            rows = self._rows.get(session, {})
            yield 1 + len(rows)
            for place in [place for place in rows if place[1].end_s <= since_s]:
                del rows[place]
            if not rows:
                self._rows.pop(session, None)
        for sessions in list(self._of_origin.values()):
            yield len(sessions)
            sessions.difference_update([one for one in sessions if one not in self._rows])
        yield from self._prune_who()

    def _prune_who(self) -> Iterator[int]:
        """Let go of whose sessions were that are neither listed nor held any more."""
        named, self._listed = list(self._who), set()
        for some in chunks(self._tables.sessions(forgotten=True)):
            yield len(some)
            self._listed.update(record.session_id for _, record in some)
        for names in chunks(named):
            yield len(names)
            for session in names:
                if session not in self._rows and session not in self._listed:
                    self._who.pop(session, None)
        self._listed = set()

    def _learn(self, origin: NodeId, record: SessionRecord) -> None:
        session = record.session_id
        if self._pruning is not None:
            self._listed.add(session)
        if self._who.get(session) == who_of(record) or not is_proved(origin, record):
            return
        self._who[session] = who_of(record)
        if session in self._rows:
            self._stale[session] = None

    def _add_up(self, session: str) -> None:
        who = self._who.get(session, NOBODY)
        parts: dict[int, _Part] = {}
        for (_, key), row in self._rows.get(session, {}).items():
            for held in self._sums_for(_whose(row.slot, who)):
                if held.covers(key):
                    prices = self._prices if held.terms.unit == USD else None
                    parts.setdefault(id(held), _Part()).add(row, prices)
        for held in self._sums.values():
            held.put(session, parts.get(id(held)))
        if session == FOLDED:
            for held in self._sums.values():
                held.unsure, held.known = 0, None
            for row in self._rows.get(session, {}).values():
                self._doubt(row, 1)

    def _follow(self, session: str, changes: Changes) -> None:
        who = self._who.get(session, NOBODY)
        rows = self._rows.get(session, {})
        for place, before in changes.items():
            for row, times in ((before, -1), (rows.get(place), 1)):
                if row is None:
                    continue
                for held in self._sums_for(_whose(row.slot, who)):
                    if held.covers(place[1]):
                        held.change(row, self._prices, times)
                if session == FOLDED:
                    self._doubt(row, times)

    def _doubt(self, row: _Row, times: int) -> None:
        whose = _whose(row.slot, NOBODY)
        if whose not in self._maybe:
            some = [held for held in self._sums.values() if _may_fit(held.terms, whose)]
            self._maybe[whose] = [held for held in some if not fits(held.terms, whose)]
        for held in self._maybe[whose]:
            if held.covers(row.key):
                held.known = None
                held.unsure += times * row.slot.usage.total

    def _sums_for(self, whose: Who) -> Iterable[_Sum]:
        found = self._fitting.get(whose)
        if found is None:
            if len(self._fitting) >= ROWS_AT_ONCE:
                self._fitting.clear()
                self._maybe.clear()
            found = [held for held in self._sums.values() if fits(held.terms, whose)]
            self._fitting[whose] = found
        return found


def _whose(slot: Slot, who: Who) -> Who:
    return Who(
        slot.owner or who.owner,
        slot.agent or who.agent,
        slot.project or who.project,
        who.specializations,
    )


def _may_fit(terms: Terms, who: Who) -> bool:
    asked = (terms.owner, who.owner), (terms.agent, who.agent), (terms.project, who.project)
    return all(not said or one in {"", said} for one, said in asked)
