"""A supervisor that a shell started on a real terminal, behind the shell and in front of it."""

import os
import pty
import socket
import subprocess
import sys

import pytest
from integration.agents.front import ECHO, ROOT, Supervised

from meshnode.agents import tree

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
# A shell with job control that never reads: takes the terminal, starts a job, puts it in front.
SHELL = """
import fcntl, os, signal, subprocess, sys, termios
terminal = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(
    sys.argv[2:], stdin=terminal, process_group=0,
    preexec_fn=lambda: signal.signal(signal.SIGTTOU, signal.SIG_DFL),
)
for line in sys.stdin:
    os.tcsetpgrp(terminal, job.pid if line == "front\\n" else os.getpid())
    print("moved", flush=True)
job.kill()
job.wait()
"""


class Job(Supervised):
    """A supervisor in a job of such a shell, and the keyboard of its terminal."""

    def __init__(self, home, socket_path, code):
        self.home, self.socket = home, socket_path
        self.session_id = f"{socket_path.parent.name}-{home.name}"
        self.keyboard, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-u", "-c", SHELL, os.ttyname(terminal)),
                *(sys.executable, "-P", "-m", "meshnode.agents.supervise"),
                *("--directory", str(home), "--socket", str(self.socket)),
                *("--session-id", self.session_id, "--"),
                *(sys.executable, "-I", "-u", "-c", code),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, tree.MARK: self.session_id},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(terminal)
        assert self.line() == b"ready\n"
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(str(self.socket))
        self.replies = client.makefile("rwb")
        client.close()

    def type(self, text):
        os.write(self.keyboard, text)

    def put(self, where):
        self.process.stdin.write(where + b"\n")
        self.process.stdin.flush()
        assert self.line() == b"moved\n"

    def steer(self, text):
        assert self.ask("steer", message=text)["ok"]

    def end(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        self.replies.close()
        self.process.wait()
        os.close(self.keyboard)
        clock = iter(range(1000)).__next__
        tree.stop_tree(self.session_id, grace_s=0.0, force=True, clock=clock)


@pytest.fixture
def work(tmp_path, short_path):
    jobs = []

    def start(code):
        home = tmp_path / str(len(jobs))
        home.mkdir(mode=0o700)
        jobs.append(Job(home, short_path / home.name, code))
        return jobs[-1]

    yield start
    for one in jobs:
        one.end()


@pytest.fixture
def job(work):
    return work(ECHO)


@pytest.mark.parametrize(("key", "name"), [(b"\x03", "INT"), (b"\x1c", "QUIT")])
def test_a_key_of_the_terminal_that_both_stand_in_front_of_is_heard_once(work, key, name):
    told = f"lambda *_: os.write(1, b'told {name}\\n')"
    one = work(f"import os, signal\nsignal.signal(signal.SIG{name}, {told})\n" + ECHO)
    one.put(b"front")
    one.type(key)
    assert one.line() == f"told {name}\n".encode()
    for _ in range(2):  # each is a round of what it polls for
        assert one.ask("info")["ok"]
    one.steer("once?")
    assert one.line() == b"got once?\n"


def test_what_is_typed_to_the_shell_does_not_stop_an_agent_behind_it(job):
    job.type(b"for the shell\n")
    for _ in range(3):  # each is a round of what it polls for; what was typed is there in the first
        assert job.ask("info")["ok"]
    job.steer("still there?")
    assert job.line() == b"got still there?\n"


def test_in_front_it_is_typed_to_and_behind_again_it_is_not(job):
    job.put(b"front")
    job.type(b"for the agent\n")
    assert job.line() == b"got for the agent\n"
    job.put(b"behind")
    job.type(b"for the shell\n")
    job.steer("heard that?")
    assert job.line() == b"got heard that?\n"
    job.put(b"front")
    assert job.line() == b"got for the shell\n"


def test_the_key_that_stops_jobs_stops_neither_an_agent_nor_who_answers_for_it(job):
    job.put(b"front")
    job.type(b"\x1a")
    assert f"session-mesh suspend {job.session_id}".encode() in job.process.stderr.readline()
    job.steer("still there?")
    assert job.line() == b"got still there?\n"


def test_the_key_that_stops_jobs_lets_nobody_go_who_was_suspended(job):
    job.put(b"front")
    assert job.ask("suspend")["ok"]
    job.type(b"\x1a")
    assert job.process.stderr.readline()
    assert job.ask("info")["suspended"]
    agent = tree.identity_of(job.ask("info")["pid"])
    assert tree.is_stopped(agent)
    assert job.ask("resume")["ok"]
    job.steer("still there?")
    assert job.line() == b"got still there?\n"
