import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from integration.agents.watched import ECHO, NOW_S, STUBBORN, WAIT, Started, a_node
from integration.attacks.supervised import WAIT as PID_AND_WAIT
from integration.attacks.supervised import Session, alive, until

from meshnode.agents import processes, tree
from meshnode.agents.following import REQUEST_BYTES_MAX, Ending
from meshnode.agents.last_word import KILLED
from meshnode.agents.processes import LATE
from meshnode.core.commands.steers import Instruction
from meshnode.core.errors import ConflictError, RefusedError, UnreachableError
from meshnode.core.sessions.sessions import LOST

pytestmark = pytest.mark.integration

READY = "print('ready')\n" + WAIT
ONE = tree.Killing(1, 1, ())
TWO = tree.Killing(2, 2, ())


async def test_a_session_is_followed_from_its_start_to_its_end(start):
    one = start("input()\nraise SystemExit(4)\n")
    async with a_node() as node:
        await node.agents.attach(*one.place)
        session_id, pid, _ = await node.started.get()
        assert session_id == one.session_id
        assert tree.identity_of(pid) is not None
        await node.agents.steer(session_id, "c1", Instruction("north"))
        session_id, ending = await node.ended.get()
    assert (session_id, ending.exit_code, ending.signal) == (one.session_id, 4, None)
    assert await one.wait() == 4


async def test_a_session_is_attached_once(start):
    one = start(WAIT)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        with pytest.raises(ConflictError):
            await node.agents.attach(*one.place)


async def test_an_order_waits_for_an_agent_that_is_being_found(start):
    one = start(ECHO)
    async with a_node() as node:
        node.agents.expect(*one.place)
        steering = asyncio.create_task(
            node.agents.steer(one.session_id, "c1", Instruction(message="soon"))
        )
        await asyncio.sleep(0)
        await node.agents.attach(*one.place)
        await steering
        assert await one.line() == b"got soon\n"


async def test_who_is_not_there_yet_is_told_nothing_and_can_be_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.05)
    async with a_node() as node:
        node.agents.expect("early", tmp_path, tmp_path / "s")
        for order in (
            node.agents.steer("early", "c1", Instruction(message="hello")),
            node.agents.ask_to_end("early", "c2", 1.0),
        ):
            with pytest.raises(RefusedError, match="has not started yet: try again"):
                await order
        killing = await node.agents.kill("early", "c3", 1.0, force=False)
        assert killing == tree.Killing(0, 0, ())


@pytest.fixture
def late(tmp_path, short_path, monkeypatch):
    """A session whose supervisor is started late, in which nothing may be started any more."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path / short_path.name
    home.mkdir(mode=0o700)
    socket = short_path / "s"
    yield home.name, home, socket
    one = Started(home, socket, "open('started', 'w')")
    try:
        assert one.process.wait() == 125
    finally:
        one.process.kill()
        one.process.communicate()
    assert not (tmp_path / "started").exists()
    assert tree.members(home.name) == frozenset()


async def test_what_is_killed_before_it_begins_never_does(late):
    async with a_node() as node:
        finding = asyncio.create_task(node.agents.attach(*late))
        await asyncio.sleep(0)
        killing = await node.agents.kill(late[0], "c1", 20.0, force=False)
        assert killing == tree.Killing(0, 0, ())
        _, ending = await node.ended.get()
        assert (ending.reason, ending.killed_by_command) == (KILLED, "c1")
        await finding
    async with a_node() as node:  # as after a crash before any of that was recorded
        await node.agents.attach(*late)
        assert node.ended.get_nowait()[1].killed_by_command == "c1"


async def test_what_is_given_up_never_begins(late, monkeypatch):
    monkeypatch.setattr(processes, "FIRST_SIGN_WAIT_S", 0.05)
    async with a_node() as node:
        await node.agents.attach(*late)
        _, ending = await node.ended.get()
        assert (ending.reason, ending.killed_by_command) == (LATE, None)


async def test_a_node_that_was_killed_while_it_killed_finds_nobody_and_nothing_begins(
    late, monkeypatch
):
    monkeypatch.setattr(processes, "FIRST_SIGN_WAIT_S", 0.05)
    monkeypatch.setattr(processes, "START_WAIT_S", 0.05)
    (late[1] / "state.json").touch(mode=0o600)  # made, and nothing said
    async with a_node() as node:
        node.agents.expect(*late)
        assert (await node.agents.kill(late[0], "c1", 20.0, force=False)).found == 0
        await node.agents.attach(*late)
        _, ending = await node.ended.get()
        assert ending.reason == LOST


async def test_a_disk_that_takes_no_word_keeps_nobody_from_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.05)
    async with a_node() as node:
        node.agents.expect("early", tmp_path / "none", tmp_path / "s")
        killing = await node.agents.kill("early", "c1", 20.0, force=False)
        assert killing == tree.Killing(0, 0, ())


@pytest.fixture
def nested(short_path):
    """A session, and one that was started inside it; the supervisor of the outer is lost."""
    inner, outer = (Session(short_path / f"{short_path.name}-{n}", PID_AND_WAIT) for n in range(2))
    words = f"({inner.command!r}, env={inner.environment!r}, start_new_session=True)"
    outer.command[-1] = f"import subprocess\nsubprocess.Popen{words}\n{PID_AND_WAIT}"
    for one in (inner, outer):
        one.home.mkdir(mode=0o700)
    outer.start()
    yield outer, inner
    for one in (inner, outer):
        one.clear()


async def test_a_session_inside_one_whose_supervisor_is_lost_is_found_before_that_is_cleared(
    nested, monkeypatch
):
    monkeypatch.setattr(processes, "GRACE_S", 0.05)
    pids = [await asyncio.to_thread(one.pids, 1) for one in nested]
    nested[0].process.kill()
    nested[0].process.wait()
    async with a_node() as node:
        for one in nested:
            node.agents.expect(*one.place)
        await asyncio.gather(*(node.agents.attach(*one.place) for one in nested))
        _, ending = await node.ended.get()
        assert ending.reason == LOST
        assert [alive(pid) for pid in pids] == [[], pids[1]]


async def test_a_supervisor_that_stands_still_when_its_node_starts_is_told_nothing(
    start, monkeypatch
):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.05)
    one = start(READY)
    await one.line()
    one.process.send_signal(signal.SIGSTOP)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        with pytest.raises(RefusedError, match="does not answer, and was sent nothing"):
            await node.agents.steer(one.session_id, "c1", Instruction(message="hello"))
        one.process.send_signal(signal.SIGCONT)
        await node.started.get()
        await node.agents.steer(one.session_id, "c2", Instruction(message="hello"))


async def test_a_node_that_ends_finds_nobody_any_more(start):
    one = start(READY)
    await one.line()
    async with a_node() as node:
        await node.agents.close()
        await node.agents.attach(*one.place)
        assert node.started.empty()


async def test_trees_that_take_long_to_end_hold_up_no_other_thread(monkeypatch):
    may_end = threading.Event()
    monkeypatch.setattr(processes, "stop_tree", lambda *_, **__: may_end.wait() and ONE)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with a_node() as node:
        kill = asyncio.create_task(node.agents.kill("no-such-session", "c1", 1.0, force=False))
        await asyncio.sleep(0)
        await asyncio.to_thread(may_end.set)
        assert await kill == ONE


async def test_agents_survive_a_node_restart_and_are_steered_again(start):
    one = start(ECHO)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        first = await node.started.get()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert await node.started.get() == first
        await node.agents.steer(one.session_id, "c1", Instruction(message="welcome back"))
        assert await one.line() == b"got welcome back\n"
        assert node.ended.empty()


async def test_an_end_during_the_nodes_absence_is_read_from_disk(start):
    one = start("raise SystemExit(9)")
    await one.wait()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        _, ending = node.ended.get_nowait()
        assert (ending.exit_code, ending.reason) == (9, "exit code 9")
        assert node.started.empty()


async def test_a_lost_supervisor_takes_its_tree_with_it(start, monkeypatch):
    monkeypatch.setattr("meshnode.agents.processes.GRACE_S", 0.05)
    one = start(STUBBORN)
    pids = [int(await one.line()) for _ in range(2)]
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.send_signal(signal.SIGKILL)
        ended = await node.ended.get()
    assert ended == (one.session_id, Ending(None, None, LOST, None, NOW_S))
    assert [tree.identity_of(pid) for pid in pids] == [None, None]


async def test_a_supervisor_lost_during_the_nodes_absence_is_cleared_away(start):
    one = start(READY)
    await one.line()
    one.process.kill()
    await one.wait()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert node.ended.get_nowait()[1].reason == LOST
    assert tree.members(one.session_id) == frozenset()


async def test_a_kill_is_verified_and_names_its_command(start):
    one = start(STUBBORN)
    await one.line()
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        killing = await node.agents.kill(one.session_id, "c1", 0.05, force=False)
        assert killing == tree.Killing(2, 2, ())
        _, ending = await node.ended.get()
    assert (ending.signal, ending.killed_by_command) == ("SIGKILL", "c1")


async def test_an_impatient_kill_behind_a_patient_one_leaves_the_end_to_the_supervisor(start):
    one = start(STUBBORN)
    await one.line()
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        patient = asyncio.create_task(node.agents.kill(one.session_id, "c1", 60.0, force=False))
        await asyncio.to_thread(until, lambda: one.state()["killed_by_command"])
        assert await node.agents.kill(one.session_id, "c2", 0.05, force=False) == TWO
        assert await patient == TWO
        _, ending = await node.ended.get()
    assert (ending.signal, ending.killed_by_command) == ("SIGKILL", "c2")


async def test_a_kill_that_finds_nobody_wipes_out_no_other_that_does(start, monkeypatch):
    async def stopped(*_, **__):
        return answers.pop(0)

    one = start(READY)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.send_signal(signal.SIGSTOP)
        answers = [ONE, tree.Killing(0, 0, ())]
        with monkeypatch.context() as silent:
            silent.setattr(processes, "PING_WAIT_S", 0.05)
            silent.setattr(processes, "KILL_MARGIN_S", -processes.VERIFY_S)
            silent.setattr(node.agents, "_stop", stopped)
            for command_id in ("c1", "c2"):
                await node.agents.kill(one.session_id, command_id, 0.05, force=False)
        one.process.kill()
        _, ending = await node.ended.get()
    assert (ending.reason, ending.killed_by_command) == (LOST, "c1")


async def test_a_supervisor_that_ends_while_its_tree_is_looked_for_is_none_of_it(
    start, monkeypatch
):
    def looked_slowly(*of):
        found = tree.members(*of)
        one.process.wait()
        return found

    one = start(READY)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        monkeypatch.setattr(processes, "members", looked_slowly)
        assert await node.agents.kill(one.session_id, "c1", 20.0, force=False) == ONE
        _, ending = await node.ended.get()
    assert ending.killed_by_command == "c1"


async def test_a_kill_works_while_the_supervisor_is_stopped(start):
    one = start(READY)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.send_signal(signal.SIGSTOP)
        killing = await node.agents.kill(one.session_id, "c1", 0.0, force=True)
        assert killing == tree.Killing(2, 2, ())  # the supervisor and the agent
        _, ending = await node.ended.get()
    assert (ending.reason, ending.killed_by_command) == (LOST, "c1")


async def test_a_kill_of_what_is_gone_finds_nothing():
    async with a_node() as node:
        killing = await node.agents.kill("no-such-session", "c1", 1.0, force=False)
        assert killing == tree.Killing(0, 0, ())


async def test_a_steer_is_refused_with_the_supervisors_reason(start):
    one = start("import os\nos.close(0)\nprint('ready')\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        with pytest.raises(RefusedError, match="stdin is closed"):
            await node.agents.steer(one.session_id, "c1", Instruction(message="hello"))
        with pytest.raises(RefusedError, match="at most"):
            await node.agents.steer(
                one.session_id, "c1", Instruction(message="x" * REQUEST_BYTES_MAX)
            )
        with pytest.raises(RefusedError, match="no agent"):
            await node.agents.steer("another", "c1", Instruction(message="hello"))


async def test_a_steer_to_a_stopped_supervisor_has_an_unknown_outcome(start, monkeypatch):
    monkeypatch.setattr("meshnode.agents.processes.STEER_WAIT_S", 0.05)
    one = start(READY)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.send_signal(signal.SIGSTOP)
        with pytest.raises(UnreachableError):
            await node.agents.steer(one.session_id, "c1", Instruction(message="hello"))
        one.process.send_signal(signal.SIGCONT)
