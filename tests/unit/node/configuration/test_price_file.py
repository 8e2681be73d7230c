"""The user's own prices: what a file may say, what its mistakes earn, and what still holds then."""

import os
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import Buckets
from meshnode.core.ledger.prices import Rates, cost_nusd
from meshnode.core.ledger.tiers import tier_of
from meshnode.ingest.own_prices import OwnPrices
from meshnode.ingest.prices import PriceBook
from meshnode.node.configuration.price_file import (
    ENTRIES_MAX,
    FAULTS_MAX,
    FILE_BYTES_MAX,
    PriceFile,
    own_prices,
)

AT_S = 1_795_000_000.0  # 2026-11-18
FULL = """
aliases:
  our-*: anthropic/claude-sonnet-4-5
  house: {model: GLM-5, provider: zai}
prices:
  - model: "doubao-*"
    provider: volc*
    effective_until: 2026-06-01
    input: "1"
    output: "2"
  - model: "doubao-*"
    effective_from: 2026-06-01T00:00:00Z
    input: "0.1"
    cache_read: "0.01"
    cache_write_5m: "0.125"
    output: "0.4"
    reasoning: "0.8"
    request: "0.000001"
    web_search: "0.005"
    long_prompts:
      - {over: 128000, input: "0.2", output: "0.5"}
    tiers:
      batch: {input: "0.05", output: 0.2, long_prompts: [{over: 200000, output: 0.3}]}
"""


def book(text: str) -> PriceBook:
    own = own_prices(text.encode(), "prices.yaml")
    assert own.faults == ()
    return PriceBook(lambda: own)


def rates(text: str, model: str, tier: str = "standard", provider: str = "", at_s: float = AT_S):
    priced = book(text).rates(model, provider, tier, at_s)
    return None if priced is None else priced.rates


def test_every_amount_is_read_exactly():
    assert rates(FULL, "Doubao-Pro") == Rates(
        100_000, 10_000, 125_000, 125_000, 400_000, 800_000, 5 * 10**9, 10**6
    )


def test_what_is_left_out_costs_what_it_is_a_kind_of():
    assert rates("prices: [{model: m, input: 3, output: 15}]", "m") == Rates(
        3_000_000, 3_000_000, 3_000_000, 3_000_000, 15_000_000, 15_000_000
    )


@pytest.mark.parametrize(
    ("tier", "sent", "received"),
    [
        ("standard", 100_000, 400_000),
        ("standard>100000", 100_000, 400_000),
        ("standard>128000", 200_000, 500_000),
        ("standard>524288", 200_000, 500_000),
        ("batch", 50_000, 200_000),
        ("batch>128000", 50_000, 200_000),
        ("batch>200000", 50_000, 300_000),
        ("flex", 100_000, 400_000),
    ],
)
def test_tiers_and_long_prompts_have_their_own_rates(tier, sent, received):
    found = rates(FULL, "doubao-pro", tier)
    assert (found.input_pusd, found.output_pusd) == (sent, received)


@pytest.mark.parametrize("name", ["batch", " Batch ", "PRIORITY", "fast"])
def test_a_tier_is_known_by_what_logs_call_it(name: str):
    text = f'prices: [{{model: m, input: 1, output: 1, tiers: {{"{name}": {{input: 2}}}}}}]'
    assert rates(text, "m", tier_of(name, 0)).input_pusd == 2_000_000


@pytest.mark.parametrize(
    ("tiers", "tier", "received", "as_standard"),
    [
        ("", "standard+us", 1, True),
        ("tiers: {fast: {output: 5}}", "fast+us", 5, True),
        ("tiers: {fast: {output: 5}, fast+us: {output: 6}}", "fast+us", 6, False),
    ],
)
def test_a_place_costs_what_the_file_says_of_it_or_of_anywhere(tiers, tier, received, as_standard):
    text = f"prices: [{{model: m, input: 1, output: 1, {tiers}}}]"
    priced = book(text).rates("m", "", tier, AT_S)
    assert priced.rates.output_pusd == received * 1_000_000
    assert priced.as_standard == as_standard


def test_a_rule_holds_from_its_day_until_before_the_other():
    prices = book(FULL)
    june_s = 1_780_272_000.0  # 2026-06-01T00:00:00Z
    before = prices.rates("doubao-pro", "volcano", "standard", june_s - 1)
    after = prices.rates("doubao-pro", "volcano", "standard", june_s)
    assert (before.rates.input_pusd, after.rates.input_pusd) == (1_000_000, 100_000)
    assert prices.rates("doubao-pro", "other", "standard", june_s - 1) is None


def test_the_first_rule_that_matches_holds_and_comes_before_every_list():
    text = 'prices: [{model: "gpt-4*", input: 1, output: 1}, {model: gpt-4o, input: 2, output: 2}]'
    priced = book(text).rates("GPT-4o", "openai", "batch", AT_S)
    assert priced.rates.input_pusd == 1_000_000
    assert priced.source.startswith("prices.yaml@")
    assert priced.matched == "prices.yaml:1 gpt-4*"


def test_an_alias_is_priced_as_what_it_means():
    prices = book(FULL)
    assert prices.rates("our-best", "", "standard", AT_S).matched == "anthropic/claude-sonnet-4-5"
    assert prices.rates("House", "", "standard", AT_S).matched == "zai/GLM-5"
    own = "aliases: {a: b}\nprices: [{model: b, input: 7, output: 7}]"
    assert rates(own, "a").input_pusd == 7_000_000


def test_an_alias_of_an_alias_is_not_followed():
    assert rates("aliases: {a: b, b: a}", "a") is None


def test_the_file_in_the_documentation_has_no_mistake():
    page = (Path(__file__).parents[4] / "docs" / "prices.md").read_text()
    text = page.partition("```yaml\n")[2].partition("```")[0]
    prices = book(text)
    found = prices.rates("doubao-pro", "volcano", "batch>128000", AT_S).rates
    assert (found.input_pusd, found.output_pusd) == (400_000, 1_000_000)
    assert prices.rates("house", "", "standard", AT_S).matched == "zai/GLM-5"


def test_what_is_free_says_so():
    free = rates('prices: [{model: "local/*", input: "0", output: "0"}]', "local/llama")
    assert cost_nusd(Buckets(10**9, output=10**9), free, 5) == 0


MISTAKES = {
    "prices:\n  - {modle: m, input: 1, output: 1}\n": (2, '"modle"', 'did you mean "model"?'),
    "prices:\n  - model: m\n    inptu: 1\n    output: 1\n": (3, '"inptu"', 'did you mean "input"?'),
    "price:\n  - {model: m, input: 1, output: 1}\n": (1, '"price"', 'did you mean "prices"?'),
    "prices:\n  - {input: 1, output: 1}\n": (2, 'needs "model"'),
    "prices:\n  - {model: m, input: 1}\n": (2, 'needs "output"', '"0"'),
    "prices:\n  - {model: m, input: , output: 1}\n": (2, 'needs "input"'),
    "prices:\n  - {model: m, input: -1, output: 1}\n": (2, '"input"', '"-1"'),
    "prices:\n  - {model: m, input: 1e3, output: 1}\n": (2, "USD per million tokens", '"1e3"'),
    "prices:\n  - {model: m, input: .5, output: 1}\n": (2, '".5"'),
    "prices:\n  - {model: m, input: $1, output: 1}\n": (2, '"$1"'),
    "prices:\n  - {model: m, input: '1,5', output: 1}\n": (2, '"1,5"'),
    "prices:\n  - {model: m, input: nan, output: 1}\n": (2, '"nan"'),
    "prices:\n  - {model: m, input: '٣', output: 1}\n": (2, '"٣"'),
    "prices:\n  - {model: m, input: 1, output: 0.0000001}\n": (2, "more than six decimals"),
    "prices:\n  - {model: m, input: [1], output: 1}\n": (2, '"input" should be a text'),
    "prices:\n  - {model: m, input: 1, output: 1, request: free}\n": (2, "USD per one", '"free"'),
    "prices:\n  - {model: m, input: 1, output: 1, effective_from: soon}\n": (2, '"soon"'),
    "prices:\n- model: m\n  input: 1\n  output: 1\n  effective_from: 2026-02-01\n"
    "  effective_until: 2026-02-01\n": (6, "after"),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: {batch: {inputs: 1}}}\n": (2, '"inputs"'),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: [batch]}\n": (2, '"tiers"', "map"),
    "prices:\n- model: m\n  input: 1\n  output: 1\n  tiers:\n    Default: {input: 2}\n": (
        *(6, '"Default"', '"standard"', 'above "tiers"'),
    ),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: {auto: {input: 2}}}\n": (2, '"auto"'),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: {'batch>9': {input: 2}}}\n": (
        *(2, '"batch>9"', '"long_prompts" inside "batch"'),
    ),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: {'default>9': {input: 2}}}\n": (
        *(2, '"long_prompts" above "tiers"'),
    ),
    "prices:\n- model: m\n  input: 1\n  output: 1\n  tiers:\n    standard: {input: 2}\n": (
        *(6, '"standard"', 'above "tiers"'),
    ),
    "prices:\n- model: m\n  input: 1\n  output: 1\n  tiers: {fast: {}, Fast: {input: 2}}\n": (
        *(5, '"Fast"', "already"),
    ),
    "prices:\n  - {model: m, input: 1, output: 1, tiers: {auto+us: {input: 2}}}\n": (
        *(2, '"auto+us"', '"standard+us"'),
    ),
    "prices:\n  - {model: m, input: 1, output: 1, long_prompts: [{over: 5000, input: 2}]}\n": (
        *(2, '"5000"', "200000"),
    ),
    "prices:\n  - {model: m, input: 1, output: 1, long_prompts: [{input: 2}]}\n": (2, '"over"'),
    "prices: {model: m}\n": (1, '"prices" should be a list'),
    "prices: [m]\n": (1, "should be a map"),
    "aliases: [a]\n": (1, '"aliases" should be a map'),
    "aliases: {a: {modl: b}}\n": (1, '"modl"', 'did you mean "model"?'),
    "aliases: {a: {provider: b}}\n": (1, 'needs "model"'),
    "aliases: {a: }\n": (1, '"aliases" should be a text'),
    "prices:\n  - {model: m\n": (3, "expected"),
    "prices: &a [1]\naliases: *a\n": (2, "aliases are not allowed"),
    "just words\n": (1, "should be a map"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.items(), ids=range(len(MISTAKES)))
def test_a_mistake_is_told_by_file_line_and_key_and_leaves_the_next_list(text, said):
    own = own_prices(text.encode(), "prices.yaml")
    line, *words = said
    [fault] = own.faults
    assert fault.startswith(f"prices.yaml:{line}: ")
    for word in words:
        assert word in fault
    prices = PriceBook(lambda: own)
    assert prices.rates("m", "", "standard", AT_S) is None or "price:" in text
    assert prices.rates("gpt-4o", "", "standard", AT_S).matched == "openai/gpt-4o"
    assert "1 left out" in prices.source_text()


def test_the_rest_of_a_file_with_a_mistake_is_used():
    text = "prices:\n  - {model: m, input: x, output: 1}\n  - {model: '*', input: 5, output: 5}\n"
    own = own_prices(text.encode(), "prices.yaml")
    assert len(own.faults) == 1
    assert PriceBook(lambda: own).rates("m", "", "standard", AT_S).rates.input_pusd == 5_000_000


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"prices: \0", b"x" * (FILE_BYTES_MAX + 1)])
def test_what_is_no_yaml_or_too_large_is_told(raw):
    own = own_prices(raw, "prices.yaml")
    assert (own.rules, len(own.faults)) == ((), 1)
    assert own.faults[0].startswith("prices.yaml")


def test_many_entries_and_many_mistakes_have_an_end():
    rule = "  - {model: m, input: 1, output: 1}\n"
    own = own_prices(("prices:\n" + rule * (ENTRIES_MAX + 7)).encode(), "p.yaml")
    assert len(own.rules) == ENTRIES_MAX
    assert own.faults == (f"p.yaml: 7 entries beyond {ENTRIES_MAX} are left out",)
    own = own_prices(("prices:\n" + "  - x\n" * 100).encode(), "p.yaml")
    assert len(own.faults) == FAULTS_MAX + 1
    assert own.faults[-1] == "p.yaml: and 80 more mistakes"


# A file that changes


def test_a_file_that_appears_changes_and_goes_is_read_again(tmp_path: Path):
    told: list[str] = []
    path = tmp_path / "prices.yaml"
    file = PriceFile(path, told.append)
    prices = PriceBook(file.read)
    assert file.read() == OwnPrices()
    assert prices.rates("m", "", "standard", AT_S) is None
    for amount in ("1", "22"):
        path.write_text(f"prices: [{{model: m, input: {amount}, output: 1}}]")
        named = prices.source_text()
        assert named.startswith("prices.yaml@")
        priced = prices.rates("m", "", "standard", AT_S)
        assert priced.rates.input_pusd == int(amount) * 10**6
        assert named.startswith(priced.source)
    path.write_text("prices: [m]")
    assert file.read() is file.read()
    assert len(told) == 1
    path.unlink()
    assert "prices.yaml" not in prices.source_text()
    assert prices.rates("m", "", "standard", AT_S) is None


@pytest.mark.parametrize("kind", ["directory", "pipe", "unreadable", "beneath a file"])
def test_what_cannot_be_read_is_told_and_waits_for_nobody(tmp_path: Path, kind: str):
    path = tmp_path / "prices.yaml"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "beneath a file":
        path.write_text("")
        path /= "prices.yaml"
    else:
        path.write_text("prices: []")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    told: list[str] = []
    assert PriceBook(PriceFile(path, told.append).read).rates("gpt-4o", "", "standard", AT_S)
    assert len(told) == 1
    assert "cannot read" in told[0]
