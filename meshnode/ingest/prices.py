"""What tokens cost: genai-prices, then the table of the Higress monitor, then nothing.

Invariant: a price is never made up: what no list knows is None. genai-prices is imported when the
first price is asked for, since it costs 16 MiB that a node which never prices does not pay.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from meshnode.core.ledger import STANDARD, slot_number, tier_parts
from meshnode.core.prices import PUSD_PER_USD, Priced, Rates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genai_prices.types import ModelInfo, ModelPrice, Provider

MONITOR = "higress-monitor"
CACHED_MAX = 65_536  # resolved prices kept; beyond that all are resolved again
_MTOK, _KILO = 1_000_000, 1_000
_DAY_S = 86_400


def _monitor(input_usd: str, output_usd: str, cached_usd: str, reasoning_usd: str = "") -> Rates:
    sent, received = _pusd(Decimal(input_usd), _MTOK), _pusd(Decimal(output_usd), _MTOK)
    return Rates(
        input_pusd=sent,
        cache_read_pusd=_pusd(Decimal(cached_usd), _MTOK),
        cache_write_5m_pusd=sent,
        cache_write_1h_pusd=sent,
        output_pusd=received,
        reasoning_pusd=_pusd(Decimal(reasoning_usd), _MTOK) if reasoning_usd else received,
    )


def _pusd(usd: Decimal, per: int) -> int:
    return int((usd * PUSD_PER_USD / per).to_integral_value())


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

_ALIASES = {"bedrock": "aws", "aliyun": "alibaba", "qwen": "alibaba", "zhipu": "zhipuai"}
_BEDROCK = re.compile(r"(?:(?:us|eu|apac|ap|global|us-gov|jp|au)\.)?([a-z0-9-]+)\.(.+)")
_CONTEXTS: dict[str, dict[str, str]] = {
    STANDARD: {},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


class PriceBook:
    """The price lists, in order; satisfies `app.cost.Prices`. Answers are cached by day."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, str, str, int], Priced | None] = {}
        self._clocked: set[tuple[str, str, str]] = set()

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        """Return the rates of a model at a time; None if no list knows it.

        `provider` is a hint, "" if unknown. Prices that depend on the time of day are cached by
        half hour. Letter case makes no difference.
        """
        name = (model.strip().lower(), provider.strip().lower(), tier)
        period = slot_number(at_s) if name in self._clocked else -1 - int(at_s // _DAY_S)
        key = (*name, period)
        if key not in self._cache:
            if len(self._cache) >= CACHED_MAX:
                self._cache.clear()
            priced, clocked = _priced(*name, datetime.fromtimestamp(at_s, UTC))
            if clocked and name not in self._clocked:
                self._clocked.add(name)
                key = (*name, slot_number(at_s))
            self._cache[key] = priced
        return self._cache[key]

    def source_text(self) -> str:
        """Name the lists and their versions."""
        return f"genai-prices {version('genai-prices')}; {MONITOR} table"


def _priced(model: str, provider: str, tier: str, at: datetime) -> tuple[Priced | None, bool]:
    service, prompt_over = tier_parts(tier)
    found = _find(model, provider)
    if found is not None:
        owner, entry = found
        context = _CONTEXTS.get(service, {"service_tier": service})
        if not any(entry is one for one in owner.models):
            context = {}  # as genai-prices does: a tier of another provider's entry is not ours
        prices = entry.get_prices(at, context)
        if _by_token(prices):
            source = f"genai-prices {version('genai-prices')}"
            rates = _rates(prices, prompt_over)
            return Priced(rates, source, f"{owner.id}/{entry.id}"), _clocked(entry)
    last = MONITOR_RATES.get(model) or MONITOR_RATES.get(model.rpartition("/")[2])
    return (Priced(last, MONITOR, model) if last else None), False


def _find(model: str, provider: str) -> tuple[Provider, ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - 16 MiB, see above

    snapshot = get_snapshot()
    for name, owner in _readings(model, provider):
        try:
            return snapshot.find_provider_model(name, None, owner, None)
        except LookupError:
            continue
    return None


def _readings(model: str, provider: str) -> Iterator[tuple[str, str | None]]:
    """Yield ways to read a name: `anthropic/claude-x`, `us.anthropic.claude-x-v1:0`, `claude-x`."""
    if not model:
        return
    if provider:
        yield model, _ALIASES.get(provider, provider)
    yield model, None
    head, slash, rest = model.partition("/")
    if slash:
        yield rest, _ALIASES.get(head, head)
        yield model, "openrouter"
        yield rest.rpartition("/")[2], None
    bedrock = _BEDROCK.fullmatch(model)
    if bedrock:
        yield model, "aws"
        yield bedrock[2], bedrock[1]


def _by_token(prices: ModelPrice) -> bool:
    """Whether a model is billed by token at all: not by hour, page or picture alone."""
    return prices.input_mtok is not None or prices.output_mtok is not None


def _clocked(entry: ModelInfo) -> bool:
    from genai_prices.types import ModelPrice, TimeOfDateConstraint  # noqa: PLC0415 - 16 MiB

    rows = [] if isinstance(entry.prices, ModelPrice) else entry.prices
    return any(isinstance(row.constraint, TimeOfDateConstraint) for row in rows)


def _rates(prices: ModelPrice, prompt_over: int) -> Rates:
    """Resolve what a list leaves out as it means it: a cache read without a price is input."""

    def usd(*names: str) -> Decimal:
        for name in names:
            price: Any = getattr(prices, name)
            if price is not None:
                return _at_length(price, prompt_over)
        return Decimal(0)

    return Rates(
        input_pusd=_pusd(usd("input_mtok"), _MTOK),
        cache_read_pusd=_pusd(usd("cache_read_mtok", "input_mtok"), _MTOK),
        cache_write_5m_pusd=_pusd(
            usd("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"), _MTOK
        ),
        cache_write_1h_pusd=_pusd(
            usd("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"), _MTOK
        ),
        output_pusd=_pusd(usd("output_mtok"), _MTOK),
        reasoning_pusd=_pusd(usd("output_reasoning_mtok", "output_mtok"), _MTOK),
        web_search_pusd=_pusd(usd("web_searches_kcount"), _KILO),
        request_pusd=_pusd(usd("requests_kcount"), _KILO),
    )


def _at_length(price: Any, prompt_over: int) -> Decimal:  # noqa: ANN401 - Decimal or TieredPrices
    if isinstance(price, Decimal):
        return price
    passed = [step.price for step in price.tiers if step.start <= prompt_over]
    reached: Decimal = passed[-1] if passed else price.base
    return reached
