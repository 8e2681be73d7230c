"""Roots and operators through the command line: made, given, taken back, exchanged."""

import pytest
from e2e.fleet import Fleet, Node, wait_until

WORDS = {"SESSION_MESH_ROOT_PASSPHRASE": "one two three four"}
WRONG = {"SESSION_MESH_ROOT_PASSPHRASE": "one two three five"}
ALONE = ("--listen", "127.0.0.1:0", "--no-mdns")


def operators(node: Node) -> dict[str, dict]:
    return {one["key_id"]: one for one in node.json("operator", "list")["operators"]}


def all_alive(node: Node, *names: str) -> None:
    wait_until(lambda: node.states() == dict.fromkeys(names, "alive"), node.name)


@pytest.mark.timeout(240)
def test_a_person_is_given_a_role_by_the_root_file_and_loses_it(fleet):
    anna, carl = fleet.node("anna"), fleet.node("carl")
    root = fleet.directory / "offline" / "root.pem"
    root.parent.mkdir()
    refused = anna.call("init", "--root-out", str(root), "-o", "json")
    assert (refused.code, refused.error["code"]) == (2, "usage")
    assert not root.exists()
    anna.json("init", "--name", "anna", "--root-out", str(root), env=WORDS)
    assert root.stat().st_mode & 0o777 == 0o600
    assert not (anna.home / "root.key").exists()
    anna.up(*ALONE)
    anna.call("run", "--detach", "--agent-id", "worker", "--", "cat")

    key = carl.call("id", "--operator", "-q").out.strip()
    fleet.join(anna, carl, "--node-only")
    carl.up(*ALONE)
    wait_until(lambda: "worker" in carl.sessions())
    assert carl.call("steer", "worker", "hello", "-o", "json").code == 4, "no role yet"

    add = ("operator", "add", "carl", key, "--root", str(root))
    for env, code in ((WRONG, 4), ({}, 2)):
        answer = anna.call(*add, "-o", "json", env=env)
        assert (answer.code, answer.out) == (code, ""), answer.err
    assert anna.call(*add[:-2], "--role", "admin", "-o", "json").code == 5
    assert len(operators(anna)) == 1
    key_id = anna.json(*add, env=WORDS)["key_id"]
    assert anna.call(*add, "-o", "json", env=WORDS).code == 7
    wait_until(lambda: key_id in operators(carl))
    assert carl.json("steer", "worker", "hello")["outcome"] == "delivered"
    row = operators(anna)[key_id]
    assert (row["name"], row["role"], row["state"]) == ("carl", "operator", "active")
    assert row["given_by_name"] == "the root"

    remove = ("operator", "remove", "carl", "-o", "json")
    assert anna.call(*remove).code == 2, "nobody can be asked here"
    refused = anna.call(*remove, "--yes")
    assert refused.code == 5, "an admin removes only whom it made"
    assert operators(anna)[key_id]["state"] == "active"
    anna.json(*remove[:-2], "--yes", "--root", str(root), env=WORDS)
    wait_until(lambda: operators(carl)[key_id]["state"] == "revoked")
    refused = carl.call("steer", "worker", "hello again", "-o", "json")
    assert refused.code == 4, refused.err
    assert "revoked" in refused.error["message"]
    assert anna.call(*add, "-o", "json", env=WORDS).code == 7, "for good"


@pytest.mark.timeout(300)
def test_a_root_is_exchanged_under_a_running_mesh_and_another_machine_admits(fleet):
    anna, berta, carl = (fleet.node(name) for name in ("anna", "berta", "carl"))
    old, new = (str(fleet.directory / name) for name in ("old.pem", "new.pem"))
    anna.json("init", "--name", "anna", "--root-out", old, env=WORDS)
    anna.up(*ALONE)
    fleet.join(anna, berta)
    berta.up(*ALONE)
    all_alive(anna, "anna", "berta")
    before = operators(anna)
    (first,) = anna.json("root", "list")["roots"]

    refused = berta.call("invite", "-o", "json")
    assert refused.code == 5, "only anna admits yet"
    its_key = berta.json("id")["operator_key"]
    assert f"nodes promote {berta.ready['node_id'][:12]} and" in refused.error["hint"]
    assert f"operator add NAME {its_key} --role admin" in refused.error["hint"]
    made = anna.json("root", "rotate", "--root", old, "--root-out", new, env=WORDS)
    assert made["roots"] == [first["key_id"], made["key_id"]]
    wait_until(lambda: berta.json("root", "list")["version"] == 2)
    assert {one["root"] for one in berta.json("root", "list")["admitters"]} == set(made["roots"])
    retire = ("root", "retire", first["key_id"], "-o", "json")
    assert anna.call(*retire, "--root", old, "--yes", env=WORDS).code == 7, "not by itself"
    assert anna.call(*retire, "--root", new, env=WORDS).code == 2, "nobody can be asked here"
    anna.json(*retire[:-2], "--root", new, "--yes", env=WORDS)
    for node in (anna, berta):
        wait_until(lambda node=node: node.json("root", "list")["version"] == 3)
        assert [one["key_id"] for one in node.json("root", "list")["roots"]] == [made["key_id"]]
        assert {one["state"] for one in operators(node).values()} == {"active"}
        assert operators(node).keys() == before.keys()
    for verb in (("promote", "berta"), ("revoke", "berta", "--yes")):
        answer = anna.call("nodes", *verb, "--root", old, "-o", "json", env=WORDS)
        assert (answer.code, "retired" in answer.error["message"]) == (5, True)
    assert anna.states()["berta"] == "alive"
    another_machine_admits(anna, berta, carl, new)


def another_machine_admits(anna: Node, berta: Node, carl: Node, new: str) -> None:
    key = berta.json("id")["operator_key"]
    promoted = anna.json("nodes", "promote", "berta", "--root", new, env=WORDS)
    assert (promoted["operator"]["public_key"], promoted["operator"]["role"]) == (key, "operator")
    again = anna.call("nodes", "promote", "berta", "--root", new, env=WORDS)
    assert f"operator add berta-admin {key} --role admin" in again.err
    wait_until(lambda: "only an admin" in (said := berta.call("invite").err) and key in said)
    admin = ("operator", "add", "bert", key, "--role", "admin", "--root", new)
    anna.json(*admin, env=WORDS)
    for node in (anna, berta):  # each starts with what it has on the disk
        node.end()
        node.up()
    all_alive(berta, "anna", "berta")
    anna.end()
    joined = Fleet.join(berta, carl)
    assert (joined["role"], joined["admitter"]) == ("operator", berta.ready["node_id"])
    carl.up(*ALONE)
    wait_until(lambda: carl.states().get("berta") == "alive")
    anna.up()
    for node in (anna, berta, carl):
        all_alive(node, "anna", "berta", "carl")
        check = {one["id"]: one for one in node.call("doctor", "-o", "json").json["checks"]}
        assert check["certificate"]["ok"], check["certificate"]


def test_the_key_of_a_node_is_given_no_role_and_the_right_one_can_be_asked_for(fleet):
    (anna,) = fleet.mesh("anna")
    device = anna.json("id")
    assert anna.call("id", "-q").out.strip() == device["node_id"]
    assert anna.call("id", "--operator", "-q").out.strip() == device["operator_key"]
    before = operators(anna)
    stranger = fleet.node("carl").call("id", "-q").out.strip()
    for mistaken in (device["node_id"], device["public_key"], stranger):
        refused = anna.call("operator", "add", "carl", mistaken, "-o", "json")
        assert refused.code == 2
        assert "not of a person" in (said := refused.error["message"]) or "not a person's" in said
        assert "session-mesh id --operator -q" in refused.error["hint"]
    assert operators(anna) == before
    assert "operator add: operator_key" in anna.call("id").err
    assert "session-mesh id --operator makes one" in fleet.nodes[-1].call("id").err


@pytest.mark.timeout(240)
def test_a_promoted_node_is_revoked_by_the_root_though_it_has_let_nobody_in(fleet):
    """An admin's word would count until its thief lets somebody in, and no longer."""
    anna, _, carl = fleet.mesh("anna", "berta", "carl")
    (root,) = anna.json("root", "list")["roots"]
    anna.json("nodes", "promote", "berta")
    assert anna.json("nodes", "revoke", "berta", "--yes")["by"] == root["key_id"]
    wait_until(lambda: carl.states()["berta"] == "revoked")

    revoke = ("nodes", "revoke", "carl", "--yes")
    by_admin = anna.json(*revoke)["by"]
    assert by_admin != root["key_id"]
    assert "by" not in anna.json(*revoke), "said before"
    rooted = (*revoke, "--root", str(anna.home / "root.key"))
    assert anna.json(*rooted)["by"] == root["key_id"]
    assert "by" not in anna.json(*rooted), "said before by a root"
    admitters = anna.json("root", "list")["admitters"]
    refused = anna.call("nodes", "promote", "carl", "-o", "json")
    assert (refused.code, refused.error["code"]) == (7, "conflict")
    assert anna.json("root", "list")["admitters"] == admitters
