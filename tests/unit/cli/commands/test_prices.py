"""`prices explain`: which list says what a model costs, and what to write when none does."""

import json
from pathlib import Path

import pytest
import yaml

from meshnode.node.configuration import pricing

OWN = """
aliases: {house: gpt-4o}
prices:
  - {model: "m*", input: "2", output: "8", tiers: {batch: {input: 1, output: 4}}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


def explained(run, *words: str):
    code, out, err = run("prices", "explain", *words, "-o", "json")
    return code, json.loads(out), err


def test_a_price_comes_with_its_list_its_entry_and_what_was_tried(run):
    code, value, err = explained(run, "Claude-Sonnet-4-5-20250929", "--at", "2026-11-20")
    assert (code, err) == (0, "")
    assert value["price"]["source"].startswith("shipped@0.")
    assert value["price"]["matched"] == "anthropic/claude-sonnet-4-5"
    assert value["price"]["why"] == "matched by begins with claude-sonnet-4-5"
    assert value["price"]["rates"] == {
        "input": "3",
        "cache_read": "0.3",
        "cache_write_5m": "3.75",
        "cache_write_1h": "6",
        "output": "15",
        "reasoning": "15",
        "request": "0",
        "web_search": "0.01",
    }
    assert [one["matched"] for one in value["tried"]] == ["anthropic/claude-sonnet-4-5"]
    assert "batch>200000" in [one["tier"] for one in value["tiers"]]
    assert value["example"]["cost_usd"] == "0.045"
    assert value["at"] == "2026-11-20T00:00:00.000Z"


def test_the_length_of_the_example_decides_its_tier(run):
    words = (
        "claude-sonnet-4-5",
        "--tokens",
        "input=200000,cache_read=1,output=10",
        "--tier",
        "batch",
    )
    _, value, _ = explained(run, *words)
    assert value["tier"] == "batch>200000"
    assert value["example"]["cost_usd"] == "0.6001128"
    assert value["example"]["usage"]["total"] == 200_011


def test_the_file_in_the_home_comes_first(run, home):
    (home / "prices.yaml").write_text(OWN)
    _, value, _ = explained(run, "mine", "--tier", "batch")
    assert value["price"]["matched"] == "prices.yaml:4 m*"
    assert value["price"]["rates"]["input"] == "1"
    assert value["price_source"].startswith("prices.yaml@")
    _, value, _ = explained(run, "house")
    assert [one["outcome"] for one in value["tried"]] == [
        "no rule matches",
        "prices.yaml:2 means gpt-4o",
        "no rule matches",
        "matched by its name",
    ]


def test_the_configuration_may_name_the_file_and_the_flag_another(run, home, tmp_path):
    (home / "config.yaml").write_text("prices: team/prices.yaml\n")
    (home / "team").mkdir()
    (home / "team" / "prices.yaml").write_text("prices: [{model: x, input: 1, output: 1}]")
    assert explained(run, "x")[1]["price"]["rates"]["input"] == "1"
    other = tmp_path / "other.yaml"
    other.write_text("prices: [{model: x, input: 2, output: 1}]")
    code, value, _ = explained(run, "x", "--prices", str(other))
    assert (code, value["price"]["matched"]) == (0, "other.yaml:1 x")
    code, out, err = run("prices", "explain", "x", "--prices", str(tmp_path / "none.yaml"))
    assert (code, out) == (3, "")
    assert "is missing" in err


def test_a_rule_of_another_time_is_told_as_tried(run, home):
    text = "prices: [{model: gpt-4o, input: 1, output: 1, effective_from: 2030-01-01}]"
    (home / "prices.yaml").write_text(text)
    _, value, _ = explained(run, "gpt-4o", "--at", "2026-11-20")
    assert value["tried"][0]["outcome"] == "prices.yaml:1 matches, not at that time"
    assert value["price"]["matched"] == "openai/gpt-4o"
    _, value, _ = explained(run, "gpt-4o", "--at", "2030-01-01")
    assert value["price"]["matched"] == "prices.yaml:1 gpt-4o"
    assert value["changes"] == ["2030-01-01T00:00:00.000Z"]


def test_mistakes_are_told_and_stop_nothing(run, home):
    (home / "prices.yaml").write_text("prices: [{modle: m, input: 1, output: 1}]")
    code, out, err = run("prices", "explain", "gpt-4o")
    assert code == 0
    assert "openai/gpt-4o" in out
    assert 'prices.yaml:1: unknown key "modle" (did you mean "model"?)' in err
    (home / "config.yaml").write_text("pricse: x\n")
    code, value, _ = explained(run, "gpt-4o")
    assert code == 0
    assert value["faults"][0].startswith('config.yaml:1: unknown key "pricse"')


def test_an_unpriced_model_is_not_found_and_says_what_to_write(run, home):
    code, out, err = run("prices", "explain", "doubao-pro")
    assert code == 3
    assert "unpriced" in out
    assert "no list knows 'doubao-pro'" in err
    code, value, _ = explained(run, "doubao-pro")
    assert (code, value["price"], value["example"]) == (3, None, None)
    (home / "prices.yaml").write_text(value["snippet"])
    assert explained(run, "doubao-pro")[0] == 0


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\x1b[31mred", "[x]*?", "é" * 300, " "])
def test_whatever_a_model_is_called_the_answer_is_text_and_the_snippet_yaml(run, name):
    code, value, _ = explained(run, name)
    assert code == 3
    assert isinstance(yaml.safe_load(value["snippet"])["prices"][0]["model"], str)
    code, out, err = run("prices", "explain", name)
    assert code == 3
    assert "\x1b" not in out + err


@pytest.mark.parametrize(
    "words",
    [
        ("m", "--tokens", "inputs=1"),
        ("m", "--tokens", "input"),
        ("m", "--tokens", "input=-1"),
        ("m", "--tokens", "input=1e3"),
        ("m", "--tokens", "input=" + "9" * 40),
        ("m", "--tokens", ","),
        ("m", "--at", "soon"),
        (),
        ("a", "b"),
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error(run, words):
    code, out, err = run("prices", "explain", *words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_cost_asks_for_the_prices_of_a_moment(run, mesh):
    for word in ("then", "today", "2026-02-01"):
        assert run("cost", "--prices-at", word)[0] == 0
    asked = [call[-1] for call in mesh.calls]
    assert asked == [None, "2026-11-20T00:00:00.000Z", "2026-02-01T00:00:00.000Z"]
    assert run("cost", "--prices-at", "yesteryear")[0] == 2


def test_a_tier_that_nobody_knows_is_told(run):
    code, value, err = explained(run, "claude-sonnet-4-5", "--tier", "prioritty")
    assert (code, value["price"]["rates"]["input"], err) == (0, "3", "")
    _, _, err = run("prices", "explain", "claude-sonnet-4-5", "--tier", "prioritty")
    assert "no prices of its own in tier 'prioritty'" in err
    assert "those of standard hold; it has some in standard, batch" in err
    assert run("prices", "explain", "claude-sonnet-4-5", "--tier", "batch")[2] == ""


@pytest.mark.parametrize(
    ("tier", "input_usd", "held"),
    [
        ("standard+us", "5.5", ""),
        ("batch+us>200000", "2.75", ""),
        ("fast+us", "5.5", "standard+us"),
        ("batch+moon", "2.5", "batch"),
        ("fast+moon", "5", "standard"),
    ],
)
def test_of_a_tier_in_a_place_it_is_told_whose_prices_hold(run, tier, input_usd, held):
    words = ("claude-opus-4-6", "--tier", tier)
    price = explained(run, *words)[1]["price"]
    name = tier.partition(">")[0]
    assert (price["rates"]["input"], price["tier"]) == (input_usd, held or name)
    err = run("prices", "explain", *words)[2]
    assert (f"in tier {name!r}: those of {held} hold" in err) is bool(held)
    assert bool(err) is bool(held)


@pytest.mark.parametrize(
    ("tier", "held"),
    [("fast", "fast"), ("fast+us", "fast"), ("slow+us", "standard"), ("slow", "standard")],
)
def test_of_your_own_prices_it_is_told_which_hold(run, home, tier, held):
    tiers = "{fast: {input: 7}, standard+us: {input: 2}}"
    (home / "prices.yaml").write_text(
        f"prices: [{{model: m, input: 1, output: 1, tiers: {tiers}}}]"
    )
    assert explained(run, "m", "--tier", tier)[1]["price"]["tier"] == held


def test_a_step_that_changes_nothing_is_no_change_and_one_beside_input_and_output_is_named(
    run, monkeypatch
):
    same, cached = {"input": "3", "output": "15", "cache_read": "1"}, {"cache_read": "2"}
    steps = [(None, same), ("2026-10-14T", same)]

    def explain(*_):
        known = {"source": "s", "matched": "m", "tier": "standard", "rates": same}
        example = {"usage": {}, "cost_usd": "0"}
        value = {"model": "m", "tier": "standard", "at": "T", "price": known, "example": example}
        value |= {"tried": [], "tiers": [{"tier": "standard"}], "by_time_of_day": False}
        changed = [{"at": at, "rates": rates, "matched": "m"} for at, rates in steps]
        return value | {"changes": [at for at, _ in steps[1:]], "changed": changed}

    monkeypatch.setattr(pricing, "explain", explain)
    assert "its price changes" not in run("prices", "explain", "m")[1]
    steps.append(("2027-01-01T", same | cached))
    lines = run("prices", "explain", "m")[1].partition("its price changes")[2].splitlines()[1:]
    assert [line.split(None, 2)[0] for line in lines] == ["before", "from"]
    assert lines[1].endswith("$3  $15  (cache_read changed)")


def test_changes_of_a_price_come_with_their_rates(run, home):
    text = "prices: [{model: gpt-4o, input: 1, output: 2, effective_from: 2030-01-01}]"
    (home / "prices.yaml").write_text(text)
    _, value, _ = explained(run, "gpt-4o", "--at", "2030-01-01")
    assert steps_of(value) == [
        (None, "2.5", "openai/gpt-4o"),
        ("2030-01-01T00:00:00.000Z", "1", "prices.yaml:1 gpt-4o"),
    ]
    for at in ("2030-01-01", "2026-11-20"):  # whichever list has the price at that time
        out = run("prices", "explain", "gpt-4o", "--at", at)[1]
        assert "before             $2.5  $10\n" in out
        assert "from 2030-01-01    $1  $2  (prices.yaml:1 gpt-4o)\n" in out


def steps_of(value):
    steps = value["changed"]
    return [(one["at"], one["rates"] and one["rates"]["input"], one["matched"]) for one in steps]


def test_what_ends_is_followed_by_the_next_entry_or_list_or_by_no_price(run, home):
    ends = "{model: gpt-4o, input: 1, output: 10, effective_until: 2026-11-22}"
    later = "{model: gpt-4o, input: 10, output: 100, effective_from: 2026-12-01}"
    alone = "{model: nobodys, input: 3, output: 4, effective_until: 2026-11-22}"
    (home / "prices.yaml").write_text(f"prices:\n- {ends}\n- {later}\n- {alone}\n")
    for at in ("2026-11-01", "2026-11-25", "2026-12-02"):
        _, value, _ = explained(run, "gpt-4o", "--at", at)
        assert steps_of(value) == [
            (None, "1", "prices.yaml:2 gpt-4o"),
            ("2026-11-22T00:00:00.000Z", "2.5", "openai/gpt-4o"),
            ("2026-12-01T00:00:00.000Z", "10", "prices.yaml:3 gpt-4o"),
        ]
    for at in ("2026-11-01", "2026-11-25"):
        _, value, _ = explained(run, "nobodys", "--at", at)
        steps = [(None, "3", "prices.yaml:4 nobodys"), ("2026-11-22T00:00:00.000Z", None, "")]
        assert steps_of(value) == steps
        assert "from 2026-11-22    no price\n" in run("prices", "explain", "nobodys", "--at", at)[1]
