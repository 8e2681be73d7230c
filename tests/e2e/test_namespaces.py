"""A node and its user in PID namespaces of their own, as where a container shares its home."""

import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress

import pytest
from e2e.bad_input.refusal import LOCAL
from e2e.fleet import PROGRAM, wait_until

from meshnode.agents.namespaces import listener_of

INSIDE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
APART = "another PID namespace"


@pytest.fixture
def anna(fleet):
    done = subprocess.run([*INSIDE, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"PID namespaces are not permitted here: {done.stderr.strip()}")
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    return anna


@contextmanager
def contained_node(anna):
    """Let the node run in a namespace of its own, as the first process there."""
    words = [*INSIDE, PROGRAM, "up", "-o", "json", *LOCAL]
    with subprocess.Popen(words, env=anna.environment, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert json.loads(node.stdout.readline())
            yield
        finally:
            node.kill()


@pytest.fixture
def contained(anna):
    with contained_node(anna):
        yield anna


@pytest.fixture
def left_outside(anna):
    """An agent that was started outside, before the node was started inside; its pid."""
    anna.up(*LOCAL)
    assert anna.call("run", "--detach", "--agent-id", "w", "--", "sleep", "601").code == 0
    pid = anna.sessions()["w"]["pid"]
    anna.json("down", "--keep-sessions")
    anna.wait()
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_what_sees_no_process_of_the_node_is_refused_and_changes_nothing(contained, tmp_path):
    started = tmp_path / "started"
    for words, code in (
        (("run", "--", "touch", str(started)), 125),
        (("run", "--detach", "--", "touch", str(started)), 8),
        (("down",), 8),
        (("leave", "--yes"), 8),
    ):
        answer = contained.call(*words)
        assert (answer.code, APART in answer.err, "docker exec" in answer.err) == (code, True, True)
    assert not started.exists()
    assert contained.sessions("--filter", "all") == {}
    up = contained.call("up", *LOCAL)
    assert (up.code, APART in up.err, "docker exec" in up.err) == (7, True, True)
    assert "session-mesh down" not in up.err, "which would be refused"


def test_what_the_node_does_itself_is_done_whoever_asks(contained):
    pid = listener_of(contained.home / "run" / "node.sock")
    words = ["nsenter", "--target", str(pid), "--pid", "--mount", PROGRAM, "run", "--detach"]
    words += ["--agent-id", "w", "--", "sleep", "601"]
    subprocess.run(words, env=contained.environment, stdout=subprocess.DEVNULL, check=True)
    for order in (("steer", "w", "hello"), ("kill", "w", "--yes")):
        assert contained.call(*order).code == 0
    assert contained.sessions("--filter", "all")["w"]["state"] == "killed"


def test_doctor_says_that_the_node_is_elsewhere(contained):
    checks = {one["id"]: one for one in contained.json("doctor")["checks"]}
    assert checks["pid_namespace"]["ok"] is None
    assert APART in checks["pid_namespace"]["detail"]
    assert "docker exec" in checks["pid_namespace"]["fix"]


def test_doctor_names_no_foreign_pid_of_a_silent_node(contained):
    listener = contained.home / "run" / "node.sock"
    pid = listener_of(listener)
    os.kill(pid, signal.SIGSTOP)
    try:
        answer = contained.call("doctor", "-o", "json")
    finally:
        os.kill(pid, signal.SIGCONT)
    check = next(one for one in answer.json["checks"] if one["id"] == "node")
    assert check["ok"] is False
    assert APART in check["detail"]
    assert "kill" not in check["fix"]


def alarms_of(node):
    return [one["id"] for one in node.json("status")["alarms"]]


def test_an_agent_outside_is_never_told_failed_and_takes_no_order(anna, left_outside):
    with contained_node(anna):
        wait_until(lambda: alarms_of(anna) == ["agents_elsewhere"], "the alarm")
        for order in (("steer", "w", "hello"), ("kill", "w", "--yes"), ("suspend", "w")):
            answer = anna.call(*order)
            assert (answer.code, APART in answer.out + answer.err) == (8, True), answer
        assert anna.sessions("--filter", "all")["w"]["state"] == "running"
        os.kill(left_outside, 0)
    anna.up(*LOCAL)
    wait_until(lambda: anna.call("kill", "w", "--yes").code == 0, "its node to reach it")
    assert alarms_of(anna) == []


def test_what_ends_outside_is_told_as_it_ended(anna, left_outside):
    with contained_node(anna):
        wait_until(lambda: alarms_of(anna) == ["agents_elsewhere"], "the alarm")
        os.kill(left_outside, signal.SIGKILL)
        wait_until(lambda: anna.sessions("--filter", "all")["w"]["signal"] == "SIGKILL")
        assert alarms_of(anna) == []
