"""Which list prices a name, and that its integers cost what genai-prices says, to the nano-USD."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices
from msgspec.structs import asdict

from meshnode.core.ledger.ledger import SLOT_S, Buckets
from meshnode.core.ledger.prices import Rates, cost_nusd
from meshnode.core.ledger.tiers import CONTEXT_STEPS_TOKENS, tier_of
from meshnode.ingest import prices
from meshnode.ingest.genai_list import genai_list, installed_version
from meshnode.ingest.prices import PriceBook, shipped_list

ROOT = Path(__file__).parents[3]
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
    ("glm-5", "zai"),
    ("qwen/qwen3-max", "openrouter"),
    ("sonar-pro", "perplexity"),
    ("gpt-4o", "azure"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws"),
    ("command-r-plus", "cohere"),
]
BEYOND = [  # sold by providers that are not shipped
    ("anthropic/claude-sonnet-4.5", "openrouter"),
    ("openai/gpt-oss-120b", "groq"),
    ("moonshotai/Kimi-K2-Instruct", "huggingface_novita"),
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


def our_nusd(
    usage: Buckets, model: str, provider: str, service: str = "", source: str = "shipped@"
) -> int:
    tier = tier_of(service, usage.prompt)
    priced = PriceBook().rates(model, provider, tier, AT.timestamp())
    assert priced is not None
    assert priced.source.startswith(source)
    return cost_nusd(usage, priced.rates, 1)


@pytest.mark.parametrize(("model", "provider"), MODELS)
@pytest.mark.parametrize("usage", [SHORT, LONG], ids=["short", "long"])
def test_our_integers_cost_what_genai_prices_says(model: str, provider: str, usage: Buckets):
    assert our_nusd(usage, model, provider) == reference_nusd(usage, model, provider)


@pytest.mark.parametrize(("model", "provider"), BEYOND)
def test_whom_the_shipped_table_lacks_genai_prices_has(model: str, provider: str):
    ours = our_nusd(SHORT, model, provider, source="genai-prices@")
    assert ours == reference_nusd(SHORT, model, provider)


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


@pytest.mark.parametrize(
    ("model", "tier", "times", "as_standard"),
    [
        ("claude-opus-4-8", "fast", 2, False),
        ("claude-opus-4-8", "fast>200000", 2, False),
        ("claude-opus-4-6", "fast", 1, True),
        ("claude-opus-4-8", "priority", 1, True),
        ("claude-opus-4-8", "standard>200000", 1, False),
        ("qwen-max", "batch", 1, True),  # the monitor's table knows no tiers
    ],
)
def test_a_tier_without_a_price_costs_as_standard_and_says_so(
    model: str, tier: str, times: int, *, as_standard: bool
):
    book = PriceBook()
    standard, priced = (book.rates(model, "", one, AT.timestamp()) for one in ("standard", tier))
    assert standard is not None
    assert priced is not None
    assert priced.rates.input_pusd == times * standard.rates.input_pusd
    assert (standard.as_standard, priced.as_standard) == (False, as_standard)


@pytest.mark.parametrize(
    ("model", "provider", "tier", "per_cent", "as_standard"),
    [
        ("claude-opus-4-8", "anthropic", "standard+us", 110, False),
        ("claude-opus-4-8", "", "fast+us", 220, False),
        ("claude-opus-4-8", "anthropic", "standard+us>200000", 110, False),
        ("claude-opus-4-8", "anthropic", "standard+mars", 100, True),
        ("claude-opus-4-8", "anthropic", "priority+us", 110, True),
        ("gpt-5", "openai", "standard+us", 100, True),
    ],
)
def test_tokens_cost_more_where_they_are_kept_in_a_place(
    model: str, provider: str, tier: str, per_cent: int, *, as_standard: bool
):
    book, at_s = PriceBook(), AT.timestamp()
    standard, priced = (book.rates(model, provider, one, at_s) for one in ("standard", tier))
    assert standard is not None
    assert priced is not None
    fees = {"web_search_pusd", "request_pusd"}
    for name, pusd in asdict(standard.rates).items():
        dearer = pusd if name in fees else pusd * per_cent // 100
        assert getattr(priced.rates, name) == dearer, name
    assert priced.as_standard == as_standard


def test_a_price_of_a_tier_that_begins_later_is_not_one_before():
    book = PriceBook()
    days = (datetime(2026, 10, day, tzinfo=UTC).timestamp() for day in (1, 20))
    found = [book.rates("claude-opus-4-8", "", "batch", at_s) for at_s in days]
    assert [one and one.as_standard for one in found] == [True, False]


def test_the_shipped_table_is_that_of_the_installed_genai_prices():
    command = [sys.executable, str(ROOT / "tools" / "ship_prices.py"), "--check"]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compared.returncode == 0, compared.stderr


def test_a_table_of_another_genai_prices_lets_that_one_answer_what_it_lacks(monkeypatch):
    monkeypatch.setattr(prices, "_genai_is_another", lambda: True)
    sources = [one.source for one in PriceBook().attempts("claude-unheard-of", "anthropic")]
    assert [name.partition("@")[0] for name in sources] == [
        *("shipped", "genai-prices", "shipped", "genai-prices"),
        "higress-monitor",
    ]


def test_every_step_of_the_price_list_is_a_tier_of_ours():
    steps: set[int] = set()
    for provider in get_snapshot().providers:
        for model in provider.models:
            rows = [model.prices] if isinstance(model.prices, ModelPrice) else model.prices
            for row in rows:
                listed = row if isinstance(row, ModelPrice) else row.prices
                for price in vars(listed).values():
                    if isinstance(price, TieredPrices):
                        steps |= {tier.start for tier in price.tiers}
    assert steps <= set(CONTEXT_STEPS_TOKENS)


def test_every_time_of_day_with_a_price_of_its_own_begins_with_a_slot():
    models = [model for provider in genai_list().providers for model in provider.models]
    clocks = {row.clock for model in models for row in (*model.prices, *model.variants)} - {None}
    assert clocks
    assert {minute * 60 % SLOT_S for begin, end in clocks for minute in (begin, end)} == {0}


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
        ("claude-sonnet-4-5", "gcp.vertex_ai", "google/claude-sonnet-4-5"),
        ("gpt-5.2-20251211", "", "openai/gpt-5.2"),
        ("glm-5", "", "zhipuai/GLM-5"),
        ("z-ai/glm-5", "", "zai/GLM-5"),
        ("glm-5", "bigmodel", "zhipuai/GLM-5"),
        ("kimi-k2", "moonshot_ai", "moonshotai/kimi-k2"),
        ("Qwen3-Max", "aliyun", "openrouter/qwen/qwen3-max"),
        ("claude-sonnet-4-5-made-up", "", "anthropic/claude-sonnet-4-5"),
    ],
)
def test_names_with_providers_and_regions_are_understood(model: str, provider: str, matched: str):
    priced = PriceBook().rates(model, provider, "standard", AT.timestamp())
    assert priced is not None
    assert priced.matched == matched


def test_a_name_that_a_pattern_makes_up_is_shown_as_such():
    *_, last = PriceBook().attempts("claude-sonnet-4-5-made-up", "anthropic")
    [first, *_] = PriceBook().attempts("claude-sonnet-4-5-made-up", "anthropic")
    assert first.outcome == "matched by begins with claude-sonnet-4-5"
    assert last.source.startswith("higress-monitor@")


def test_the_table_of_the_monitor_is_the_last_resort_and_says_so():
    priced = PriceBook().rates("Qwen", "", "standard", AT.timestamp())
    assert priced is not None
    assert (priced.source, priced.matched) == ("higress-monitor@1", "qwen")
    assert priced.rates == Rates(200_000, 100_000, 200_000, 200_000, 600_000, 600_000)
    for better in ("GPT-4", "qwen-max"):
        found = PriceBook().rates(better, "", "standard", AT.timestamp())
        assert found is not None
        assert found.source.startswith("shipped@")


@pytest.mark.parametrize("model", ["", "unknown", "doubao-pro", "gpt-made-up-99", "a/b/c", "/"])
def test_an_unknown_model_has_no_price(model: str):
    assert PriceBook().rates(model, "", "standard", AT.timestamp()) is None


def test_what_is_billed_by_the_hour_has_no_price_by_token():
    assert PriceBook().rates("whisper-large-v3", "groq", "standard", AT.timestamp()) is None


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


def test_an_answer_is_kept_until_the_price_changes():
    book = PriceBook()
    first = book.rates("o3", "", "standard", AT.timestamp())
    assert book.rates("o3", "", "standard", AT.timestamp() + 40 * 86_400) is first
    assert book.rates("o3", "", "standard", AT.timestamp() - 700 * 86_400) is not first


def test_the_sources_are_named_with_their_versions():
    shipped, genai, monitor = PriceBook().source_text().split("; ")
    assert shipped == f"shipped@{shipped_list().version}"
    assert genai.startswith("genai-prices@")
    assert monitor == "higress-monitor@1"


def test_whoever_prices_what_is_shipped_does_not_load_genai_prices():
    script = (
        "import sys, meshnode.ingest.prices as prices; book = prices.PriceBook();"
        "names = ['gpt-5', 'claude-opus-4-6', 'qwen3-max', 'qwen', 'doubao-pro', '',  'glm-5'];"
        "[book.rates(name, hint, 'batch', 1.79e9) for name in names for hint in ('', 'gateway')];"
        "book.source_text(); sys.exit('genai_prices' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_version_of_genai_prices_is_the_one_that_is_installed():
    assert installed_version() == version("genai-prices")
