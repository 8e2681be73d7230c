"""Stopping a node whose agents do not want to end, by somebody who may not want to wait."""

import json
import signal
import subprocess
from contextlib import closing
from random import Random

import pytest
from e2e.bad_input.refusal import LOCAL
from e2e.fleet import PROGRAM, wait_until

from meshnode.client.errors import ConflictError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.store import feeds
from meshnode.store.database import Database

STUBBORN = "trap 'echo asked >> $0' TERM; while :; do sleep 0.1; done"
MANY = 8  # one after the other they take longer than a call does


@pytest.fixture
def anna(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up(*LOCAL)
    return anna


def begin(node, name: str):
    """Start an agent that is not ended by TERM; returns the file that says that it was asked."""
    asked = node.home.parent / f"{name}.asked"
    answer = node.call("run", "--detach", "--agent-id", name, "--", "sh", "-c", STUBBORN, asked)
    assert answer.code == 0, answer
    return asked


@pytest.mark.timeout(240)
def test_down_ends_agents_side_by_side(anna):
    for number in range(MANY):
        begin(anna, f"stubborn-{number}")
    answer = anna.call("down", "--close-sessions", "-o", "json")
    assert (answer.code, answer.json) == (0, {"kept": 0, "closed": MANY, "links": 0, "members": 0})
    assert anna.wait() == 0
    assert {one["state"] for one in anna.sessions("--filter", "all").values()} == {"killed"}


@pytest.mark.parametrize("verb", [("down",), ("leave", "--yes")], ids=["down", "leave"])
def test_an_end_that_was_begun_is_seen_through_whoever_stops_waiting(anna, verb):
    asked = begin(anna, "stubborn")
    words = [PROGRAM, *verb, "--close-sessions"]
    with subprocess.Popen(words, env=anna.environment, stderr=subprocess.DEVNULL) as stopping:
        wait_until(asked.exists, "the agent to be asked to end")
        stopping.send_signal(signal.SIGINT)
    assert anna.wait() == 0
    assert anna.sessions("--filter", "all")["stubborn"]["state"] == "killed"


def test_who_asks_again_waits_for_the_same_end_and_who_asks_for_another_is_refused(anna):
    asked = begin(anna, "stubborn")
    words = [PROGRAM, "down", "--close-sessions"]
    with subprocess.Popen(words, env=anna.environment, stdout=subprocess.DEVNULL) as stopping:
        wait_until(asked.exists, "the agent to be asked to end")
        with anna.client() as mesh:
            with pytest.raises(ConflictError, match="ending already"):
                mesh.stop(leave=True, sessions="close")
            assert mesh.stop(sessions="close")["closed"] == 1
        assert stopping.wait() == 0
    assert anna.wait() == 0


def test_a_node_that_dies_while_it_ends_is_not_told_as_one_that_was_not_there(anna):
    asked = begin(anna, "stubborn")
    words = [PROGRAM, "down", "--close-sessions", "-o", "json"]
    with subprocess.Popen(words, env=anna.environment, stderr=subprocess.PIPE) as stopping:
        wait_until(asked.exists, "the agent to be asked to end")
        anna.end(signal.SIGKILL)
        said = json.loads(stopping.stderr.read())["error"]
        assert stopping.wait() == 6
    assert (said["code"], said["message"]) == (
        "timeout",
        "the node of this home ended before it answered",
    )
    anna.up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_node_starts_ends_it_in_order(fleet, number):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.begin(*LOCAL)
    socket = anna.home / "run" / "node.sock"
    while not socket.exists() and anna.process.poll() is None:
        pass  # it is bound shortly before the node is ready
    assert anna.end(number) == 0
    assert "Traceback" not in anna.stderr
    assert anna.states() == {"anna": "down"}


def test_ctrl_c_while_a_node_is_loaded_or_founds_its_mesh_is_no_fault(fleet):
    anna = fleet.node("anna")
    anna.begin(*LOCAL)
    lock = anna.home / "run" / "node.lock"
    while not lock.exists() and anna.process.poll() is None:
        pass
    assert anna.end(signal.SIGINT) in {0, 130}  # 0: it was serving by then
    assert anna.stderr == ""
    anna.up(*LOCAL)


def test_no_members_time_keeps_others_from_saying_that_they_are_down(anna):
    """Whoever is a member signs what its clock shows, and no text can say some of that."""
    assert anna.call("down").code == 0
    assert anna.wait() == 0
    genesis = genesis_from_bytes((anna.home / "genesis.bin").read_bytes())
    feed = OwnFeed(Key.new(Random(4).randbytes), genesis.mesh_id, genesis.limits, 1)
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("thief")))
    with closing(Database(anna.home / "state.db")) as database:
        database.run_now(feeds.save, [feed.flush(1e15)], [])
    anna.up(*LOCAL)
    assert anna.states()["thief"] != "alive"
    assert anna.call("down").code == 0
    assert anna.wait() == 0
    nodes = {one["name"]: one for one in anna.json("nodes")["nodes"]}
    assert nodes["anna"]["state"] == "down"
    assert nodes["thief"]["last_heard"] == "9999-12-31T23:59:59.000Z"
