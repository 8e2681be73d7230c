"""Money without floats: rates in whole pico-USD, costs in whole nano-USD, texts in decimal USD.

Invariant: costs are added up exactly, and rounded once, when they are shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from meshnode.core.ledger.ledger import Buckets

PUSD_PER_NUSD = 1_000
NUSD_PER_USD = 1_000_000_000
NUSD_MAX = (1 << 63) - 1  # of one record, 9.2 billion USD: what costs more is kept as this
PUSD_PER_USD = PUSD_PER_NUSD * NUSD_PER_USD


class Rates(msgspec.Struct, frozen=True):
    """Pico-USD per token of each bucket, per web search and per request.

    One USD per million tokens is 10**6.
    """

    input_pusd: int = 0
    cache_read_pusd: int = 0
    cache_write_5m_pusd: int = 0
    cache_write_1h_pusd: int = 0
    output_pusd: int = 0  # for the part of output that is not reasoning
    reasoning_pusd: int = 0
    web_search_pusd: int = 0
    request_pusd: int = 0


class Priced(msgspec.Struct, frozen=True):
    """Rates, the price list@version that they are from, and the entry there that matched.

    `as_standard`: the list has none of the service tier, so these are what it has without one.
    """

    rates: Rates
    source: str
    matched: str
    as_standard: bool = False


def cost_pusd(usage: Buckets, rates: Rates, records: int = 0) -> int:
    """Price a usage of that many requests, in pico-USD: exact, so that sums are."""
    reasoning = min(usage.reasoning, usage.output)
    return (
        usage.input * rates.input_pusd
        + usage.cache_read * rates.cache_read_pusd
        + usage.cache_write_5m * rates.cache_write_5m_pusd
        + usage.cache_write_1h * rates.cache_write_1h_pusd
        + (usage.output - reasoning) * rates.output_pusd
        + reasoning * rates.reasoning_pusd
        + usage.web_search * rates.web_search_pusd
        + records * rates.request_pusd
    )


def cost_nusd(usage: Buckets, rates: Rates, records: int = 0) -> int:
    """Price a usage of that many requests, in nano-USD, rounded half to even."""
    return rounded_nusd(cost_pusd(usage, rates, records))


def rounded_nusd(pusd: int) -> int:
    """Round to nano-USD, half to even."""
    nusd, rest = divmod(pusd, PUSD_PER_NUSD)
    half = PUSD_PER_NUSD // 2
    return nusd + (rest > half or (rest == half and nusd % 2 == 1))


def usd_text(nusd: int) -> str:
    """Write nano-USD as a decimal number of USD: `12.5`, `0.000000001`, `-3`, `0`."""
    return decimal_text(nusd, 9)


def rounded_text(amount: int, beside: int, places: int) -> str:
    """Write an amount in units of 10 ** places, to two digits behind the point.

    To more where it would read as nothing, or as the amount that it stands beside.
    """
    for digits in range(2, places):
        step = 10 ** (places - digits)
        rounded = (amount + step // 2) // step * step
        if rounded not in {0, beside}:
            return decimal_text(rounded, places)
    return decimal_text(amount, places)


def per_million_text(pusd: int) -> str:
    """Write pico-USD per token as USD per million tokens."""
    return decimal_text(pusd, 6)


def fee_text(pusd: int) -> str:
    """Write pico-USD per request, or per search, as USD."""
    return decimal_text(pusd, 12)


def decimal_text(amount: int, places: int) -> str:
    """Write an amount as a decimal number of units of 10 ** places, exactly."""
    whole, rest = divmod(abs(amount), 10**places)
    text = f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")
    return f"-{text}" if amount < 0 else text
