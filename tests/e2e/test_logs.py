"""`logs --follow` and `logs --since`: output as it comes, from whichever node it runs on."""

import json
import os
import select
import shutil
import signal
import subprocess

import pytest
from e2e.fleet import PROGRAM, Fleet, Node, wait_until

from meshnode.client.durations import seconds_of

pytestmark = pytest.mark.e2e
ECHO = ("sh", "-c", 'while read -r line; do echo "heard $line"; done; printf "the end"')

SILENCE_S = 60.0
BUSY = "while :; do echo at work; sleep 0.2; done"


class Follower:
    """A `logs --follow`, or a `watch`, in a process of its own."""

    def __init__(self, node: Node, *words: str, verb: str = "logs") -> None:
        self.process = subprocess.Popen(
            [PROGRAM, verb, *words, *(["--follow"] if verb == "logs" else [])],
            env=node.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def told(self) -> str:
        assert select.select([self.process.stderr], [], [], SILENCE_S)[0], "nothing was told"
        return self.process.stderr.readline()

    def rest(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


@pytest.fixture
def pair(fleet: Fleet) -> list[Node]:
    return fleet.mesh("anna", "berta")


def test_output_is_followed_on_any_node_until_the_session_has_ended(pair: list[Node]):
    anna, berta = pair
    assert anna.call("run", "--detach", "--agent-id", "echo", "--", *ECHO).code == 0
    wait_until(lambda: "echo" in berta.sessions())
    with Follower(anna, "echo") as near, Follower(berta, "echo") as far:
        for word in ("one", "two"):
            anna.json("steer", "echo", word)
            assert near.line() == far.line() == f"heard {word}\n"
        anna.json("close", "echo")
        for follower in (near, far):
            code, out, err = follower.rest()
            assert (code, out) == (0, "the end")
            assert "it has ended: closed by command" in err


def test_what_ended_before_is_told_whole(pair: list[Node]):
    anna, berta = pair
    anna.call("run", "--agent-id", "brief", "--", "sh", "-c", "seq 20000")
    told = "".join(f"{number}\n" for number in range(1, 20001))
    wait_until(lambda: "brief" in berta.sessions())
    for node in pair:
        with Follower(node, "brief") as follower:
            assert follower.rest()[:2] == (0, told)
    with Follower(berta, "brief", "--tail", "2", "-o", "json") as follower:
        _, out, _ = follower.rest()
    documents = [json.loads(line) for line in out.splitlines()]
    assert [one["output"] for one in documents] == ["19999\n", "20000\n"]
    assert documents[1]["position"] - documents[0]["position"] == len("19999\n")


@pytest.mark.parametrize("words", [(), ("--follow",)])
def test_output_that_is_gone_is_told(pair: list[Node], words: tuple[str, ...]):
    anna, berta = pair
    anna.call("run", "--agent-id", "brief", "--", "echo", "words")
    session = wait_until(lambda: berta.sessions().get("brief"))
    shutil.rmtree(anna.home / "sessions" / session["session_id"])
    for node in pair:
        answer = node.call("logs", "brief", *words)
        assert (answer.code, answer.out) == (3, "")
        assert f"the output of session {session['session_id']} is gone" in answer.err


def test_a_node_that_hangs_is_told_and_heard_again(fleet: Fleet):
    (anna,) = fleet.mesh("anna")
    assert anna.call("run", "--detach", "--agent-id", "echo", "--", *ECHO).code == 0
    inbox = ("--", str(PROGRAM), "steer-inbox", "--follow")
    assert anna.call("run", "--detach", "--agent-id", "reader", *inbox).code == 0
    anna.json("steer", "reader", "one")
    wait_until(lambda: '"one"' in anna.call("logs", "reader").out)
    (log,) = (one for one in anna.home.rglob("*") if one.is_file() and b'"one"' in one.read_bytes())
    with Follower(anna, "echo") as follower, Follower(anna, verb="watch") as watcher:
        assert "snapshot" in watcher.line()
        anna.json("steer", "echo", "one")
        assert follower.line() == "heard one\n"
        pid = anna.json("status")["pid"]
        os.kill(pid, signal.SIGSTOP)
        for one in (follower, watcher):
            assert one.told() == "warning: the node does not answer: waiting for it\n"
        wait_until(lambda: b"\nwarning: the node does not answer" in log.read_bytes())
        os.kill(pid, signal.SIGCONT)
        for one in (follower, watcher):
            assert one.told() == "the node is back\n"
        wait_until(lambda: log.read_bytes().endswith(b"\nthe node is back\n"))
        anna.json("steer", "echo", "two")
        assert follower.line() == "heard two\n"


def test_following_goes_on_behind_a_restart_of_the_owner(pair: list[Node]):
    anna, berta = pair
    assert anna.call("run", "--detach", "--agent-id", "echo", "--", *ECHO).code == 0
    wait_until(lambda: "echo" in berta.sessions())
    with Follower(berta, "echo") as far:
        anna.json("steer", "echo", "before")
        assert far.line() == "heard before\n"
        anna.end()
        anna.up()
        wait_until(lambda: anna.call("steer", "echo", "after").code == 0)
        assert far.line() == "heard after\n"
        anna.json("close", "echo")
        assert far.rest()[:2] == (0, "the end")


def test_ctrl_c_and_a_reader_who_leaves_end_it_without_a_word(pair: list[Node]):
    anna, _ = pair
    assert anna.call("run", "--detach", "--agent-id", "echo", "--", *ECHO).code == 0
    anna.json("steer", "echo", "hello")
    with Follower(anna, "echo") as follower:
        assert follower.line() == "heard hello\n"
        os.kill(follower.process.pid, signal.SIGINT)
        assert follower.rest() == (130, "", "")
    with Follower(anna, "echo") as follower:
        assert follower.line() == "heard hello\n"
        follower.process.stdout.close()  # and nothing more is ever written
        assert follower.process.wait(30) == 141


def test_since_leaves_out_what_was_written_before(pair: list[Node]):
    anna, berta = pair
    assert anna.call("run", "--detach", "--agent-id", "echo", "--", *ECHO).code == 0
    anna.json("steer", "echo", "old")
    wait_until(lambda: anna.call("logs", "echo").out == "heard old\n")
    wait_until(lambda: anna.call("logs", "echo", "--since", "1s").out == "")
    anna.json("steer", "echo", "new")
    wait_until(lambda: anna.call("logs", "echo").out == "heard old\nheard new\n")
    wait_until(lambda: "echo" in berta.sessions())
    assert berta.call("logs", "echo", "--since", "8h").out == "heard old\nheard new\n"
    assert berta.call("logs", "echo", "--since", "2099-01-01").out == ""
    assert anna.call("logs", "echo", "--since", "soon").code == 2
    anna.json("close", "echo")
    with Follower(berta, "echo", "--since", "8h", "--tail", "1") as follower:
        assert follower.rest()[:2] == (0, "the end")


def test_what_never_ends_is_no_yaml(pair: list[Node]):
    for kind in ("yaml", "csv"):
        assert pair[0].call("logs", "echo", "--follow", "-o", kind).code == 2
    assert pair[0].call("logs", "nobody", "--follow").code == 3


def test_an_agent_that_writes_is_seen_to_be_at_work(pair: list[Node]):
    anna, berta = pair
    run = anna.call("run", "--detach", "--agent-id", "busy", "--", "sh", "-c", BUSY)
    assert run.code == 0
    wait_until(lambda: berta.sessions().get("busy", {}).get("pid"))
    begun_s = seconds_of(berta.sessions()["busy"]["last_activity"])
    wait_until(lambda: seconds_of(berta.sessions()["busy"]["last_activity"]) > begun_s)
    happened = [
        json.loads(line) for line in berta.call("events", "busy", "-o", "json").out.splitlines()
    ]
    assert all(one["changes"] for one in happened if one["op"] == "changed")
