"""What the mesh has spent: counters of all nodes, grouped, and priced when asked.

Invariant: every row is in exactly one group, and the groups add up to the total, whose money is
rounded once. A model without a price adds tokens and is listed, never priced at 0.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from meshnode.app.cost.cutting import Cutting, Span, Texts
from meshnode.app.cost.sessions import Sessions
from meshnode.app.cost.tally import Combination, Lot, Rated, Tally, Unit, added_up, shared_out
from meshnode.app.pieces import chunks, finished
from meshnode.core.ids import names_apart
from meshnode.core.ledger.counts import DAYS, MONTHS, SLOTS, packed, unpacked
from meshnode.core.ledger.ledger import Buckets, Diagnostics, SlotKey
from meshnode.core.ledger.marks import session_in, unmarked
from meshnode.core.ledger.tiers import tier_parts
from meshnode.core.periods import DAY_S, DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from meshnode.app.cost.cutting import CostQuery
    from meshnode.app.cost.tally import GroupKey, Kind, Prices, Sum
    from meshnode.core.ledger.ledger import CounterKey, Slot


LOTS_MAX = 16_384  # remembered of one query, some 6 MB; more: all are made again
NAMES_MAX = 1000  # of models that have no price, in an answer; of more the rest is one sum
TIERS_MAX = 5  # of models without a price of theirs, named in notes; of more it is said how many
MODELS_MAX = 100  # named with a group; of more it is only said how many they are


class OwnedSlot(NamedTuple):
    """A counter, and the node in whose feed it stands."""

    node_id: str
    node_name: str
    key: CounterKey
    slot: Slot


class CostGroup(msgspec.Struct, frozen=True):
    """One row of the answer; `cost_nusd` is None when nothing in it is priced."""

    key: Mapping[str, str]
    records: int
    sessions: int
    models: tuple[str, ...]
    usage: Buckets
    cost_nusd: int | None


class Unpriced(msgspec.Struct, frozen=True):
    """A model that no list knows; `total` is in tokens."""

    model: str
    records: int
    total: int


class CostAnswer(msgspec.Struct, frozen=True):
    """What was spent; `cost_nusd` is that of the priced part, `unpriced` lists the rest.

    `sessions` are distinct. `tz_exact` is false if a counter spans more than one of the days, hours
    or times asked for: a slot of half an hour, or what is left of an old day or month; `notes` say
    which, in sentences, and what is priced as if it were of another service tier.
    """

    records: int
    totals: Buckets
    cost_nusd: int | None
    groups: tuple[CostGroup, ...]
    unpriced: tuple[Unpriced, ...]
    diagnostics: Diagnostics
    price_source: str
    tz_exact: bool = True
    sessions: int = 0
    notes: tuple[str, ...] = ()
    groups_more: int = 0  # that the last one is made of


class Adding:
    """One query as its rows are added up."""

    def __init__(self, query: CostQuery, rated: Rated) -> None:
        self.cutting = Cutting(query)
        self.rated = rated
        self._source = rated.refresh()  # first: the lists may have changed since the last query
        self.tally = Tally(holds_any=bool(query.most))
        self.sessions = Sessions()
        self.diagnostics = Diagnostics()
        self._lots: dict[tuple[Combination, Span], Lot] = {}  # where texts have no part in them

    def row(self, what: Combination, span: Span, texts: Texts, counts: int) -> None:
        """Count a row, if the query selects it; `counts` as in core/ledger/counts.py.

        Raises UsageError where there would be too many groups.
        """
        lot = self.lot(what, span, texts) if counts else None
        if lot is not None:
            self.tally.add(*lot, counts)
            self.sessions.see(lot.group, texts.session)

    def lot(self, what: Combination, span: Span, texts: Texts) -> Lot | None:
        """Return where a row is counted; None if the query does not select it."""
        query = self.cutting.query
        if not self.cutting.selects(span) or query.session not in ("", texts.session):
            return None
        if self.cutting.is_by_texts:
            return Lot(self.cutting.key(what, span, texts), self.kind(what, span))
        found = self._lots.get((what, span))
        if found is None:
            if len(self._lots) == LOTS_MAX:
                self._lots.clear()
            found = Lot(self.cutting.key(what, span, texts), self.kind(what, span))
            self._lots[what, span] = found
        return found

    def kind(self, what: Combination, span: Span) -> Kind:
        """Return what a row is priced as: as all of its day, unless prices change in it."""
        prices_at_s = self.cutting.query.prices_at_s
        if prices_at_s is not None:
            return self.rated.kind(Unit(what, prices_at_s))
        day_s = span.start_s - span.start_s % DAY_S
        by_slot = span.kind == SLOTS and not self.rated.is_alike(what, day_s)
        return self.rated.kind(Unit(what, span.start_s if by_slot else day_s))

    def answer(self, names: Mapping[str, str]) -> Generator[None, None, CostAnswer]:
        """Price what was added, with a pause at each yield; `names`: of nodes, by id."""
        sums: dict[GroupKey, Sum] = {}
        for group, kinds in self.tally.groups.items():
            sums[group] = yield from added_up(kinds)
        yield
        spellings = yield from _spellings(sums.values())
        nusd = shared_out({group: added.pusd for group, added in sums.items()})
        yield
        sessions = yield from self.sessions.by_group()
        groups: dict[GroupKey, CostGroup] = {}
        found = self._shown(sums, nusd, sessions, spellings, names) if self.cutting.by else ()
        for group, one in found:
            groups[group] = one
            yield
        shown, more = yield from self._most(groups)
        records, totals = unpacked(sum(added.counts for added in sums.values()))
        known = [amount for amount in nusd.values() if amount is not None]
        return CostAnswer(
            records=records,
            totals=totals,
            cost_nusd=sum(known) if known or not sums else None,
            groups=shown,
            unpriced=(yield from _unpriced(sums.values(), spellings)),
            diagnostics=self.diagnostics,
            price_source=self._source,
            tz_exact=self.cutting.exact,
            sessions=sessions[None],
            notes=(*self.cutting.notes, *(yield from _as_standard(sums.values(), spellings))),
            groups_more=more,
        )

    def _most(
        self, groups: Mapping[GroupKey, CostGroup]
    ) -> Generator[None, None, tuple[tuple[CostGroup, ...], int]]:
        """Put the dearest first, and make one of all beyond as many as the query wants, if any.

        Returns of how many that is made, too.
        """
        keys = sorted(groups, key=lambda group: _dearest_first(groups[group]))
        most = self.cutting.query.most or len(keys)
        shown, rest = [groups[key] for key in keys[:most]], keys[most:]
        if rest:
            sessions = yield from self.sessions.among(frozenset(rest))
            shown.append(_joined([groups[key] for key in rest], sessions))
        return tuple(shown), len(rest)

    def _shown(
        self,
        sums: Mapping[GroupKey, Sum],
        nusd: Mapping[GroupKey, int | None],
        sessions: Mapping[GroupKey | None, int],
        spellings: Mapping[str, str],
        names: Mapping[str, str],
    ) -> Iterator[tuple[GroupKey, CostGroup]]:
        by = self.cutting.by
        shown = names_apart(names) if "node" in by else {}  # also from nodes that spent nothing
        words: dict[str, Mapping[str, str]] = {"model": spellings, "node": shown}
        for group, added in sums.items():
            parts = zip(by, group, strict=True)
            key = {word: words.get(word, {}).get(part, part) for word, part in parts}
            records, usage = unpacked(added.counts)
            models = _some({spellings[one.model.lower()] for one in added.what})
            yield group, CostGroup(key, records, sessions[group], models, usage, nusd[group])


def cost(
    rows: Iterable[OwnedSlot],
    diagnostics: Iterable[Diagnostics],
    query: CostQuery,
    prices: Prices,
) -> CostAnswer:
    """Add up, group and price rows.

    Raises UsageError for an unknown grouping or time zone, and for too many groups.
    """
    adding, names = Adding(query, Rated(prices)), dict[str, str]()
    adding.diagnostics = sum(diagnostics, Diagnostics())
    places: dict[tuple[str, str, str, type, int], tuple[Combination, Span]] = {}
    for node_id, node_name, key, slot in rows:
        names[node_id], session = node_name, session_in(key.session, key.tier)
        named = (key.model, slot.provider, key.tier, type(key), key.start_s)
        place = places.get(named)
        if place is None:  # of several sessions' rows, mostly, and each takes time to make
            what = Combination(key.model, slot.provider, unmarked(key.tier))
            place = places[named] = what, Span(_kind(key), key.start_s, key.end_s)
        texts = Texts(node_id, session, slot.agent, slot.owner, slot.project)
        adding.row(*place, texts, packed(slot))
    return finished(adding.answer(names))


def are_priced_alike(rows: Iterable[OwnedSlot], prices: Prices) -> bool:
    """Whether no price changes within a row, so that what it adds up would cost the same."""
    days = set[tuple[str, str, str, int]]()
    for _, _, key, slot in rows:
        if isinstance(key, MonthKey):
            return False  # most likely: prices change every few months
        if isinstance(key, DayKey):
            days.add((key.model, slot.provider, key.tier, key.day))
    rated = Rated(prices)
    return all(
        rated.is_alike(Combination(model, provider, unmarked(tier)), day * DAY_S)
        for model, provider, tier, day in days
    )


def _kind(key: CounterKey) -> int:
    if isinstance(key, SlotKey):
        return SLOTS
    return DAYS if isinstance(key, DayKey) else MONTHS


def _dearest_first(group: CostGroup) -> tuple[int, int, tuple[str, ...]]:
    return -(group.cost_nusd or 0), -group.usage.total, tuple(group.key.values())


def _joined(rest: Sequence[CostGroup], sessions: int) -> CostGroup:
    """Make one group of several, which have so many sessions together."""
    known = [one.cost_nusd for one in rest if one.cost_nusd is not None]
    return CostGroup(
        key=dict.fromkeys(rest[0].key, _more(len(rest))),
        records=sum(one.records for one in rest),
        sessions=sessions,
        models=_some({model for one in rest for model in one.models}),
        usage=sum((one.usage for one in rest), Buckets()),
        cost_nusd=sum(known) if known else None,
    )


def _some(models: set[str]) -> tuple[str, ...]:
    """Name models in order, the first MODELS_MAX of them."""
    named = sorted(models)
    if len(named) > MODELS_MAX:
        named[MODELS_MAX:] = [_more(len(named) - MODELS_MAX)]
    return tuple(named)


def _unpriced(
    sums: Iterable[Sum], spellings: Mapping[str, str]
) -> Generator[None, None, tuple[Unpriced, ...]]:
    counts: dict[str, int] = {}
    for added in sums:
        for some in chunks(added.unpriced.items()):
            for what, one in some:
                model = spellings[what.model.lower()]
                counts[model] = counts.get(model, 0) + one
            yield
    found = []
    for part in chunks(counts.items()):
        for model, count in part:
            records, usage = unpacked(count)
            found.append(Unpriced(model, records, usage.total))
        yield
    if len(found) > NAMES_MAX:
        found.sort(key=lambda one: (-one.total, one.model))
        rest = sum(counts[one.model] for one in found[NAMES_MAX:])
        records, usage = unpacked(rest)
        more = Unpriced(_more(len(found) - NAMES_MAX), records, usage.total)
        return (*sorted(found[:NAMES_MAX], key=_model), more)
    return tuple(sorted(found, key=_model))


def _as_standard(
    sums: Iterable[Sum], spellings: Mapping[str, str]
) -> Generator[None, None, tuple[str, ...]]:
    """Say which models were used in tiers that no list prices, most first."""
    counts: dict[tuple[str, str], int] = {}
    for added in sums:
        for some in chunks(added.as_standard.items()):
            for what, one in some:
                place = (spellings[what.model.lower()], tier_parts(what.tier)[0])
                counts[place] = counts.get(place, 0) + one
            yield
    used = [(*unpacked(one), *place) for place, one in counts.items()]
    used.sort(key=lambda one: (-one[1].total, *one[2:]))
    notes = [
        f"{model}: {records} response(s) of {usage.total:,} tokens in the tier {service} are priced"
        " as standard ones: no list has its price"
        for records, usage, model, service in used[:TIERS_MAX]
    ]
    if len(used) > TIERS_MAX:
        notes.append(f"and {len(used) - TIERS_MAX} more models in such tiers")
    return tuple(notes)


_model = attrgetter("model")


def _more(number: int) -> str:
    return f"({number} more)"


def _spellings(sums: Iterable[Sum]) -> Generator[None, None, dict[str, str]]:
    # GPT-4o and gpt-4o are one model: of the spellings in use the first in order names it.
    spellings: dict[str, str] = {}
    for added in sums:
        for some in chunks(added.what):
            for what in some:
                folded = what.model.lower()
                spellings[folded] = min(what.model, spellings.get(folded, what.model))
            yield
    return spellings
