"""Real process trees that are suspended, run on, and are asked to end."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from integration.agents.watched import ECHO, STUBBORN, WAIT, a_node, stopped
from integration.attacks.supervised import until

from meshnode.agents import tree
from meshnode.agents.holding import AGAIN_S_MAX, HALT_S, LOOKS_MIN, Halt, Halted, Stillness, let_go
from meshnode.core.commands.steers import Instruction
from meshnode.core.errors import RefusedError, UnreachableError

pytestmark = pytest.mark.integration

FAMILY = (
    "import os, sys\nif os.fork() == 0:\n    os.setsid()\nos.write(1, b'%d\\n' % os.getpid())\n"
) + WAIT
STOPS_ITS_CHILD = (
    "import os, signal\n"
    "if (child := os.fork()) == 0:\n    while True: signal.pause()\n"
    "os.kill(child, signal.SIGSTOP)\nos.waitpid(child, os.WUNTRACED)\n"
    "os.write(1, b'%d\\n' % child)\n"
) + WAIT
TWO = tree.Killing(2, 2, ())
FORKING = (
    "import os, time\n"
    "os.write(1, b'ready\\n')\n"
    "while True:\n"
    "    if os.fork() == 0:\n"
    "        time.sleep(0.05)\n"
    "        os._exit(0)\n"
    "    time.sleep(0.005)\n"
    "    while os.waitpid(-1, os.WNOHANG)[0]: pass\n"
)
SPAWNING = (  # as a build tool does: it cannot be stopped until its child has gone on
    "import ctypes, os, platform, signal\n"
    "clone = {'x86_64': 56, 'aarch64': 220}[platform.machine()]\n"
    "CLONE_VFORK = 0x4000\n"
    "if ctypes.CDLL(None).syscall(clone, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) == 0:\n"
    "    os.write(1, b'%d\\n' % os.getpid())\n"
    "    while True: signal.pause()\n"
)
DEAF = "import signal\nsignal.signal(15, signal.SIG_IGN)\nprint('ready')\n" + WAIT
ON_USR1 = "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: os._exit(3))\n"
ENDS_WITH_ITS_INPUT = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n"


async def test_a_whole_tree_stands_still_and_runs_on(start):
    one = start(FAMILY)
    pids = [int(await one.line()) for _ in range(2)]
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert await node.agents.suspend(one.session_id) == 2
        assert all(map(stopped, pids))
        assert await node.agents.suspend(one.session_id) == 2, "it stands still already"
        assert await node.agents.resume(one.session_id) == 2
        assert not any(map(stopped, pids))
        assert await node.agents.resume(one.session_id) == 0, "it was not suspended"


@pytest.mark.parametrize("times", [1, 2])
async def test_whom_the_agent_itself_had_stopped_stands_still_after_a_suspension_too(start, times):
    one = start(STOPS_ITS_CHILD)
    child = int(await one.line())
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        for _ in range(times):
            assert await node.agents.suspend(one.session_id) == 2
        assert (stopped(pid), stopped(child)) == (True, True)
        assert await node.agents.resume(one.session_id) == 2
        assert (stopped(pid), stopped(child)) == (False, True)
        assert await node.agents.kill(one.session_id, "c1", 20.0, force=False) == TWO


async def test_a_tree_that_is_resumed_while_it_is_being_suspended_runs_on(start):
    one = start(SPAWNING)
    child = int(await one.line())
    async with a_node() as node:
        await node.agents.attach(*one.place)
        suspending = asyncio.create_task(node.agents.suspend(one.session_id))
        await asyncio.to_thread(until, lambda: stopped(child))
        await node.agents.resume(one.session_id)
        assert not stopped(child)
        with pytest.raises(RefusedError):
            await suspending


async def test_a_tree_that_forks_all_the_time_is_caught_whole(start):
    one = start(FORKING)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert await node.agents.suspend(one.session_id) >= 1
        members = tree.members(one.session_id, ())
        assert all(tree.is_stopped(member) for member in members - supervisor(one))
        assert tree.members(one.session_id, ()) == members


def supervisor(one):
    return {tree.identity_of(one.process.pid)}


async def test_a_node_that_was_away_hears_that_a_tree_is_suspended(start):
    one = start(ECHO)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert (await node.started.get())[2] is False
        await node.agents.suspend(one.session_id)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert (await node.started.get())[2] is True
        await node.agents.steer(one.session_id, "c1", Instruction(message="good morning"))
        await node.agents.resume(one.session_id)
        assert await one.line() == b"got good morning\n"


@pytest.mark.parametrize("force", [True, False])
async def test_a_suspended_tree_can_be_killed(start, force):
    one = start(FAMILY)
    pids = [int(await one.line()) for _ in range(2)]
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await node.agents.suspend(one.session_id)
        killing = await node.agents.kill(one.session_id, "c1", 20.0, force=force)
        assert killing == tree.Killing(2, 2, ())
        _, ending = await node.ended.get()
    assert ending.killed_by_command == "c1"
    assert [tree.identity_of(pid) for pid in pids] == [None, None]


@pytest.mark.parametrize("suspended", [False, True])
async def test_an_agent_that_heeds_its_input_ends_by_itself_when_it_is_closed(start, suspended):
    one = start(ENDS_WITH_ITS_INPUT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        if suspended:
            await node.agents.suspend(one.session_id)
        standing = await node.agents.ask_to_end(one.session_id, "c1", 20.0)
        assert standing == tree.Killing(1, 1, ())
        _, ending = await node.ended.get()
    assert (ending.exit_code, ending.reason) == (0, "closed by command")
    assert (ending.closed_by_command, ending.killed_by_command) == ("c1", None)


async def test_an_agent_that_ignores_its_input_is_told_to_end_after_the_grace(start):
    one = start("print('ready')\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        standing = await node.agents.ask_to_end(one.session_id, "c1", 0.05)
        assert standing == tree.Killing(1, 1, (), needed="TERM")
        _, ending = await node.ended.get()
    assert (ending.signal, ending.closed_by_command) == ("SIGTERM", "c1")


@pytest.mark.parametrize(("heeds", "needed"), [("DFL", "TERM"), ("IGN", "KILL")])
async def test_what_an_agent_leaves_running_when_it_is_closed_is_ended_and_told(
    start, heeds, needed
):
    leaves = (
        f"import os, signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_{heeds})\n"
        "if os.fork() == 0:\n    os.write(1, b'left\\n')\n    while True: signal.pause()\n"
        "sys.stdin.read()\n"
    )
    one = start(leaves, "--grace", "0.05")
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        standing = await node.agents.ask_to_end(one.session_id, "c1", 20.0)
        assert standing == tree.Killing(2, 2, (), needed=needed)


async def test_an_agent_that_heeds_nothing_is_not_killed_by_a_close(start):
    one = start(STUBBORN)
    pids = [int(await one.line()) for _ in range(2)]
    async with a_node() as node:
        await node.agents.attach(*one.place)
        standing = await node.agents.ask_to_end(one.session_id, "c1", 0.05)
        assert (standing.found, standing.gone) == (2, 0)
        assert set(standing.survivors) == set(pids)
        with pytest.raises(RefusedError, match="stdin is closed"):
            await node.agents.steer(one.session_id, "c2", Instruction(message="still there?"))
        await node.agents.kill(one.session_id, "c3", 0.0, force=True)
        _, ending = await node.ended.get()
    assert ending.killed_by_command == "c3"


async def test_the_less_patient_of_two_closes_sets_the_pace(start):
    one = start(STUBBORN)
    pids = {int(await one.line()) for _ in range(2)}
    async with a_node() as node:
        await node.agents.attach(*one.place)
        patient = asyncio.create_task(node.agents.ask_to_end(one.session_id, "c1", 60.0))
        await asyncio.to_thread(until, lambda: one.state()["closed_by_command"])
        standing = await node.agents.ask_to_end(one.session_id, "c2", 0.05)
        assert (set(standing.survivors), standing.needed) == (pids, "TERM")
        assert await patient == standing


async def test_a_suspended_agent_that_heeds_no_close_runs_for_its_grace_and_is_suspended_again(
    start,
):
    one = start(DEAF)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        await node.agents.suspend(one.session_id)
        standing = await node.agents.ask_to_end(one.session_id, "c1", 0.05)
        assert (standing.survivors, standing.suspended) == ((pid,), True)
        assert stopped(pid)
        assert [await node.held.get() for _ in range(3)] == [True, False, True]
        await node.agents.resume(one.session_id)
        standing = await node.agents.ask_to_end(one.session_id, "c2", 0.05)
        assert (standing.survivors, standing.suspended) == ((pid,), False), "it was resumed"
        assert not stopped(pid)


async def test_who_is_resumed_while_it_is_closed_is_not_suspended_again(start):
    one = start(DEAF)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        await node.agents.suspend(one.session_id)
        closing = asyncio.create_task(node.agents.ask_to_end(one.session_id, "c1", 1.0))
        assert [await node.held.get() for _ in range(2)] == [True, False]
        await node.agents.resume(one.session_id)
        standing = await closing
        assert (standing.survivors, standing.suspended) == ((pid,), False)
        assert not stopped(pid)


async def test_a_close_that_fails_does_not_suspend_anew_what_is_being_killed(start):
    one = start(ON_USR1 + DEAF)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        await node.agents.suspend(one.session_id)
        closing = asyncio.create_task(node.agents.ask_to_end(one.session_id, "c1", 0.05))
        assert [await node.held.get() for _ in range(2)] == [True, False]
        killing = asyncio.create_task(node.agents.kill(one.session_id, "c2", 60.0, force=False))
        standing = await closing
        assert (standing.survivors, standing.suspended) == ((pid,), False)
        os.kill(pid, signal.SIGUSR1)  # it ends in order, within the grace of the kill
        assert (await killing).gone == 1
        _, ending = await node.ended.get()
    assert (ending.exit_code, ending.killed_by_command) == (3, "c2")


async def test_whoever_outlives_a_close_ends_by_itself_later(start):
    one = start(ON_USR1 + "signal.signal(15, signal.SIG_IGN)\nprint('ready')\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        assert (await node.agents.ask_to_end(one.session_id, "c1", 0.05)).survivors == (pid,)
        os.kill(pid, signal.SIGUSR1)
        _, ending = await node.ended.get()
    assert (ending.exit_code, ending.reason) == (3, "exit code 3")
    assert ending.closed_by_command is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_whom_a_kill_could_not_reach_ends_by_itself_later(start):
    powerless = ("setpriv", "--bounding-set", "-kill")  # as any user's supervisor is
    code = ON_USR1 + "os.setuid(65534)\nprint('ready')\n" + WAIT
    one = start(code, prefix=powerless, grouped=False)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        killing = await node.agents.kill(one.session_id, "c1", 0.0, force=True)
        assert killing.survivors == (pid,)
        os.kill(pid, signal.SIGUSR1)
        _, ending = await node.ended.get()
    assert (ending.exit_code, ending.reason) == (3, "exit code 3")
    assert ending.killed_by_command is None


async def test_a_stopped_supervisor_is_not_asked_to_act_later(start, monkeypatch):
    one = start("print('ready')\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, pid, _ = await node.started.get()
        with monkeypatch.context() as impatient:
            impatient.setattr("meshnode.agents.processes.PING_WAIT_S", 0.1)
            one.process.send_signal(signal.SIGSTOP)
            for order in (node.agents.suspend, node.agents.resume):
                with pytest.raises(UnreachableError):
                    await order(one.session_id)
        one.process.send_signal(signal.SIGCONT)
        await node.agents.steer(one.session_id, "c1", Instruction(message="it answers again"))
        assert not stopped(pid)


async def test_what_has_ended_is_not_suspended():
    async with a_node() as node:
        for order in (node.agents.suspend, node.agents.resume):
            with pytest.raises(RefusedError, match="no agent"):
                await order("no-such-session")
        with pytest.raises(RefusedError, match="no agent"):
            await node.agents.ask_to_end("no-such-session", "c1", 1.0)


def step_until_over(halt):
    for number in range(int(HALT_S * 100) + 2):
        if (halted := halt.step(number / 100)) is not None:
            return halted
    raise AssertionError("it goes on for ever")


@pytest.fixture
def stranger():
    with subprocess.Popen([sys.executable, "-I", "-c", WAIT]) as process:
        yield process
        process.kill()


def test_a_process_that_took_over_a_pid_is_neither_stopped_nor_continued(stranger):
    there = tree.identity_of(stranger.pid)
    before = tree.Identity(stranger.pid, there.start_ticks - 1)
    assert step_until_over(Halt("no-such-session", [before], now_s=0.0)) == Halted(0, ())
    assert not tree.is_stopped(there)
    os.kill(stranger.pid, signal.SIGSTOP)
    os.waitpid(stranger.pid, os.WUNTRACED)
    assert let_go("no-such-session", [before]) == 0
    assert tree.is_stopped(there)


@pytest.fixture
def stillness(stranger):
    roots = [tree.identity_of(stranger.pid)]
    one = Stillness("no-such-session", roots, lambda: tree.NO_MORE, lambda _: None)
    one.ask(0.0, lambda _: None)
    return one


def stands(stillness, from_s):
    """Step for ten seconds of its time; returns whether it stands still then."""
    for number in range(1000):
        stillness.step(from_s + number / 100)
    return stillness.is_whole


@pytest.mark.parametrize("order", ["resume", "give_way"])
def test_a_tree_that_was_let_run_for_a_grace_stands_still_after_it_unless_that_is_over(
    stillness, order
):
    assert stands(stillness, 0.0)
    stillness.lend(10.0, 5.0)
    assert stillness.left_s(12.0) == 3.0
    stillness.lend(14.0, 5.0)
    assert stillness.left_s(14.0) == 1.0, "who asks again has no more time"
    assert not stillness.is_begun
    assert stands(stillness, 14.0)
    stillness.lend(30.0, 5.0)
    getattr(stillness, order)()
    assert not stands(stillness, 30.0)
    stillness.lend(40.0, 5.0)
    assert not stands(stillness, 40.0), "nobody wants it to"


def test_a_tree_that_did_not_stand_still_again_is_tried_until_it_does(stillness, monkeypatch):
    assert stands(stillness, 0.0)
    stillness.lend(10.0, 5.0)
    with monkeypatch.context() as blind:
        blind.setattr(tree, "is_stopped", lambda _: False)
        assert not stands(stillness, 15.0)
        assert not stands(stillness, 27.0)
    assert 0 < stillness.left_s(37.0) <= AGAIN_S_MAX
    assert stands(stillness, 37.0 + AGAIN_S_MAX)


def test_a_supervisor_that_had_no_processor_for_long_still_looks_before_it_lets_go(
    stranger, monkeypatch
):
    halt = Halt("no-such-session", [tree.identity_of(stranger.pid)], now_s=0.0)
    with monkeypatch.context() as blind:
        blind.setattr(tree, "is_stopped", lambda _: False)
        assert [halt.step(100.0) for _ in range(LOOKS_MIN - 1)] == [None] * (LOOKS_MIN - 1)
        assert halt.step(100.0).running == (stranger.pid,)


def test_a_tree_of_which_one_does_not_stop_is_let_go_whole(stranger, monkeypatch):
    one = tree.identity_of(stranger.pid)
    with monkeypatch.context() as blind:
        blind.setattr(tree, "is_stopped", lambda _: False)
        halted = step_until_over(Halt("no-such-session", [one], now_s=0.0))
    assert halted == Halted(1, (stranger.pid,))
    assert not tree.is_stopped(one)
