"""A node with nothing but metrics: what they tell of an agent, and what stands in the way."""

import os
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from e2e.fleet import wait_until
from prometheus_client.parser import text_string_to_metric_families

ALONE = ("--no-mdns", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
REPORT = "session-mesh report --model gpt-4o --input 900 --output 200 --reasoning 50 --id one"


@pytest.fixture(scope="module")
def node(shared_fleet):
    node = shared_fleet.node("watched")
    node.json("init", "--name", "watched")
    node.up(*ALONE)
    return node


def values(node) -> dict[tuple[str, ...], float]:
    with urlopen(f"http://{node.ready['metrics']}/metrics", timeout=20) as answer:
        page = answer.read().decode()
    return {
        (sample.name.removeprefix("session_mesh_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_an_agent_that_runs_is_steered_spends_and_is_killed_moves_them(node):
    before = values(node)
    assert (node.ready["http"], before["sessions_active",]) == (None, 0)
    assert node.json("budget", "set", "team", "--limit", "1ktok", "--per", "day", "--owner", "olga")
    script = f"{REPORT}; while read line; do :; done"
    words = ("run", "--detach", "--agent-id", "a", "--owner", "olga", "--", "sh", "-c", script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert node.call(*words, env={"PATH": path}).code == 0
    wait_until(lambda: ("tokens_total", "input", "gpt-4o") in values(node), "usage")
    during = values(node)
    assert (during["sessions_active",], during["sessions_created_total",]) == (1, 1)
    assert during["tokens_total", "input", "gpt-4o"] == 900
    assert during["tokens_total", "output", "gpt-4o"] == 200
    assert during["reasoning_tokens_total", "gpt-4o"] == 50
    cost = node.json("cost")["cost_usd"]
    assert during["cost_usd_total", "gpt-4o"] == pytest.approx(float(cost))

    wait_until(lambda: values(node).get(("budget_used_ratio", "team")) == 1.1, "the budget")
    assert values(node)["budgets", "exceeded"] == 1
    wait_until(lambda: node.sessions()["a"]["state"] == "suspended")
    assert node.json("budget", "remove", "team", "--yes")
    wait_until(lambda: ("budget_used_ratio", "team") not in values(node), "no budget")
    assert node.json("resume", "a")

    assert node.json("steer", "a", "go on")
    assert node.json("kill", "a", "--force")
    wait_until(lambda: values(node)["session_duration_seconds_count",] == 1, "the end")
    wait_until(lambda: ("commands_total", "kill", "applied") in values(node), "the outcome")
    after = values(node)
    assert after["commands_total", "steer", "delivered"] == 1
    assert after["sessions_active",] == 0
    assert after["agentgateway_session_duration_seconds_count",] == 1
    assert after["writes_stopped",] == 0
    assert after["nodes_known",] == after["nodes_heard",] == 1


def test_what_else_is_asked_of_them_is_told_what_may_be(node):
    page = f"http://{node.ready['metrics']}/metrics"
    with urlopen(Request(page, method="HEAD"), timeout=20) as answer:
        assert (answer.status, answer.read()) == (200, b"")
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(page, b"{}"), timeout=20)
    with refused.value as refusal:
        assert (refusal.status, refusal.headers["allow"]) == (405, "GET, HEAD")


def test_a_node_with_metrics_alone_does_not_load_what_only_the_api_needs(node):
    values(node)
    mapped = Path(f"/proc/{node.process.pid}/maps")
    if not mapped.exists():
        pytest.skip("there is no /proc here to tell what a process has loaded")
    assert "pydantic_core" not in mapped.read_text()


def test_an_address_in_use_is_named_with_the_flag_that_chooses_another(node, fleet):
    late = fleet.node("late")
    late.json("init", "--name", "late")
    refused = late.call("up", *ALONE[:-1], node.ready["metrics"], "-o", "json")
    assert (refused.code, refused.error["code"]) == (7, "conflict")
    assert node.ready["metrics"] in refused.error["message"]
    assert "--metrics HOST:PORT" in refused.error["hint"]


def test_a_missing_extra_is_named_with_the_command_that_installs_it(fleet, tmp_path):
    bare = fleet.node("bare")
    bare.json("init", "--name", "bare")
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys; sys.modules['prometheus_client'] = None")
    refused = bare.call("up", *ALONE, "-o", "json", env={"PYTHONPATH": str(tmp_path)})
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert "prometheus_client" in refused.error["message"]
    assert "pipx install --force '.[http]'" in refused.error["hint"]


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("192.0.2.7:9464", "loopback"),
        ("[::]:9464", "loopback"),
        ("on", "no address of their own"),
        ("127.0.0.1", "not an address"),
        ("127.0.0.1:99999", "not an address"),
    ],
)
def test_a_place_that_will_not_do_is_refused_in_a_sentence(fleet, place, word):
    shy = fleet.node("shy")
    shy.json("init", "--name", "shy")
    refused = shy.call("up", "--no-mdns", "--metrics", place, "-o", "json")
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert word in refused.error["message"]
    assert (
        "127.0.0.1:9464" in refused.error["hint"]
        or "HOST:PORT" in refused.error["hint"]
        or ("--http" in refused.error["hint"])
    )
