"""An answer of 400 names the field, hints name routes, and no answer repeats a key."""

import sys

import pytest
from e2e.fleet import wait_until
from e2e.web import API, Door, door_of, gateways, key_of, started

COST, KEYS, REGISTRY, STEER = (f"{API}/{name}" for name in ("cost", "keys", "registry", "steer"))

LEAST = {"agents": 3, "nodes": 1, "groups": 2, "sessions": 2}  # how many there are of each
LONG = "\u00e9" * 20_000  # 40,000 bytes


@pytest.fixture(scope="module")
def node(shared_fleet):
    (node,) = gateways(shared_fleet, "answering")
    started(node, "123")
    report = f"{sys.executable} -m session_mesh report --input 1 --output 1 --model model-"
    spend = " && ".join(f"{report}{one} --id {one}" for one in ("a", "b"))
    assert node.call("run", "--agent-id", "spender", "--", "sh", "-c", spend).code == 0
    return node


@pytest.fixture(scope="module")
def door(node):
    return door_of(node)


def steer(**said):
    return "POST", STEER, {"agent_id": "123", "message": "x"} | said


def register(**said):
    return "POST", REGISTRY, {"agent_id": "123", "specialization": "tidy"} | said


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("next", ("GET", "/sessions?next=abc", None)),
        ("next", ("GET", f"{API}/alive?next=1234567890", None)),
        ("limit", ("GET", "/sessions?limit=0", None)),
        ("force", ("DELETE", f"{API}/agents/123?force=yes", None)),
        ("since", ("GET", f"{COST}?since=yesterday", None)),
        ("until", ("GET", f"{COST}?until=2026-13-01", None)),
        ("tz", ("GET", f"{COST}?tz=Mars/Base", None)),
        ("actions", ("POST", KEYS, {"actions": ["fly"]})),
        ("specializations", ("POST", KEYS, {"specializations": ["a,b"]})),
        ("ttl", ("POST", KEYS, {"ttl": "60"})),
        ("session_key", ("POST", KEYS, {"session_key": "x" * 129})),
        ("session_key", ("POST", KEYS, {"session_key": "smk1_AAAA"})),
        ("message", ("POST", STEER, f'{{"agent_id": "123", "message": "{LONG}"}}'.encode())),
        ("message", ("POST", STEER, b'{"message": "a", "message": "b", "agent_id": "123"}')),
        ("agent_id", steer(session_id="b" * 26)),
        ("agent_id", ("DELETE", f"{API}/agents/{'a' * 513}", None)),
        ("session_id", ("DELETE", f"/sessions/{'a' * 513}", None)),
        ("session_id", ("GET", f"/sessions/{'a' * 513}", None)),
        ("agent_id", register(agent_id="a" * 129)),
        ("specialization", register(specialization="")),
        ("specialization", register(specialization="a,b")),
        ("attributes", register(attributes={f"a{n}": "x" for n in range(33)})),
        ("attributes", register(attributes={"a": "x" * 129})),
        ("attributes", register(attributes={"load": "much"})),
        ("agent_id", ("DELETE", f"{REGISTRY}?specialization=a&agent_id={'a' * 129}", None)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_off_is_named(door, field, asked):
    refused = door.ask(*asked)
    assert (refused.status, refused.code, refused.json["field"]) == (400, "usage", field)
    assert "AAAA" not in refused.json["detail"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (steer(node="zz"), ["GET /api/session-mesh/nodes"]),
        (steer(agent_id="nobody"), ["GET /sessions"]),
        (steer(session_id="b" * 26), ["not both"]),
        (register(agent_id="a" * 129), ["at most 128"]),
        (("POST", STEER, b" " * 70_000), ["file"]),
        (("POST", KEYS, {"ttl": 0}), ["3600"]),
        (("GET", "/sessions?limit=many", None), ["limit=100"]),
        (("DELETE", f"{API}/agents/123?force=yes", None), ["force=true"]),
        (("GET", f"/sessions/{'a' * 26}?x=y", None), ["takes none"]),
    ],
)
def test_a_hint_says_what_to_do_over_http(door, asked, words):
    refused = door.ask(*asked)
    assert refused.status >= 400
    for word in words:
        assert word in f"{refused.json['detail']} {refused.json['hint']}"
    assert "session-mesh list" not in (refused.json["hint"] or "")
    assert "session-mesh nodes" not in (refused.json["hint"] or "").replace("/api/", "")


@pytest.mark.parametrize(
    "asked",
    [
        ("POST", STEER, {"session_id": "123", "message": "x"}),
        ("GET", "/sessions/123", None),
        ("DELETE", "/sessions/123", None),
    ],
    ids=lambda asked: " ".join(asked[:2]),
)
def test_the_name_of_an_agent_in_place_of_a_session_id_is_told_as_that(door, asked):
    refused = door.ask(*asked)
    assert (refused.status, refused.json["detail"]) == (404, "no session '123'")
    assert "an agent is named by agent_id" in refused.json["hint"]


def test_the_cost_of_a_session_is_that_of_its_whole_id_or_no_answer_at_all(node, door):
    def sessions():
        groups = door.ask("GET", f"{COST}?by=session").json["groups"]
        return [group["key"]["session"] for group in groups]

    (spender,) = wait_until(sessions, "the report")
    asked = f"{COST}?by=model&session_id="
    assert door.ask("GET", asked + spender).json["records"]
    idle = node.sessions()["123"]["session_id"]
    later = f"{spender}&since=2100-01-01"
    for known in (idle, later):
        nothing = door.ask("GET", asked + known)
        assert (nothing.status, nothing.json["records"]) == (200, 0)
    for word in (spender[:10], "spender", "nonsense", "nonsense&node=answering"):
        refused = door.ask("GET", asked + word)
        assert (refused.status, refused.code) == (404, "not_found")
        assert "the whole id" in refused.json["hint"]
        assert "by=session" in refused.json["hint"]


def test_a_renewal_key_is_told_which_route_makes_keys(node, door):
    renewal = door.with_key(key_of(node, "--renewable"))
    assert f"POST {KEYS}" in renewal.ask("GET", "/sessions").json["hint"]


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/{}",
        f"{API}/agents/{{}}",
        "/nowhere/{}",
        "/health?key={}",
        "/openapi.json?{}=1",
        "/metrics?key={}",
        "/sessions?owner={}",
    ],
)
def test_a_key_in_an_address_is_refused_wherever_it_stands(door, path):
    for who in (door, Door(door.address)):
        for method in ("GET", "DELETE"):
            refused = who.ask(method, path.format(door.key[:200]))
            assert (refused.status, refused.code) == (400, "usage")
            assert door.key[5:40].encode() not in refused.content


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("agents", f"{REGISTRY}?"),
        ("nodes", f"{API}/nodes?"),
        ("groups", f"{COST}?by=model&"),
        ("sessions", "/sessions?"),
    ],
)
def test_every_list_comes_in_pages(door, name, path):
    for number in range(3):
        assert door.ask(*register(agent_id=f"listed{number}")).status == 200

    def known():
        found = door.ask("GET", path).json
        assert found["next"] is None
        return len(found[name]) >= LEAST[name] and found[name]

    whole, seen, following = wait_until(known, name), [], ""
    while following is not None:
        page = door.ask("GET", f"{path}limit=1{following and '&next='}{following}").json
        seen += page[name]
        following = page["next"]
        assert len(seen) <= len(whole)
        assert len(page[name]) == 1
    assert [named(one) for one in seen] == [named(one) for one in whole]
    refused = door.ask("GET", f"{path}limit=1001")
    assert (refused.status, refused.json["field"]) == (400, "limit")


def named(one):
    return [one.get(name) for name in ("agent_id", "node_id", "key")]
