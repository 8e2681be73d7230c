"""`doctor` with real nodes: each way not to be seen has its sentence, and none makes it hang."""

import contextlib
import signal
import socket
import threading

import psutil
import pytest
from e2e.clocks import clock_library_in, with_clock_off
from e2e.doctoring import asked, failed, founded, free_port, joined, up
from e2e.fleet import wait_until
from integration.discovery.test_mdns import multicast_reaches_us

HOUR_S = 3600
OWN = {"home", "keys", "config", "certificate", "node", "version", "listening", "joiners_port"}
STEPS = ("connect", "identity", "protocol", "clock", "tls", "link")


@pytest.fixture(scope="module")
def pair(shared_fleet):
    """Two nodes of one mesh, for tests that leave them as they were."""
    anna = founded(shared_fleet, "anna")
    berta = shared_fleet.node("berta")
    joined(shared_fleet, anna, berta)
    wait_until(lambda: berta.states().get("anna") == "alive")
    return anna, berta


def test_a_healthy_mesh_passes(pair):
    for node, other in (pair, pair[::-1]):
        checks = asked(node, 0)
        assert all(checks[one]["ok"] for one in OWN), checks
        assert checks["multicast"]["ok"] is None
        assert "off" in checks["multicast"]["detail"]
        assert checks["clock"]["ok"]
        assert other.name in checks["clock"]["detail"]
        assert checks[f"peer_link:{other.name}"]["detail"] == "linked"


def test_a_healthy_peer_that_is_named_passes_every_step(pair):
    anna, berta = pair
    checks = asked(anna, 0, "berta")
    assert [one for one in checks if one.startswith("peer_")] == [
        f"peer_{step}:berta" for step in STEPS
    ]
    assert all(checks[f"peer_{step}:berta"]["ok"] for step in STEPS)
    address = berta.ready["listen"]
    assert asked(anna, 0, address)[f"peer_link:{address}"]["ok"]
    assert asked(anna, 0, "anna")["peer_link:anna"]["ok"]


@pytest.mark.skipif(not multicast_reaches_us(), reason="no multicast on the loopback here")
def test_with_mdns_the_machine_hears_itself(fleet):
    anna = fleet.node("anna")
    anna.json("init", "--name", "anna")
    anna.up("--listen", f"127.0.0.1:{free_port()}")
    multicast = asked(anna, 0)["multicast"]
    assert multicast["ok"]
    assert "multicast works on 127.0.0.1" in multicast["detail"]


def test_people_read_a_table_and_scripts_the_ids_of_what_fails(pair):
    anna, _ = pair
    nobody = f"127.0.0.1:{free_port()}"
    answer = anna.call("doctor", nobody)
    assert answer.code == 1
    assert f"✗ peer_connect  {nobody} refuses connections" in answer.out
    assert "fix: start the node on that machine: session-mesh up --detach" in answer.out
    assert "\x1b" not in answer.out
    assert "1 of " in answer.err
    assert anna.call("doctor", nobody, "-q").out == f"peer_connect:{nobody}\n"


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("127.0.0.1:99999", 2, "not an address"),
        ("127.0.0.1:", 2, "not an address"),
        ("::1:7707", 2, "in brackets"),
        ("127.0.0.1:0", 2, "port 0"),
        ("", 2, "neither a node nor an address"),
        ("x" * 5000, 2, "neither a node nor an address"),
        ("nobody", 3, "no node 'nobody'"),
        ("127.0.0.1", 3, "HOST:PORT"),
    ],
)
def test_words_that_name_nobody_are_refused(pair, word, code, said):
    answer = pair[0].call("doctor", word, "-o", "json")
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.error["message"] + answer.error["hint"]


def test_a_listener_that_never_speaks_is_named_and_does_not_hold_us_up(pair):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        checks = asked(pair[0], 1, address)
    assert failed(checks) == {f"peer_identity:{address}"}
    assert "says nothing" in checks[f"peer_identity:{address}"]["detail"]


def test_another_program_is_told_from_a_node(pair):
    def be_rude():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = other.accept()
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=be_rude, daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        checks = asked(pair[0], 1, address)
    assert "is no session-mesh node" in checks[f"peer_identity:{address}"]["detail"]


def test_a_node_of_another_mesh_is_named_with_both_meshes(pair, fleet):
    anna, _ = pair
    stranger = founded(fleet, "stranger")
    address = stranger.ready["listen"]
    checks = asked(anna, 1, address)
    assert failed(checks) == {f"peer_identity:{address}"}
    said = checks[f"peer_identity:{address}"]
    assert anna.ready["mesh_id"] in said["detail"]
    assert stranger.ready["mesh_id"] in said["detail"]
    assert "session-mesh join -" in said["fix"]


def test_more_peers_than_can_be_looked_at_are_named(pair):
    ports = range(1, 20)  # of the loopback: refused at once
    checks = asked(pair[0], 1, *(f"127.0.0.1:{port}" for port in ports))
    assert "127.0.0.1:17, 127.0.0.1:18, 127.0.0.1:19" in checks["peers"]["detail"]
    assert "peer_connect:127.0.0.1:16" in checks
    assert "peer_connect:127.0.0.1:17" not in checks


def test_the_port_for_joiners_is_told_from_the_one_for_members(pair):
    anna, berta = pair
    host, _, port = berta.ready["listen"].rpartition(":")
    address = f"{host}:{int(port) + 1}"
    checks = asked(anna, 1, address)
    assert failed(checks) == {f"peer_tls:{address}"}
    said = checks[f"peer_tls:{address}"]["detail"]
    assert said == f"{address} is the port for joiners; members listen at {berta.ready['listen']}"


def test_the_state_of_a_node_tells_where_others_are_sent(pair):
    anna, _ = pair
    assert anna.json("status")["advertised"] == [anna.ready["listen"]]
    assert f"advertises   {anna.ready['listen']}" in anna.call("status").out


def test_a_seed_where_nobody_listens_is_found_without_being_named(fleet):
    address = f"127.0.0.1:{free_port()}"
    anna = founded(fleet, "anna", "--seed", address)
    checks = asked(anna, 1)
    assert failed(checks) == {f"peer_connect:{address}"}
    said = checks[f"peer_connect:{address}"]["detail"]
    assert said.startswith(f"seed {address} refuses connections: no node listens there")


def test_a_killed_peer_is_down_and_one_that_was_stopped_is_no_fault(fleet):
    anna = founded(fleet, "anna")
    berta = fleet.node("berta")
    address = joined(fleet, anna, berta)
    berta.end(signal.SIGKILL)
    wait_until(lambda: anna.states()["berta"] == "unreachable")
    checks = asked(anna, 1)
    assert failed(checks) == {"peer_connect:berta"}
    assert f"{address} refuses connections" in checks["peer_connect:berta"]["detail"]
    assert "session-mesh up --detach" in checks["peer_connect:berta"]["fix"]
    berta.up()
    wait_until(lambda: anna.states()["berta"] == "alive")
    berta.end()
    wait_until(lambda: anna.states()["berta"] == "down")
    stopped = asked(anna, 0)["peer_connect:berta"]
    assert stopped["ok"] is None
    assert "stopped on purpose" in stopped["detail"]


def test_another_node_where_a_member_used_to_be_is_recognised(fleet):
    anna = founded(fleet, "anna")
    berta, carl = fleet.node("berta"), fleet.node("carl")
    address = joined(fleet, anna, berta)
    berta.end(signal.SIGKILL)
    fleet.join(anna, carl)
    carl.up("--listen", address, "--no-mdns")
    wait_until(lambda: anna.states().get("carl") == "alive")
    checks = asked(anna, 1, "berta")
    assert failed(checks) == {"peer_identity:berta"}
    said = checks["peer_identity:berta"]["detail"]
    assert "another node listens" in said
    assert carl.ready["node_id"] in said
    assert berta.ready["node_id"] in said


def test_a_peer_that_dials_out_only_is_well(fleet):
    anna = founded(fleet, "anna")
    berta = fleet.node("berta")
    joined(fleet, anna, berta, "--advertise", f"127.0.0.1:{free_port()}")
    wait_until(lambda: asked(anna, 0, "berta")["peer_connect:berta"]["ok"])
    assert "dials out only" in asked(anna, 0, "berta")["peer_connect:berta"]["detail"]
    assert failed(asked(berta, 1)) == {"listening"}


def test_a_node_that_is_stuck_is_told_by_its_pid(fleet):
    anna = founded(fleet, "anna")
    anna.process.send_signal(signal.SIGSTOP)
    try:
        checks = asked(anna, 1)
        refused = anna.call("status", "-o", "json")
        listed = anna.call("nodes")
        assert psutil.Process(anna.process.pid).status() == psutil.STATUS_STOPPED, "still stuck"
    finally:
        anna.process.send_signal(signal.SIGCONT)
    said = f"the node (pid {anna.process.pid}) does not answer"
    assert failed(checks) == {"node"}
    for one in ("node", "version", "loop_lag"):
        assert checks[one]["detail"].startswith(said)
    assert f"kill -CONT {anna.process.pid}" in checks["node"]["fix"]
    assert refused.code == 6
    assert refused.error["message"] == said
    assert refused.error["hint"] == "session-mesh doctor says why"
    assert listed.code == 0
    assert f"warning: {said}: this is what its disk remembers" in listed.err
    assert asked(anna, 0)["loop_lag"]["ok"] is not False


def test_a_peer_that_is_frozen_is_said_to_be(fleet):
    anna = founded(fleet, "anna")
    berta = fleet.node("berta")
    joined(fleet, anna, berta)
    wait_until(lambda: anna.json("nodes")["nodes"][1]["links"])
    berta.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: anna.states()["berta"] != "alive")
        assert anna.json("nodes", "--links")["nodes"][1]["links"] == []
        checks = asked(anna, 1, "berta")
    finally:
        berta.process.send_signal(signal.SIGCONT)
    assert failed(checks) == {"peer_identity:berta"}
    assert "it is frozen" in checks["peer_identity:berta"]["detail"]
    assert "kill -CONT" in checks["peer_identity:berta"]["fix"]


def test_a_clock_an_hour_off_is_named_at_both_ends(fleet, tmp_path):
    anna = founded(fleet, "anna")
    early = with_clock_off(fleet, "early", clock_library_in(tmp_path), HOUR_S)
    fleet.join(anna, early, "--ttl", "8h")
    up(early)
    wait_until(lambda: anna.states().get("early") == "alive")
    checks = asked(anna, 1)
    assert failed(checks) == {"clock", "peer_clock:early"}
    assert "60 min behind early" in checks["clock"]["detail"]
    assert "60 min ahead of this machine" in checks["peer_clock:early"]["detail"]
    assert checks["peer_tls:early"]["ok"], "it cuts nobody off"
    wait_until(lambda: early.states().get("anna") == "alive")
    assert "60 min ahead of anna" in asked(early, 1)["clock"]["detail"]


@pytest.mark.skipif(not multicast_reaches_us(), reason="no multicast on the loopback here")
def test_a_colleagues_mesh_on_the_same_network_is_told_and_no_trouble(fleet):
    anna, berta = (fleet.node(name) for name in ("anna", "berta"))
    for node in (anna, berta):
        node.json("init", "--mesh", f"{node.name}s", "--name", node.name)
        node.up("--listen", "127.0.0.1:0")
    heard = wait_until(lambda: anna.json("status")["other_meshes"], "berta's announcement")
    assert "another mesh" in heard or "other meshes" in heard
    status = anna.json("status")
    assert status["troubles"] == []
    assert "nothing to do" in anna.call("status").out
    checks = {one["id"]: one for one in anna.call("doctor", "-o", "json").json["checks"]}
    assert checks["other_meshes"]["ok"] is None
    assert not [one for one in checks if one.startswith("stranger")]
    assert "session-mesh leave" not in "".join(one["fix"] for one in checks.values())
