"""Laws of prices: integers cost what Decimals do, names mean what genai-prices means by them."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

import pytest
import yaml
from genai_prices import Usage
from genai_prices.data_snapshot import get_snapshot
from hypothesis import event, example, given
from hypothesis import strategies as st

from meshnode.core.ledger.ledger import SLOT_S, Buckets
from meshnode.core.ledger.prices import cost_nusd
from meshnode.core.ledger.tiers import tier_of
from meshnode.core.periods import DAY_S
from meshnode.ingest import prices
from meshnode.ingest.genai_list import genai_list
from meshnode.ingest.own_prices import OwnPrices
from meshnode.ingest.price_list import CONTEXTS, KEYS, Found, rates_at
from meshnode.ingest.price_names import readings
from meshnode.ingest.prices import PriceBook
from meshnode.node.configuration.price_file import ENTRIES_MAX, RULE_KEYS, own_prices
from meshnode.node.configuration.pricing import snippet_of

pytestmark = pytest.mark.property

MODELS = [
    (listed, ours, Found(provider, ours))
    for origin, provider in zip(get_snapshot().providers, genai_list().providers, strict=True)
    for listed, ours in zip(origin.models, provider.models, strict=True)
]
PROVIDERS = {one.id: one for one in get_snapshot().providers}
counts = st.integers(0, 2_000_000)
moments = st.integers(1_600_000_000, 1_900_000_000)
services = st.sampled_from(["standard", "batch", "flex", "priority", "fast", "none-such"])
ids = st.sampled_from([""] * 9 + [*PROVIDERS, "bedrock", "vertexai", "gateway"])


@cache
def names() -> tuple[str, ...]:
    found = [
        (ours.id.lower(), *ours.match.equals, *ours.match.starts_with) for _, ours, _ in MODELS
    ]
    return tuple(dict.fromkeys(name for one in found for name in one))


def is_whole(price: object) -> bool:
    """Whether all decimals in a price are whole pico-USD a token."""
    if isinstance(price, Decimal):
        return price * 10**6 % 1 == 0
    if isinstance(price, dict):
        return all(map(is_whole, price.values()))
    if isinstance(price, (list, tuple)):
        return all(map(is_whole, price))
    return is_whole(vars(price)) if hasattr(price, "__dict__") else True


@given(
    st.integers(0, len(MODELS) - 1), st.tuples(*[counts] * 5), st.integers(0, 9), moments, services
)
def test_integer_money_is_decimal_money_rounded_once(model, tokens, searches, at_s, service):
    listed, _, found = MODELS[model]
    sent, read, short, long, received = tokens
    usage = Buckets(sent, read, short, long, received, received // 3, searches)
    price = listed.calc_price(
        Usage(
            input_tokens=usage.prompt,
            cache_read_tokens=read,
            cache_write_tokens=short + long,
            cache_write_5m_tokens=short,
            cache_write_1h_tokens=long,
            output_tokens=received,
            output_reasoning_tokens=usage.reasoning,
            web_searches=searches,
        ),
        PROVIDERS[found.provider.id],
        genai_request_timestamp=datetime.fromtimestamp(at_s, UTC),
        price_context=CONTEXTS.get(service, {"service_tier": service}),
    )
    rates = rates_at(found, tier_of(service, usage.prompt), at_s)
    if rates is not None:
        unlisted = {key for key in vars(price.model_price) if key not in KEYS}
        exact = int((price.total_price * 10**9).to_integral_value())
        # A few prices are finer than a pico-USD a token; those rates are rounded themselves.
        off_nusd = 0 if is_whole(vars(price.model_price)) else 1 + usage.total // 2000
        assert abs(cost_nusd(usage, rates, 1) - exact) <= off_nusd, unlisted


@given(st.sampled_from(names()), ids, st.sampled_from(["", "", "-zz", "-20260101", ":free"]))
def test_a_name_means_what_genai_prices_means_by_it(name, provider_id, suffix):
    try:
        owner, model = get_snapshot().find_provider_model(
            name + suffix, None, provider_id or None, None
        )
        expected = owner.id, model.id
    except LookupError:
        expected = None
    found = genai_list().find(name + suffix, provider_id)
    assert (found.model and (found.provider.id, found.model.id)) == expected


@given(st.sampled_from(names()), ids, st.sampled_from(["", "", "-zz", "-20260101", ":free"]))
@example("qwen/qwen3-max", "openrouter", "")
def test_the_shipped_table_hides_nothing_that_genai_prices_knows(name, provider_id, suffix):
    looked = prices._in_lists(name + suffix, provider_id)
    ours = next((one.matched for one in looked if one.matched), None)
    read = (genai_list().find(*reading) for reading in readings(name + suffix, provider_id))
    assert ours == next((f"{one.provider.id}/{one.model.id}" for one in read if one.model), None)


@given(st.sampled_from(names()), moments, moments, services)
def test_what_is_kept_is_what_would_be_found(name, at_s, other_s, service):
    kept = PriceBook()
    kept.rates(name, "", service, other_s)
    assert kept.rates(name, "", service, at_s) == PriceBook().rates(name, "", service, at_s)


@given(st.sampled_from(names()), moments, services)
@example("deepseek-chat", 1_740_000_000, "standard")
def test_a_steady_day_has_one_price(name, at_s, service):
    book, day_s = PriceBook(), at_s - at_s % DAY_S
    found = {book.rates(name, "", service, day_s + slot) for slot in range(0, DAY_S, SLOT_S)}
    steady = book.is_steady(name, "", service, day_s)
    assert not steady or len(found) == 1
    event(f"steady: {steady}, prices: {len(found)}")


scalars = st.sampled_from(
    [
        "",
        "1",
        "0.25",
        "-1",
        "1e9",
        "nan",
        "m*",
        "2026-01-01",
        "200000",
        "x" * 300,
        "~",
        "\ud800",
        "é",
    ]
)
values = st.recursive(
    scalars,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(RULE_KEYS), one),
    max_leaves=12,
)


@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_a_price_file_with_faults_or_without(raw):
    own = own_prices(raw, "p.yaml")
    assert isinstance(own, OwnPrices)


@given(st.dictionaries(st.sampled_from(["prices", "aliases", "price"]), values))
@example({"prices": ["", "\ud800"]})
def test_whatever_is_written_is_a_rule_or_a_fault(document):
    written = yaml.safe_dump(document)
    own = own_prices(written.encode(), "p.yaml")
    entries = document.get("prices")
    if r"\uD800" in written:  # no text at all: refused whole
        assert (len(own.rules), len(own.faults)) == (0, 1)
    elif isinstance(entries, list):
        assert len(own.rules) + len(own.faults) >= min(len(entries), ENTRIES_MAX)
    for fault in own.faults:
        assert fault.startswith("p.yaml")
    PriceBook(lambda: own).rates("m1", "1", "batch", 1.7e9)


@given(st.text(max_size=300) | st.text(st.sampled_from('[]!*?-ab"\\ Σ\u00ad'), max_size=300))
@example("house-model[1m]")
@example("Σ" * 300)
@example("[!a]*" + "\x85")
def test_every_snippet_prices_the_name_that_it_is_for(name: str):
    own = own_prices(snippet_of(name).encode(), "prices.yaml")
    assert own.faults == ()
    priced = PriceBook(lambda: own).rates(name, "anybody", "standard", 1_800_000_000)
    assert priced is not None
    assert priced.source == own.source


@given(st.text(st.sampled_from("[]!*?-ab"), min_size=1, max_size=12))
def test_what_a_snippet_is_for_it_prices_alone(name: str):
    own = own_prices(snippet_of(name).encode(), "prices.yaml")
    for other in ("a", "b", "-", "ab", "aa", name + "a", name.replace("[", "a"), name[1:]):
        assert (other == name) == own.rules[0].matches(other, ""), other


@given(st.text(st.sampled_from("[]!*?-ab"), min_size=1, max_size=12))
def test_a_name_as_it_is_matches_itself(name: str):
    rule = f'{{model: "{name}", provider: "{name}", input: 1, output: 1}}'
    text = f'aliases: {{"{name}": meant}}\nprices: [{rule}]'
    own = own_prices(text.encode(), "prices.yaml")
    assert own.rules[0].matches(name, name)
    alias = own.meant(name, "")
    assert alias is not None
    assert alias.model == "meant"
