import subprocess
import sys
from datetime import UTC, datetime

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from meshnode.core.ledger import CONTEXT_STEPS_TOKENS, Buckets, tier_of
from meshnode.core.prices import Rates, cost_nusd
from meshnode.ingest.prices import PriceBook

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SHORT = Buckets(1_003, 7_001, 501, 0, 2_009, 900)
LONG = Buckets(230_001, 70_003, 5_007, 0, 2_009, 900)
MODELS = [
    ("claude-opus-4-6", "anthropic"),
    ("claude-sonnet-4-5", "anthropic"),
    ("claude-haiku-4-5", "anthropic"),
    ("claude-3-5-sonnet-20241022", "anthropic"),
    ("gpt-4o", "openai"),
    ("gpt-4o-mini", "openai"),
    ("gpt-4.1", "openai"),
    ("gpt-5", "openai"),
    ("gpt-5-mini", "openai"),
    ("gpt-5.1", "openai"),
    ("gpt-5.4", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4-mini", "openai"),
    ("gemini-2.5-pro", "google"),
    ("gemini-2.5-flash", "google"),
    ("gemini-2.0-flash", "google"),
    ("grok-4", "x-ai"),
    ("deepseek-chat", "deepseek"),
    ("deepseek-reasoner", "deepseek"),
    ("mistral-large-latest", "mistral"),
    ("kimi-k2", "moonshotai"),
    ("sonar-pro", "perplexity"),
    ("gpt-4o", "azure"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
    ("command-r-plus", "cohere"),
]


def reference_nusd(
    usage: Buckets, model: str, provider: str, context: dict[str, str] | None = None
) -> int:
    counts = Usage(
        input_tokens=usage.prompt,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write_5m,
        output_tokens=usage.output,
        output_reasoning_tokens=usage.reasoning,
        web_searches=usage.web_search,
    )
    price = calc_price(
        counts,
        model,
        provider_id=provider,
        genai_request_timestamp=AT,
        price_context=context,
    )
    return int((price.total_price * 10**9).to_integral_value())


def our_nusd(usage: Buckets, model: str, provider: str, service: str = "") -> int:
    tier = tier_of(service, usage.prompt)
    priced = PriceBook().rates(model, provider, tier, AT.timestamp())
    assert priced is not None
    assert priced.source.startswith("genai-prices ")
    return cost_nusd(usage, priced.rates, 1)


@pytest.mark.parametrize(("model", "provider"), MODELS)
@pytest.mark.parametrize("usage", [SHORT, LONG], ids=["short", "long"])
def test_our_integers_cost_what_genai_prices_says(model: str, provider: str, usage: Buckets):
    assert our_nusd(usage, model, provider) == reference_nusd(usage, model, provider)


@pytest.mark.parametrize(
    ("service", "context"),
    [
        ("batch", {"processing": "batch"}),
        ("priority", {"service_tier": "priority"}),
        ("flex", {"service_tier": "flex"}),
        ("no-such-tier", {"service_tier": "no-such-tier"}),
    ],
)
def test_the_tier_is_part_of_the_price(service: str, context: dict[str, str]):
    for model, provider in MODELS:
        ours = our_nusd(SHORT, model, provider, service)
        assert ours == reference_nusd(SHORT, model, provider, context), model


def test_every_step_of_the_price_list_is_a_tier_of_ours():
    steps: set[int] = set()
    for provider in get_snapshot().providers:
        for model in provider.models:
            rows = [model.prices] if isinstance(model.prices, ModelPrice) else model.prices
            for row in rows:
                prices = row if isinstance(row, ModelPrice) else row.prices
                for price in vars(prices).values():
                    if isinstance(price, TieredPrices):
                        steps |= {tier.start for tier in price.tiers}
    assert steps <= set(CONTEXT_STEPS_TOKENS)


def test_writes_for_an_hour_cost_more():
    priced = PriceBook().rates("claude-sonnet-4-5", "", "standard", AT.timestamp())
    assert priced is not None
    assert priced.rates.cache_write_1h_pusd == 6_000_000
    assert priced.rates.cache_write_5m_pusd == 3_750_000
    assert priced.rates.web_search_pusd == 10**10


@pytest.mark.parametrize(
    ("model", "provider", "matched"),
    [
        ("GPT-4o", "", "openai/gpt-4o"),
        ("gpt-4o", "some-gateway", "openai/gpt-4o"),
        ("openai/gpt-4o", "", "openai/gpt-4o"),
        ("anthropic/claude-sonnet-4-5", "", "anthropic/claude-sonnet-4-5"),
        ("models/gemini-2.5-pro", "", "google/gemini-2.5-pro"),
        (
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "",
            "aws/regional.anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("claude-sonnet-4-5", "bedrock", "anthropic/claude-sonnet-4-5"),
    ],
)
def test_names_with_providers_and_regions_are_understood(model: str, provider: str, matched: str):
    priced = PriceBook().rates(model, provider, "standard", AT.timestamp())
    assert priced is not None
    assert priced.matched == matched


def test_the_table_of_the_monitor_is_the_last_resort_and_says_so():
    priced = PriceBook().rates("Qwen-Max", "", "standard", AT.timestamp())
    assert priced is not None
    assert (priced.source, priced.matched) == ("higress-monitor", "qwen-max")
    expected = Rates(500_000, 250_000, 500_000, 500_000, 2_000_000, 2_000_000)
    assert priced.rates == expected
    first = PriceBook().rates("GPT-4", "", "standard", AT.timestamp())
    assert first is not None
    assert first.source.startswith("genai-prices")


@pytest.mark.parametrize("model", ["", "unknown", "doubao-pro", "gpt-made-up-99", "a/b/c", "/"])
def test_an_unknown_model_has_no_price(model: str):
    assert PriceBook().rates(model, "", "standard", AT.timestamp()) is None


def test_a_price_is_that_of_its_day_and_half_hour():
    book = PriceBook()
    before = book.rates("o3", "", "standard", datetime(2025, 6, 1, tzinfo=UTC).timestamp())
    after = book.rates("o3", "", "standard", AT.timestamp())
    assert before is not None
    assert after is not None
    assert before.rates.input_pusd > after.rates.input_pusd
    for minute in range(0, 24 * 60, 30):
        at = datetime(2025, 6, 1, minute // 60, minute % 60, tzinfo=UTC)
        found = book.rates("deepseek-chat", "deepseek", "standard", at.timestamp())
        price = calc_price(
            Usage(input_tokens=10**6), "deepseek-chat", genai_request_timestamp=at
        ).total_price
        assert found is not None
        assert found.rates.input_pusd == price * 10**6


def test_an_answer_is_kept():
    book = PriceBook()
    first = book.rates("gpt-4o", "", "standard", AT.timestamp())
    assert book.rates("GPT-4o ", "", "standard", AT.timestamp() + 60) is first


def test_the_sources_are_named_with_their_versions():
    name, _, rest = PriceBook().source_text().partition("; ")
    assert name.startswith("genai-prices ")
    assert rest == "higress-monitor table"


def test_a_node_that_does_not_price_does_not_load_the_list():
    script = (
        "import sys, meshnode.ingest.prices as prices; prices.PriceBook();"
        "sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
