"""`run --pty`: an agent in a terminal of its own, and the caller's terminal while it has it."""

import signal
import subprocess
import sys

import psutil
import pytest
from e2e.caller import Caller
from e2e.fleet import PATIENCE_S, PROGRAM, Fleet, Node, wait_until

pytestmark = pytest.mark.e2e
TYPIST = """
import os, signal, sys
def size(*_):
    at = os.get_terminal_size()
    print(f"size {at.columns}x{at.lines}", flush=True)
signal.signal(signal.SIGWINCH, size)
print(*(os.isatty(fd) for fd in (0, 1, 2)), os.tcgetpgrp(0) == os.getpgrp(), flush=True)
size()
for line in sys.stdin:
    print("heard", line, end="", flush=True)
print("the end", flush=True)
"""
KEYS = """
import sys, tty, os
tty.setraw(0)
print("ready", end="", flush=True)
while (key := os.read(0, 64)) != b"q":
    os.write(1, b"<" + key.hex().encode() + b">")
"""
LAST_WORD = """
import os
print("ready", flush=True)
while open(f"/proc/{os.getppid()}/stat").read().rpartition(") ")[2][0] != "T":
    pass
print("bye", flush=True)
"""


@pytest.fixture(scope="module")
def anna(shared_fleet: Fleet) -> Node:
    return shared_fleet.mesh("anna")[0]


def python(code: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-c", code)


def test_an_agent_has_a_terminal_as_large_as_its_callers(anna: Node):
    with Caller(anna, "--pty", "--agent-id", "typist", *python(TYPIST)) as caller:
        caller.sees(b"True True True True\r\nsize 100x30\r\n")
        assert caller.is_raw
        caller.resize(120, 40)
        caller.sees(b"size 120x40\r\n")
        caller.type(b"hello\r")
        caller.sees(b"heard hello\r\n")
        anna.json("steer", "typist", "look\tat\x03 the test")
        caller.sees(b"heard look at  the test\r\n")
        session = anna.json("show", "typist")
        assert session["adapter"] == "pty"
        caller.type(b"\x04")
        caller.sees(b"the end\r\n")
        assert caller.ends() == 0
    assert "heard look at  the test" in anna.call("logs", "typist").out


def test_keys_reach_the_agent_and_not_us(anna: Node):
    with Caller(anna, "--pty", "--agent-id", "keys", *python(KEYS)) as caller:
        caller.sees(b"ready")
        for key in (b"\x03", b"\x1a", b"\x1c", b"\x1b[A", b"\r"):
            caller.type(key)
            caller.sees(b"<" + key.hex().encode() + b">")
        anna.json("steer", "keys", "go")
        caller.sees(b"<676f0d>")
        caller.type(b"q")
        assert caller.ends() == 0
    with Caller(anna, "--pty", "--agent-id", "cooked", *python(TYPIST)) as caller:
        caller.sees(b"size")
        caller.type(b"\x03")
        assert caller.ends() == 128 + signal.SIGINT


def test_what_we_say_ourselves_begins_and_ends_a_line(anna: Node):
    with Caller(anna, "--pty", "--agent-id", "held", *python(TYPIST)) as caller:
        caller.sees(b"size")
        assert caller.is_raw
        anna.json("suspend", "held")
        caller.sees(b"\nsession-mesh: the agent is suspended: session-mesh resume ")
        caller.sees(b"\r\n")
        anna.json("kill", "held", "--force")
        assert caller.ends() == 137


@pytest.mark.parametrize("how", ["kill", "timeout", "idle-timeout", "term", "no command"])
def test_the_callers_terminal_is_given_back_however_it_ends(anna: Node, how: str):
    limits = (f"--{how}", "1s") if how.endswith("timeout") else ()
    command = ("--", "/no/such") if how == "no command" else python(TYPIST)
    agent = how.replace(" ", "-")
    with Caller(anna, "--pty", "--agent-id", agent, *limits, *command) as caller:
        if how in {"kill", "term"}:
            caller.sees(b"size")
            assert caller.is_raw
        if how == "kill":
            anna.json("kill", agent, "--force")
        if how == "term":
            caller.process.send_signal(signal.SIGTERM)
        codes = {"kill": 137, "term": 143, "no command": 127}
        assert caller.ends() == codes.get(how, 124)


def test_a_last_word_is_shown_before_the_terminal_is_given_back(anna: Node):
    with Caller(anna, "--pty", *python(LAST_WORD)) as caller:
        caller.sees(b"ready\r\n")
        (agent,) = psutil.Process(caller.process.pid).children()
        caller.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: agent.status() == psutil.STATUS_ZOMBIE)
        caller.process.send_signal(signal.SIGCONT)  # it finds both at once, the word and the end
        caller.sees(b"bye\r\n")
        assert caller.ends() == 0


def test_a_steer_waits_until_the_line_that_is_typed_is_complete(anna: Node):
    with Caller(anna, "--pty", "--agent-id", "typed", *python(TYPIST)) as caller:
        caller.sees(b"size")
        caller.type(b"half")
        caller.sees(b"half")
        with subprocess.Popen(
            [PROGRAM, "steer", "typed", "whole"],
            env=anna.environment,
            stdout=subprocess.DEVNULL,
        ) as steering:
            caller.type(b" a line\r")
            caller.sees(b"heard half a line\r\n")
            assert steering.wait(PATIENCE_S) == 0
        caller.sees(b"heard whole\r\n")
        caller.type(b"\x04")
        assert caller.ends() == 0


def test_a_detached_agent_has_a_terminal_too(anna: Node):
    run = anna.call("run", "--pty", "--detach", "--agent-id", "alone", *python(TYPIST))
    assert run.code == 0
    wait_until(lambda: "size 80x24" in anna.call("logs", "alone").out)
    anna.json("steer", "alone", "hello")
    wait_until(lambda: "heard hello" in anna.call("logs", "alone").out)
    long = anna.call("steer", "alone", "x" * 5000)
    assert long.code == 8
    assert "4095" in long.out
    anna.json("close", "alone")
    wait_until(lambda: anna.json("show", "alone")["state"] == "closed")
    assert anna.call("logs", "alone").out.endswith("the end\n")


@pytest.mark.parametrize("follow", [(), ("--follow",)], ids=["as it is", "followed"])
def test_what_a_terminal_shows_is_shown_on_another_line_by_line(anna: Node, follow: tuple[str]):
    agent = f"shown-{len(follow)}"
    code = "import os; os.write(1, b'one\\ntwo\\x1b[1m\\rthree\\n')"
    assert anna.call("run", "--pty", "--agent-id", agent, *python(code)).code == 0
    with Caller(anna, agent, *follow, verb="logs") as caller:
        caller.sees(b"one\r\ntwo\\u001b[1m\\u000dthree\r\n")
        assert caller.ends() == 0


def test_what_is_piped_in_is_typed_to_its_end(anna: Node):
    answer = anna.call("run", "--pty", "--adapter", "pty", *python(TYPIST), stdin="one\ntwo")
    assert answer.code == 0
    for line in ("heard one\n", "heard two", "the end\n"):
        assert line in answer.out


def test_a_wrong_adapter_lists_the_right_ones(anna: Node):
    answer = anna.call("run", "--adapter", "acp", "--", "true")
    assert answer.code == 2
    assert "'process'" in answer.err
    assert "'pty'" in answer.err
    assert anna.call("run", "--pty", "--adapter", "process", "--", "true").code == 2
    assert anna.call("run", "--adapter", "process", "--", "true").code == 0
