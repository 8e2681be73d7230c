"""A machine installed anew takes the place of its old node, and what that spent stays counted."""

import shutil
import signal

import pytest
from e2e.fleet import wait_until
from gateway_log import line


@pytest.mark.timeout(240)
def test_a_reinstalled_machine_replaces_its_old_node_and_its_ledger_stays_counted(fleet):
    (anna,) = fleet.mesh("anna")
    berta = fleet.node("berta")
    fleet.join(anna, berta, "--label", "room=lab")
    log = fleet.directory / "access.log"
    log.write_text(line("c1"))
    config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
    (berta.home / "config.yaml").write_text(config)
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    wait_until(lambda: anna.json("cost")["records"] == 1)
    old_id = berta.ready["node_id"]

    invite = anna.json("invite")["invite"]
    join = ("join", "-", "--replaces", "berta", "-o", "json")
    fresh = fleet.node("fresh")
    alive = fresh.call(*join, stdin=invite)
    assert (alive.code, "alive" in alive.error["message"]) == (7, True)
    berta.end(signal.SIGKILL)
    shutil.rmtree(berta.home)
    wait_until(lambda: anna.states()["berta"] != "alive")
    missing = fresh.call("join", "-", "--replaces", "nobody", "-o", "json", stdin=invite)
    assert missing.code == 3, "and the invite is still good"
    assert "join without --replaces" in missing.error["hint"], "it may have been forgotten"
    node_only = anna.json("invite", "--node-only")["invite"]
    assert fresh.call(*join, stdin=node_only).code == 5

    joined = fresh.json(*join[:-2], "--name", "berta", stdin=invite)
    assert (joined["name"], joined["replaces"]) == ("berta", old_id)
    assert any("nodes revoke" in said for said in joined["warnings"])
    assert not any("another node" in said for said in joined["warnings"]), "it was replaced"
    fresh.up("--listen", "127.0.0.1:0", "--no-mdns")
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})
    wait_until(lambda: fresh.states() == {"anna": "alive", "berta": "alive"})
    for node in (anna, fresh):
        listed = {one["name"]: one for one in node.json("nodes")["nodes"]}
        assert listed["berta"]["node_id"] == fresh.ready["node_id"] != old_id
        assert listed["berta"]["labels"] == {"room": "lab"}
        assert node.json("cost")["records"] == 1
