"""What Prometheus reads of a node, and what the rules and the dashboard that we ship make of it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, wait_until
from e2e.web import API, Door, door_of, key_of, started

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMTOOL = shutil.which("promtool")
OURS = (
    *("sessions_active", "sessions_created_total", "session_duration_seconds"),
    *("messages_per_session", "session_reconnects_total", "session_errors_total"),
    *("session_timeouts_total", "pool_exhaustion_events_total", "rate_limited_total"),
    *("commands_total", "command_seconds", "members", "links", "feed_flushes_total"),
    *("feed_bytes_total", "dissemination_seconds", "accusations_total", "loop_lag_seconds"),
    *("tokens_total", "cost_usd_total"),
)
SEEDS = (
    *("active_sessions", "total_sessions_created", "session_duration_seconds"),
    *("messages_per_session", "pool_exhaustion_events", "agentgateway_sessions_active"),
    *("agentgateway_sessions_created_total", "agentgateway_session_duration_seconds"),
    *("agentgateway_session_reconnects_total", "agentgateway_session_errors_total"),
    *("agentgateway_session_timeouts_total",),
)
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing; on Debian or Ubuntu: apt install prometheus"
)


@pytest.fixture(scope="module")
def pair(shared_fleet):
    flags = ("--no-mdns", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    return shared_fleet.mesh("watched", "other", flags=flags)


@pytest.fixture(scope="module")
def node(pair):
    watched, _other = pair
    return watched


@pytest.fixture(scope="module")
def alone(node):
    return Door(node.ready["metrics"])


def page(alone) -> str:
    reply = alone.ask("GET", "/metrics")
    assert (reply.status, reply.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    return reply.content.decode()


def values(alone) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in page(alone).splitlines() if line[:1] != "#"]
    return {name: float(value) for name, _, value in lines}


def test_every_metric_that_was_promised_is_there_with_its_help(alone):
    text = page(alone)
    for name in (*(f"session_mesh_{one}" for one in OURS), *SEEDS):
        assert re.search(rf"^# HELP {name} [A-Z].+\.$", text, re.MULTILINE), name
        assert re.search(rf"^# TYPE {name} \w+$", text, re.MULTILINE), name


def test_what_happens_is_counted(pair, alone):
    node, other = pair
    started(other, "elsewhere", seen_by=node)
    before = values(alone)
    started(node, "counted")
    door = door_of(node)
    assert door.ask("POST", f"{API}/steer", {"agent_id": "counted", "message": "on"}).status == 200
    wait_until(lambda: values(alone)["session_mesh_sessions_active"] == 1)
    assert door.ask("DELETE", f"{API}/agents/counted?force=true").status == 200
    wait_until(lambda: values(alone)["session_mesh_session_duration_seconds_count"] == 1)
    after = values(alone)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert grown("session_mesh_sessions_created_total") == 1
    assert grown("total_sessions_created") == 1
    assert after["session_mesh_sessions_active"] == 0
    assert grown("session_mesh_messages_per_session_sum") == 1
    assert grown('session_mesh_commands_total{action="steer",outcome="delivered"}') == 1
    assert grown('session_mesh_commands_total{action="kill",outcome="applied"}') == 1
    assert grown("session_mesh_command_seconds_count") == 2
    assert grown('session_mesh_feed_flushes_total{direction="out"}') >= 2
    assert grown('session_mesh_feed_bytes_total{direction="out"}') > 100
    assert after['session_mesh_members{state="alive"}'] == 2
    assert after["session_mesh_links"] == 1
    assert after['session_mesh_feed_flushes_total{direction="in"}'] >= 1
    assert after["session_mesh_dissemination_seconds_count"] >= 1


def test_what_agents_use_is_counted_by_their_owner_alone(pair, alone):
    node, other = pair
    used = ("--model", "gpt-5", "--input", "1000", "--output", "10", "--id", "r1")
    ran = node.call("run", "--agent-id", "spender", "--", PROGRAM, "report", *used)
    assert ran.code == 0, ran.err
    tokens = 'session_mesh_tokens_total{bucket="input",model="gpt-5"}'
    wait_until(lambda: values(alone).get(tokens) == 1000)
    assert values(alone)['session_mesh_cost_usd_total{model="gpt-5"}'] > 0
    elsewhere = door_of(other)

    def known() -> bool:
        answer = elsewhere.ask("GET", f"{API}/cost?by=model&since=1h&node={node.name}").json
        return [group["usage"]["input"] for group in answer["groups"]] == [1000]

    wait_until(known, "the other node to know")
    assert tokens not in values(Door(other.ready["metrics"]))
    assert elsewhere.ask("GET", f"{API}/cost?node=nobody").code == "not_found"
    assert elsewhere.ask("GET", f"{API}/cost?by=colour").code == "usage"
    assert "usage --by block" in elsewhere.ask("GET", f"{API}/cost?by=block").json["hint"]


def test_metrics_need_a_key_for_them_where_the_rest_is_served(node, alone):
    door = door_of(node)
    assert door.ask("GET", "/metrics").code == "not_permitted"
    assert door.with_key("").ask("GET", "/metrics").status == 401
    reader = door.with_key(key_of(node, "--action", "metrics"))
    assert b"session_mesh_links 1.0" in reader.ask("GET", "/metrics").content
    assert reader.ask("GET", f"{API}/alive").code == "not_permitted"
    assert alone.ask("GET", "/metrics", Host="evil.example.com").code == "host"
    assert alone.ask("GET", f"{API}/alive").code == "not_found"
    assert alone.ask("POST", "/metrics", b"").code == "method_not_allowed"


def test_metrics_without_a_key_do_not_leave_this_machine(fleet):
    node = fleet.node("shy")
    node.json("init", "--name", "shy")
    refused = node.call("up", "--no-mdns", "--metrics", "0.0.0.0:9090", "-o", "json")
    assert (refused.code, refused.error["code"]) == (2, "usage")


@needs_promtool
def test_prometheus_finds_nothing_to_complain_about(alone):
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"],
        input=page(alone),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_promtool
def test_the_rules_fire_when_they_should_and_not_else():
    for words in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run(
            [PROMTOOL, *words],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def panels() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "session-mesh.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@needs_promtool
def test_panels_of_the_ledger_do_not_count_it_anew_after_a_correction(tmp_path):
    windows = {"24h": (1440, 1440.0), "1h": (60, 60.0), "5m": (5, 1 / 60)}  # minutes; of 1 a minute
    asked = [one for one in panels() if re.search("cost_usd_total|tokens_total", one)]
    assert len(asked) == len(windows)
    tests = []
    for expression in asked:
        minutes, spent = windows[re.search(r"\[(\w+)\]", expression)[1]]
        labels = "{model='m'}" if "by (model)" in expression else "{}"
        cases = (("4000x5 3999x2000", minutes + 3, 0), ("4000+1x2000", 2000, spent))
        for values, at_minute, value in cases:
            names = "session_mesh_cost_usd_total", "session_mesh_tokens_total"
            given = [{"series": f"{name}{{model='m'}}", "values": values} for name in names]
            told = {"expr": expression, "eval_time": f"{at_minute}m"}
            told["exp_samples"] = [{"labels": labels, "value": value}]
            tests.append({"interval": "1m", "input_series": given, "promql_expr_test": [told]})
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"evaluation_interval": "1m", "tests": tests}))
    words = [PROMTOOL, "test", "rules", path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_ask_for_metrics_that_there_are(alone):
    text = page(alone)
    asked = panels()
    asked.append((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    names = {name for one in asked for name in re.findall(r"session_mesh_\w+", one)}
    assert len(names) > 15
    for name in names:
        base = name.removesuffix("_bucket")
        assert f"# TYPE {base} " in text, name
