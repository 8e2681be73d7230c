"""Signals that somebody sends to a supervisor, and what its agent hears of them."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from integration.agents.front import PYTHON, WAIT, python
from integration.agents.watched import a_node, stopped
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_suspended_agent_that_outlives_a_signal_to_end_is_suspended_again(start, number):
    code = f"import signal\nsignal.signal({number:d}, signal.SIG_IGN)\n"
    one = start(code + WAIT, "--grace", "0.05")
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        await node.agents.suspend(one.session_id)
        for _ in range(2):
            one.process.send_signal(number)
            assert [await node.held.get() for _ in range(2)] == [True, False]
            await asyncio.to_thread(until, lambda: stopped(pid))
        assert await node.held.get() is True
        await node.agents.resume(one.session_id)
        assert not stopped(pid)


async def test_a_signal_to_end_does_not_suspend_anew_what_is_being_closed(start):
    one = start("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        await node.agents.suspend(one.session_id)
        one.process.send_signal(signal.SIGTERM)
        assert [await node.held.get() for _ in range(2)] == [True, False]
        closing = asyncio.create_task(node.agents.ask_to_end(one.session_id, "c1", 0.8))
        await asyncio.to_thread(until, lambda: one.state()["closed_by_command"])
        one.process.send_signal(signal.SIGTERM)
        standing = await closing
        assert (standing.survivors, standing.suspended) == ((pid,), True)
        assert node.held.qsize() == 1, "once, at the end of the close"
