"""The seed's command line: directions that a configuration gives a meaning, and load-config."""

from e2e.fleet import wait_until
from e2e.web import API, HTTP, door_of, heard, started

CONFIG = """
listen: 127.0.0.1:0
mdns: off
directions:
  north: look at the tests first, {agent_id}
  west: {handoff: helper}
  stop: {template: stop at once, mode: now}
"""
INTERRUPTIBLE = """
trap 'echo heard the signal' USR1
while read -r line || [ $? -gt 128 ]; do echo heard $line; done
"""
SELECTED = """
sessions:
  - id: 123
  - filter: suspended
"""


def test_the_owners_configuration_says_what_a_direction_means(fleet):
    (owner,) = fleet.mesh("owner")
    owner.end()
    (owner.home.parent / "directions.yaml").write_text(CONFIG)
    loaded = owner.json("load-config", str(owner.home.parent / "directions.yaml"))
    assert loaded == {"config": str(owner.home / "config.yaml"), "selection": None}
    owner.up("--listen", "127.0.0.1:0", "--no-mdns")
    started(owner, "123")
    for word in ("north", "east"):
        assert (
            owner.json("steer", "--agent-id", "123", "--direction", word)["outcome"] == "delivered"
        )
    refused = owner.call("steer", "--agent-id", "123", "--direction", "west", "-o", "json")
    assert (refused.code, refused.json["outcome"]) == (8, "refused")
    assert "not alive" in refused.json["detail"]
    started(owner, "helper")
    told = owner.call("steer", "--agent-id", "123", "--direction", "west", "--verbose")
    assert told.code == 0
    assert "SubmitCommand: " in told.err
    expected = ["look at the tests first, 123", "direction: east"]
    wait_until(lambda: heard(owner, "123")[:2] == expected)
    last = "hand your work over to helper on owner"
    wait_until(lambda: heard(owner, "123")[-1].startswith(last))


def listed(node) -> set[str]:
    return {one["agent_id"] for one in node.json("list")["sessions"]}


def test_list_shows_what_load_config_chose_until_it_is_told_otherwise(fleet):
    (node,) = fleet.mesh("alone")
    for agent in ("123", "other"):
        started(node, agent)
    file = node.home.parent / "sessions.yaml"
    file.write_text(SELECTED)
    assert node.json("load-config", str(file)) == {"config": None, "selection": 2}
    assert listed(node) == {"123"}
    node.json("suspend", "other")
    assert listed(node) == {"123", "other"}
    shown = node.call("list", "--filter", "alive", "--output", "json", "--verbose")
    assert {one["agent_id"] for one in shown.json["sessions"]} == {"123", "other"}
    assert "ListSessions: " in shown.err
    node.json("kill", "--agent-id", "123", "--force")
    file.write_text("sessions: []")
    assert node.json("load-config", str(file))["selection"] == 0
    assert "load-config" not in node.call("list").err
    file.write_text("sessions: [{filter: sleeping}]")
    wrong = node.call("load-config", str(file), "-o", "json")
    assert (wrong.code, "sessions.yaml:1" in wrong.error["message"]) == (2, True)
    assert node.call("load-config", str(node.home / "none.yaml")).code == 3


def test_a_mode_acts_the_same_whoever_names_it(fleet):
    (owner,) = fleet.mesh("owner")
    owner.end()
    (owner.home / "config.yaml").write_text(CONFIG)
    owner.up("--listen", "127.0.0.1:0", "--no-mdns", *HTTP)
    door = door_of(owner)
    started(owner, "plain")
    command = ("--interrupt", "USR1", "--", "bash", "-c", INTERRUPTIBLE)
    assert owner.call("run", "--detach", "--agent-id", "quick", *command).code == 0
    can = {one["agent_id"]: one["can"]["steer"] for one in owner.json("list")["sessions"]}
    assert can == {"plain": "queue", "quick": "preempt"}
    for agent, outcome in (("plain", "refused"), ("quick", "delivered")):
        by_direction = owner.call("steer", agent, "--direction", "stop", "-o", "json").json
        by_flag = owner.call("steer", agent, "now!", "--mode", "now", "-o", "json").json
        answers = [
            door.ask("POST", f"{API}/steer", {"agent_id": agent} | said).json
            for said in ({"direction": "stop"}, {"message": "now!", "mode": "now"})
        ]
        over_http = [one.get("outcome") for one in answers]
        if outcome == "refused":
            over_http = [one["outcome"] for one in over_http]
        assert {by_direction["outcome"], by_flag["outcome"], *over_http} == {outcome}
        detail = by_direction["detail"]
        assert ("cannot be interrupted" if outcome == "refused" else "SIGUSR1") in detail
        softly = {"agent_id": agent, "direction": "stop", "mode": "soft"}
        said = door.ask("POST", f"{API}/steer", softly).json
        assert (said["outcome"], "SIGUSR1" in said["detail"]) == ("delivered", False)
    assert heard(owner, "plain") == ["stop at once"]
    wait_until(lambda: heard(owner, "quick")[-1] == "stop at once")
    assert heard(owner, "quick").count("the signal") >= 1  # signals that come together are one
    unknown = door.ask(
        "POST", f"{API}/steer", {"agent_id": "plain", "message": "x", "mode": "loud"}
    )
    assert (unknown.status, unknown.json["field"]) == (400, "mode")
    (owner.home.parent / "loud.yaml").write_text("directions:\n  up: {mode: loud}\n")
    wrong = owner.call("load-config", str(owner.home.parent / "loud.yaml"), "-o", "json")
    assert (wrong.code, "loud.yaml:2" in wrong.error["message"]) == (2, True)
    assert "soft, now, after" in wrong.error["message"] + (wrong.error["hint"] or "")
