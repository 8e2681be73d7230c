"""`doctor` on homes that have something wrong with them, with a node or without."""

import pytest
from e2e.doctoring import asked, failed, founded, joined
from e2e.fleet import wait_until


def test_without_a_node_the_home_and_the_peers_are_still_looked_at(fleet):
    anna = founded(fleet, "anna")
    berta = fleet.node("berta")
    joined(fleet, anna, berta)
    wait_until(lambda: berta.states().get("anna") == "alive")
    berta.end()  # not killed: its disk learns of anna half a second after it does
    checks = asked(berta, 1)
    assert failed(checks) == {"node"}
    for one in ("node", "version", "listening", "joiners_port", "loop_lag", "multicast"):
        assert checks[one]["ok"] is (False if one == "node" else None)
        assert checks[one]["detail"] == "no node is running"
        assert checks[one]["fix"] == "session-mesh up --detach"
    assert checks["peer_tls:anna"]["ok"], "its certificate is still good"
    shown = berta.call("doctor").out
    assert shown.count("no node is running\n") == 1
    new = fleet.node("new")
    assert failed(asked(new, 1)) == {"home"}
    assert asked(new, 1, anna.ready["listen"])[f"peer_identity:{anna.ready['listen']}"]["ok"]


def test_a_home_that_has_left_is_told_to_join_again(fleet):
    anna = founded(fleet, "anna")
    berta = fleet.node("berta")
    joined(fleet, anna, berta)
    assert berta.call("leave", "--yes").code == 0
    berta.process.wait(20)
    checks = asked(berta, 1)
    assert failed(checks) == {"membership"}
    assert "session-mesh join -" in checks["membership"]["fix"]
    named = asked(berta, 1, anna.ready["listen"])
    for check in (*checks.values(), *named.values()):
        assert "session-mesh up" not in check["fix"], "it would end with 7"
    assert f"peer_link:{anna.ready['listen']}" in named
    wait_until(lambda: anna.states()["berta"] == "left")
    assert asked(anna, 0, "berta")["peer_connect:berta"]["ok"] is None


def test_what_is_wrong_with_the_home_is_said(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    key = node.home / "node.key"
    key.chmod(0o644)
    (node.home / "config.yaml").write_text("lisen: 127.0.0.1:7707\n")
    checks = asked(node, 1)
    assert {"keys", "config"} <= failed(checks)
    assert "did you mean" in checks["config"]["detail"]
    key.chmod(0o600)
    (node.home / "config.yaml").unlink()
    (node.home / "node.crt").write_text("no certificate")
    assert failed(asked(node, 1)) == {"certificate", "node"}
    node.home.chmod(0o755)
    assert "chmod 700" in asked(node, 1)["home"]["fix"]
    node.home.chmod(0o700)


def test_what_init_would_refuse_is_said_before_there_is_a_mesh(fleet):
    node = fleet.node("anna")
    node.home.mkdir(mode=0o755)
    assert asked(node, 1)["home"]["fix"] == f"run: chmod 700 {node.home}"
    node.home.chmod(0o700)
    node.home.parent.chmod(0o777)
    for _ in ("a home", "none yet"):
        assert asked(node, 1)["home"]["fix"] == f"run: chmod o-w {node.home.parent}"
        if node.home.exists():
            node.home.rmdir()
    node.home.parent.chmod(0o700)
    assert "session-mesh init" in asked(node, 1)["home"]["fix"]


def test_all_that_others_may_open_is_named_at_once(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    node.end()
    open_ = [node.home, node.home / "sessions", node.home / "run"]
    for directory in open_:
        directory.chmod(0o755)
    secrets = [node.home / "operator.key", node.home / "root.key"]
    fixes = [f"chmod 700 {directory}" for directory in open_]
    assert all(fix in asked(node, 1)["home"]["fix"] for fix in fixes)
    refused = node.call("up", "--listen", "127.0.0.1:0", "--no-mdns", "-o", "json")
    assert refused.code == 5
    assert all(fix in refused.error["hint"] for fix in fixes)
    for directory in open_:
        directory.chmod(0o700)
    for secret in secrets:
        secret.chmod(0o644)
    assert all(str(secret) in asked(node, 1)["keys"]["detail"] for secret in secrets)


@pytest.mark.parametrize("name", ["operator.key", "session-root.key"])
def test_a_node_is_no_stranger_to_itself_whichever_of_its_keys_is_damaged(fleet, name):
    (node,) = fleet.mesh("anna")
    key = node.home / name
    key.write_bytes(key.read_bytes()[:7])
    checks = asked(node, 1)
    assert failed(checks) == {"keys"}
    assert str(key) in checks["keys"]["detail"]
    assert (checks["certificate"]["ok"], checks["listening"]["ok"]) == (True, True)
    node.end()
    checks = asked(node, 1)
    assert failed(checks) == {"keys", "node"}, "nor does it look for itself as for a peer"


def test_a_certificate_that_is_missing_is_put_back_as_the_node_had_it(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    certificate = node.home / "node.crt"
    had = certificate.read_bytes()
    certificate.unlink()
    refused = node.call("up", "--listen", "127.0.0.1:0", "--no-mdns", "-o", "json")
    assert (refused.code, "does not say what was in it" in refused.error["message"]) == (1, True)
    assert "restore it from a backup" in refused.error["hint"]
    certificate.write_bytes(had)
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    node.end()

    certificate.unlink()
    check = asked(node, 1)["certificate"]
    assert check["detail"] == f"{certificate} is missing"
    assert "session-mesh up" in check["fix"]
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    assert certificate.read_bytes() == had
    assert asked(node, 0)["certificate"]["ok"]
