import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.attacks.supervised import remove_group

import meshnode
from meshnode.agents import tree
from meshnode.agents.following import Ending
from meshnode.agents.processes import LOST, ProcessAgents
from meshnode.core.errors import ConflictError, RefusedError, UnreachableError

pytestmark = pytest.mark.integration

ROOT = str(Path(meshnode.__file__).parents[1])
ECHO = "import sys\nfor line in sys.stdin: print('got', line, end='')\n"
WAIT = "import signal\nwhile True: signal.pause()\n"
STUBBORN = (
    "import os, signal\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "else: os.wait()\n"
    "os.write(1, b'%d\\n' % os.getpid())\n"
) + WAIT
NOW_S = 1_000_000.0


class Watcher:
    """A node that only remembers what it was told."""

    def __init__(self, tasks):
        self.started = asyncio.Queue()
        self.ended = asyncio.Queue()
        self.agents = ProcessAgents(
            lambda *start: self.started.put_nowait(start),
            lambda *end: self.ended.put_nowait(end),
            tasks=tasks,
            clock=lambda: NOW_S,
        )


@asynccontextmanager
async def a_node():
    async with asyncio.TaskGroup() as tasks:
        node = Watcher(tasks)
        try:
            yield node
        finally:
            await node.agents.close()


class Started:
    """A session whose supervisor was started, in the foreground so that we can read along."""

    def __init__(self, home, socket, code, options=()):
        self.home, self.session_id, self.socket = home, home.name, socket
        self.process = subprocess.Popen(  # our own code
            [
                *(sys.executable, "-P", "-m", "meshnode.agents.supervise"),
                *("--directory", str(home), "--socket", str(self.socket)),
                *("--session-id", home.name, *options, "--"),
                *(sys.executable, "-I", "-u", "-c", code),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, tree.MARK: home.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def place(self):
        return self.session_id, self.home, self.socket

    async def line(self):
        return await asyncio.to_thread(self.process.stdout.readline)

    async def wait(self):
        return await asyncio.to_thread(self.process.wait)


@pytest.fixture
def short_path():
    with tempfile.TemporaryDirectory(prefix="mesh-") as directory:  # a socket's path is < 108 bytes
        yield Path(directory)


@pytest.fixture
def start(tmp_path, short_path):
    started = []

    def run(code, *options):
        home = tmp_path / f"{short_path.name}-{len(started)}"
        home.mkdir(mode=0o700)
        started.append(Started(home, short_path / str(len(started)), code, options))
        return started[-1]

    yield run
    for one in started:
        one.process.kill()
        one.process.wait()
        clock = iter(range(1000)).__next__
        tree.stop_tree(one.session_id, grace_s=0.0, force=True, clock=clock)
        remove_group(one.session_id)
        one.process.stdin.close()
        one.process.stdout.close()


async def test_a_session_is_followed_from_its_start_to_its_end(start):
    one = start("input()\nraise SystemExit(4)\n")
    async with a_node() as node:
        await node.agents.attach(*one.place)
        session_id, pid = await node.started.get()
        assert session_id == one.session_id
        assert tree.identity_of(pid) is not None
        await node.agents.steer(session_id, "c1", "north", None)
        session_id, ending = await node.ended.get()
    assert (session_id, ending.exit_code, ending.signal) == (one.session_id, 4, None)
    assert await one.wait() == 4


async def test_a_session_is_attached_once(start):
    one = start(WAIT)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        with pytest.raises(ConflictError):
            await node.agents.attach(*one.place)


async def test_agents_survive_a_node_restart_and_are_steered_again(start):
    one = start(ECHO)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        first = await node.started.get()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert await node.started.get() == first
        await node.agents.steer(one.session_id, "c1", None, "welcome back")
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
    one = start("print('ready')\n" + WAIT)
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


async def test_a_kill_works_while_the_supervisor_is_stopped(start):
    one = start("print('ready')\n" + WAIT)
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
            await node.agents.steer(one.session_id, "c1", None, "hello")
        with pytest.raises(RefusedError, match="at most"):
            await node.agents.steer(one.session_id, "c1", None, "x" * 70_000)
        with pytest.raises(RefusedError, match="no agent"):
            await node.agents.steer("another", "c1", None, "hello")


async def test_a_steer_to_a_stopped_supervisor_has_an_unknown_outcome(start, monkeypatch):
    monkeypatch.setattr("meshnode.agents.processes.STEER_WAIT_S", 0.05)
    one = start("print('ready')\n" + WAIT)
    await one.line()
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.send_signal(signal.SIGSTOP)
        with pytest.raises(UnreachableError):
            await node.agents.steer(one.session_id, "c1", None, "hello")
        one.process.send_signal(signal.SIGCONT)
