"""Who has no right to something over HTTP hears that, and nothing of what it is."""

import pytest
from e2e.fleet import wait_until
from e2e.web import API, door_of, gateways, key_of, started

STEER = f"{API}/steer"
BLIND = (
    ("--action", "read", "--action", "metrics"),
    ("--renewable",),
    ("--agent-id", "another"),
    ("--node", "gate"),
)


@pytest.fixture(scope="module")
def ended(pair, door):
    """Return the id of a session that is over."""
    gate, far = pair
    session_id = started(far, "over", seen_by=gate)
    assert door.ask("DELETE", f"{API}/agents/over?force=true").json["outcome"] == "applied"
    wait_until(lambda: door.ask("GET", "/sessions?filter=ended&agent_id=over").json["sessions"])
    return session_id


@pytest.fixture(scope="module")
def twins(pair, door):
    """Return the sessions of an agent that lives on both nodes, by the name of the node."""
    for node in pair:
        started(node, "twin")

    def both():
        found = door.ask("GET", "/sessions?agent_id=twin").json["sessions"]
        return len(found) == len(pair) and found

    return {one["node_name"]: one["session_id"] for one in wait_until(both)}


@pytest.mark.parametrize("flags", BLIND, ids=lambda flags: flags[-1])
def test_what_has_ended_is_told_to_who_may_end_it_alone(pair, door, ended, flags):
    blind = door.with_key(key_of(pair[0], *flags))
    for asked in (
        blind.ask("DELETE", f"{API}/agents/over"),
        blind.ask("DELETE", f"/sessions/{ended}"),
        blind.ask("POST", STEER, {"agent_id": "over", "message": "x"}),
        blind.ask("POST", STEER, {"session_id": ended, "message": "x"}),
    ):
        assert (asked.status, asked.code) == (403, "not_permitted")
        assert ended.encode() not in asked.content
    assert blind.ask("DELETE", f"{API}/agents/nobody").status == 404, "as the contract has it"
    assert door.ask("DELETE", f"{API}/agents/over").json["detail"] == "already ended"


def test_candidates_are_those_that_the_key_may_see(pair, door, twins):
    gate, _far = pair
    body = {"agent_id": "twin", "message": "x"}
    for flags in (BLIND[0], BLIND[1], BLIND[2]):
        refused = door.with_key(key_of(gate, *flags)).ask("POST", STEER, body)
        assert (refused.status, "candidates" in refused.json) == (403, False)
        assert not any(one.encode() in refused.content for one in twins.values())
    kills_alone = door.with_key(key_of(gate, "--action", "kill"))
    refused = kills_alone.ask("DELETE", f"{API}/agents/twin")
    assert (refused.status, refused.json["candidates"]) == (409, [])
    assert not any(one.encode() in refused.content for one in twins.values())
    there = door.with_key(key_of(gate, "--node", "far"))
    refused = there.ask("POST", STEER, body)
    assert refused.status == 409
    assert [one["session_id"] for one in refused.json["candidates"]] == [twins["far"]]
    assert twins["gate"].encode() not in refused.content
    assert gate.ready["node_id"].encode() not in refused.content
    assert there.ask("POST", STEER, body | {"node": "far"}).status == 200
    assert there.ask("POST", STEER, body | {"node": "gate"}).status == 403
    everything = door.ask("POST", STEER, body)
    assert {one["session_id"] for one in everything.json["candidates"]} == set(twins.values())


@pytest.mark.parametrize("flag", ["--agent-id", "--node", "--spec"])
def test_a_narrowed_key_is_told_no_sums_over_the_mesh(pair, door, flag):
    key = key_of(pair[0], flag, "gate", "--action", "metrics", "--action", "read")
    for path in ("/metrics", f"{API}/cost"):
        refused = door.with_key(key).ask("GET", path)
        assert (refused.status, refused.code) == (403, "not_permitted")
    everywhere = door.with_key(key_of(pair[0], "--action", "metrics"))
    assert everywhere.ask("GET", "/metrics").status == 200


def nodes_of(door):
    return {one["name"]: one for one in door.ask("GET", f"{API}/nodes").json["nodes"]}


def test_a_key_for_some_nodes_is_told_of_no_link_to_others(pair, door):
    gate, far = pair
    (linked,) = wait_until(lambda: nodes_of(door)["gate"]["links"])
    assert linked == far.ready["node_id"]
    narrow = door.with_key(key_of(gate, "--node", "gate"))
    assert {name: one["links"] for name, one in nodes_of(narrow).items()} == {"gate": []}
    assert linked.encode() not in narrow.ask("GET", f"{API}/nodes").content


def test_a_key_for_some_nodes_is_told_how_many_are_missing_and_not_which(fleet):
    gate, far = gateways(fleet, "gate", "far")
    door, narrow = door_of(gate), door_of(gate, "--node", "gate")
    far.end()
    wait_until(lambda: gate.states()["far"] != "alive")
    for path in (f"{API}/nodes", "/sessions", f"{API}/registry"):
        whole, part = (one.ask("GET", path).json["coverage"] for one in (door, narrow))
        assert [one["node_name"] for one in whole["missing"]] == ["far"]
        assert (part["missing"], part["missing_more"]) == ([], 1)
        counted = ("nodes_known", "nodes_heard")
        assert [part[name] for name in counted] == [whole[name] for name in counted] == [2, 1]
