"""What is revoked on one node counts on all: a handed-out key, and a node with its links."""

import json

import pytest
from e2e.fleet import Node, wait_until

from meshnode.client.home import Home
from meshnode.client.keys import keyring
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Selection

WORDS = {"SESSION_MESH_ROOT_PASSPHRASE": "one two three four"}


def client(node: Node) -> MeshClient:
    """Ask as the command line does, without its start."""
    return MeshClient(Home(node.home))


def member(viewer: Node, name: str) -> dict:
    with client(viewer) as mesh:
        return next(one for one in mesh.nodes()["nodes"] if one["name"] == name)


def sessions(viewer: Node) -> dict[str, dict]:
    with client(viewer) as mesh:
        listed = mesh.list_sessions(Selection(filter="all"))
    return {one["agent_id"]: one for one in listed["sessions"]}


def verdict(viewer: Node, key: dict) -> str:
    with client(viewer) as mesh:
        return keyring.verdict_of(mesh, key["key"])["state"]


@pytest.mark.timeout(240)
def test_a_node_and_a_key_are_revoked_everywhere_at_once(fleet):
    anna, berta, carl = nodes = fleet.mesh("anna", "berta", "carl")
    for node in (berta, carl):
        answer = node.call("run", "--detach", "--agent-id", f"on-{node.name}", "--", "sleep", "999")
        assert answer.code == 0, answer.err
    for node in nodes:
        wait_until(lambda node=node: {"on-berta", "on-carl"} <= set(sessions(node)), node.name)
    keys_are_revoked(anna, berta, carl)
    the_node_is_revoked(anna, berta, carl)


def keys_are_revoked(anna: Node, berta: Node, carl: Node) -> None:
    """A key, and a key made of a renewal key, stop counting on a node that did not make them."""
    plain = anna.json("keys", "new", "--label", "ci")
    renewal = anna.json("keys", "new", "--renewable", "--action", "steer", "--ttl", "1d")
    child = berta.json("keys", "new", "--ttl", "30d", env={"SESSION_API_KEY": renewal["key"]})
    assert (child["actions"], child["expires_at"]) == (["steer"], renewal["expires_at"])

    def steered(key: dict):
        return carl.call(
            "steer", "on-berta", "x", "-o", "json", env={"SESSION_API_KEY": key["key"]}
        )

    assert steered(child).code == 0
    refused = steered(renewal)
    assert (refused.code, refused.error["code"]) == (5, "not_permitted")
    foreign = berta.call("keys", "revoke", "-", "-o", "json", stdin=plain["key"])
    assert (foreign.code, foreign.error["code"]) == (5, "not_permitted")
    assert verdict(carl, plain) == "valid", "nothing changed"

    assert anna.json("keys", "revoke", plain["key_id"])["revoked"]
    assert anna.json("keys", "revoke", "-", stdin=renewal["key"])["key_id"] == renewal["key_id"]
    states = {one["key_id"]: one["state"] for one in anna.json("keys", "list")["keys"]}
    assert states == {plain["key_id"]: "revoked", renewal["key_id"]: "revoked"}
    for key in (plain, child):
        wait_until(lambda key=key: verdict(berta, key) == "revoked", "the revocation at berta")
        refused = steered(key)
        assert (refused.code, refused.error["code"]) == (4, "not_authenticated")
        assert "revoked" in refused.error["message"]
        assert key["key"] not in refused.err
    assert berta.json("keys", "inspect", "-", stdin=child["key"])["verdict"]["state"] == "revoked"


def the_node_is_revoked(anna: Node, berta: Node, carl: Node) -> None:
    """Its links end, it is listed as revoked, and what it brings is refused."""
    unasked = anna.call("nodes", "revoke", "carl", "-o", "json")
    assert (unasked.code, unasked.error["code"]) == (2, "usage")
    not_admin = berta.call("nodes", "revoke", "carl", "--yes", "-o", "json")
    assert (not_admin.code, not_admin.error["code"]) == (5, "not_permitted")
    assert member(anna, "carl")["state"] == "alive", "nothing changed"

    revoked = anna.json("nodes", "revoke", "carl", "--yes")
    assert (revoked["name"], revoked["was"], revoked["falls"]) == ("carl", "alive", [])
    for node in (anna, berta):
        wait_until(lambda node=node: member(node, "carl")["state"] == "revoked", node.name)
        assert member(node, "carl")["links"] == []
        wait_until(lambda node=node: carl.ready["node_id"] not in member(node, node.name)["links"])
        assert sessions(node)["on-carl"]["state"] == "unreachable"
    wait_until(lambda: member(carl, "berta")["state"] != "alive", "carl to be alone")
    refused = berta.call("steer", "on-carl", "x", "-o", "json")
    assert (refused.code, refused.error["code"]) == (6, "unreachable")
    kept = berta.call("kill", "on-carl", "--force", "-o", "json")
    assert (kept.code, "--standing" in kept.err) == (6, False)
    assert "carl was revoked" in kept.error["message"]
    again = anna.json("nodes", "revoke", "carl", "--yes")
    assert (again["name"], again["was"]) == ("carl", "revoked")
    assert carl.call("steer", "on-berta", "x", "-o", "json").code in {5, 6}
    told = carl.call("doctor", "-o", "json")
    bad = json.dumps([one for one in told.json["checks"] if one["ok"] is False])
    assert (told.code, "revoked" in bad) == (1, True), bad
    assert anna.call("doctor").code == 0, "who was put out is missed by nobody"


@pytest.mark.timeout(240)
def test_what_was_revoked_stays_so_where_the_database_is_lost_and_nobody_returns_it(fleet):
    """As one does whose clock was ahead (docs/protocol/commands.md), in a mesh of one."""
    (anna,) = fleet.mesh("anna")
    new = str(fleet.directory / "new.pem")
    lost = anna.json("keys", "new", "--ttl", "7d")
    anna.json("keys", "revoke", lost["key_id"])
    (old,) = anna.json("root", "list")["roots"]
    anna.json("root", "rotate", "--root-out", new, env=WORDS)
    anna.json("root", "retire", old["key_id"], "--root", new, "--yes", env=WORDS)
    roots, people = anna.json("root", "list"), anna.json("operator", "list")
    anna.end()
    for path in anna.home.glob("state.db*"):
        path.rename(fleet.directory / path.name)
    anna.up()
    assert anna.json("root", "list") == roots, "the retired root stays retired"
    assert anna.json("operator", "list") == people
    assert verdict(anna, lost) == "revoked"
    anna.call("run", "--detach", "--agent-id", "worker", "--", "cat")
    refused = anna.call("kill", "worker", "--yes", env={"SESSION_API_KEY": lost["key"]})
    assert refused.code == 4, refused.err
    assert anna.json("steer", "worker", "hello")["outcome"] == "delivered"
