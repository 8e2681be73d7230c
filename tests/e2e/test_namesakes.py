"""Two nodes of one name, as of two machines of one image: it is said, and both are told apart."""

from e2e.fleet import Fleet, Node, wait_until

ALONE = ("--listen", "127.0.0.1:0", "--no-mdns")


def names_judged(node: Node) -> list[dict]:
    return [one for one in node.json("doctor")["checks"] if one["id"] == "name"]


def test_who_joins_under_the_name_of_another_node_is_told_and_so_is_who_asks_the_doctor(
    fleet: Fleet,
):
    (first,) = fleet.mesh("vm")
    second, third = fleet.node("second"), fleet.node("third")
    invites = [first.json("invite")["invite"] for _ in range(2)]
    joined = second.call("join", "-", "--name", "vm", stdin=invites[0])
    assert joined.code == 0
    assert "another node of this mesh is called vm too" in joined.err
    assert "--name NODE" in joined.err
    assert third.json("join", "-", "--name", "other", stdin=invites[1])["warnings"] == []
    second.up(*ALONE)
    wait_until(lambda: len(first.json("nodes")["nodes"]) == 2)
    (check,) = names_judged(first)
    assert f"vm/{second.ready['node_id'][:8]}" in check["detail"]
    assert "--name" in check["fix"]

    first.call("run", "--detach", "--agent-id", "echo", "--", "cat")
    here = f"vm/{first.ready['node_id'][:8]}"
    for node in (first, second):
        wait_until(lambda node=node: "echo" in node.sessions())
        assert here in node.call("list").out, "though the other has no session"
    second.end()
    assert here in second.call("list").out, "nor is there a node to ask"

    second.up(*ALONE, "--name", "other")
    wait_until(lambda: set(first.states()) == {"vm", "other"})
    assert names_judged(first) == []
    assert here not in first.call("list").out
