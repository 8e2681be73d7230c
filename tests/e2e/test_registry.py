"""Who is good at what, told on one node, asked on another, and taken back on a third."""

import signal

import pytest
from e2e.fleet import wait_until

from meshnode.client.errors import UsageError


def found(node, spec: str) -> dict[str, dict]:
    return {agent["agent_id"]: agent for agent in node.json("find", spec)["agents"]}


def test_what_one_node_registers_another_finds_and_a_third_takes_back(trio):
    anna, berta, carl = trio
    told = ("--attr", "load=30%", "--attr", "version=1.4", "--attr", "cost_per_mtok_usd=2.50")
    anna.json("register", "--spec", "images", "--agent-id", "printer", *told)
    wait_until(lambda: "printer" in found(carl, "images"))
    agent = found(carl, "images")["printer"]
    assert (agent["load"], agent["node_name"]) == (0.3, "anna")
    assert agent["attributes"]["version"] == "1.4"
    table = carl.call("find", "images").out
    assert "USD/MTOK" in table
    assert "2.50" in table
    carl.json("register", "--spec", "images", "--agent-id", "printer", "--attr", "load=0.9")
    wait_until(lambda: found(berta, "images")["printer"]["load"] == 0.9)
    assert len(berta.json("find", "images")["agents"]) == 1
    berta.json("unregister", "--spec", "images", "--agent-id", "printer")
    for node in trio:
        wait_until(lambda node=node: not found(node, "images"), node.name)
    again = berta.call("unregister", "--spec", "images", "--agent-id", "printer")
    assert again.code == 3
    assert "printer is not registered for images" in again.out
    anna.end()
    anna.up()
    wait_until(lambda: list(anna.states().values()) == ["alive"] * 3)
    for node in trio:
        assert not found(node, "images"), "what was taken back stays away after a restart"


def test_specializations_with_a_comma_between_them_are_two(trio):
    anna = trio[0]
    anna.json("register", "--spec", "left,right", "--agent-id", "walker")
    assert all("walker" in found(anna, spec) for spec in ("left", "right"))
    anna.call("run", "--detach", "--agent-id", "runner", "--spec", "up,down", "--", "cat")
    assert anna.sessions()["runner"]["specializations"] == ["up", "down"]
    assert [one["agent_id"] for one in anna.json("list", "--spec", "down")["sessions"]] == [
        "runner"
    ]
    with anna.client() as mesh, pytest.raises(UsageError, match="no comma"):
        mesh.register("walker", "left,right")
    anna.json("kill", "--all", "--spec", "up", "--yes")


def test_agents_of_a_node_that_is_gone_are_silent_and_not_forgotten(trio):
    anna, berta, _ = trio
    anna.json("register", "--spec", "sound", "--agent-id", "singer")
    wait_until(lambda: "singer" in found(berta, "sound"))
    anna.end(signal.SIGKILL)
    wait_until(lambda: not found(berta, "sound"))
    assert berta.json("find", "sound")["coverage"]["nodes_heard"] == 2
    anna.up()
    wait_until(lambda: "singer" in found(berta, "sound"))


def test_a_file_with_one_wrong_entry_registers_none(trio, tmp_path):
    anna = trio[0]
    path = tmp_path / "agents.yaml"
    path.write_text(
        "- {spec: text, agent_id: '1'}\n- {spec: text, agent_id: '2', attributes: {load: much}}\n"
    )
    answer = anna.call("register", "-f", str(path), "-o", "json")
    assert answer.code == 2
    assert answer.error["message"] == "agents.yaml:2: entry 2: load is 'much'"
    assert found(anna, "text") == {}
    path.write_text("- {spec: text, agent_id: '1'}\n- {spec: [text, more], agent_id: '2'}\n")
    assert len(anna.json("register", "-f", str(path))["results"]) == 3
    assert set(found(anna, "text")) == {"1", "2"}
    assert anna.call("find", "text", "-q").out == "1\n2\n"


def test_what_was_registered_in_a_mesh_that_a_home_has_left_is_not_found_in_the_next(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    for node in (anna, berta):
        node.up("--listen", "127.0.0.1:0", "--no-mdns")
    anna.json("register", "--spec", "images", "--agent-id", "of-the-old-mesh")
    anna.end()
    fleet.join(berta, anna)
    for _ in range(3):
        anna.up()
        wait_until(lambda: berta.states().get("anna") == "alive", "anna")
        assert not found(anna, "images")
        assert not found(berta, "images")
        assert anna.json("status")["alarms"] == []
        anna.end()
