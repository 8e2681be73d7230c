"""What was promised of the HTTP API: the calls that users have in their scripts, on a mesh of two.

The curl and Python calls are those users had before there was a mesh, letter by letter; only the
address is another one.
"""

import json
import sys

from e2e.fleet import wait_until
from e2e.web import API, door_of, gateways, heard, key_of, shell, started

ALIVE = """
import requests; import os
response = requests.get('https://api.example.com/api/session-mesh/alive', headers={'Authorization': f'Bearer {os.environ.get("SESSION_API_KEY")}'})
print(response.json())
"""  # noqa: E501 - as users have it
STEER = """
curl -X POST https://api.example.com/api/session-mesh/steer \\
-H "Authorization: Bearer $SESSION_API_KEY" \\
-d '{"agent_id": "123", "direction": "north"}'
"""
CAREFUL = """
import requests, os
url = 'https://api.example.com/api/session-mesh/steer'
headers = {'Authorization': 'Bearer ' + os.environ['SESSION_API_KEY']}
try:
    response = requests.post(url, headers=headers)
    response.raise_for_status()
except requests.exceptions.HTTPError as e:
    print(f"Error: {e.response.status_code} - {e.response.text}")
"""


def script(text, node):
    return text.replace("https://api.example.com", f"http://{node.ready['http']}")


def test_the_calls_that_users_have_work_unchanged(pair, door):
    gate, far = pair
    started(far, "123", seen_by=gate)
    steered = shell(
        "curl -sS -w '\\n%{http_code}' -o /dev/stderr" + script(STEER, gate)[5:], gate, door.key
    )
    assert steered.stdout.strip() == "200", steered.stderr
    assert json.loads(steered.stderr)["outcome"] == "delivered"
    wait_until(lambda: heard(far, "123") == ["direction: north"])
    (gate.home.parent / "alive.py").write_text(script(ALIVE, gate))
    listed = shell(f"{sys.executable} {gate.home.parent}/alive.py", gate, door.key)
    assert "'agent_id': '123'" in listed.stdout, listed.stderr
    (gate.home.parent / "careful.py").write_text(script(CAREFUL, gate))
    told = shell(f"{sys.executable} {gate.home.parent}/careful.py", gate, door.key)
    assert told.stdout.startswith("Error: 400 - {")
    unknown = door.ask("DELETE", f"{API}/agents/nobody")
    assert (unknown.status, unknown.code) == (404, "not_found")
    assert "GET /sessions" in unknown.json["hint"]
    ended = door.ask("DELETE", f"{API}/agents/123")
    assert (ended.status, ended.json["outcome"]) == (200, "applied")
    assert ended.json["receipt_verified"] is True
    again = door.ask("DELETE", f"{API}/agents/123?force=true")
    assert (again.status, again.json["detail"]) == (200, "already ended")
    wait_until(lambda: door.ask("GET", "/sessions?filter=killed&agent_id=123").json["sessions"])
    late = door.ask("POST", f"{API}/steer", {"agent_id": "123", "direction": "north"})
    assert (late.status, late.code) == (410, "ended")


def test_a_key_that_expired_is_made_anew_with_a_renewal_key(pair, door):
    gate, far = pair
    started(far, "patient", seen_by=gate)
    renewal = key_of(gate, "--renewable", "--ttl", "7d")
    short = door.with_key(key_of(gate, "--ttl", "1s"))

    def expired():
        reply = short.ask("GET", f"{API}/alive")
        return reply.status == 401 and reply

    refused = wait_until(expired, "the key to expire")
    assert refused.code == "key_expired"
    assert refused.headers["www-authenticate"].startswith("Bearer")
    wish = {"session_key": "abc123", "ttl": 3600}
    made = door.with_key(renewal).ask("POST", f"{API}/keys", wish)
    assert made.status == 201
    assert (made.json["label"], made.json["ttl"]) == ("abc123", 3600)
    assert made.json["session_key"] == made.json["key"]
    fresh = door.with_key(made.json["session_key"])
    body = {"agent_id": "patient", "message": "go on"}
    assert fresh.ask("POST", f"{API}/steer", body).json["outcome"] == "delivered"
    assert door.with_key(renewal).ask("GET", f"{API}/alive").status == 403


def test_a_key_made_at_a_gateway_is_good_through_that_gateway_alone(pair, door):
    gate, far = pair
    started(far, "guarded", seen_by=gate)
    made = door.ask("POST", f"{API}/keys", {"actions": ["read", "steer"], "agent_ids": ["guarded"]})
    assert made.json["actions"] == ["read", "steer"]
    key = made.json["session_key"]
    body = {"agent_id": "guarded", "direction": "east"}
    assert door.with_key(key).ask("POST", f"{API}/steer", body).status == 200
    elsewhere = door_of(far).with_key(key)
    for method, path, sent in (("POST", f"{API}/steer", body), ("GET", f"{API}/alive", None)):
        assert elsewhere.ask(method, path, sent).code == "not_permitted"
    assert far.call("steer", "guarded", "south", env={"SESSION_API_KEY": key}).code == 5
    wider = door.with_key(key).ask("POST", f"{API}/keys", {"actions": ["kill"]})
    assert wider.code == "not_permitted"
    assert heard(far, "guarded") == ["direction: east"]


def test_what_a_narrow_key_may_see_is_all_that_it_sees(pair, door):
    gate, far = pair
    started(far, "seen", "--spec", "tidy", seen_by=gate)
    started(far, "unseen", "--spec", "tidy", seen_by=gate)
    narrow = door.with_key(key_of(gate, "--agent-id", "seen"))
    listed = narrow.ask("GET", f"{API}/alive").json["sessions"]
    assert {one["agent_id"] for one in listed} == {"seen"}
    found = narrow.ask("GET", f"{API}/registry?specialization=tidy").json["agents"]
    assert {one["agent_id"] for one in found} == {"seen"}
    everybody = door.ask("GET", f"{API}/registry?specialization=tidy").json["agents"]
    assert {one["agent_id"] for one in everybody} == {"seen", "unseen"}
    other = next(
        one["session_id"]
        for one in door.ask("GET", f"{API}/alive").json["sessions"]
        if one["agent_id"] == "unseen"
    )
    assert narrow.ask("GET", f"/sessions/{other}").code == "not_permitted"
    assert narrow.ask("DELETE", f"/sessions/{other}").code == "not_permitted"
    assert narrow.ask("GET", f"{API}/cost").code == "not_permitted"
    assert door.ask("GET", f"{API}/cost?by=model&by=day").json["groups"] == []
    looker = door.with_key(key_of(gate, "--action", "read"))
    refused = looker.ask("POST", f"{API}/steer", {"agent_id": "seen", "direction": "up"})
    assert (refused.status, refused.code) == (403, "not_permitted")
    blind = door.with_key(key_of(gate, "--action", "steer"))
    assert blind.ask("GET", f"{API}/alive").code == "not_permitted"


def test_the_registry_is_written_read_and_cleared(pair, door):
    _gate, far = pair
    body = {"specialization": "image-processing", "agent_id": "painter"}
    first = door.ask("POST", f"{API}/registry", body | {"attributes": {"load": 0.3, "gpu": True}})
    assert (first.status, first.json["outcome"]) == (200, "applied")
    entries = (
        f"{API}/registry?agent_id=painter",
        f"{API}/registry?specialization=image-processing",
    )
    for path in entries:
        (found,) = door.ask("GET", path).json["agents"]
        assert (found["agent_id"], found["attributes"]) == (
            "painter",
            {"load": "0.3", "gpu": "true"},
        )
    wait_until(lambda: far.json("find", "image-processing")["agents"])
    gone = door.ask("DELETE", f"{API}/registry?specialization=image-processing&agent_id=painter")
    assert gone.json["outcome"] == "applied"
    assert door.ask("GET", entries[0]).json["agents"] == []
    again = door.ask("DELETE", f"{API}/registry?specialization=image-processing&agent_id=painter")
    assert (again.status, again.code) == (404, "unknown")


def test_what_moves_between_two_pages_puts_no_other_session_into_both(pair, door):
    gate, far = pair
    for number in range(3):
        started(far, f"moved{number}", "--owner", "mover", seen_by=gate)
    path = "/sessions?owner=mover&limit=1"
    page = door.ask("GET", path).json
    (first,) = page["sessions"]
    assert first["agent_id"] == "moved2"
    far.json("steer", "moved0", "on")
    wait_until(lambda: door.ask("GET", path).json["sessions"][0]["agent_id"] == "moved0")
    page = door.ask("GET", f"{path}&next={page['next']}").json
    assert [one["agent_id"] for one in page["sessions"]] == ["moved1"]
    assert page["next"] is None


def test_sessions_are_listed_page_by_page_shown_and_ended(pair, door):
    gate, far = pair
    ids = {started(far, f"paged{number}", seen_by=gate) for number in range(3)}
    seen, following = [], ""
    while True:
        page = door.ask("GET", f"/sessions?limit=1{following}").json
        assert len(page["sessions"]) == 1
        seen += [one["session_id"] for one in page["sessions"]]
        if page["next"] is None:
            break
        following = f"&next={page['next']}"
    assert ids <= set(seen)
    assert len(seen) == len(set(seen))
    one = ids.pop()
    shown = door.ask("GET", f"/sessions/{one}").json
    assert (shown["session_id"], shown["messages_count"]) == (one, 0)
    assert shown["node_name"] == "far"
    assert door.ask("GET", f"/sessions/{one[:10]}").code == "not_found"
    assert door.ask("DELETE", f"/sessions/{one}").json["processes"]["survivors"] == []
    nodes = door.ask("GET", f"{API}/nodes").json["nodes"]
    assert {node["name"] for node in nodes} == {"gate", "far"}
    health = gate_health(door)
    assert health["status"] == "ok"
    assert health["coverage"] == {"nodes_known": 2, "nodes_heard": 2}


def gate_health(door):
    return door.with_key("").ask("GET", "/health").json


def test_an_agent_that_lives_twice_is_a_conflict_that_names_both(pair, door):
    gate, far = pair
    started(gate, "twin")
    started(far, "twin")
    wait_until(lambda: len(gate.json("list", "--agent-id", "twin")["sessions"]) == 2)
    body = {"agent_id": "twin", "direction": "north"}
    refused = door.ask("POST", f"{API}/steer", body)
    assert (refused.status, refused.code) == (409, "conflict")
    assert {one["node_name"] for one in refused.json["candidates"]} == {"gate", "far"}
    assert door.ask("POST", f"{API}/steer", body | {"node": "far"}).status == 200
    assert (heard(gate, "gate/twin"), heard(far, "far/twin")) == ([], ["direction: north"])


def test_a_revoked_key_is_none(pair, door):
    gate, _far = pair
    made = gate.json("keys", "new", "--renewable")
    gate.json("keys", "revoke", made["key_id"])
    for method, path in (("GET", f"{API}/alive"), ("POST", f"{API}/keys")):
        reply = door.with_key(made["key"]).ask(method, path, {} if method == "POST" else None)
        assert (reply.status, reply.code) == (401, "key_revoked")


def test_an_owner_that_is_away_is_a_504(fleet):
    gate, away = gateways(fleet, "gate", "away")
    door = door_of(gate)
    started(away, "lost", seen_by=gate)
    away.end()
    wait_until(lambda: gate.states()["away"] != "alive")
    body = {"agent_id": "lost", "direction": "home"}
    refused = door.ask("POST", f"{API}/steer", body)
    assert (refused.status, refused.code) == (504, "unreachable")
    assert refused.json["command_id"] in refused.json["hint"]
    unsaid = door.ask("DELETE", f"{API}/agents/lost")
    assert (unsaid.status, unsaid.code) == (504, "unreachable"), "nothing is parked for a key"
    assert "--standing" in unsaid.json["hint"]
    told = gate.call("steer", "lost", "home", "-o", "json")
    assert (told.code, told.error["code"]) == (6, "unreachable"), "as over gRPC"
    away.up()
