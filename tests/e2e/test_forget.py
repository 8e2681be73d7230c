"""A node that will not come back is forgotten everywhere, and what it has spent is not."""

import signal

import pytest
from e2e.fleet import Node, wait_until
from gateway_log import line


def names(node: Node) -> set[str]:
    return set(node.states())


def troubled(node: Node) -> set[str]:
    return {one["peer"] for one in node.json("status")["troubles"]}


def spent(node: Node) -> list[tuple[str, int]]:
    groups = node.json("cost", "--by", "node")["groups"]
    return [(group["key"]["node"], group["records"]) for group in groups]


def verified(node: Node, receipt: str) -> tuple[bool, str]:
    """Say whether a node takes a receipt for a member's, and whose."""
    said = node.call("receipt", "verify", "-", "-o", "json", stdin=receipt)
    return said.code == 0 and said.json["is_member"], said.json["node_name"]


@pytest.mark.timeout(240)
def test_a_killed_node_is_forgotten_everywhere_and_shown_again_when_it_comes_back(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    carl = fleet.node("carl")
    fleet.join(anna, carl)
    log = fleet.directory / "access.log"
    log.write_text(line("c1"))
    config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
    (carl.home / "config.yaml").write_text(config)
    carl.up("--listen", "127.0.0.1:0", "--no-mdns")
    for node in (anna, berta):
        wait_until(lambda node=node: node.states().get("carl") == "alive", node.name)
        wait_until(lambda node=node: spent(node) == [("carl", 1)], node.name)
    carl.call("run", "--detach", "--agent-id", "orphan", "--", "cat")
    wait_until(lambda: "orphan" in berta.sessions())

    receipt = berta.call("steer", "orphan", "hello", "-o", "json").out

    refused = berta.call("nodes", "forget", "carl", "--yes", "-o", "json")
    assert refused.code == 7, refused.err
    assert "alive" in refused.error["message"]
    assert "leave" in refused.error["hint"]

    carl.end(signal.SIGKILL)
    wait_until(lambda: berta.states()["carl"] != "alive")
    asked = berta.call("nodes", "forget", "carl")
    assert asked.code == 2, "nobody can be asked here"
    answer = berta.json("nodes", "forget", carl.ready["node_id"][:10], "--yes")
    assert (answer["name"], answer["node_id"]) == ("carl", carl.ready["node_id"])
    for node in (anna, berta):
        wait_until(lambda node=node: names(node) == {"anna", "berta"}, node.name)
        coverage = node.json("nodes")["coverage"]
        assert (coverage["nodes_known"], coverage["nodes_heard"], coverage["missing"]) == (2, 2, [])
        assert node.sessions("--filter", "all") == {}
        assert spent(node) == [("carl", 1)]
        assert verified(node, receipt) == (True, "carl"), "it was a member"
    assert berta.call("nodes", "forget", "carl", "--yes").code == 3, "it is no node any more"

    anna.end()
    assert names_on_disk(anna) == {"anna", "berta"}
    assert verified(anna, receipt) == (True, "carl")
    anna.up()
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})

    carl.up()
    for node in (anna, berta, carl):
        wait_until(lambda node=node: node.states().get("carl") == "alive", node.name)
        wait_until(lambda node=node: "orphan" in node.sessions("--filter", "alive"), node.name)
        assert spent(node) == [("carl", 1)]
    carl.json("kill", "orphan", "--yes")


def names_on_disk(node: Node) -> set[str]:
    answer = node.call("nodes", "-o", "json")
    assert answer.json["source"] == "disk"
    return {one["name"] for one in answer.json["nodes"]}


def test_a_node_that_left_can_be_forgotten_and_one_cannot_forget_itself(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    own = berta.call("nodes", "forget", "berta", "--yes", "-o", "json")
    assert own.code == 7
    assert "itself" in own.error["message"]
    assert berta.call("leave", "--yes").code == 0
    wait_until(lambda: anna.states()["berta"] == "left")
    assert anna.call("nodes", "forget", "berta", "--yes").out == "forgotten: berta\n"
    assert names(anna) == {"anna"}
    assert anna.call("nodes", "forget", "nobody", "--yes").code == 3


def test_only_an_operator_may_forget(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    others = {}
    for name, flag in (("watcher", "--role=observer"), ("device", "--node-only"), ("gone", "")):
        node = others[name] = fleet.node(name)
        fleet.join(anna, node, *filter(None, [flag]))
        node.up("--listen", "127.0.0.1:0", "--no-mdns")
    for node in (anna, *others.values()):
        wait_until(lambda node=node: node.states().get("gone") == "alive", node.name)
    others["gone"].end()
    watcher, device = others["watcher"], others["device"]
    for node, code in ((watcher, 5), (device, 4)):
        wait_until(lambda node=node: node.states().get("gone") == "down", node.name)
        refused = node.call("nodes", "forget", "gone", "--yes", "-o", "json")
        assert refused.code == code, refused.err
        assert refused.error["message"]
    assert anna.states()["gone"] == "down"


def test_entries_survive_the_disk_that_they_were_made_on(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    carl.end(signal.SIGKILL)
    wait_until(lambda: berta.states()["carl"] != "alive")
    berta.json("nodes", "forget", "carl", "--yes")
    wait_until(lambda: names(anna) == {"anna", "berta"})
    berta.end(signal.SIGKILL)
    for file in berta.home.glob("state.db*"):
        file.unlink()
    berta.up()
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})


@pytest.mark.parametrize("verb", ["forget", "revoke"])
def test_nobody_is_troubled_by_who_was_put_out(fleet, verb):
    anna, berta = fleet.mesh("anna", "berta")
    berta.end(signal.SIGKILL)
    gone = berta.ready["node_id"]
    wait_until(lambda: gone in troubled(anna))
    anna.json("nodes", verb, "berta", "--yes")
    wait_until(lambda: not troubled(anna))
    told = anna.call("doctor", "-o", "json").json["checks"]
    assert [one["id"] for one in told if one["ok"] is False or "stranger" in one["id"]] == []
