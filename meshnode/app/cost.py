"""What the mesh has spent: slots of all nodes, grouped, and priced when asked.

Invariant: every row is in exactly one group, and its cost is rounded before it is added, so the
groups add up to the total. A model without a price adds tokens and is listed, never priced at 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from meshnode.core.errors import UsageError
from meshnode.core.ledger import COUNT_MAX, SLOT_S, Buckets, Diagnostics
from meshnode.core.prices import cost_nusd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

    from meshnode.core.ledger import Slot, SlotKey
    from meshnode.core.prices import Priced

BY = ("model", "day", "hour", "node", "owner", "agent", "session", "project", "tier")


class Prices(Protocol):
    """A price list, or several in order."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        """Return the rates of a model at a time; None if no list knows it."""

    def source_text(self) -> str:
        """Name the lists and their versions: costs that are kept hold while this is the same.

        Takes up what has changed in the lists, so it is asked before the rates of a query.
        """


@dataclass(frozen=True, slots=True)
class OwnedSlot:
    """A slot, and the node in whose feed it stands."""

    node_id: str
    node_name: str
    key: SlotKey
    slot: Slot


@dataclass(frozen=True, slots=True)
class CostQuery:
    """What to select and how to group. Slots that overlap [since_s, until_s) count whole."""

    by: tuple[str, ...] = ()
    since_s: float | None = None
    until_s: float | None = None
    tz: str = "UTC"
    prices_at_s: float | None = None  # at the prices of that time; None: each slot at its own


@dataclass(frozen=True, slots=True)
class CostGroup:
    """One row of the answer; `cost_nusd` is None when nothing in it is priced."""

    key: Mapping[str, str]
    records: int
    sessions: int
    models: tuple[str, ...]
    usage: Buckets
    cost_nusd: int | None


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A model that no list knows; `total` is in tokens."""

    model: str
    records: int
    total: int


@dataclass(frozen=True, slots=True)
class CostAnswer:
    """What was spent; `cost_nusd` is that of the priced part, `unpriced` lists the rest.

    `tz_exact` is false if days or hours of the zone do not begin with a slot.
    """

    records: int
    totals: Buckets
    cost_nusd: int | None
    groups: tuple[CostGroup, ...]
    unpriced: tuple[Unpriced, ...]
    diagnostics: Diagnostics
    price_source: str
    tz_exact: bool = True


@dataclass(slots=True)
class _Sum:
    records: int = 0
    usage: Buckets = field(default_factory=Buckets)
    nusd: int = 0
    priced: bool = False
    sessions: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)

    def add(self, row: OwnedSlot, model: str, nusd: int | None) -> None:
        self.records = min(self.records + row.slot.records, COUNT_MAX)
        self.usage += row.slot.usage
        self.nusd += nusd or 0
        self.priced |= nusd is not None
        self.sessions.add(row.key.session)
        self.models.add(model)

    @property
    def cost_nusd(self) -> int | None:
        return self.nusd if self.priced or not self.models else None


def cost(
    rows: Iterable[OwnedSlot],
    diagnostics: Iterable[Diagnostics],
    query: CostQuery,
    prices: Prices,
) -> CostAnswer:
    """Add up, group and price; raises UsageError for an unknown grouping or time zone."""
    zone = _zone(query.tz)
    price_source = prices.source_text()  # first: the lists may have changed since the last query
    selected = [row for row in rows if _selected(row.key, query)]
    spellings = _spellings(row.key.model for row in selected)
    keys_of = _groupings(query.by, zone, spellings, _node_names(selected))
    total, groups, unpriced = _Sum(), dict[tuple[str, ...], _Sum](), dict[str, _Sum]()
    for row in selected:
        model = spellings[row.key.model.lower()]
        nusd = _price(row, prices, query.prices_at_s)
        total.add(row, model, nusd)
        if query.by:
            groups.setdefault(tuple(key(row) for key in keys_of), _Sum()).add(row, model, nusd)
        if nusd is None:
            unpriced.setdefault(model, _Sum()).add(row, model, nusd)
    cut_by_time = "day" in query.by or "hour" in query.by
    return CostAnswer(
        records=total.records,
        totals=total.usage,
        cost_nusd=total.cost_nusd,
        groups=_sorted_groups(query.by, groups),
        unpriced=tuple(
            Unpriced(model, unpriced[model].records, unpriced[model].usage.total)
            for model in sorted(unpriced)
        ),
        diagnostics=sum(diagnostics, Diagnostics()),
        price_source=price_source,
        tz_exact=not cut_by_time or all(_exact(row.key, zone) for row in selected),
    )


def _selected(key: SlotKey, query: CostQuery) -> bool:
    after = query.since_s is None or key.start_s + SLOT_S > query.since_s
    return after and (query.until_s is None or key.start_s < query.until_s)


def _price(row: OwnedSlot, prices: Prices, at_s: float | None) -> int | None:
    key, slot = row.key, row.slot
    at_s = key.start_s if at_s is None else at_s
    priced = prices.rates(key.model, slot.provider, key.tier, at_s)
    return None if priced is None else cost_nusd(slot.usage, priced.rates, slot.records)


def _groupings(
    by: Sequence[str], zone: tzinfo, spellings: Mapping[str, str], names: Mapping[str, str]
) -> list[Callable[[OwnedSlot], str]]:
    ways: dict[str, Callable[[OwnedSlot], str]] = {
        "model": lambda row: spellings[row.key.model.lower()],
        "day": lambda row: _at(row.key, zone).strftime("%Y-%m-%d"),
        "hour": lambda row: _hour(_at(row.key, zone)),
        "node": lambda row: names[row.node_id],
        "owner": lambda row: row.slot.owner,
        "agent": lambda row: row.slot.agent,
        "session": lambda row: row.key.session,
        "project": lambda row: row.slot.project,
        "tier": lambda row: row.key.tier,
    }
    for word in by:
        if word not in ways:
            near = get_close_matches(word.lower(), BY, n=1, cutoff=0.5)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"cannot group by {word[:60]!r}{meant}", f"use one of {', '.join(BY)}")
    return [ways[word] for word in by]


def _sorted_groups(
    by: Sequence[str], groups: Mapping[tuple[str, ...], _Sum]
) -> tuple[CostGroup, ...]:
    dearest = sorted(
        groups.items(), key=lambda item: (-item[1].nusd, -item[1].usage.total, item[0])
    )
    return tuple(
        CostGroup(
            key=dict(zip(by, key, strict=True)),
            records=added.records,
            sessions=len(added.sessions),
            models=tuple(sorted(added.models)),
            usage=added.usage,
            cost_nusd=added.cost_nusd,
        )
        for key, added in dearest
    )


def _spellings(models: Iterable[str]) -> dict[str, str]:
    # GPT-4o and gpt-4o are one model: of the spellings in use the first in order names it.
    spellings: dict[str, str] = {}
    for model in models:
        folded = model.lower()
        spellings[folded] = min(model, spellings.get(folded, model))
    return spellings


def _node_names(rows: Iterable[OwnedSlot]) -> dict[str, str]:
    names = {row.node_id: row.node_name for row in rows}
    taken = list(names.values())
    return {
        node_id: name if taken.count(name) == 1 else f"{name} ({node_id[:8]})"
        for node_id, name in names.items()
    }


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        hint = "use an IANA name such as Europe/Berlin, or UTC"
        raise UsageError(f"no such time zone: {name[:60]!r}", hint) from error


def _at(key: SlotKey, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(key.start_s, zone)


def _hour(at: datetime) -> str:
    # With its offset, or the hour that a change of the clocks repeats would be one of two hours.
    return at.replace(minute=0, second=0).isoformat(timespec="minutes").replace("+00:00", "Z")


def _exact(key: SlotKey, zone: tzinfo) -> bool:
    offset = _at(key, zone).utcoffset()
    return offset is None or offset.total_seconds() % SLOT_S == 0
