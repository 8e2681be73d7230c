"""Processes of another PID namespace: who says that they are there, and who is believed."""

import asyncio
import json
import os
import socket
import subprocess
import sys

import pytest
from integration.agents.watched import WAIT, a_node

from meshnode.agents import namespaces, processes, tree
from meshnode.core.sessions.sessions import LOST

pytestmark = pytest.mark.integration


@pytest.fixture
def claimed(tmp_path, short_path):
    """A session whose file says that it is of another namespace, and what begins its words."""
    home = tmp_path / short_path.name
    home.mkdir(mode=0o700)
    said = {"state": "running", "boot_id": tree.boot_id(), "pid_namespace": "pid:[1]"}
    said |= {"supervisor_pid": 2, "supervisor_start_ticks": 1}
    (home / "state.json").write_text(json.dumps(said))
    return home.name, home, short_path / "s"


def test_a_namespace_that_is_not_told_is_no_other():
    assert not namespaces.is_another(namespaces.pid_namespace())
    assert not namespaces.is_another("")
    assert not namespaces.is_another(None)
    assert namespaces.is_another("pid:[1]")


def test_nobody_is_elsewhere_where_the_kernel_tells_no_namespaces(monkeypatch):
    monkeypatch.setattr(namespaces, "pid_namespace", lambda: "")
    assert not namespaces.is_another("pid:[1]")


def test_a_listener_has_its_pid_and_nobody_has_none(short_path):
    assert namespaces.listener_of(short_path / "s") is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short_path / "s"))
        assert namespaces.listener_of(short_path / "s") is None
        listener.listen(0)
        assert namespaces.listener_of(short_path / "s") == os.getpid()
        with pytest.raises(BlockingIOError):
            namespaces.listener_of(short_path / "s")


@pytest.fixture(scope="module")
def inside():
    """What a program runs behind in a namespace of its own."""
    words = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"PID namespaces are not permitted here: {done.stderr.strip()}")
    return words


async def test_a_supervisor_in_a_namespace_below_is_followed_to_its_end(start, inside):
    one = start("input()\nraise SystemExit(4)\n", prefix=inside)
    async with a_node() as node:
        await node.agents.attach(*one.place)
        assert (await node.started.get())[0] == one.session_id
        one.process.stdin.write(b"\n")
        one.process.stdin.flush()
        assert (await node.ended.get())[1].exit_code == 4


async def test_a_claim_that_nobody_confirms_holds_only_while_a_supervisor_starts(
    claimed, monkeypatch
):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.2)
    tried = []
    async with a_node() as node:
        node.agents.expect(*claimed)
        following = node.agents._following[claimed[0]]
        says = following.says_elsewhere
        following.says_elsewhere = lambda state: tried.append(state) or says(state)
        await node.agents.attach(*claimed)
        _, ending = await node.ended.get()
    assert ending.reason == LOST
    assert len(tried) > 1, "it was waited for"


async def test_a_supervisor_that_does_not_answer_is_not_lost_while_its_queue_is_full(
    claimed, monkeypatch
):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.2)
    told = asyncio.Queue()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(claimed[2]))
        listener.listen(0)
        namespaces.listener_of(claimed[2])  # as a node has asked before it was restarted
        async with a_node() as node:
            monkeypatch.setattr(node.agents, "on_elsewhere", told.put_nowait)
            await node.agents.attach(*claimed)
            async with asyncio.timeout(20):
                assert await told.get() == [claimed[0]]
            assert node.ended.empty()
            listener.close()
            _, ending = await node.ended.get()
    assert ending.reason == LOST


async def test_a_claim_hides_no_agent_from_a_kill(claimed):
    code = f"print(flush=True)\n{WAIT}"
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env=os.environ | {tree.MARK: claimed[0]},
        stdout=subprocess.PIPE,
    )
    await agent.stdout.readline()
    async with a_node() as node:
        node.agents.expect(*claimed)
        killing = await node.agents.kill(claimed[0], "c1", 1.0, force=True)
    assert (killing.found, killing.gone) == (1, 1)
    await agent.wait()


async def test_what_was_written_on_another_machine_is_told_lost_only_later(
    tmp_path, short_path, monkeypatch
):
    monkeypatch.setattr(processes, "START_WAIT_S", 0.2)
    named = tmp_path / "machine-id"
    named.write_text("4f1c\n")
    monkeypatch.setattr(namespaces, "MACHINE_ID", str(named))
    assert "4f1c" not in namespaces.machine_id()
    endings = {}
    for machine in ("", namespaces.machine_id(), "0123456789abcdef"):
        home = tmp_path / f"{short_path.name}{machine}"
        home.mkdir(mode=0o700)
        said = {"state": "running", "boot_id": "another", "supervisor_pid": 2, "machine": machine}
        (home / "state.json").write_text(json.dumps(said))
        async with a_node() as node:
            await node.agents.attach(home.name, home, short_path / "s")
            endings[machine] = not node.ended.empty()
            if machine not in {"", namespaces.machine_id()}:
                monkeypatch.setattr(namespaces, "MACHINE_ID", str(tmp_path / "none"))
                assert (await node.ended.get())[1].reason == LOST
    assert list(endings.values()) == [True, True, False]


def test_who_has_no_descriptor_left_to_look_with_takes_nobody_for_gone(tmp_path):
    """In a process of its own, whose room for descriptors is used up."""
    code = """
import os, resource, sys
from pathlib import Path
from meshnode.agents import namespaces, tree
one = tree.identity_of(int(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
assert tree.is_alive(one)
assert not tree.is_alive(tree.Identity(2**22 + 1, 1)), "a pid that no kernel gives"
try:
    namespaces.listener_of(Path(sys.argv[2]))
except BlockingIOError:
    os.close(held.pop())
assert not tree.is_alive(tree.Identity(one.pid, one.start_ticks + 1))
assert namespaces.listener_of(Path(sys.argv[2])) is None
print("looked")
"""
    asked = [sys.executable, "-c", code, str(os.getpid()), str(tmp_path / "none")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("looked\n", "")
