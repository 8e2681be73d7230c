"""A machine installed anew takes the place of its old node, and what that spent stays counted."""

import shutil
import signal

import pytest
from e2e.fleet import wait_until
from gateway_log import line

from meshnode.client.home import Home
from meshnode.node.homes.founding import beginning_from
from meshnode.store import elsewhere


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
    fresh.end()
    first = begun_with(fresh)[elsewhere.REPLACES]
    assert old_id.encode() in first
    fresh.json("join", "-", stdin=anna.json("invite")["invite"])
    assert begun_with(fresh)[elsewhere.REPLACES] == first, "for a role, and a database that is lost"


def begun_with(node) -> dict[str, bytes]:
    """Return the facts of its join, as they are kept beside a node's database."""
    facts, _ = beginning_from(Home(node.home).beginning.read_bytes())
    return facts


def spent(node) -> dict:
    """Return what all have counted together."""
    told = node.json("cost")
    return {part: told[part] for part in ("records", "totals", "cost_usd")}


@pytest.mark.timeout(240)
def test_what_a_replaced_node_has_counted_is_not_counted_again_from_the_same_logs(fleet):
    """Nor by the next one that takes the place of the second."""
    (anna,) = fleet.mesh("anna")
    log = fleet.directory / "access.log"
    log.write_text(line("c1") + line("c2"))
    config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
    node = fleet.node("berta")
    fleet.join(anna, node)
    (node.home / "config.yaml").write_text(config)
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    count = 2
    for home in ("second", "third"):
        wait_until(lambda count=count: anna.json("cost")["records"] == count)
        before = spent(anna)
        node.end(signal.SIGKILL)
        shutil.rmtree(node.home)
        wait_until(lambda: anna.states()["berta"] != "alive")

        node = fleet.node(home)
        join = ("join", "-", "--replaces", "berta", "--name", "berta", "-o", "json")
        assert node.call(*join, stdin=anna.json("invite")["invite"]).code == 0
        (node.home / "config.yaml").write_text(config)
        node.up("--listen", "127.0.0.1:0", "--no-mdns")
        wait_until(lambda node=node, count=count: node.json("usage")["records"] == count)
        wait_until(lambda node=node, before=before: spent(node) == before)
        count += 1
        with log.open("a") as lines:
            lines.write(line(f"c{count}"))
        wait_until(lambda count=count: anna.json("cost")["records"] >= count)
        wait_until(lambda node=node, count=count: node.json("cost")["records"] == count)
        assert anna.json("cost")["records"] == count
        assert anna.json("cost")["totals"]["total"] == 10 * count
    node.end()
    assert node.json("cost")["records"] == count, "from the disk, too"
