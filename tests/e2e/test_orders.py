"""Orders that leave an agent alive, orders to many, and orders that wait: with real processes."""

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from time import time

import pytest
from e2e.caller import Caller
from e2e.clocks import clock_library_in, with_clock_off
from e2e.doctoring import free_port
from e2e.fleet import wait_until

from meshnode.client.commands.fanning import AT_ONCE
from meshnode.store import journal

READER = "echo ready; while read line; do echo got $line; done; echo bye"
TREE = f"(sleep 1000 & echo child $!; wait) & {READER}"


def state_in_proc(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def run(node, agent, *flags, script=READER):
    answer = node.call("run", "--detach", "--agent-id", agent, *flags, "--", "sh", "-c", script)
    assert answer.code == 0, answer.err


@pytest.mark.timeout(180)
def test_an_agent_is_suspended_resumed_and_closed_from_another_node(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    run(berta, "worker", script=TREE)
    wait_until(lambda: "worker" in anna.sessions("--filter", "alive"))
    wait_until(lambda: "child" in anna.call("logs", "worker").out)
    pid = anna.sessions()["worker"]["pid"]
    child = int(anna.call("logs", "worker").out.partition("child ")[2].split()[0])

    said = anna.json("suspend", "worker")
    assert (said["outcome"], said["receipt_verified"]) == ("applied", True)
    assert [state_in_proc(one) for one in (pid, child)] == ["T", "T"]
    wait_until(lambda: anna.sessions("--filter", "suspended"))
    session = anna.sessions()["worker"]
    assert (session["state"], session["phase"]) == ("suspended", "SUSPENDED")
    assert (session["alive"], session["active"]) == (True, False)
    assert "suspended" in anna.call("show", "worker").out

    berta.end()
    berta.up()
    wait_until(lambda: anna.sessions().get("worker", {}).get("state") == "suspended")
    assert state_in_proc(pid) == "T"
    assert anna.json("steer", "worker", "good morning")["outcome"] == "queued"

    assert anna.json("resume", "berta/worker")["outcome"] == "applied"
    wait_until(lambda: "got good morning" in anna.call("logs", "worker").out)
    wait_until(lambda: anna.sessions()["worker"]["state"] == "running")
    assert anna.json("resume", "worker")["detail"] == "it was not suspended"

    said = anna.json("close", "worker", "--grace", "10s")
    assert (said["outcome"], said["processes"]["survivors"]) == ("applied", [])
    wait_until(lambda: anna.sessions("--filter", "closed"))
    session = anna.sessions("--filter", "all")["worker"]
    assert (session["state"], session["end_reason"]) == ("closed", "closed by command")
    assert session["ended_by"]
    assert not Path(f"/proc/{child}").exists()
    told = anna.call("events", "worker").out
    for change in ("running → suspended", "suspended → running", "running → closed"):
        assert change in told
    for verb in ("suspend", "resume"):
        assert anna.call(verb, "worker").code == 7
    assert anna.json("close", "worker")["detail"] == "already ended"
    assert anna.call("suspend", "nobody").code == 3


@pytest.mark.timeout(240)
def test_all_of_a_kind_are_killed_and_orders_wait_for_those_that_are_away(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    for node in (anna, berta, carl):
        run(node, f"of-{node.name}", "--spec", "crawler")
    run(carl, "spared", "--spec", "keeper")
    for node in (anna, berta):
        wait_until(lambda node=node: len(node.sessions("--filter", "alive")) == 4, node.name)
    carl.end(signal.SIGKILL)
    wait_until(lambda: anna.states()["carl"] != "alive")

    shown = anna.json("kill", "--all", "--spec", "crawler", "--dry-run")
    assert {one["agent_id"] for one in shown["sessions"]} == {"of-anna", "of-berta", "of-carl"}
    partial = anna.call("kill", "--all", "--spec", "crawler", "--yes", "-o", "json")
    assert partial.code == 6, partial.err
    outcomes = {one["agent_id"]: one["outcome"] for one in partial.json["results"]}
    assert outcomes == {"of-anna": "applied", "of-berta": "applied", "of-carl": "unreachable"}
    assert partial.json["summary"]["started_meanwhile"] == []
    missing = partial.json["coverage"]["missing"]
    assert [one["node_name"] for one in missing] == ["carl"]
    slip = anna.call("kill", "--all", "--spec", "crawlr", "--yes", "-o", "json")
    assert (slip.code, "2 of 3 nodes heard" in slip.error["hint"]) == (3, True)
    assert 'did you mean "crawler"?' in slip.error["message"]

    alone = anna.call("kill", "of-carl", "--yes", "-o", "json")
    assert alone.code == 6
    assert "--standing" in alone.error["hint"]
    parked = anna.json("kill", "--all", "--spec", "crawler", "--yes", "--standing")
    assert [one["outcome"] for one in parked["results"]] == ["parked"]
    assert parked["standing"]["order_id"]
    spared = order_for("spared", anna, berta)
    assert {one["session_agent_id"] for one in anna.json("orders")["orders"]} >= {"spared"}
    carl.up()
    for node in (anna, carl):
        wait_until(
            lambda node=node: (
                node.sessions("--filter", "all").get("of-carl", {}).get("state") == "killed"
            ),
            node.name,
        )
    wait_until(lambda: carl.sessions()["spared"]["state"] == "running")
    check_what_became(anna, carl, spared, parked["results"][0]["order_id"])
    carl.end()
    carl.up()
    wait_until(lambda: anna.states()["carl"] == "alive")
    run(carl, "of-carl", "--spec", "crawler")
    wait_until(lambda: anna.sessions("--filter", "alive").keys() >= {"of-carl", "spared"})
    anna.json("kill", "--all", "--yes")
    wait_until(lambda: not anna.sessions("--filter", "alive"))


@pytest.mark.timeout(180)
def test_an_interrupted_kill_orders_no_further_ones_and_tells_of_all(fleet, tmp_path):
    (anna,) = fleet.mesh("anna")
    may_end = tmp_path / "may-end"
    slow = f"trap 'while [ ! -e {may_end} ]; do sleep 0.1; done; exit' TERM; echo set; {READER}"
    for number in range(AT_ONCE + 1):
        run(anna, f"slow{number}", script=slow)
    wait_until(lambda: all("set" in anna.call("logs", one).out for one in anna.sessions()))
    with Caller(anna, "--all", "--yes", "--grace", "50s", verb="kill") as caller:
        caller.resize(100, 40)
        caller.sees(b"s for what comes of it; Ctrl-C orders no further ones")
        caller.type(b"\x03")
        caller.sees(b"interrupted: waiting for those under way")
        may_end.touch()
        for _ in range(AT_ONCE):
            caller.sees(b"applied")
        caller.sees(b"not_ordered")
        assert caller.ends() == 130
    assert [one["state"] for one in anna.sessions("--filter", "all").values()].count("killed") == 16
    assert len(anna.sessions("--filter", "alive")) == 1


def order_for(agent, anna, berta):
    """Leave an order and take it back; another operator cannot. Returns its id."""
    spared = anna.json("kill", agent, "--yes", "--standing", "--expires", "1h")
    assert spared["outcome"] == "parked"
    wait_until(lambda: len(berta.json("orders")["orders"]) == 3)
    mine = spared["order_id"][:10]
    refused = berta.call("orders", "cancel", mine, "--yes", "-o", "json")
    assert refused.code == 5
    assert "only who has left it" in refused.error["hint"]
    assert anna.call("orders", "cancel", mine).code == 2, "nobody can be asked here"
    assert anna.json("orders", "cancel", mine, "--yes")["state"] == "cancelled"
    assert anna.call("orders", "cancel", mine, "--yes").code == 7
    assert anna.call("orders", "cancel", "a" * 26, "--yes").code == 3
    return str(spared["order_id"])


def check_what_became(anna, carl, spared, done):
    """One order was carried out; what became of it is said everywhere that a person looks."""
    orders = wait_until(
        lambda: [one for one in anna.json("orders", "list")["orders"] if one["results"]]
    )
    assert [one["results"][0]["outcome"] for one in orders] == ["applied"]
    states = {one["order_id"]: one["state"] for one in anna.json("orders")["orders"]}
    assert states[spared] == "cancelled"
    assert states[done] == "done"
    told = anna.call("events", "of-carl").out
    assert "unreachable → running" in told
    assert "→ killed" in told
    assert "applied 1 process is gone" in told
    audited = carl.call("audit", "-o", "json").out
    assert '"standing_kill"' in audited


def clock_shown(node) -> float:
    with closing(sqlite3.connect(node.home / "state.db")) as database:
        return journal.floor(database)


@pytest.mark.timeout(180)
def test_after_a_clock_that_was_ahead_the_node_says_so_and_a_standing_kill_ends_an_agent(fleet):
    alone = with_clock_off(fleet, "alone", clock_library_in(fleet.directory), 0)
    alone.up("--listen", f"127.0.0.1:{free_port()}", "--no-mdns")  # one that an invite names
    run(alone, "worker")
    earlier = alone.json("invite")["invite"]
    for ahead_s in (30 * 3600, 0):
        alone.end()
        alone.extra["SM_TEST_CLOCK_OFFSET_S"] = str(ahead_s)
        alone.up()
        wait_until(lambda: clock_shown(alone) > time() + 29 * 3600, "the clock to be noted")
    wait_until(lambda: [one["id"] for one in alone.json("status")["alarms"]] == ["clock"])
    checks = {one["id"]: one for one in alone.call("doctor", "-o", "json").json["checks"]}
    assert checks["alarm:clock"]["ok"] is False
    assert alone.call("steer", "worker", "north", "-o", "json").code == 8
    refused = alone.call("kill", "worker", "--yes", "-o", "json")
    assert (refused.code, refused.error["code"]) == (6, "expired")
    assert "has shown" in refused.error["message"]
    assert "--standing" in refused.error["hint"]
    assert alone.json("kill", "worker", "--standing", "--yes")["outcome"] == "parked"
    wait_until(lambda: alone.sessions("--filter", "all")["worker"]["state"] == "killed")
    joiner = fleet.node("joiner")
    refused = joiner.call("join", "-", "-o", "json", stdin=earlier)
    assert (refused.code, "has shown" in refused.error["message"]) == (5, True)
    assert joiner.call("join", "-", stdin=alone.json("invite")["invite"]).code == 0
