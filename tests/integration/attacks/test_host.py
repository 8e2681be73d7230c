"""Agents that turn against what supervises them, and against their neighbours through it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from integration.attacks.supervised import NOW_S, WAIT, Session, a_node, alive, until

from meshnode.agents import cgroup, tree
from meshnode.agents.pruning import prune
from meshnode.agents.state_file import read_state
from meshnode.core.commands.steers import Instruction
from meshnode.core.errors import UnreachableError
from meshnode.core.sessions.sessions import LOST

READY = "os.write(1, b'%d\\n' % os.getpid())\nwhile True: signal.pause()\n"
# Three generations away, in a session of its own, without our mark, in a supervisor's clothes.
HIDDEN = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "def hide(words):\n"
    "    if os.fork(): return\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    code = 'import os, signal; signal.signal(15, signal.SIG_IGN);' \\\n"
    "           'os.write(1, b\"%d\\\\n\" % os.getpid()); signal.pause()'\n"
    "    os.execve(sys.executable, [sys.executable, '-I', '-S', '-c', code, *words], {})\n"
)
DISGUISE = ["-m", "meshnode.agents.supervise", "--detached", "--session-id", "other", "--", "x"]
MODES = pytest.mark.parametrize("groups", [True, False], ids=["with cgroups", "without"])


@pytest.fixture
def session():
    started = []
    with tempfile.TemporaryDirectory(prefix="at-") as directory:  # sockets have short paths

        def start(code=WAIT, *, groups=None, now=True):  # None: as this machine has it
            if groups and (why := cgroup.why_none()):
                pytest.skip(f"no cgroups for sessions: {why}")
            home = Path(directory) / f"{Path(directory).name}-{len(started)}"
            home.mkdir(mode=0o700)
            started.append(Session(home, code, groups=groups is not False))
            if now:
                started[-1].start()
            return started[-1]

        yield start
        for one in started:
            one.clear()


@pytest.fixture
def bystander():
    """A process of the same user that has nothing to do with any session."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"],
        env={"PATH": os.environ["PATH"]},
    )
    yield tree.identity_of(process.pid)
    was_alive = process.poll() is None
    process.kill()
    process.wait()
    assert was_alive, "the bystander was struck"


async def lost(node):
    _, ending = await asyncio.wait_for(node.ended.get(), 30)
    assert ending.reason.startswith(LOST)
    assert (ending.exit_code, ending.at_s) == (None, NOW_S)
    return ending


@MODES
async def test_a_child_disguised_as_another_sessions_supervisor_is_killed(session, groups):
    one = session(f"{HIDDEN}hide({DISGUISE!r})\n{READY}", groups=groups)
    found = one.pids(2)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        killing = await node.agents.kill(one.session_id, "c1", 0.05, force=False)
        assert (killing.found, killing.survivors) == (2, ())
    assert alive(found) == []


@MODES
async def test_an_agent_that_kills_its_supervisor_ends_with_it(session, groups, monkeypatch):
    monkeypatch.setattr("meshnode.agents.processes.GRACE_S", 0.05)
    one = session(f"{HIDDEN}os.read(0, 1)\nos.kill(os.getppid(), 9)\n{READY}", groups=groups)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        with suppress(UnreachableError):  # it may be dead before it can answer
            await node.agents.steer(one.session_id, "c1", Instruction(message="now"))
        await lost(node)
    assert tree.members(one.session_id) == frozenset()


async def test_what_hid_itself_before_the_supervisor_was_killed_is_found_in_its_cgroup(
    session, monkeypatch
):
    monkeypatch.setattr("meshnode.agents.processes.GRACE_S", 0.05)
    one = session(f"{HIDDEN}hide({DISGUISE!r})\n{READY}", groups=True)
    found = one.pids(2)
    group = Path(one.state["cgroup"])
    async with a_node() as node:
        await node.agents.attach(*one.place)
        one.process.kill()
        await lost(node)
    assert alive(found) == []
    assert not os.access(group, os.F_OK)


@MODES
async def test_an_agent_that_forks_without_end_is_killed_whole(session, groups):
    chains = (
        "import os\n"
        "for _ in range(12):\n"
        "    if os.fork() == 0: break\n"
        "else:\n" + "".join(f"    {line}\n" for line in WAIT.splitlines()) + "while True:\n"
        "    os.setsid() if os.getpid() != os.getsid(0) else None\n"
        "    if os.fork(): os._exit(0)\n"
    )
    one = session(chains, groups=groups)
    one.pids(1)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        killing = await node.agents.kill(one.session_id, "c1", 0.0, force=True)
        assert killing.survivors == ()
        await node.ended.get()
        supervisor = tree.identity_of(one.process.pid)  # it stays for a moment, for its readers
        assert tree.members(one.session_id) <= {supervisor}


@MODES
async def test_a_child_that_leaves_its_cgroup_is_found_by_the_walk(session, groups):
    leave = "open('/sys/fs/cgroup/unified/cgroup.procs', 'w').write('0')\n" if groups else ""
    if groups and not os.access("/sys/fs/cgroup/unified/cgroup.procs", os.W_OK):
        pytest.skip("no other group to go to")
    one = session(f"import os, signal\n{leave}{READY}", groups=groups)
    found = one.pids(1)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        killing = await node.agents.kill(one.session_id, "c1", 0.0, force=True)
        assert (killing.found, killing.survivors) == (1, ())
    assert alive(found) == []


async def test_a_forged_state_file_does_not_turn_a_kill_on_a_bystander(session, bystander):
    one = session()
    found = one.pids(1)
    pid, ticks = bystander.pid, bystander.start_ticks
    one.process.kill()
    one.process.wait()
    one.forge(supervisor_pid=pid, supervisor_start_ticks=ticks, pid=pid, start_ticks=ticks)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await lost(node)
    assert alive([*found, pid]) == [pid]


async def test_a_forged_cgroup_does_not_turn_a_kill_on_a_bystander(session, bystander):
    one = session(groups=True)
    one.pids(1)
    group = Path(one.state["cgroup"]).with_name("session-mesh-of-others")
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(bystander.pid))
        for path in (group, f"{one.state['cgroup']}/../{group.name}", "/", group.parent, 7):
            one.forge(cgroup=str(path) if isinstance(path, Path) else path)
            assert cgroup.recorded(one.state["cgroup"], one.session_id) is None
        one.process.kill()
        async with a_node() as node:
            await node.agents.attach(*one.place)
            await lost(node)
        assert alive([bystander.pid]) == [bystander.pid]
    finally:
        (group.parent / "cgroup.procs").write_text(str(bystander.pid))
        group.rmdir()


async def test_a_pid_that_was_given_away_anew_is_not_signalled(session, bystander):
    one = session()
    one.pids(1)
    former = bystander.start_ticks - 1  # whose pid it was before
    one.process.kill()
    one.process.wait()
    one.forge(pid=bystander.pid, start_ticks=former, supervisor_pid=bystander.pid)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await lost(node)
    assert alive([bystander.pid]) == [bystander.pid]


async def test_an_agent_that_writes_its_own_end_is_not_believed(session):
    one = session()
    found = one.pids(1)
    one.process.kill()
    one.process.wait()
    one.forge(state="ended", exit_code=0, reason=None, ended_at=1.0)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await lost(node)
    assert alive(found) == []


async def test_an_agent_that_takes_its_supervisors_socket_is_not_believed(session):
    said = json.dumps({"id": 1, "ok": True, "state": "ended", "exit_code": 0})
    one = session(
        "import os, socket\n"
        "path = os.read(0, 4096).decode().strip()\n"
        "os.unlink(path)\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(path)\n"
        "listener.listen()\n"
        "os.write(1, b'%d\\n' % os.getpid())\n"
        "os.read(0, 9)\n"
        "os.kill(os.getppid(), 9)\n"
        "while True:\n"
        f"    listener.accept()[0].send({said.encode()!r} + b'\\n')\n"
    )
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await node.agents.steer(one.session_id, "c1", Instruction(message=str(one.socket)))
        found = await asyncio.to_thread(one.pids, 1)
        with suppress(UnreachableError):  # its supervisor may be dead before it can answer
            await node.agents.steer(one.session_id, "c2", Instruction(message="now"))
        await lost(node)
    assert alive(found) == []


async def test_a_supervisor_that_only_says_that_all_are_gone_is_not_believed(session):
    one = session(now=False)
    reply = {"ok": True, "found": 1, "gone": 1, "survivors": [], "pid": 1, "start_ticks": 1}
    liar = (
        "import json, os, signal, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        "listener.listen()\n"
        "if os.fork() == 0: signal.pause()\n"
        "stream = listener.accept()[0].makefile('rwb', buffering=0)\n"
        "for line in stream:\n"
        f"    said = {reply!r} | {{'id': json.loads(line)['id']}}\n"
        "    stream.write(json.dumps(said).encode() + b'\\n')\n"
    )
    one.command = [sys.executable, "-I", "-S", "-c", liar, str(one.socket)]
    one.start()
    until(one.socket.exists)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        killing = await node.agents.kill(one.session_id, "c1", 0.0, force=True)
        assert (killing.found, killing.survivors) == (2, ())
        await lost(node)
    assert tree.members(one.session_id) == frozenset()


@MODES
async def test_what_is_supervised_does_not_decide_what_is_spared(session, groups):
    one = session(
        "import json, os, signal, socket\n"
        "path = os.read(0, 4096).decode().strip()\n"
        "ticks = int(open('/proc/self/stat').read().rpartition(')')[2].split()[19])\n"
        "asked = socket.socket(socket.AF_UNIX)\n"
        "asked.connect(path)\n"
        "order = {'id': 1, 'op': 'spare', 'pid': os.getpid(), 'start_ticks': ticks}\n"
        "asked.send(json.dumps(order).encode() + b'\\n')\n"
        "os.write(1, b'%d\\n' % os.getpid() if b'\"ok\": false' in asked.recv(4096) else b'0')\n"
        "while True: signal.pause()\n",
        groups=groups,
    )
    async with a_node() as node:
        await node.agents.attach(*one.place)
        await node.agents.steer(one.session_id, "c1", Instruction(message=str(one.socket)))
        (pid,) = await asyncio.to_thread(one.pids, 1)
        assert pid != 0, "the supervisor agreed"
        killing = await node.agents.kill(one.session_id, "c2", 0.0, force=True)
        assert (killing.found, killing.survivors) == (1, ())
    assert alive([pid]) == []


@MODES
async def test_a_session_started_inside_another_outlives_its_kill(session, groups):
    inner = session(groups=groups, now=False)
    outer = session(
        "import os, signal, subprocess\nos.read(0, 1)\n"
        f"subprocess.Popen({inner.command!r}, env={inner.environment!r}, start_new_session=True)\n"
        + READY,
        groups=groups,
    )
    async with a_node() as node:
        await node.agents.attach(*outer.place)
        await node.agents.steer(outer.session_id, "c1", Instruction(message="go"))
        (agent,), (pid,) = [await asyncio.to_thread(one.pids, 1) for one in (outer, inner)]
        await node.agents.attach(*inner.place)
        killing = await node.agents.kill(outer.session_id, "c2", 0.0, force=True)
        assert killing.survivors == ()
        assert alive([agent, pid]) == [pid]
        assert (await node.agents.kill(inner.session_id, "c3", 0.0, force=True)).found == 1
    assert alive([pid]) == []


def link_to_a_good_one(path: Path) -> None:
    (path.parent / "good").write_text("{}")
    path.symlink_to("good")


def of_another_user(path: Path) -> None:
    path.write_text('{"state": "ended"}')
    try:
        os.chown(path, 65533, 65533)
    except PermissionError:
        pytest.skip("only root gives files away")


def open_to_all(path: Path) -> None:
    path.write_text('{"state": "ended"}')
    path.chmod(0o666)


SPOILED = {
    "a link": link_to_a_good_one,
    "a pipe that nobody writes": os.mkfifo,
    "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
    "a directory": Path.mkdir,
    "of another user": of_another_user,
    "open to all": open_to_all,
    "endless": lambda path: path.write_text('{"state": "' + "x" * (2 << 20) + '"}'),
    "a list": lambda path: path.write_text("[1]"),
    "deep": lambda path: path.write_text("[" * 100_000),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_state_file_that_no_supervisor_wrote_says_nothing(tmp_path, spoil):
    home = tmp_path / "s"
    home.mkdir(mode=0o700)
    spoil(home / "state.json")
    before = sorted(one.name for one in home.iterdir())
    assert read_state(home) == {}
    assert sorted(one.name for one in home.iterdir()) == before


def test_a_session_directory_that_is_a_link_says_nothing(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "state.json").write_text('{"state": "ended"}')
    (tmp_path / "real" / "state.json").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    assert read_state(tmp_path / "real") == {"state": "ended"}
    assert read_state(tmp_path / "link") == {}


def test_a_signal_needs_the_very_process_that_was_found(bystander):
    former = tree.Identity(bystander.pid, bystander.start_ticks - 1)
    assert not tree.send(former, signal.SIGKILL)
    assert tree.is_alive(bystander)


AGES_LATER_S = NOW_S * 2


async def test_a_directory_whose_agent_lives_is_not_removed_whatever_its_files_say(session):
    one = session(now=False)
    named = one.home.with_name("a" * 26)
    one.home.rename(named)
    moved = Session(named, WAIT, groups=True)
    one.command, one.environment, one.home = moved.command, moved.environment, named
    one.socket, one.session_id = moved.socket, moved.session_id
    one.start()
    found = one.pids(1)
    before = one.state
    one.forge(state="ended", exit_code=0, supervisor_pid=1, pid=1, cgroup=None)
    assert prune(named.parent, (), (), lambda _: one.socket, AGES_LATER_S) == 0
    assert one.socket.exists()
    assert alive(found) == found
    one.forge(**before)


def test_pruning_removes_neither_links_nor_strangers(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("words")
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / ("b" * 26)).symlink_to(outside)
    (sessions / "not-a-session").mkdir()
    (sessions / ("c" * 26)).write_text("a file")
    old = sessions / ("d" * 26)
    old.mkdir()
    (old / "link").symlink_to(outside)
    assert prune(sessions, (), (), lambda name: tmp_path / name, AGES_LATER_S) == 1
    assert (outside / "mine").read_text() == "words"
    left = {one.name for one in sessions.iterdir()}
    assert left == {"b" * 26, "c" * 26, "not-a-session"}
