"""Who has just joined does not speak for a mesh of which it has heard nothing yet."""

import signal

from e2e.fleet import Node, wait_until

HERE = ("--listen", "127.0.0.1:0", "--no-mdns")


def coverage(node: Node) -> tuple[int, int, list[str]]:
    said = node.json("nodes")["coverage"]
    return said["nodes_known"], said["nodes_heard"], [one["node_name"] for one in said["missing"]]


def test_a_member_whose_admitter_is_away_says_so_also_after_a_restart(fleet):
    (anna,) = fleet.mesh("anna")
    berta = fleet.node("berta")
    assert fleet.join(anna, berta)["clock_off_s"] == 0.0, "one machine has one clock"
    where = anna.ready["listen"]
    anna.end()

    berta.up(*HERE)
    for _ in range(2):
        refused = berta.call("cost", "--require-full")
        assert refused.code == 6, refused.out
        assert "1 of 2 nodes heard; missing: anna (unreachable)" in refused.err
        assert coverage(berta) == (2, 1, ["anna"])
        assert berta.states() == {"berta": "alive", "anna": "unreachable"}
        assert "missing: anna" in berta.call("list").err
        berta.end(signal.SIGKILL)
        assert coverage(berta)[0] == 2, "the disk says the same"
        berta.up()

    anna.up("--listen", where, "--no-mdns")
    wait_until(lambda: berta.states() == {"berta": "alive", "anna": "alive"})
    assert berta.call("cost", "--require-full").code == 0


def test_an_admitter_that_is_gone_for_good_can_be_forgotten(fleet):
    (anna,) = fleet.mesh("anna")
    berta = fleet.node("berta")
    fleet.join(anna, berta)
    anna.end(signal.SIGKILL)
    berta.up(*HERE)
    asked = berta.call("nodes", "forget", "anna")
    assert asked.code == 2
    assert "by this home alone" in asked.err
    assert berta.json("nodes", "forget", "anna", "--yes")["epoch"] == 0
    for _ in range(2):
        assert coverage(berta) == (1, 1, [])
        assert berta.call("cost", "--require-full").code == 0
        berta.end()
        berta.up()
    assert berta.call("nodes", "forget", "anna", "--yes").code == 3


def test_a_started_joiner_knows_all_whom_its_admitter_knows(fleet):
    anna, carl = fleet.mesh("anna", "carl")
    carl.end(signal.SIGKILL)
    wait_until(lambda: anna.states()["carl"] != "alive")
    berta = fleet.node("berta")
    invite = anna.json("invite")["invite"]
    flags = ("--up", "--listen", "127.0.0.1:0", "--name", "berta")
    try:
        assert berta.call("join", "-", *flags, stdin=invite).code == 0
        said = berta.call("cost", "--require-full")
        assert (said.code, "missing: carl" in said.err) == (6, True), said.err
        assert set(berta.states()) == {"anna", "berta", "carl"}
    finally:
        berta.call("down")
