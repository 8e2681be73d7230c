"""Budgets over a mesh of real nodes: set on one, spent on others, held where the agents run."""

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from e2e.clocks import clock_library_in, with_clock_off
from e2e.fleet import wait_until

REPORT = "session-mesh report --model gpt-4o --input {tokens} --output 0 --id {name}"
IDLE = "while read line; do eval $line; done"


def run(node, agent, *flags, tokens=0, code=0):
    """Let an agent run that reports what it has used, and then does what it is told."""
    script = f"{REPORT.format(tokens=tokens, name='first')}; {IDLE}" if tokens else IDLE
    words = ("run", "--detach", "--agent-id", agent, *flags, "--", "sh", "-c", script)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    answer = node.call(*words, env={"PATH": path})
    assert answer.code == code, answer.err
    return answer


def state_of(node, agent):
    return node.sessions("--filter", "all").get(agent, {}).get("state")


def budget_of(node, name):
    found = {one["name"]: one for one in node.json("budget", "list")["budgets"]}
    return found.get(name, {})


def told_of(node):
    events = node.call("events", "--kind", "budget", "-o", "json").out.splitlines()
    return [json.loads(one)["op"] for one in events]


def suspended(node, agent):
    wait_until(lambda: state_of(node, agent) == "suspended", f"{agent} to be suspended")


@pytest.mark.timeout(400)
def test_a_budget_that_one_node_sets_holds_an_agent_on_another(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    said = anna.json("budget", "set", "team", "--limit", "1ktok", "--per", "day", "--owner", "olga")
    assert (said["limit"], said["state"], said["percent"]) == ("1ktok", "ok", 0)
    wait_until(lambda: budget_of(carl, "team"))
    run(berta, "spared", "--owner", "otto", tokens=5000)
    run(carl, "worker", "--owner", "olga")
    run(berta, "spender", "--owner", "olga", tokens=800)
    for node in (anna, berta, carl):
        wait_until(lambda node=node: budget_of(node, "team").get("state") == "warned", node.name)
    wait_until(lambda: told_of(anna) == ["added", "warned"])  # each node tells once a second
    assert anna.json("steer", "worker", REPORT.format(tokens=300, name="more"))

    suspended(anna, "worker")
    suspended(anna, "spender")
    assert state_of(anna, "spared") == "running"
    wait_until(lambda: "suspended: budget team: " in anna.call("show", "worker").out)
    team = wait_until(lambda: found if len((found := budget_of(berta, "team"))["held"]) == 2 else 0)
    assert {one["agent_id"] for one in team["held"]} == {"worker", "spender"}
    assert (team["spent_tokens"], team["percent"], team["state"]) == (1100, 110, "exceeded")
    assert (team["nodes_heard"], team["nodes_known"]) == (3, 3)
    refused = run(carl, "late", "--owner", "olga", code=8)
    assert "budget team is exceeded" in refused.err
    in_front = carl.call("run", "--agent-id", "late", "--owner", "olga", "--", "true")
    assert (in_front.code, "budget team is exceeded" in in_front.err) == (125, True)
    run(carl, "other", "--owner", "otto")

    assert told_of(anna) == ["added", "warned", "exceeded"]
    audited = [one for one in carl.json("audit")["records"] if one["kind"] == "budget_enforced"]
    assert [(one["action"], one["outcome"]) for one in audited] == [("suspend", "applied")]
    assert audited[0]["agent_id"] == "worker"
    assert "team exceeded" in carl.call("status").out
    assert any(one["id"] == "budgets" for one in carl.json("doctor")["checks"])
    for words in (("-o", "yaml"), ("-o", "csv"), ("-q",), ()):
        assert "team" in berta.call("budget", "list", *words).out

    restarted_and_resumed(anna, carl)
    assert berta.call("budget", "remove", "team", "--yes").code == 5, "an admin has set it"
    assert anna.call("budget", "remove", "team").code == 2, "nobody can be asked here"
    assert anna.json("budget", "remove", "team", "--yes")["name"] == "team"
    assert anna.call("budget", "remove", "team", "--yes").code == 3
    run(anna, "late", "--owner", "olga")
    wait_until(lambda: told_of(anna)[-2:] == ["lifted", "removed"])


def restarted_and_resumed(anna, carl):
    """Who was held stays so over a restart; who is resumed runs on, also over a restart."""
    carl.end()
    carl.up()
    wait_until(lambda: anna.states()["carl"] == "alive")
    assert state_of(anna, "worker") == "suspended"
    assert anna.json("resume", "worker")["outcome"] == "applied"
    carl.end()
    carl.up()
    wait_until(lambda: budget_of(carl, "team").get("nodes_heard") == 3)
    wait_until(lambda: state_of(anna, "worker") == "running")
    said = carl.json("steer", "worker", REPORT.format(tokens=1, name="again"))
    assert said["outcome"] in {"delivered", "queued"}
    wait_until(lambda: budget_of(carl, "team")["spent_tokens"] == 1101)
    enforced = [one for one in carl.json("audit")["records"] if one["kind"] == "budget_enforced"]
    assert (len(enforced), state_of(anna, "worker")) == (1, "running")


def test_a_close_that_fails_lifts_no_hold(fleet):
    anna = fleet.mesh("anna")[0]
    anna.json("budget", "set", "team", "--limit", "1ktok", "--per", "day")
    report = REPORT.format(tokens=2000, name="first")
    deaf = f"trap '' TERM; {report}; while :; do sleep 0.1; done"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ("run", "--detach", "--agent-id", "deaf", "--", "sh", "-c", deaf)
    assert anna.call(*words, env={"PATH": path}).code == 0
    suspended(anna, "deaf")
    closed = anna.call("close", "deaf", "--grace", "0s", "-o", "json")
    assert (closed.code, closed.json["outcome"]) == (1, "failed")
    assert "it is suspended again" in closed.json["detail"]
    assert state_of(anna, "deaf") == "suspended"
    assert [one["agent_id"] for one in budget_of(anna, "team")["held"]] == ["deaf"]


@pytest.mark.timeout(400)
def test_a_kill_takes_the_whole_mesh_to_be_heard(fleet, tmp_path):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    log = tmp_path / "access.log"
    log.touch()
    carl.end()
    (carl.home / "config.yaml").write_text(f"ingest: [{{source: higress, path: {log}}}]\n")
    carl.up()
    anna.json(
        "budget",
        "set",
        "crawl",
        "--limit",
        "0.001usd",
        "--per",
        "month",
        "--then",
        "kill",
        "--spec",
        "crawl",
    )
    run(berta, "crawler", "--spec", "crawl")
    run(berta, "reader", "--spec", "read")
    wait_until(lambda: "crawler" in carl.sessions())
    log.write_text(called(carl.sessions()["crawler"]["session_id"]))
    wait_until(lambda: state_of(anna, "crawler") == "killed")
    assert state_of(anna, "reader") == "running"
    crawl = budget_of(anna, "crawl")
    assert (crawl["spent_usd"], crawl["state"]) == ("0.0025", "exceeded")

    carl.end(signal.SIGKILL)
    wait_until(lambda: anna.states()["carl"] != "alive")
    anna.json(
        "budget",
        "set",
        "read",
        "--limit",
        "10tok",
        "--per",
        "day",
        "--then",
        "kill",
        "--spec",
        "read",
    )
    assert berta.json("steer", "reader", REPORT.format(tokens=20, name="one"))
    suspended(anna, "reader")
    told = wait_until(
        lambda: [one for one in berta.json("audit")["records"] if one["action"] == "suspend"]
    )
    assert "2 of 3 nodes heard" in told[0]["detail"]
    assert "suspended instead of killed" in told[0]["detail"]
    assert "2 of 3 nodes heard" in berta.call("budget").err


@pytest.mark.timeout(400)
def test_an_owner_that_is_cut_off_enforces_what_it_knows(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    anna.json("budget", "set", "team", "--limit", "1ktok", "--per", "day", "--then", "kill")
    wait_until(lambda: budget_of(berta, "team"))
    run(berta, "worker")
    for node in (anna, carl):
        node.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: set(berta.states().values()) == {"alive", "unreachable"})
        berta.json("steer", "worker", REPORT.format(tokens=2000, name="one"))
        suspended(berta, "worker")
        team = budget_of(berta, "team")
        assert (team["nodes_heard"], team["nodes_known"]) == (1, 3)
        assert "1 of 3 nodes heard" in team["reason"]
    finally:
        for node in (anna, carl):
            node.process.send_signal(signal.SIGCONT)
    wait_until(lambda: budget_of(berta, "team")["nodes_heard"] == 3)
    assert state_of(berta, "worker") == "suspended", "one action a window"
    inside = berta.json("budget", "list")["budgets"][0]["held"]
    assert [one["agent_id"] for one in inside] == ["worker"]


def called(session_id):
    """One line of a Higress log."""
    ai = {"session_id": session_id, "chat_id": "c1", "model": "gpt-4o", "input_token": 1000}
    ai |= {"output_token": 0, "total_token": 1000, "response_type": "normal"}
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return json.dumps({"ai_log": json.dumps(ai), "request_id": "r1", "start_time": at}) + "\n"


@pytest.mark.timeout(180)
def test_a_budget_that_was_set_by_a_clock_ahead_is_named_and_another_name_counts(fleet):
    alone = with_clock_off(fleet, "alone", clock_library_in(fleet.directory), 0)
    limit = ("--limit", "1ktok", "--per", "day")
    alone.up("--no-mdns")
    alone.json("budget", "set", "team", *limit)
    alone.end()
    alone.extra["SM_TEST_CLOCK_OFFSET_S"] = str(5 * 86400)
    alone.up()
    assert alone.json("budget", "set", "team", *limit)["state"] == "ok", "as far as it can tell"
    alone.end()
    alone.extra["SM_TEST_CLOCK_OFFSET_S"] = "0"
    alone.up()
    listed = alone.json("budget", "list")
    assert (listed["budgets"], [one["name"] for one in listed["ahead"]]) == ([], ["team"])
    assert "team does not count before" in alone.call("budget", "list").err
    for words in (("set", "team", *limit), ("remove", "team", "--yes")):
        refused = alone.call("budget", *words, "-o", "json")
        assert (refused.code, refused.error["code"]) == (7, "conflict")
        assert listed["ahead"][0]["issued_at"] in refused.error["message"]
    assert alone.json("budget", "set", "team2", *limit)["state"] == "ok"
