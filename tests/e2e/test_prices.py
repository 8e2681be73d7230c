"""Prices in a running node: whose they are, when they change, what an idle one never loads."""

from pathlib import Path

import pytest
from e2e.fleet import Node, wait_until

LINE = (
    r'{"ai_log":"{\"model\":\"%s\",\"input_token\":1000000,\"output_token\":0,'
    r'\"session_id\":\"s1\"}","request_id":"%s","start_time":"2025-06-01T09:30:15.123Z"}'
)


@pytest.fixture
def anna(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--mesh", "one", "--name", "anna")
    log = anna.home / "access.log"
    log.touch()
    config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
    (anna.home / "config.yaml").write_text(config)
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    return anna


def used(anna: Node, *models: str) -> None:
    """Log a million tokens of input a model, and wait until they are counted."""
    before = anna.json("cost")["records"]
    with (anna.home / "access.log").open("a") as log:
        for model in models:
            log.write(LINE % (model, f"{before}-{model}") + "\n")
    wait_until(lambda: anna.json("cost")["records"] == before + len(models), "the log")


def has_loaded_genai_prices(anna: Node) -> bool:
    # Its pydantic is compiled, so the kernel knows whether it is loaded; nothing else here uses it.
    return "pydantic_core" in Path(f"/proc/{anna.process.pid}/maps").read_text()


def test_a_node_loads_genai_prices_for_nothing_but_what_the_shipped_table_lacks(anna):
    anna.json("list")
    assert not has_loaded_genai_prices(anna)
    used(anna, "gpt-4o", "claude-opus-4-6", "no-such-model")
    answer = anna.json("cost")
    assert [one["model"] for one in answer["unpriced"]] == ["no-such-model"]
    assert not has_loaded_genai_prices(anna)
    used(anna, "anthropic/claude-sonnet-4.5", "x-made-up/model")
    anna.json("cost")
    assert has_loaded_genai_prices(anna)


def test_usage_costs_what_it_cost_then_or_what_it_would_today(anna):
    used(anna, "o3")  # whose price fell ten days later
    assert anna.json("cost")["cost_usd"] == "10"
    assert anna.json("cost", "--prices-at", "then")["cost_usd"] == "10"
    assert anna.json("cost", "--prices-at", "today")["cost_usd"] == "2"
    assert anna.json("cost", "--prices-at", "2025-06-01")["cost_usd"] == "10"


def test_a_price_that_is_written_down_or_corrected_counts_at_once(anna):
    used(anna, "our-model")
    assert anna.json("cost")["cost_usd"] is None
    prices = anna.home / "prices.yaml"
    prices.write_text('prices:\n  - {modle: "our-*", input: "3", output: "9"}\n')
    answer = anna.json("cost")
    assert answer["cost_usd"] is None
    assert "(1 left out, see prices explain)" in answer["price_source"]
    assert 'unknown key \\"modle\\"' in (anna.home / "node.log").read_text()
    doctor = {check["id"]: check for check in anna.call("doctor", "-o", "json").json["checks"]}
    assert doctor["prices"]["ok"] is False
    assert 'did you mean "model"?' in doctor["prices"]["detail"]
    prices.write_text('prices:\n  - {model: "our-*", input: "3", output: "9"}\n')
    answer = anna.json("cost")
    assert answer["cost_usd"] == "3"
    assert answer["unpriced"] == []
    assert anna.end() == 0
    assert anna.json("cost")["cost_usd"] == "3"


def test_what_usage_cost_when_it_was_read_is_kept_and_another_file_only_asks(anna, tmp_path):
    used(anna, "o3")
    where = ("usage", "--source", "higress", "--path", str(anna.home / "access.log"))
    [record] = anna.json(*where, "--explain", "s1")["records"]
    assert record["cost_usd"] == "10"
    assert record["price_source"].startswith("shipped@")
    other = tmp_path / "other.yaml"
    wrong, right = "model: o3, modle: x, input: 1, output: 1", "model: o3, input: 7, output: 7"
    other.write_text(f"prices: [{{{wrong}}}, {{{right}}}]")
    answer = anna.call(*where, "--prices", str(other))
    assert "$7.0000" in answer.out
    assert 'did you mean "model"?' in answer.err
    assert anna.json(*where)["cost_usd"] == "10"
    assert anna.json(*where, "--prices-at", "today")["cost_usd"] == "2"
    assert anna.json(*where, "--explain", "s1")["records"] == [record]
    assert anna.call(*where, "--prices", str(tmp_path / "none.yaml")).code == 3
