"""Who lost an answer asks again with the same id: it acts once, and the receipt is kept."""

from concurrent.futures import ThreadPoolExecutor
from signal import SIGCONT, SIGSTOP
from uuid import uuid4

import pytest
from e2e.fleet import wait_until
from e2e.web import API, HTTP, door_of, gateways, heard, key_of, started

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient

STEER = f"{API}/steer"


@pytest.fixture
def agent(pair, request):
    """Run an agent of the far node for one test; return its id."""
    gate, far = pair
    name = f"agent-{request.node.name[-40:].replace('[', '-').rstrip(']')}"
    started(far, name, seen_by=gate)
    return name


def living(door, agent: str) -> list[str]:
    """Return the sessions of an agent that live, as the door knows it."""
    listed = door.ask("GET", f"{API}/alive?agent_id={agent}").json["sessions"]
    return [one["session_id"] for one in listed]


@pytest.mark.parametrize("quoted", ['"{}"', "{}"], ids=["quoted", "bare"])
def test_two_posts_with_one_idempotency_key_are_one_message(pair, door, agent, quoted):
    headers = {"Idempotency_Key": quoted.format(uuid4())}
    body = {"agent_id": agent, "message": "once"}
    first, second = (door.ask("POST", STEER, body, **headers) for _ in range(2))
    assert (first.status, first.json["outcome"]) == (200, "delivered")
    assert first.json == second.json, "the same receipt"
    door.ask("POST", STEER, {"agent_id": agent, "message": "last"})
    wait_until(lambda: heard(pair[1], agent)[-1:] == ["last"])
    assert heard(pair[1], agent) == ["once", "last"]


def test_the_id_of_an_answer_repeats_it_and_many_at_once_are_one(pair, door, agent):
    first = {"agent_id": agent, "message": "first"}
    told = door.ask("POST", STEER, first)
    made = told.json["command_id"]
    assert door.ask("POST", STEER, first | {"command_id": made}).content == told.content
    chosen = "a" * 26
    body = {"agent_id": agent, "message": "once", "command_id": chosen}
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: door.ask("POST", STEER, body), range(8)))
    assert {one.status for one in answers} == {200}
    assert len({one.content for one in answers}) == 1
    assert answers[0].json["command_id"] == chosen != made
    assert heard(pair[1], agent) == ["first", "once"]


def test_an_id_belongs_to_what_it_ordered_and_to_the_key_that_ordered_it(pair, door, agent):
    gate, far = pair
    body = {"agent_id": agent, "message": "mine", "command_id": "e" * 26}
    assert door.ask("POST", STEER, body).status == 200
    for other in ({"message": "another"}, {"mode": "after"}, {"node": "far"}):
        refused = door.ask("POST", STEER, body | other)
        assert (refused.status, refused.code) == (409, "conflict"), other
        assert "receipt" not in refused.json
    stranger = door.with_key(key_of(gate))
    refused = stranger.ask("POST", STEER, body)
    assert (refused.status, refused.code) == (409, "conflict")
    assert "receipt" not in refused.json
    word = {"Idempotency_Key": "order-1"}
    body = {"agent_id": agent, "message": "by a word"}
    ours = door.ask("POST", STEER, body, **word)
    theirs = stranger.ask("POST", STEER, body, **word)
    assert theirs.status == 200, "a word of one is free for another"
    assert ours.json["command_id"] != theirs.json["command_id"]
    assert heard(far, agent) == ["mine", "by a word", "by a word"]


def test_a_renewed_key_that_repeats_a_word_does_not_act_again(pair, door, agent):
    gate, far = pair
    renewal = door.with_key(key_of(gate, "--renewable"))
    body, word = {"agent_id": agent, "message": "once"}, {"Idempotency_Key": "order-2"}
    first, second = (
        door.with_key(renewal.ask("POST", f"{API}/keys", {}).json["key"]) for _ in range(2)
    )
    assert first.ask("POST", STEER, body, **word).status == 200
    refused = second.ask("POST", STEER, body, **word)
    assert (refused.status, refused.code) == (409, "conflict")
    assert "another key" in refused.json["hint"]
    assert heard(far, agent) == ["once"]


@pytest.mark.parametrize(
    ("field", "header"),
    [
        ("short", None),
        ("a" * 25 + "b", None),
        ("A" * 26, None),
        (7, None),
        ("", None),
        (None, '"unclosed'),
        (None, "two words"),
        (None, "x" * 129),
        (None, '""'),
        ("a" * 26, "both"),
    ],
)
def test_an_id_that_is_none_is_a_400_that_names_it(door, field, header):
    body = {"agent_id": "nobody", "message": "x"} | ({} if field is None else {"command_id": field})
    headers = {} if header is None else {"Idempotency_Key": header}
    refused = door.ask("POST", STEER, body, **headers)
    assert (refused.status, refused.code) == (400, "usage")
    assert refused.json["field"] == ("Idempotency-Key" if field is None else "command_id")


def test_a_kill_that_is_repeated_has_the_receipt_of_the_first(pair, door, agent):
    word = {"Idempotency_Key": str(uuid4())}
    first = door.ask("DELETE", f"{API}/agents/{agent}?force=true", **word)
    assert (first.status, first.json["outcome"]) == (200, "applied")
    assert first.json["processes"]["gone"] >= 1
    wait_until(lambda: not living(door, agent))
    again = door.ask("DELETE", f"{API}/agents/{agent}?force=true", **word)
    assert (again.status, again.json) == (200, first.json)
    by_id = f"/sessions/{first.json['session_id']}?command_id={first.json['command_id']}"
    assert door.ask("DELETE", by_id).code == "conflict", "other words"
    anew = door.ask("DELETE", f"{API}/agents/{agent}")
    assert (anew.json["detail"], bool(anew.json["command_id"])) == ("already ended", True)


@pytest.mark.parametrize("given", [True, False], ids=["word", "answer"])
def test_a_repeated_kill_of_what_had_ended_leaves_its_successor_alone(pair, door, agent, given):
    path, word = f"{API}/agents/{agent}", {"Idempotency_Key": str(uuid4())} if given else {}
    assert door.ask("DELETE", f"{path}?force=true").json["outcome"] == "applied"
    wait_until(lambda: not living(door, agent))
    first = door.ask("DELETE", path, **word)
    assert (first.status, first.json["detail"]) == (200, "already ended")
    started(pair[1], agent)
    wait_until(lambda: living(door, agent))
    successor = living(door, agent)
    again = door.ask(
        "DELETE", path if given else f"{path}?command_id={first.json['command_id']}", **word
    )
    assert (again.status, again.json) == (200, first.json)
    assert living(door, agent) == successor
    assert door.ask("DELETE", f"{path}?force=true").json["processes"]["gone"] >= 1


def test_what_nobody_answered_is_a_504_whose_id_tells_later_what_became_of_it(fleet):
    gate, far = gateways(fleet, "gate", "far")
    door = door_of(gate)
    started(far, "stalled", seen_by=gate)
    far.process.send_signal(SIGSTOP)
    try:
        body = {"agent_id": "stalled", "message": "once"}
        lost = door.ask("POST", STEER, body)
    finally:
        far.process.send_signal(SIGCONT)
    assert lost.status == 504
    assert lost.code in {"timeout", "unreachable"}
    command_id = lost.json["command_id"]
    assert command_id in lost.json["hint"]
    wait_until(lambda: gate.states()["far"] == "alive")
    again = door.ask("POST", STEER, body | {"command_id": command_id})
    assert (again.status, again.json["outcome"]) == (200, "delivered")
    assert again.json["command_id"] == command_id
    wait_until(lambda: heard(far, "stalled"))
    assert heard(far, "stalled") == ["once"]
    gate.end()
    gate.up("--listen", "127.0.0.1:0", "--no-mdns", "--http", "127.0.0.1:0")
    wait_until(lambda: gate.states()["far"] == "alive")
    fresh = door_of(gate).with_key(door.key)
    refused = fresh.ask("POST", STEER, body | {"command_id": command_id})
    assert (refused.status, refused.code) == (409, "conflict"), "forgotten here, not by the owner"
    assert heard(far, "stalled") == ["once"]


def test_what_was_ordered_before_its_owner_lost_its_disk_does_not_act_again(fleet):
    gate, far = gateways(fleet, "gate", "far")
    door = door_of(gate)
    started(far, "survivor", seen_by=gate)
    epoch = epoch_of(gate)
    body, word = {"agent_id": "survivor", "message": "once"}, {"Idempotency_Key": str(uuid4())}
    first = door.ask("POST", STEER, body, **word)
    assert first.json["outcome"] == "delivered"
    wait_until(lambda: heard(far, "survivor") == ["once"])
    far.end()
    for file in far.home.glob("state.db*"):
        file.unlink()
    far.up("--listen", "127.0.0.1:0", *HTTP)
    wait_until(lambda: epoch_of(gate) not in {None, epoch}, "another epoch")
    for _ in range(2):
        refused = door.ask("POST", STEER, body, **word)
        assert (refused.status, refused.code) == (409, "conflict")
        assert "is not known" in refused.json["detail"]
        assert refused.json["command_id"] == first.json["command_id"]
        assert "run the command again" not in refused.json["hint"]
    anew = {"Idempotency_Key": str(uuid4())}
    assert door.ask("POST", STEER, body | {"message": "twice"}, **anew).status == 200
    wait_until(lambda: heard(far, "survivor") == ["once", "twice"])


def epoch_of(node) -> int | None:
    """Return in which epoch the one session that there is lives."""
    with MeshClient(Home(node.home)) as client:
        listed = client.list_sessions()["sessions"]
    return listed[0]["session_epoch"] if listed else None
