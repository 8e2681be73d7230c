"""One machine, one user: from an empty home to agents that come and go."""

import json
import os
import shlex
import shutil
import signal
import subprocess

import pytest
from e2e.fleet import PROGRAM, wait_until


@pytest.fixture(scope="module")
def anna(shared_fleet):
    anna = shared_fleet.node("anna")
    anna.json("init", "--mesh", "one", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    return anna


def test_the_ready_line_names_the_node_and_its_listener(anna):
    assert anna.ready["event"] == "ready"
    assert anna.ready["name"] == "anna"
    assert anna.ready["listen"].startswith("127.0.0.1:")
    assert anna.ready["http"] is None


def test_a_session_is_listed_while_it_runs_and_its_end_is_recorded(anna):
    assert anna.call("run", "--detach", "--agent-id", "reader", "--", "cat").code == 0
    session = anna.sessions()["reader"]
    assert (session["state"], session["alive"], session["active"]) == ("running", True, True)
    assert session["pid"] > 1
    assert anna.json("kill", "reader", "--yes")["processes"]["survivors"] == []
    ended = anna.sessions()["reader"]
    assert (ended["state"], ended["alive"], ended["phase"]) == ("killed", False, "CLOSED")
    assert ended["signal"] == "SIGTERM"
    assert ended["ended_by"]


@pytest.mark.parametrize(
    ("script", "code", "state"), [("exit 0", 0, "closed"), ("exit 7", 7, "failed")]
)
def test_run_ends_with_the_code_of_its_command(anna, script, code, state):
    answer = anna.call("run", "--agent-id", f"ends-{code}", "--", "sh", "-c", script)
    assert answer.code == code
    found = wait_until(lambda: anna.sessions().get(f"ends-{code}", {}).get("ended_at") and True)
    assert found
    session = anna.sessions()[f"ends-{code}"]
    assert (session["state"], session["exit_code"]) == (state, code)


def test_a_signal_that_ends_an_agent_is_recorded(anna):
    answer = anna.call("run", "--agent-id", "shot", "--", "sh", "-c", "kill -USR1 $$")
    assert answer.code == 128 + signal.SIGUSR1
    wait_until(lambda: anna.sessions()["shot"]["ended_at"])
    assert anna.sessions()["shot"]["signal"] == "SIGUSR1"


def test_a_command_that_does_not_exist_ends_with_127(anna):
    answer = anna.call("run", "--", "no-such-program-anywhere")
    assert answer.code == 127
    assert "no-such-program-anywhere" in answer.err


def test_run_passes_input_and_output_through(anna):
    answer = anna.call("run", "--", "tr", "a-z", "A-Z", stdin="hello\n")
    assert (answer.code, answer.out) == (0, "HELLO\n")


def test_keys_never_reach_the_agent(anna):
    secret = {"SESSION_API_KEY": "smk1_secret", "SESSION_MESH_INVITE": "smj1_secret"}
    answer = anna.call("run", "--", "env", env=secret)
    assert "secret" not in answer.out
    assert "SESSION_MESH_SESSION_ID=" in answer.out


def test_logs_show_what_an_agent_wrote(anna):
    anna.call("run", "--agent-id", "talker", "--", "sh", "-c", "echo one; echo two; echo three")
    assert anna.call("logs", "talker").out == "one\ntwo\nthree\n"
    assert anna.call("logs", "talker", "--tail", "1").out == "three\n"


def test_show_prints_the_contract_fields(anna):
    anna.call("run", "--agent-id", "shown", "--title", "A title", "--label", "k=v", "--", "true")
    shown = anna.json("show", "shown")
    assert shown["title"] == "A title"
    assert shown["labels"] == {"k": "v"}
    assert (shown["messages_count"], shown["total_input_tokens"]) == (0, 0)


def test_status_says_what_this_node_may_do(anna):
    status = anna.json("status")
    assert (status["name"], status["mesh_name"], status["role"]) == ("anna", "one", "admin")


def test_an_unknown_session_is_exit_3_with_a_sentence(anna):
    answer = anna.call("show", "nobody", "-o", "json")
    assert answer.code == 3
    assert answer.error["code"] == "not_found"
    assert answer.error["hint"]


def test_a_restart_finds_its_agents_again(fleet):
    bert = fleet.node("bert")
    bert.up("--listen", "127.0.0.1:0", "--no-mdns")
    bert.call("run", "--detach", "--agent-id", "survivor", "--", "cat")
    before = bert.sessions()["survivor"]
    bert.end(signal.SIGKILL)
    bert.up()
    wait_until(lambda: bert.sessions()["survivor"]["alive"])
    after = bert.sessions()["survivor"]
    assert (after["pid"], after["state"]) == (before["pid"], "running")
    assert bert.json("steer", "survivor", "still there?")["outcome"] == "delivered"
    wait_until(lambda: "still there?" in bert.call("logs", "survivor").out)


def test_on_exit_says_what_a_signal_means_for_agents_and_down_wants_to_be_told(fleet):
    node = fleet.node("bert")
    node.json("init", "--name", "bert")
    (node.home / "config.yaml").write_text("on_exit: close\n")
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    node.call("run", "--detach", "--agent-id", "reader", "--", "cat")
    answer = node.call("down", "-o", "json")
    assert answer.code == 2
    assert answer.error["hint"] == "say --keep-sessions or --close-sessions"
    assert "on_exit" in node.call("down", "--help").out
    assert node.end(signal.SIGTERM) == 0
    assert node.json("list", "--filter", "all")["sessions"][0]["phase"] == "CLOSED"


def test_an_agent_that_ended_while_its_node_was_away_is_found_ended(fleet):
    bert = fleet.node("bert")
    bert.up("--listen", "127.0.0.1:0", "--no-mdns")
    gate = fleet.directory / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 5"
    bert.call("run", "--detach", "--agent-id", "leaver", "--", "sh", "-c", script)
    bert.end(signal.SIGKILL)
    gate.touch()
    state = bert.home / "sessions"
    wait_until(lambda: '"ended"' in next(state.glob("*/state.json")).read_text())
    bert.up()
    wait_until(lambda: bert.sessions("--filter", "all")["leaver"]["ended_at"])
    session = bert.sessions("--filter", "all")["leaver"]
    assert (session["state"], session["exit_code"]) == ("failed", 5)


def test_a_stopped_node_answers_from_its_disk(fleet):
    bert = fleet.node("bert")
    bert.up("--listen", "127.0.0.1:0", "--no-mdns")
    bert.call("run", "--detach", "--agent-id", "stays", "--", "cat")
    refused = bert.call("down", "-o", "json")
    assert refused.code == 2, "with live sessions down needs a word which"
    assert "--keep-sessions" in refused.error["hint"]
    assert bert.json("down", "--close-sessions")["closed"] == 1
    assert bert.process.wait(10) == 0
    offline = bert.call("list", "-o", "json", "--filter", "all")
    assert offline.code == 0
    assert offline.json["source"] == "disk"
    assert offline.json["sessions"][0]["state"] == "killed"
    assert bert.call("steer", "stays", "hello").code == 6


def test_a_second_up_on_the_same_home_is_refused(anna):
    answer = anna.call("up", "--listen", "127.0.0.1:0", "-o", "json")
    assert answer.code == 7
    assert "already runs" in answer.error["message"]


def test_a_second_up_with_flags_says_how_the_node_gets_them_and_that_line_does_it(fleet):
    node = fleet.node("again")
    seed = ("--seed", "192.0.2.1:7707")
    node.call("up", "--detach", "--listen", "127.0.0.1:0", "--no-mdns", "--label", "a=b c", *seed)
    node.call("run", "--detach", "--agent-id", "stays", "--", "cat")
    try:
        refused = node.call("up", "--label", "room=lab", "--http", "127.0.0.1:0", "-o", "json")
        assert refused.code == 7
        down, up = (
            shlex.split(one) for one in refused.error["hint"].partition(": ")[2].split("&&")
        )
        assert (down[0], up[0]) == ("session-mesh", "session-mesh")
        assert node.json(*down[1:])["kept"] == 1
        assert node.json(*up[1:])["http"].startswith("127.0.0.1:")
        assert node.json("nodes")["nodes"][0]["labels"] == {"a": "b c", "room": "lab"}
        assert {"--no-mdns", "192.0.2.1:7707"} <= set(up)
        assert "stays" in node.sessions("--filter", "alive")
    finally:
        node.call("down", "--close-sessions")


def test_a_port_in_use_is_refused_by_name(anna, fleet):
    other = fleet.node("other")
    answer = other.call("up", "--listen", anna.ready["listen"], "--no-mdns", "-o", "json")
    assert answer.code == 7
    assert anna.ready["listen"] in answer.error["message"]


def test_up_detach_answers_when_the_node_serves(fleet):
    bert = fleet.node("bert")
    ready = json.loads(bert.call("up", "--detach", "--listen", "127.0.0.1:0", "-o", "json").out)
    assert ready["event"] == "ready"
    assert bert.json("status")["name"] == ready["name"]
    assert bert.call("down").code == 0
    wait_until(lambda: bert.call("status").code == 6)


def test_a_node_that_a_run_has_started_stays_when_the_run_ends(fleet):
    node = fleet.node("started")
    node.home.mkdir(mode=0o700)
    (node.home / "config.yaml").write_text("listen: 127.0.0.1:0\nmdns: false\n")
    ran = node.call("run", "--agent-id", "brief", "--", "true")
    try:
        assert (ran.code, "no node was running" in ran.err) == (0, True)
        assert f"{node.home} is new, and so is its mesh" in ran.err
        assert node.call("status").code == 0
        wait_until(lambda: node.json("list", "--filter", "closed")["sessions"], "its end")
    finally:
        node.call("down")
    wait_until(lambda: node.call("status").code == 6)


def test_up_names_a_node_for_good(fleet):
    node = fleet.node("somebody")
    flags = ("up", "--detach", "--listen", "127.0.0.1:0", "--no-mdns", "-o", "json")
    refused = node.call(*flags, "--name", "not a name")
    assert (refused.code, node.home.joinpath("genesis.bin").exists()) == (2, False)
    for told, name in (
        (("--name", "carla"), "carla"),
        ((), "carla"),
        (("--name", "clara"), "clara"),
    ):
        answer = node.call(*flags, *told)
        assert answer.code == 0, answer.err
        assert answer.json["name"] == name
        assert set(node.states()) == {name}
        node.call("down")
        wait_until(lambda: node.call("status").code == 6)


def test_a_csv_of_nothing_has_the_columns_of_one_of_something(fleet):
    node = fleet.node("anna")
    node.up("--listen", "127.0.0.1:0", "--no-mdns")

    def columns(*words):
        return node.call(*words, "-o", "csv").out.splitlines()[0]

    keys = columns("keys", "list")
    node.json("keys", "new", "--ttl", "1m")
    assert columns("keys", "list") == keys
    assert columns("nodes", "--label", "no=where") == columns("nodes")
    assert columns("audit", "--kind", "order_cancelled") == columns("audit")


def test_a_node_whose_disk_has_gone_still_stops_when_told(fleet):
    bert = fleet.node("bert")
    bert.up("--listen", "127.0.0.1:0", "--no-mdns")
    # Gone in one step: the node writes there while a directory is being emptied.
    shutil.rmtree(bert.home.rename(fleet.directory / "gone"))
    assert bert.end(signal.SIGTERM) == 0


def test_flags_that_the_next_start_will_not_know_of_are_told_as_what_keeps_them(fleet):
    anna = fleet.node("anna")
    flags = ("--listen", "127.0.0.1:0", "--label", "room=007", "--no-mdns")
    up = anna.call("up", "--detach", "--name", "anna", *flags)
    assert up.code == 0
    head, *lines = up.err.splitlines()
    assert str(anna.home / "config.yaml") in head
    assert sorted(line.partition(":")[0].strip() for line in lines) == ["labels", "listen", "mdns"]
    assert anna.call("down").code == 0
    kept = "\n".join(line.strip() for line in lines)
    assert anna.call("load-config", "-", stdin=kept).code == 0
    for again in ((), flags):
        up = anna.call("up", "--detach", *again)
        assert (up.code, up.err) == (0, "")
        assert anna.json("nodes")["nodes"][0]["labels"] == {"room": "007"}
        assert anna.call("down").code == 0


@pytest.mark.parametrize("taker", ["full", "gone"])
def test_a_node_whose_line_nobody_takes_is_up_and_says_so(fleet, taker):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    read, written = os.pipe()
    if taker == "full":
        os.close(written)
        written = os.open("/dev/full", os.O_WRONLY)
    os.close(read)
    up = [PROGRAM, "up", "--listen", "127.0.0.1:0", "--no-mdns"]
    with subprocess.Popen(
        up, env=node.environment, stdout=written, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(written)
        try:
            said = process.stderr.readline()
            assert "the node is up; the line that says so could not be written" in said
            assert node.json("status")["name"] == "anna"
        finally:
            process.terminate()
        assert (process.wait(), process.stderr.read()) == (0, "")
