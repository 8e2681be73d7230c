"""Signals that somebody sends to a supervisor, and what its agent hears of them."""

import os
import signal
from pathlib import Path

import pytest
from integration.agents.front import PYTHON, WAIT, python
from integration.attacks.supervised import until

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", ["USR1", "USR2", "ALRM", "PROF", "RTMAX", "INT", "QUIT", "HUP"])
def test_what_somebody_sends_to_the_supervisor_reaches_the_agent_once(supervise, name):
    number = getattr(signal, f"SIG{name}")
    code = (
        "import os, signal\n"
        f"signal.signal({number:d}, lambda *_: os.write(1, b'told\\n'))\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(5))\n"
    )
    one = python(supervise, code + WAIT)
    for _ in range(2):
        one.process.send_signal(number)
        assert one.line() == b"told\n"
    one.process.terminate()
    assert one.finish()[:2] == (5, b"")


@pytest.mark.parametrize("name", ["INT", "QUIT", "HUP", "USR1"])
def test_what_its_caller_ignores_is_ignored_by_the_agent_too(supervise, name):
    number = getattr(signal, f"SIG{name}")

    def ignoring():
        signal.signal(number, signal.SIG_IGN)

    one = python(supervise, WAIT, preexec_fn=ignoring)
    os.killpg(one.process.pid, number)
    for _ in range(2):  # each is a round of what it polls for
        assert one.ask("info")["state"] == "running"
    assert signals_of(one, "SigIgn") & 1 << number - 1


@pytest.mark.parametrize("options", [("--adapter", "pty"), ("--detached",)])
def test_an_agent_in_a_group_of_its_own_hears_of_keys_whatever_its_caller_ignores(
    supervise, options
):
    def ignoring():
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    one = supervise(*PYTHON, WAIT, options=options, preexec_fn=ignoring)
    until(one.socket.exists)
    one.connect()
    assert signals_of(one, "SigIgn") & (1 << signal.SIGINT - 1 | 1 << signal.SIGQUIT - 1) == 0


def test_an_agent_is_started_with_no_signal_blocked_but_what_its_caller_blocks(supervise):
    def blocking():
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGWINCH})

    one = python(supervise, WAIT, preexec_fn=blocking)
    assert signals_of(one, "SigBlk") == 1 << signal.SIGWINCH - 1


def signals_of(one, field):
    """Return a set of signals of the agent, as the kernel has it."""
    lines = Path(f"/proc/{one.ask('info')['pid']}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{field}:"))
