"""A node whose socket somebody removes: it puts that back, and is never told to be none."""

import shutil
import signal
import socket
from pathlib import Path

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.doctoring import asked
from e2e.fleet import Fleet, Node, wait_until

from meshnode.client.errors import MeshError
from meshnode.client.home import Home


def answers(node: Node) -> bool:
    try:
        return set(node.states().values()) == {"alive"}
    except MeshError:
        return False


@pytest.mark.parametrize("gone", ["the socket", "its directory", "the lock", "replaced"])
def test_a_node_puts_back_what_was_removed_and_goes_on(fleet: Fleet, gone: str):
    (node,) = fleet.mesh("anna")
    assert node.call("run", "--detach", "--agent-id", "a", "--", "cat").code == 0
    home = Home(node.home)
    before = home.socket.stat().st_ino
    if gone == "its directory":
        shutil.rmtree(home.run)
    else:
        (home.lock if gone == "the lock" else home.socket).unlink()
    if gone == "replaced":
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(home.socket))
    wait_until(lambda: home.lock.exists() and answers(node), "the socket")
    assert (home.socket.stat().st_ino == before) == (gone == "the lock")
    words = ("already runs", f"(pid {node.process.pid})", "session-mesh down stops it")
    refused(node, 7, words, "up")
    assert node.json("status")["alarms"] == []
    if gone == "its directory":  # and with it the socket of the agent's supervisor
        node.end(signal.SIGKILL)
        node.up(*LOCAL)
        wait_until(lambda: node.call("steer", "a", "hi").code == 0, "the agent to be reached")
    assert node.json("kill", "a", "--yes")
    assert node.call("down").code == 0
    assert node.wait() == 0
    assert not home.socket.exists()


def test_who_cannot_reach_a_node_is_told_which_process_it_is(fleet: Fleet):
    (node,) = fleet.mesh("anna")
    home = Home(node.home)
    home.socket.unlink()
    home.socket.mkdir()
    pid = f"(pid {node.process.pid})"
    end = f"kill {node.process.pid}"
    refused(node, 6, (pid, "no socket that answers", end), "status")
    refused(node, 6, (pid, "no socket that answers", end), "down")
    refused(node, 7, ("already runs", pid, "no socket that answers", end), "up", *LOCAL)
    refused(node, 7, ("already runs", pid, end), "up", "--detach", *LOCAL)
    check = asked(node, 1)["node"]
    assert (pid in check["detail"], end in check["fix"]) == (True, True)
    listed = node.call("list")
    assert (listed.code, pid in listed.err) == (0, True)
    wait_until(lambda: "alarm: nobody on this machine reaches" in node.stderr, "an alarm")
    home.socket.rmdir()
    wait_until(lambda: answers(node), "the socket")
    assert node.json("status")["alarms"] == []


def test_a_node_outlives_the_end_of_the_login_that_its_socket_was_of(fleet: Fleet, monkeypatch):
    login = fleet.directory / "login"
    login.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(login))
    node = fleet.node(f"{'d' * 80}")
    node.json("init", "--name", "anna")
    node.up(*LOCAL)
    assert (node.home / "run").readlink().parent == login
    shutil.rmtree(login)
    login.mkdir(mode=0o700)
    wait_until(lambda: answers(node), "the socket")
    assert node.call("down").code == 0
    assert node.wait() == 0


def test_a_node_puts_no_socket_where_its_home_was(fleet: Fleet):
    (node,) = fleet.mesh("anna")
    aside = node.home.rename(Path(f"{node.home}.aside"))
    wait_until(lambda: "was moved or replaced under a running node" in node.stderr, "an alarm")
    assert not node.home.exists()
    aside.rename(node.home)
    wait_until(lambda: node.json("status")["alarms"] == [], "no alarm")
