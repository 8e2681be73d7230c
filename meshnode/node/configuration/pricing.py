"""Prices for verbs that need no node: which user's file holds, and why a model costs what it costs.

Invariant: what is explained is what is charged: `PriceBook` finds both in the same way.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.client.durations import rfc3339
from meshnode.client.home import expanded
from meshnode.core.errors import MeshError, NotFoundError
from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.ledger.marks import unmarked
from meshnode.core.ledger.prices import (
    NUSD_MAX,
    Priced,
    Rates,
    cost_nusd,
    fee_text,
    per_million_text,
    usd_text,
)
from meshnode.core.ledger.tiers import PLACED, STANDARD, tier_of, tier_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.app.cost.tally import Prices
    from meshnode.client.home import Home
    from meshnode.core.ledger.ledger import UsageRecord
    from meshnode.ingest.prices import Attempt, PriceBook

EXAMPLE = Buckets(input=10_000, output=1_000)
KINDS = Buckets.__struct_fields__
NAME_CHARS_MAX = 200  # of a model, in what is to be written; longer: known by how it begins


def named_in(config: Path, prices: str | None) -> Path | None:
    """Return the price file that a configuration names, if it does, from where that lies."""
    return None if prices is None else config.absolute().parent / expanded(prices)


class LatePrices:
    """Prices of a user's file and of all lists; satisfies `app.cost.Prices`.

    The lists, and what reads them, are loaded when the first price is asked for.
    """

    def __init__(self, path: Path, on_fault: Callable[[str], object] = lambda _fault: None) -> None:
        self._path, self._on_fault = path, on_fault

    @property
    def faults(self) -> tuple[str, ...]:
        """What is off with the user's file as it was when last looked at, in sentences."""
        return self.book.own.faults if "book" in vars(self) else ()

    @cached_property
    def book(self) -> PriceBook:
        """The lists, loaded."""
        from meshnode.ingest.prices import PriceBook  # noqa: PLC0415 - for who prices something
        from meshnode.node.configuration.price_file import PriceFile  # noqa: PLC0415 - as above

        return PriceBook(PriceFile(self._path, self._on_fault).read)

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        """Return the rates of a model at a time; None if no list knows it."""
        return self.book.rates(model, provider, tier, at_s)

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        """Tell whether nothing sets a price within a UTC day."""
        return self.book.is_steady(model, provider, tier, day_s)

    def source_text(self) -> str:
        """Name the lists and their versions, after a look at the user's file."""
        return self.book.source_text()


def prices_of(home: Home, named: str = "", faults: list[str] | None = None) -> LatePrices:
    """Return the prices that hold for a home, with the user's file `named`, else its own.

    Appends what is off with the configuration. Raises NotFoundError if a file that is named is
    missing.
    """
    path = Path(named) if named else _of_home(home, [] if faults is None else faults)
    if named and not path.exists():
        raise NotFoundError(f"{named[:200]} is missing")
    return LatePrices(path)


def running_prices(path: Path, on_fault: Callable[[str], object]) -> tuple[LatePrices, LatePrices]:
    """Return the prices of a node for its loop, and once more for the thread of its database."""
    return LatePrices(path, on_fault), LatePrices(path)  # told once


def charging(book: Prices) -> Callable[[UsageRecord], Charge]:
    """Return what says what a response cost, by the prices of now for its time, to be kept."""

    def charge(record: UsageRecord) -> Charge:
        priced = book.rates(record.model, record.provider, unmarked(record.tier), record.at_s)
        if priced is None:
            return Charge()
        nusd = cost_nusd(record.usage, priced.rates, 1)
        if nusd > NUSD_MAX:
            return Charge(NUSD_MAX, f"{priced.source} (it is more)")
        return Charge(nusd, priced.source)

    return charge


def charging_now(prices: LatePrices) -> Callable[[UsageRecord], Charge]:
    """Return the same, once what has changed in the user's file is taken up."""
    prices.source_text()
    return charging(prices)


def mistakes(home: Home) -> list[str]:
    """Return what is off with the user's file, in sentences."""
    from meshnode.node.configuration.price_file import PriceFile  # noqa: PLC0415 - as above

    faults: list[str] = []
    PriceFile(_of_home(home, []), faults.append).read()
    return faults


def _of_home(home: Home, faults: list[str]) -> Path:
    if not home.config.exists():
        return home.prices
    from meshnode.node.configuration.config import load_config  # noqa: PLC0415 - for who has a configuration

    try:
        config = load_config(home.config)
    except NotFoundError:
        return home.prices
    except MeshError as error:
        faults.append(error.message)
        return home.prices
    return named_in(home.config, config.prices) or home.prices


class Asked(msgspec.Struct, frozen=True):
    """What to explain; without a tier it is the standard one for a prompt of that length."""

    model: str
    provider: str
    tier: str
    at_s: float
    counts: Mapping[str, int] | None = None  # of the example, by KINDS


def explain(book: PriceBook, asked: Asked) -> dict[str, Any]:
    """Return what a model costs at a time, from where, what else was tried, and an example."""
    source_text = book.source_text()
    usage = EXAMPLE if asked.counts is None else Buckets(**asked.counts)
    called, step = tier_parts(asked.tier)
    service, _, place = called.partition(PLACED)
    asked = replace(asked, tier=tier_of(service, step + 1 if step else usage.prompt, place))
    priced = book.rates(asked.model, asked.provider, asked.tier, asked.at_s)
    tried, winner = _tried(book, asked)
    changed = _changed(book, asked)
    return {
        "model": asked.model,
        "provider": asked.provider,
        "tier": asked.tier,
        "at": rfc3339(asked.at_s),
        "price": _price(priced, winner, asked),
        "tried": tried,
        "tiers": [] if winner is None else list(_tiers(winner, asked.at_s)),
        "changes": [one["at"] for one in changed[1:]],
        "changed": changed,
        "by_time_of_day": winner is not None and winner.is_clocked,
        "example": None if priced is None else _example(usage, priced.rates),
        "snippet": "" if priced else snippet_of(asked.model),
        "price_source": source_text,
    }


def _tried(book: PriceBook, asked: Asked) -> tuple[list[dict[str, str]], Attempt | None]:
    tried: list[dict[str, str]] = []
    for attempt in book.attempts(asked.model, asked.provider):
        holds = attempt.at(asked.tier, asked.at_s) is not None
        outcome = attempt.outcome
        if attempt.matched and not holds:
            outcome += ", not at that time" if attempt.rule else ", not billed by token"
        named = {"source": attempt.source, "name": attempt.name, "provider": attempt.provider}
        tried.append(named | {"outcome": outcome, "matched": attempt.matched})
        if holds:
            return tried, attempt
    return tried, None


def _price(priced: Priced | None, winner: Attempt | None, asked: Asked) -> dict[str, Any] | None:
    if priced is None or winner is None:
        return None
    return {
        "source": priced.source,
        "matched": priced.matched,
        "tier": _held(winner, asked),
        "why": winner.outcome,
        "rates": _rates(priced.rates),
    }


def _held(winner: Attempt, asked: Asked) -> str:
    """Name the service tier whose rates hold: what matched may have none of the one asked for."""
    called, step = tier_parts(asked.tier)
    service, _, place = called.partition(PLACED)
    rates = winner.at(asked.tier, asked.at_s)

    def holds(name: str) -> bool:
        tier = f"{name}>{step}" if step else name
        return winner.knows(name, asked.at_s) and winner.at(tier, asked.at_s) == rates

    names = (called, service, *([f"{STANDARD}{PLACED}{place}"] if place else []))
    return next(filter(holds, names), STANDARD)


def _rates(rates: Rates) -> dict[str, str]:
    """Write rates: USD per million tokens; of a request and a web search USD each."""
    from meshnode.node.configuration.price_file import AMOUNTS, FEE_FIELDS  # noqa: PLC0415 - as above

    return {
        name: (fee_text if name in FEE_FIELDS else per_million_text)(getattr(rates, f"{name}_pusd"))
        for name in AMOUNTS
    }


def _tiers(winner: Attempt, at_s: float) -> Iterator[dict[str, Any]]:
    for tier in winner.tiers:
        rates = winner.at(tier, at_s)
        if rates is not None:
            yield {"tier": tier, "rates": _rates(rates)}


def _changed(book: PriceBook, asked: Asked) -> list[dict[str, Any]]:
    """Return rates by the moment from which they hold, None for those before the first change.

    Of whichever list has them then: what follows an entry of one may be in another. Nothing of a
    model whose price never changes.
    """
    starts_s = book.starts_s(asked.model, asked.provider, asked.tier)
    found: list[dict[str, Any]] = []
    before = [(start_s - 1, None) for start_s in starts_s[:1]]
    for at_s, since in (*before, *((start_s, rfc3339(start_s)) for start_s in starts_s)):
        priced = book.rates(asked.model, asked.provider, asked.tier, at_s)
        rates, matched = (_rates(priced.rates), priced.matched) if priced else (None, "")
        if not found or (rates, matched) != (found[-1]["rates"], found[-1]["matched"]):
            found.append({"at": since, "rates": rates, "matched": matched})
    return found if len(found) > 1 else []


def _example(usage: Buckets, rates: Rates) -> dict[str, Any]:
    return {
        "usage": usage.by_name,
        "requests": 1,
        "cost_usd": usd_text(cost_nusd(usage, rates, 1)),
    }


def snippet_of(model: str) -> str:
    """Write what prices a model, and no other, unless it is called as no text can say."""
    name = model.strip() or " "
    name = name if name.isascii() else name.lower()  # a capital sigma goes by what follows
    glob = "".join(map(_literally, name[:NAME_CHARS_MAX])) + "*" * (len(name) > NAME_CHARS_MAX)
    return (
        "prices:\n"
        f'  - model: "{glob}"\n'
        '    input: "0.50"    # USD per million tokens: write what you pay\n'
        '    output: "2.00"\n'
    )


def _literally(char: str) -> str:
    """Write a character so that it matches itself in a glob between quotation marks."""
    if char in "*?[":
        return f"[{char}]"
    return char if char.isprintable() and char not in '"\\' else "?"
