"""A list of what providers charge: which names it knows, and what each costs when, in which tier.

Invariant: names are read and prices chosen as genai-prices does it (`Provider.find_model`,
`ModelInfo.get_prices`, `calc_unit_price`; a test holds all of it), amounts stay decimal texts until
they are whole pico-USD, and no name has a price that no clause of the list matches.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from meshnode.core.ledger.prices import PUSD_PER_USD, Rates
from meshnode.core.ledger.tiers import PLACED, STANDARD, tier_parts
from meshnode.ingest.price_clauses import Clause, Clauses

MTOK, KILO = 1_000_000, 1_000
Amount = str | tuple[tuple[int, str], ...]
"""USD of a unit; or (prompt longer than so many tokens, USD), from 0 upwards."""

CONTEXTS: dict[str, dict[str, str]] = {
    STANDARD: {},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}
"""What a service tier of ours is called in lists; others are a `service_tier` of their name."""

PLACES = {("anthropic", "us"): 110}
"""What a token costs in a place, in per cent of its price anywhere, where lists do not say it.

By provider and place, for all its models. Source: Anthropic, Pricing, "Data residency pricing".
"""
_TOKENS = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")

_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)", re.ASCII)


class Dated(msgspec.Struct, frozen=True, omit_defaults=True):
    """Prices by the keys of genai-prices, from a UTC day on, or in some minutes of every UTC day.

    With `when` they replace those of the same key for requests of that context alone.
    """

    prices: dict[str, Amount]
    since: date | None = None
    clock: tuple[int, int] | None = None
    when: dict[str, str] = {}

    def active(self, at: datetime) -> bool:
        """Whether the prices hold at a time in UTC."""
        if self.since is not None:
            return at.date() >= self.since
        if self.clock is None:
            return True
        begin, end = self.clock
        minute = at.hour * 60 + at.minute
        return begin <= minute < end if begin <= end else minute >= begin or minute < end


class Model(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model of a provider. Of its prices the last that is active holds, else the first."""

    id: str
    match: Clause
    prices: tuple[Dated, ...]
    variants: tuple[Dated, ...] = ()

    @property
    def starts(self) -> frozenset[date]:
        """The days on which a price changes."""
        rows = (*self.prices, *self.variants)
        return frozenset(row.since for row in rows if row.since is not None)

    @property
    def clocked(self) -> bool:
        """Whether the price depends on the time of day."""
        return any(row.clock is not None for row in (*self.prices, *self.variants))


class Provider(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """Whoever sells models. Of names that begin with `listed`, all are here; None: of none."""

    id: str
    called: Clause | None = None  # other ids of it
    sells: Clause | None = None  # names of models that are its own, whoever is asked
    fallback: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()
    listed: str | None = ""

    def find(self, name: str) -> Model | None:
        """Return the first model that matches a name in lower case."""
        place = self._names.first(name)
        return None if place is None else self.models[place]

    @cached_property
    def _names(self) -> Clauses:
        return Clauses(model.match for model in self.models)


class Found(NamedTuple):
    """What a list says to a name: nothing, a provider without such a model, or both."""

    provider: Provider | None = None
    model: Model | None = None
    why: str = ""  # what of the name matched

    @property
    def is_own(self) -> bool:
        """Whether the provider itself lists the model, so that its tiers hold."""
        return self.provider is not None and any(self.model is m for m in self.provider.models)


class PriceList(msgspec.Struct, frozen=True, dict=True):
    """Providers in order; `version` names the contents, `origin` what they were made from."""

    version: str
    origin: str
    providers: tuple[Provider, ...]

    def find(self, name: str, provider_id: str) -> Found:
        """Look for a model of a provider, "" for whoever sells such names; both in lower case."""
        provider = self._called(provider_id) if provider_id else self._selling(name)
        if provider is None:
            return Found()
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", name)
        for spelled in dict.fromkeys((name, dashed)):
            for seller in (provider, *map(self._by_id.get, provider.fallback)):
                model = seller.find(spelled) if seller else None
                if model is not None:
                    return Found(provider, model, model.match.why(spelled))
        return Found(provider)

    def _called(self, provider_id: str) -> Provider | None:
        named = self._by_id.get(provider_id)
        if named is not None:
            return named
        place = self._other_ids.first(provider_id)
        return None if place is None else self.providers[place]

    def _selling(self, name: str) -> Provider | None:
        place = self._sold.first(name)
        return None if place is None else self.providers[place]

    @cached_property
    def _by_id(self) -> dict[str, Provider]:
        return {one.id: one for one in reversed(self.providers)}  # the first of an id holds

    @cached_property
    def _other_ids(self) -> Clauses:
        return Clauses(one.called for one in self.providers)

    @cached_property
    def _sold(self) -> Clauses:
        return Clauses(one.sells for one in self.providers)


def rates_at(found: Found, tier: str, at_s: float) -> Rates | None:
    """Return what a model costs at a time in a tier; None if it is not billed by token."""
    if found.model is None:
        return None
    called, prompt_over = tier_parts(tier)
    service, _, place = called.partition(PLACED)
    at = datetime.fromtimestamp(at_s, UTC)
    active = [row for row in found.model.prices if row.active(at)]
    chosen = dict((active or found.model.prices[:1])[-1].prices)
    context = _context(found, service) or {}
    replaced: dict[str, Amount] = {}
    for row in found.model.variants if context else ():
        if row.active(at) and row.when.items() <= context.items():
            replaced = row.prices | replaced  # the first that names a key holds for it
    rates = _rates(chosen | replaced, prompt_over)
    return _placed(rates, _percent(found, place)) if rates and place else rates


def knows_tier(found: Found, tier: str, at_s: float) -> bool:
    """Whether a model has prices of its own for a service tier at a time; standard always has."""
    service, _, place = tier_parts(tier)[0].partition(PLACED)
    context = _context(found, service)
    if context is None or found.model is None or (place and not _percent(found, place)):
        return False
    at = datetime.fromtimestamp(at_s, UTC)
    return not context or any(
        row.active(at) and row.prices and row.when.items() <= context.items()
        for row in found.model.variants
    )


def _context(found: Found, service: str) -> dict[str, str] | None:
    """Return what a service tier is called in the list; None where its tiers do not hold."""
    if service == STANDARD:
        return {}
    return CONTEXTS.get(service, {"service_tier": service}) if found.is_own else None


def _percent(found: Found, place: str) -> int:
    """Return what a token costs in a place, of 100 anywhere; 0: not known."""
    return PLACES.get((found.provider.id, place), 0) if found.provider and found.is_own else 0


def _placed(rates: Rates, percent: int) -> Rates:
    """Return the rates of a place; those of anywhere if it is not known."""
    dearer = {f"{one}_pusd": getattr(rates, f"{one}_pusd") * percent // 100 for one in _TOKENS}
    return replace(rates, **dearer) if percent else rates


def tiers_of(found: Found) -> list[str]:
    """Name the tiers of a model for which its list has prices of their own, standard first."""
    if found.model is None:
        return []
    rows = (*found.model.prices, *(found.model.variants if found.is_own else ()))
    services = [STANDARD]
    for row in rows:
        services += [
            name
            for name, said in CONTEXTS.items()
            if row.prices and row.when and row.when.items() <= said.items()
        ] or [row.when.get("service_tier", STANDARD)]
    amounts = [amount for row in rows for amount in row.prices.values()]
    steps = {step for one in amounts if not isinstance(one, str) for step, _ in one} | {0}
    return [
        f"{service}>{step}" if step else service
        for service in dict.fromkeys(services)
        if service != "default"
        for step in sorted(steps)
    ]


def pusd(usd: str, per: int) -> int:
    """Return whole pico-USD of a unit, of which so many cost that many USD."""
    return int((Decimal(usd) * PUSD_PER_USD / per).to_integral_value())


def _rates(prices: dict[str, Amount], prompt_over: int) -> Rates | None:
    """Resolve what a list leaves out as it means it: a cache read without a price is input."""
    if "input_mtok" not in prices and "output_mtok" not in prices:
        return None  # billed by hour, page or picture alone

    def cost(per: int, *keys: str) -> int:
        amount = next((prices[key] for key in keys if key in prices), "0")
        if not isinstance(amount, str):
            amount = [usd for step, usd in amount if step <= prompt_over][-1]
        return pusd(amount, per)

    return Rates(
        input_pusd=cost(MTOK, "input_mtok"),
        cache_read_pusd=cost(MTOK, "cache_read_mtok", "input_mtok"),
        cache_write_5m_pusd=cost(MTOK, "cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
        cache_write_1h_pusd=cost(MTOK, "cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
        output_pusd=cost(MTOK, "output_mtok"),
        reasoning_pusd=cost(MTOK, "output_reasoning_mtok", "output_mtok"),
        web_search_pusd=cost(KILO, "web_searches_kcount"),
        request_pusd=cost(KILO, "requests_kcount"),
    )


KEYS = (
    *("input_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_5m_mtok"),
    *("cache_write_1h_mtok", "output_mtok", "output_reasoning_mtok"),
    *("web_searches_kcount", "requests_kcount"),
)
"""The prices that have a bucket here; those of sounds, pictures and pages have none."""
