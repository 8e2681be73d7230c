"""Idle agents under supervisors with a clock of ours, which stands still until time shall pass."""

import asyncio
import os
import signal
import socket
import subprocess

import pytest
from integration.agents.front import ECHO, PYTHON, WAIT, Supervised
from integration.agents.watched import a_node

from meshnode.agents.lifetime import TIMED_OUT

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
IDLE_S = 90
STEP_S = 4.0  # a longer one would look like a supervisor that stood still
BOTH = ("process", "pty")
CLOCKED = """
import sys, time
from pathlib import Path
from meshnode.agents import supervise
clock = Path(sys.argv[2]) / "clock"
time.monotonic = lambda: float(clock.read_text())
sys.exit(supervise.main(sys.argv[1:]))
"""
SILENT = """
import sys, termios
if sys.stdin.isatty():
    mode = termios.tcgetattr(0)
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, mode)
print("ready", flush=True)
for line in sys.stdin: pass
"""
TELLS = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: os.write({fd}, b"at work\\n"))
"""


class Clocked(Supervised):
    """A supervisor that goes by the clock in a file."""

    program = ("-c", CLOCKED)

    def __init__(self, home, socket_path, code, options):
        self.clock, self.now_s = home / "clock", 0.0
        self.let_pass(0.0)
        options = ("--idle-timeout", str(IDLE_S), *options)
        streams = {} if "pty" not in options else {"stderr": subprocess.DEVNULL}
        super().__init__(home, socket_path, (*PYTHON, code), options, **streams)
        assert self.line().startswith(b"ready")
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(str(socket_path))
        self.replies = client.makefile("rwb")
        client.close()

    def let_pass(self, seconds):
        self.now_s += seconds
        draft = self.clock.with_suffix(".draft")
        draft.write_text(str(self.now_s))
        draft.replace(self.clock)

    def is_quiet_for(self, seconds):
        """Let time pass, each bit of it seen; returns the agent's state then."""
        self.is_seen()
        while seconds > 0:
            self.let_pass(min(seconds, STEP_S))
            state = self.is_seen()
            seconds -= STEP_S
        return state

    def is_seen(self):
        """See to it that one whole look is over since; returns the agent's state then."""
        self.ask("info")  # in a look that has begun before
        self.ask("info")
        return self.ask("info")  # what the look in between has led to

    def type(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()


@pytest.fixture
def agent(tmp_path, short_path):
    started = []

    def start(code, *options):
        home = tmp_path / str(len(started))
        home.mkdir(mode=0o700)
        started.append(Clocked(home, short_path / home.name, code, options))
        return started[-1]

    yield start
    for one in started:
        one.end()


def goes_on_and_then_ends(one):
    """The agent was at work just now: it is left alone for IDLE_S from then on, and no longer."""
    assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
    assert one.is_quiet_for(1)["timed_out"]


@pytest.mark.parametrize("adapter", BOTH)
def test_who_is_idle_is_stopped_and_its_last_word_says_why(agent, adapter):
    one = agent(WAIT, "--adapter", adapter)
    goes_on_and_then_ends(one)
    code, _, errors = one.finish()
    state = one.state()
    assert code == TIMED_OUT
    assert (state["reason"], state["signal"]) == (f"timed out: idle for {IDLE_S} s", "SIGTERM")
    if adapter == "process":
        said = f"session-mesh: the agent timed out: idle for {IDLE_S} s\n"
        assert errors == said.encode()


@pytest.mark.parametrize("fd", [1, 2])
@pytest.mark.parametrize("adapter", BOTH)
def test_what_it_writes_is_work(agent, adapter, fd):
    one = agent(TELLS.format(fd=fd) + WAIT, "--adapter", adapter)
    for _ in range(3):
        assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
        os.kill(one.state()["pid"], signal.SIGUSR1)
        stream = one.process.stdout if fd == 1 or adapter == "pty" else one.process.stderr
        assert stream.readline().startswith(b"at work")
    goes_on_and_then_ends(one)


@pytest.mark.parametrize("adapter", BOTH)
def test_what_is_typed_to_it_is_work_though_it_says_nothing(agent, adapter):
    one = agent(SILENT, "--adapter", adapter)
    assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
    one.type(b"go on")
    goes_on_and_then_ends(one)


@pytest.mark.parametrize("options", [(), ("--steer-format", "none"), ("--adapter", "pty")])
def test_a_steer_is_work_and_one_that_is_refused_is_none(agent, options):
    one = agent(SILENT, *options)
    assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
    assert one.ask("steer", message="go on")["ok"]
    assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
    assert not one.ask("steer", message="now", mode="now")["ok"]
    assert one.is_quiet_for(1)["timed_out"]


def test_questions_about_it_are_no_work_and_its_nodes_word_is(agent):
    one = agent(ECHO)
    assert not one.is_quiet_for(IDLE_S - 1)["timed_out"]
    assert one.ask("subscribe")["idle_timeout_s"] == IDLE_S
    assert one.ask("inbox")["ok"]
    assert one.ask("worked")["ok"]
    goes_on_and_then_ends(one)


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "being found"])
async def test_a_node_passes_on_what_it_alone_has_seen_at_once_or_later(agent, is_there):
    one = agent(ECHO)
    one.is_quiet_for(IDLE_S - 1)
    async with a_node() as node:
        node.agents.worked(one.session_id)  # which nobody follows
        attaching = asyncio.create_task(node.agents.attach(one.session_id, one.home, one.socket))
        await (attaching if is_there else asyncio.sleep(0.0))
        node.agents.worked(one.session_id)
        await attaching
        assert await node.agents.resume(one.session_id) == 0  # behind it, on the same line
        goes_on_and_then_ends(one)
        await node.ended.get()


def test_who_is_suspended_is_not_idle_and_begins_anew(agent):
    one = agent(WAIT)
    one.is_quiet_for(IDLE_S - 1)
    assert one.ask("suspend")["ok"]
    assert not one.is_quiet_for(5 * IDLE_S)["timed_out"]
    assert one.ask("resume")["ok"]
    goes_on_and_then_ends(one)


def test_who_was_asked_to_end_has_all_the_time_it_was_given(agent):
    one = agent(WAIT)
    one.is_quiet_for(IDLE_S - 1)
    one.write(b'{"id": 8, "op": "close", "grace_s": 3000}')
    assert not one.is_quiet_for(5 * IDLE_S)["timed_out"]


@pytest.mark.parametrize("limit_s", [IDLE_S - 10, IDLE_S + 10])
def test_of_two_time_outs_the_earlier_ends_it(agent, limit_s):
    one = agent(WAIT, "--timeout", str(limit_s))
    assert not one.is_quiet_for(min(limit_s, IDLE_S) - 1)["timed_out"]
    assert one.is_quiet_for(1)["timed_out"]
    one.finish()
    said = f"after {limit_s} s" if limit_s < IDLE_S else f": idle for {IDLE_S} s"
    assert one.state()["reason"].removeprefix("timed out").strip() == said.strip()


def test_a_clock_that_jumps_ends_nobody_who_could_do_nothing_meanwhile(agent):
    one = agent(WAIT)
    one.let_pass(1e6)
    assert not one.is_seen()["timed_out"]
    goes_on_and_then_ends(one)
