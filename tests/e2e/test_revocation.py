"""What is revoked on one node counts on all: a handed-out key, and a node with its links."""

import json
import os

import pytest
from e2e.fleet import Node, wait_until


def key_of(node: Node, *flags: str, env: dict[str, str] | None = None) -> dict:
    return node.json("keys", "new", *flags, env=env)


def links_of(node: Node, name: str) -> list[str]:
    return next(one["links"] for one in node.json("nodes")["nodes"] if one["name"] == name)


@pytest.mark.timeout(240)
def test_a_node_and_a_key_are_revoked_everywhere_at_once(fleet):
    anna, berta, carl = nodes = fleet.mesh("anna", "berta", "carl")
    for node in (berta, carl):
        answer = node.call("run", "--detach", "--agent-id", f"on-{node.name}", "--", "sleep", "999")
        assert answer.code == 0, answer.err
    for node in nodes:
        wait_until(lambda node=node: {"on-berta", "on-carl"} <= set(node.sessions()), node.name)
    keys_are_revoked(anna, berta, carl)
    the_node_is_revoked(anna, berta, carl)


def keys_are_revoked(anna: Node, berta: Node, carl: Node) -> None:
    """A key, and a key made of a renewal key, stop counting on a node that did not make them."""
    plain = key_of(anna, "--label", "ci")
    renewal = key_of(anna, "--renewable", "--action", "steer", "--ttl", "1d")
    child = key_of(berta, "--ttl", "30d", env={"SESSION_API_KEY": renewal["key"]})
    assert child["actions"] == ["steer"]
    assert child["expires_at"] == renewal["expires_at"]
    steer = ("steer", "on-berta", "hello", "-o", "json")
    for key in (plain, child):
        assert carl.call(*steer, env={"SESSION_API_KEY": key["key"]}).code == 0
    refused = carl.call(*steer, env={"SESSION_API_KEY": renewal["key"]})
    assert (refused.code, refused.error["code"]) == (5, "not_permitted")
    wide = berta.call("keys", "new", "--action", "kill", env={"SESSION_API_KEY": renewal["key"]})
    assert wide.code == 5
    unknown = berta.call("keys", "revoke", plain["key_id"], "-o", "json")
    assert (unknown.code, unknown.error["code"]) == (3, "not_found")
    foreign = berta.call("keys", "revoke", "-", "-o", "json", stdin=plain["key"])
    assert (foreign.code, foreign.error["code"]) == (5, "not_permitted")
    assert carl.call(*steer, env={"SESSION_API_KEY": plain["key"]}).code == 0, "nothing changed"

    assert anna.json("keys", "revoke", plain["key_id"])["revoked"]
    assert anna.json("keys", "revoke", "-", stdin=renewal["key"])["key_id"] == renewal["key_id"]
    states = {one["key_id"]: one["state"] for one in anna.json("keys", "list")["keys"]}
    assert states == {plain["key_id"]: "revoked", renewal["key_id"]: "revoked"}
    for key in (plain, child):
        wait_until(lambda key=key: verdict(berta, key) == "revoked", "the revocation at berta")
        refused = carl.call(*steer, env={"SESSION_API_KEY": key["key"]})
        assert (refused.code, refused.error["code"]) == (4, "not_authenticated")
        assert "revoked" in refused.error["message"]
        assert key["key"] not in refused.err
    assert not [path for path in (anna.home / "keys").iterdir() if "smk1" in path.read_text()]


def verdict(node: Node, key: dict) -> str:
    return node.json("keys", "inspect", "-", stdin=key["key"])["verdict"]["state"]


def the_node_is_revoked(anna: Node, berta: Node, carl: Node) -> None:
    """Its links end, it is listed as revoked, and what it brings is refused."""
    unasked = anna.call("nodes", "revoke", "carl", "-o", "json")
    assert (unasked.code, unasked.error["code"]) == (2, "usage")
    not_admin = berta.call("nodes", "revoke", "carl", "--yes", "-o", "json")
    assert (not_admin.code, not_admin.error["code"]) == (5, "not_permitted")
    assert anna.states()["carl"] == "alive", "nothing changed"

    revoked = anna.json("nodes", "revoke", "carl", "--yes")
    assert (revoked["name"], revoked["was"], revoked["falls"]) == ("carl", "alive", [])
    for node in (anna, berta):
        wait_until(lambda node=node: node.states()["carl"] == "revoked", node.name)
        assert links_of(node, "carl") == []
        assert carl.ready["node_id"] not in links_of(node, node.name)
        assert node.sessions("--filter", "all")["on-carl"]["state"] == "unreachable"
        assert node.json("list")["coverage"]["missing"] == []
        refused = node.call("steer", "on-carl", "hello", "-o", "json")
        assert (refused.code, refused.error["code"]) == (6, "unreachable")
    wait_until(lambda: carl.states()["berta"] != "alive", "carl to be alone")
    refused = carl.call("steer", "on-berta", "hello", "-o", "json")
    assert refused.code in {5, 6}, refused.err
    checks = {one["id"]: one for one in carl.call("doctor", "-o", "json").json["checks"]}
    told = json.dumps([one for one in checks.values() if one["ok"] is False])
    assert "revoked" in told, told
    assert anna.call("doctor").code == 0, "who was put out is missed by nobody"
    os.kill(carl.process.pid, 0)
