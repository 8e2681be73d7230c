"""What tokens cost: the user's file, the shipped table, genai-prices, the monitor's table, nothing.

Invariant: a price is never made up: what no list knows is None. The shipped table is read when the
first price is asked for; genai-prices is imported only if it may know what that table does not.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import SLOT_S
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.ledger.tiers import STANDARD, tier_parts
from meshnode.core.periods import DAY_S
from meshnode.ingest.genai_list import genai_list, installed_version
from meshnode.ingest.own_prices import FOREVER_S, OwnPrices, Rule
from meshnode.ingest.price_list import (
    MTOK,
    Found,
    PriceList,
    knows_tier,
    pusd,
    rates_at,
    tiers_of,
)
from meshnode.ingest.price_names import readings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MONITOR = "higress-monitor"
MONITOR_VERSION = "1"
CACHED_MAX = 65_536  # names whose prices are kept; beyond that all are resolved again
SHIPPED_FILE = "shipped_prices.json"
_SLOTS_A_DAY = DAY_S // SLOT_S


def _monitor(input_usd: str, output_usd: str, cached_usd: str, reasoning_usd: str = "") -> Rates:
    sent, received = pusd(input_usd, MTOK), pusd(output_usd, MTOK)
    return Rates(
        input_pusd=sent,
        cache_read_pusd=pusd(cached_usd, MTOK),
        cache_write_5m_pusd=sent,
        cache_write_1h_pusd=sent,
        output_pusd=received,
        reasoning_pusd=pusd(reasoning_usd, MTOK) if reasoning_usd else received,
    )


MONITOR_RATES = {
    "qwen": _monitor("0.2", "0.6", "0.1"),
    "qwen3-rerank": _monitor("0.3", "1.2", "0.15"),
    "qwen-max": _monitor("0.5", "2", "0.25"),
    "gpt-4": _monitor("3", "6", "1.5"),
    "gpt-4o": _monitor("2.5", "10", "1.25"),
    "gpt-4-32k": _monitor("10", "30", "5"),
    "o1": _monitor("15", "60", "7.5", "60"),
    "o1-mini": _monitor("3", "12", "1.5", "12"),
    "claude": _monitor("15", "75", "1.5"),
    "deepseek-r1": _monitor("4", "12", "2", "2"),
}
"""The seed's table, by model in lower case: USD per million of input, output, cached, reasoning."""


@cache
def shipped_list() -> PriceList:
    """Read the table that this version brings; `./dev prices` makes it anew."""
    text = Path(__file__).with_name(SHIPPED_FILE).read_bytes()
    return msgspec.json.decode(text, type=PriceList)


class Attempt(msgspec.Struct, frozen=True):
    """One look into one source for one reading of a name, and what came of it."""

    source: str  # with its version
    name: str
    provider: str  # as the source may call it, "" if anyone's
    outcome: str
    rule: Rule | None = None
    found: Found | None = None
    rates: Rates | None = None  # of the monitor's table, which knows neither dates nor tiers

    @property
    def starts_s(self) -> tuple[float, ...]:
        """When the prices of what was found change, but for the time of day."""
        if self.rule is not None:
            moments = (self.rule.since_s, self.rule.until_s)
            return tuple(moment for moment in moments if abs(moment) != FOREVER_S)
        if self.found is None or self.found.model is None:
            return ()
        days = sorted(self.found.model.starts)
        return tuple(datetime.combine(day, time(), UTC).timestamp() for day in days)

    @property
    def matched(self) -> str:
        """What matched; "" if nothing did."""
        if self.rule is not None:
            return f"{self.rule.where} {self.rule.model}"
        if self.found is not None and self.found.model and self.found.provider:
            return f"{self.found.provider.id}/{self.found.model.id}"
        return self.name if self.rates is not None else ""

    @property
    def holds_always(self) -> bool:
        """Whether there is a price whatever the date, so that no later source is asked."""
        if self.rule is not None:
            return (self.rule.since_s, self.rule.until_s) == (-FOREVER_S, FOREVER_S)
        return self.at(STANDARD, 0) is not None

    @property
    def is_clocked(self) -> bool:
        """Whether the price depends on the time of day."""
        found = self.found.model if self.found is not None else None
        return found is not None and found.clocked

    @property
    def tiers(self) -> list[str]:
        """Name the tiers that have prices of their own, standard first."""
        if self.rule is not None:
            return self.rule.tiers
        return [STANDARD] if self.found is None else tiers_of(self.found)

    def at(self, tier: str, at_s: float) -> Rates | None:
        """Return the rates at a time; None if nothing matched, or it has no price by token then."""
        if self.rule is not None:
            return self.rule.rates_of(tier) if self.rule.active(at_s) else None
        return rates_at(self.found, tier, at_s) if self.found is not None else self.rates

    def knows(self, tier: str, at_s: float) -> bool:
        """Whether what matched has rates of its own for the service tier at a time."""
        if self.rule is not None:
            return self.rule.knows(tier)
        if self.found is not None:
            return knows_tier(self.found, tier, at_s)
        return tier_parts(tier)[0] == STANDARD


class _Line(msgspec.Struct):
    """The prices of one name in one tier, by the part of time between two changes."""

    starts_s: tuple[float, ...]
    clocked: bool
    matches: tuple[Attempt, ...]  # in order; those that match nothing are none
    by_part: dict[int, Priced | None] = msgspec.field(default_factory=dict)

    def part(self, at_s: float) -> int:
        part = bisect_right(self.starts_s, at_s)
        return part * _SLOTS_A_DAY + int(at_s // SLOT_S) % _SLOTS_A_DAY if self.clocked else part

    def priced(self, tier: str, at_s: float) -> Priced | None:
        for attempt in self.matches:
            rates = attempt.at(tier, at_s)
            if rates is not None:
                as_standard = not attempt.knows(tier, at_s)
                return Priced(rates, attempt.source, attempt.matched, as_standard)
        return None


class PriceBook:
    """The price lists, in order; satisfies `app.cost.Prices`.

    `own` returns the user's prices as they are by now, and is asked at each `source_text`.
    """

    def __init__(self, own: Callable[[], OwnPrices] = OwnPrices) -> None:
        self._own = own
        self._lines: dict[tuple[str, str, str], _Line] = {}
        self._asked = False
        self.own = OwnPrices()

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        """Return the rates of a model at a time; None if no list knows it.

        `provider` is a hint, "" if unknown. Letter case makes no difference.
        """
        line = self._line_of(model, provider, tier)
        part = line.part(at_s)
        if part not in line.by_part:
            line.by_part[part] = line.priced(tier, at_s)
        return line.by_part[part]

    def starts_s(self, model: str, provider: str, tier: str) -> tuple[float, ...]:
        """Return when a price may change, whichever list has it then, but for the time of day."""
        return self._line_of(model, provider, tier).starts_s

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        """Tell whether nothing sets a price within a UTC day."""
        line = self._line_of(model, provider, tier)
        return not line.clocked and line.part(day_s) == line.part(day_s + DAY_S - 1)

    def source_text(self) -> str:
        """Name the lists and their versions; whoever keeps costs keeps them while this is the same.

        Reads the user's file again if it has changed, so ask it before the rates of a query.
        """
        self._take_own()
        left_out = len(self.own.faults)
        faults = f" ({left_out} left out, see prices explain)" if left_out else ""
        return "; ".join(
            [
                *([f"{self.own.source}{faults}"] if self.own.name else []),
                _shipped_source(),
                _genai_source(),
                f"{MONITOR}@{MONITOR_VERSION}",
            ]
        )

    def attempts(self, model: str, provider: str) -> Iterator[Attempt]:
        """Look for a name in all sources in order, at no date; the first that has rates holds."""
        model, provider = model.strip().lower(), provider.strip().lower()
        yield from self._in_own(model, provider)
        meant = self.own.meant(model, provider) if self.own.aliases else None
        if meant is not None:
            yield Attempt(self.own.source, model, provider, f"{meant.where} means {meant.model}")
            model, provider = meant.model, meant.provider
            yield from self._in_own(model, provider)
        yield from _in_lists(model, provider)
        yield from _in_monitor(model)

    def _take_own(self) -> None:
        own = self._own()
        if own is not self.own:
            self.own = own
            self._lines.clear()
        self._asked = True

    def _in_own(self, model: str, provider: str) -> Iterator[Attempt]:
        if not self.own.name:
            return
        rules = [rule for rule in self.own.rules if rule.matches(model, provider)]
        for rule in rules:
            yield Attempt(self.own.source, model, provider, f"{rule.where} matches", rule=rule)
        if not rules:
            yield Attempt(self.own.source, model, provider, "no rule matches")

    def _line_of(self, model: str, provider: str, tier: str) -> _Line:
        if not self._asked:
            self._take_own()
        name = (model, provider, tier)
        line = self._lines.get(name)
        if line is None:
            if len(self._lines) >= CACHED_MAX:
                self._lines.clear()
            line = self._lines[name] = self._line(model, provider)
        return line

    def _line(self, model: str, provider: str) -> _Line:
        starts_s: set[float] = set()
        matches: list[Attempt] = []
        for attempt in self.attempts(model, provider):
            if not attempt.matched:
                continue
            starts_s.update(attempt.starts_s)
            matches.append(attempt)
            if attempt.holds_always:
                break
        clocked = any(attempt.is_clocked for attempt in matches)
        return _Line(tuple(sorted(starts_s)), clocked, tuple(matches))


def _shipped_source() -> str:
    return f"shipped@{shipped_list().version}"


@cache
def _genai_source() -> str:
    return f"genai-prices@{installed_version()}"


@cache
def _genai_is_another() -> bool:
    """Whether the installed genai-prices is not the one that the shipped table was made from."""
    return shipped_list().origin != f"genai-prices {installed_version()}"


def _in_lists(model: str, provider: str) -> Iterator[Attempt]:
    for name, owner in readings(model, provider):
        found = shipped_list().find(name, owner)
        yield _looked(_shipped_source(), name, owner, found)
        if found.model is not None:
            continue
        if _genai_is_another() or not _knows_all(found, name):
            yield _looked(_genai_source(), name, owner, genai_list().find(name, owner))


def _knows_all(found: Found, name: str) -> bool:
    """Whether the shipped table has all models that a provider calls so, or no such provider."""
    listed = "" if found.provider is None else found.provider.listed
    return listed is not None and name.startswith(listed)


def _looked(source: str, name: str, owner: str, found: Found) -> Attempt:
    if found.model is not None:
        return Attempt(source, name, owner, f"matched by {found.why}", found=found)
    if found.provider is not None:
        partly = "" if _knows_all(found, name) else " here; not all that it has are"
        return Attempt(source, name, owner, f"{found.provider.id} has no such model{partly}")
    unknown = f"no provider {owner}" if owner else "no provider whose models are called so"
    return Attempt(source, name, owner, unknown)


def _in_monitor(model: str) -> Iterator[Attempt]:
    name = model if model in MONITOR_RATES else model.rpartition("/")[2]
    rates = MONITOR_RATES.get(name)
    outcome = "matched by its name" if rates else "no such model"
    yield Attempt(f"{MONITOR}@{MONITOR_VERSION}", name, "", outcome, rates=rates)
