"""The life of a command between real processes: answered, proved, interrupted, replayed."""

import json
import signal
import sqlite3
import subprocess
from contextlib import closing

import psutil
import pytest
from e2e.fleet import PROGRAM, wait_until

from meshnode.client.errors import StaleError
from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient
from meshnode.client.messages import to_wire
from meshnode.core.ids import b32
from meshnode.core.keys import Signed
from meshnode.core.packing import unpack
from meshnode.v1 import local_service_pb2 as pb

STUBBORN = ("sh", "-c", "trap '' TERM; while read -r line; do echo heard $line; done")


@pytest.fixture(scope="module")
def pair(shared_fleet):
    """Who asks, and whose agent it is."""
    return shared_fleet.mesh("asker", "owner")


def started(asker, owner, agent: str, command: tuple[str, ...] = STUBBORN) -> str:
    assert owner.call("run", "--detach", "--agent-id", agent, "--", *command).code == 0
    wait_until(lambda: agent in asker.sessions(), agent)
    return asker.sessions()[agent]["session_id"]


def heard(owner, session_id: str) -> list[str]:
    return [line for line in owner.call("logs", session_id).out.splitlines() if "heard" in line]


def new_id(number: int) -> str:
    return b32(bytes([number]) * 16)


def test_a_steer_is_proved_by_its_receipt_anywhere(pair, tmp_path):
    asker, owner = pair
    session_id = started(asker, owner, "proved")
    asked = ("steer", "proved", "north", "--command-id", new_id(1))
    early = asker.json(*asked, "--wait", "accepted")
    assert early["outcome"] in {"accepted", "delivered"}
    answers = [asker.call(*asked, "-o", "json") for _ in range(3)]
    assert len({answer.out for answer in answers}) == 1
    assert answers[0].json["outcome"] == "delivered"
    wait_until(lambda: heard(owner, session_id) == ["heard north"])
    other = asker.call("steer", "proved", "south", "--command-id", new_id(1))
    assert other.code == 7
    sent = asker.home / "outbox" / new_id(1)
    words = ("receipt", "verify", "-", "--command", str(sent))
    said = asker.json(*words, stdin=answers[0].out)
    assert (said["node_name"], said["is_member"], said["answers_command"]) == ("owner", True, True)
    nowhere = owner.call(*words, "--home", str(tmp_path / "none"), stdin=answers[0].out)
    assert (nowhere.code, "membership not known" in nowhere.out) == (0, True)
    forged = json.loads(answers[0].out)["receipt"].replace("A", "B", 1)
    assert asker.call("receipt", "verify", "-", stdin=forged).code in {1, 2}
    assert heard(owner, session_id) == ["heard north"]


def test_a_kill_goes_on_after_its_node_was_killed_in_the_midst_of_it(pair):
    asker, owner = pair
    session_id = started(asker, owner, "stubborn")
    asked = ("kill", "stubborn", "--yes", "--grace", "5s", "--timeout", "2s")
    asked += ("--command-id", new_id(2), "-o", "json")
    command = [PROGRAM, *asked]
    waiting = subprocess.Popen(
        command, env=asker.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: begun(owner), "the kill to begin")
    owner.end(signal.SIGKILL)
    assert waiting.wait(20) == 6
    with waiting:
        assert "may have been carried out" in waiting.stderr.read()
    owner.up()
    wait_until(lambda: not begun(owner), "the kill to go on and end")
    assert owner.sessions("--filter", "all")["stubborn"]["state"] == "killed"
    wait_until(lambda: asker.sessions("--filter", "all")["stubborn"]["state"] == "killed")
    assert session_id


@pytest.mark.parametrize(
    ("verb", "command", "state"),
    [("kill", STUBBORN, "killed"), ("close", ("sleep", "600"), "closed")],
    ids=["kill", "close"],
)
def test_who_ended_an_agent_is_known_although_its_node_was_killed_before_the_end(
    pair, verb, command, state
):
    asker, owner = pair
    session_id = started(asker, owner, f"{state}-by", command)
    key_of = {one["name"]: one["key_id"] for one in asker.json("operator", "list")["operators"]}
    pid = asker.sessions()[f"{state}-by"]["pid"]
    words = (
        verb,
        f"{state}-by",
        "--grace",
        "3s",
        "--timeout",
        "2s",
        *(("--yes",) if verb == "kill" else ()),
    )
    with subprocess.Popen(
        [PROGRAM, *words], env=asker.environment, stderr=subprocess.DEVNULL
    ) as waiting:
        wait_until(lambda: is_told(owner, session_id), "the supervisor to be told")
        owner.end(signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(pid), "the agent to end")
        owner.up()
        waiting.wait(20)
    wait_until(lambda: owner.json("show", f"{state}-by")["state"] == state)
    assert owner.json("show", f"{state}-by")["ended_by"] == key_of["root"]


def test_a_node_that_ends_before_it_answers_its_own_user_leaves_it_open(fleet):
    (node,) = fleet.mesh("alone")
    started(node, node, "stubborn")
    command = [PROGRAM, "kill", "stubborn", "--yes", "--grace", "5s", "-o", "json"]
    waiting = subprocess.Popen(
        command, env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: begun(node), "the kill to begin")
    node.end(signal.SIGKILL)
    with waiting:
        assert waiting.wait(20) == 6
        assert json.loads(waiting.stderr.read())["error"]["code"] == "timeout"
    refused = node.call("steer", "stubborn", "north", "-o", "json")
    assert (refused.code, refused.error["code"]) == (6, "unreachable")
    node.up()
    wait_until(lambda: node.sessions("--filter", "all")["stubborn"]["state"] == "killed")


def is_told(owner, session_id: str) -> bool:
    """Whether the agent's supervisor knows that it is to end it, with its node or without."""
    known = json.loads((owner.home / "sessions" / session_id / "state.json").read_text())
    return bool(known["killed_by_command"] or known["closed_by_command"])


def begun(owner) -> bool:
    """Whether the owner's journal holds a command whose execution has begun."""
    with closing(sqlite3.connect(owner.home / "state.db")) as database:
        found = database.execute("SELECT count(*) FROM journal WHERE state = 'executing'")
        return bool(found.fetchone()[0])


def test_what_was_signed_before_the_owners_disk_was_lost_is_void_while_its_agent_lives_on(pair):
    asker, owner = pair
    session_id = started(asker, owner, "survivor")
    asker.json("steer", "survivor", "once", "--command-id", new_id(3))
    wait_until(lambda: heard(owner, session_id) == ["heard once"])
    payload, mark = unpack((asker.home / "outbox" / new_id(3)).read_bytes())
    epoch = epoch_of(asker, session_id)
    owner.end()
    for file in owner.home.glob("state.db*"):
        file.unlink()
    owner.up()
    wait_until(lambda: "survivor" in owner.sessions(), "peers to return the session")
    # Between the owner's first word in another epoch and its next, nobody knows of the session.
    wait_until(lambda: epoch_of(asker, session_id) not in {None, epoch}, "another epoch")
    replay = pb.SubmitCommandRequest(
        node_id=owner.ready["node_id"],
        command=to_wire(Signed("command", payload, mark)),
        timeout_s=10.0,
    )
    for node in (asker, owner):
        with MeshClient(Home(node.home)) as client, pytest.raises(StaleError):
            client.call(client.node.SubmitCommand, replay)
    again = asker.call("steer", "survivor", "once", "--command-id", new_id(3), "-o", "json")
    assert (again.code, again.error["code"]) == (7, "conflict")
    assert "is not known" in again.error["message"]
    assert asker.json("steer", "survivor", "twice")["outcome"] == "delivered"
    wait_until(lambda: heard(owner, session_id) == ["heard once", "heard twice"])


def epoch_of(node, session_id: str) -> int | None:
    with MeshClient(Home(node.home)) as client:
        listed = client.list_sessions()["sessions"]
    return {one["session_id"]: one["session_epoch"] for one in listed}.get(session_id)
