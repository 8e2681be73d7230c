"""What is done at a node is recorded there, and who changes the record is found out."""

import json
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from e2e.fleet import wait_until

from meshnode.core.keys import key_id_of


@pytest.fixture
def pair(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    started = berta.call("run", "--detach", "--agent-id", "echo", "--", "cat")
    assert started.code == 0, started.err
    wait_until(lambda: "echo" in anna.sessions(), "anna to see echo")
    return anna, berta


def kill_and_be_heard(by, agent: str, owner) -> None:
    """Kill an agent, and wait until others have heard a head that covers the record of that."""
    wait_until(lambda: by.call("kill", agent, "--force").code == 0, f"the end of {agent}")
    (*_, done) = owner.json("audit", "--kind", "command_executed")["records"]
    verify = ("audit", "--verify", "--node", owner.name)
    wait_until(lambda: by.json(*verify)["heads_seq"] >= done["seq"], "a head of its record")


def backed_up(node) -> Path:
    """Keep the database of a node in order, and let it go on."""
    node.end()
    backup = node.home.parent / "backup.db"
    shutil.copy(node.home / "state.db", backup)
    node.up()
    return backup


def put_back(node, backup: Path) -> None:
    """Put the database of a node back as it was."""
    node.end()
    for file in node.home.glob("state.db*"):
        file.unlink()
    shutil.copy(backup, node.home / "state.db")
    node.up()


def events_in(node) -> list[dict]:
    lines = (node.home / "node.log").read_text().splitlines()
    return [one for one in map(json.loads, lines) if "event" in one]


def test_who_steers_and_kills_is_recorded_and_an_edited_record_is_named(pair):
    anna, berta = pair
    operator = key_id_of(bytes.fromhex((anna.home / "operator.pub").read_text().strip()))
    steered = anna.json("steer", "echo", "a secret of the user")
    killed = anna.json("kill", "echo", "--yes")
    records = berta.json("audit")["records"]
    done = {one["action"]: one for one in records if one["kind"] == "command_executed"}
    for action, answer in (("steer", steered), ("kill", killed)):
        assert done[action]["command_id"] == answer["command_id"]
        assert (done[action]["key_id"], done[action]["agent_id"]) == (operator, "echo")
        assert done[action]["outcome"] == answer["outcome"]
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))

    from_afar = anna.json("audit", "--node", "berta", "--kind", "command_executed")["records"]
    assert from_afar == list(done.values())
    assert berta.call("audit", "--verify").code == 0
    assert anna.json("audit", "--verify", "--node", "berta")["ok"] is True

    said = {one["event"]: one for one in events_in(berta)}
    wanted = {"session_created", "session_prompt", "session_killed", "command_accepted"}
    assert wanted | {"command_executed", "node_started"} <= set(said)
    assert said["command_executed"]["key_id"] == operator
    assert said["session_killed"]["duration_s"] > 0
    assert "secret" not in (berta.home / "node.log").read_text()
    assert "secret" not in json.dumps(records)

    berta.end()
    assert berta.json("audit", "--verify")["source"] == "disk"
    seq = done["kill"]["seq"]
    with closing(sqlite3.connect(berta.home / "state.db", isolation_level=None)) as connection:
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = ?", (seq,))
    verdict = berta.call("audit", "--verify", "-o", "json")
    assert verdict.code == 1
    (wrong,) = verdict.json["wrong"]
    assert (wrong["node_name"], wrong["seq"]) == ("berta", seq)
    assert f"record {seq}" in berta.call("audit", "--verify").out


def test_a_node_put_back_to_an_old_copy_is_named_by_itself_and_by_its_neighbour(pair):
    anna, berta = pair
    backup = backed_up(berta)
    anna_sees = lambda: anna.states() == {"anna": "alive", "berta": "alive"}  # noqa: E731 - twice
    wait_until(anna_sees, "berta's return")
    kill_and_be_heard(anna, "echo", berta)
    assert anna.call("audit", "--verify").code == 0
    put_back(berta, backup)
    wait_until(anna_sees, "berta's second return")

    def named(node, *words: str) -> set[str]:
        answer = node.call("audit", "--verify", *words, "-o", "json")
        assert answer.code in {0, 1}, answer.err
        return {one["node_name"] for one in answer.json["wrong"]}

    wait_until(lambda: named(anna) == {"berta"}, "anna to notice")
    assert named(anna, "--node", "berta") == {"berta"}
    assert named(berta) == {"berta"}
    (alarm,) = [one for one in anna.json("status")["alarms"] if one["id"].startswith("audit:")]
    assert "berta" in alarm["detail"]

    *_, berta_id = shlex.split(alarm["fix"])
    assert berta.ready["node_id"].startswith(berta_id)
    accepted = anna.json("audit", "--accept", berta_id, "--yes")
    assert accepted["forgotten"] > 0
    assert named(anna) == set()
    assert named(berta) == set()
    assert not accused(anna)
    assert anna.json("audit", "--kind", "log_accepted")["records"]


def test_a_log_that_was_put_back_is_found_however_much_is_written_at_once(pair):
    anna, berta = pair
    backup = backed_up(berta)
    wait_until(lambda: anna.states()["berta"] == "alive")
    kill_and_be_heard(anna, "echo", berta)
    heard = anna.json("audit", "--verify", "--node", "berta")["heads_seq"]
    put_back(berta, backup)
    while berta.json("audit", "--limit", "1")["records"][0]["seq"] <= heard:
        assert berta.call("run", "--detach", "--", "sleep", "600").code == 0
    wait_until(lambda: accused(anna), "anna to notice")
    wait_until(lambda: "audit_log" in accused(berta), "berta to notice")
    assert anna.call("audit", "--verify", "--node", "berta").code == 1


@pytest.mark.parametrize("chars", [12, 52], ids=["as the fix writes it", "whole"])
def test_the_log_of_a_node_that_is_forgotten_can_still_be_accepted(pair, chars):
    anna, berta = pair
    backup = backed_up(berta)
    wait_until(lambda: anna.states()["berta"] == "alive")
    kill_and_be_heard(anna, "echo", berta)
    assert anna.call("audit", "--verify").code == 0
    put_back(berta, backup)
    wait_until(lambda: accused(anna), "anna to notice")
    berta.end()
    wait_until(lambda: anna.states()["berta"] != "alive")
    assert anna.call("nodes", "forget", "berta", "--yes").code == 0
    wait_until(lambda: "berta" not in anna.states())
    assert anna.call("audit", "--accept", "berta", "--yes").code == 3
    node_id = berta.ready["node_id"]
    assert anna.json("audit", "--accept", node_id[:chars], "--yes")["node_id"] == node_id
    assert not accused(anna)
    assert anna.call("audit", "--verify").code == 0


def accused(node) -> list[str]:
    alarms = node.json("status")["alarms"]
    return [one["id"] for one in alarms if one["id"].startswith("audit")]
