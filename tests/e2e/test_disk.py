"""Nodes whose disk fills up or spoils what it holds: they answer, say so, and go on alone."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.fleet import wait_until
from gateway_log import line

MIB = 1 << 20


@pytest.fixture
def small_disk(fleet):
    """A file system of 4 MiB for homes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = fleet.directory / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system is not permitted here: {mounted.stderr.strip()}")
    yield place
    fleet.close()
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place) -> None:
    """Leave no room at all."""
    with (place / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def alarms(node) -> dict[str, dict]:
    return {alarm["id"]: alarm for alarm in node.json("status")["alarms"]}


def run(node, agent: str):
    return node.call("run", "--agent-id", agent, "--detach", "-o", "json", "--", "sleep", "600")


def begin(node, agent: str) -> None:
    answer = run(node, agent)
    assert answer.code == 0, answer


def checks(node) -> dict[str, dict]:
    """Ask `doctor`; on a machine that is busy with other things it may find only that."""
    answer = node.call("doctor", "-o", "json")
    return {check["id"]: check for check in answer.json["checks"]}


def register(node, spec: str):
    return node.call("register", "--spec", spec, "--agent-id", "worker", "-o", "json")


def refused_as_full(answer) -> None:
    assert answer.code == 8, answer
    assert "is full" in answer.error["message"]
    assert "df -h" in answer.error["hint"]


@pytest.fixture
def two_nodes(fleet, small_disk):
    """Anna, and Berta on a small disk with an agent that lives."""
    (anna,) = fleet.mesh("anna")
    berta = fleet.node("berta")
    berta.home = small_disk / "berta"
    fleet.join(anna, berta)
    berta.up(*LOCAL)
    wait_until(lambda: set(berta.states().values()) == {"alive"} and len(berta.states()) == 2)
    begin(berta, "living")
    return anna, berta


@pytest.mark.timeout(120)
def test_a_full_disk_makes_a_node_read_only_until_there_is_room(two_nodes, small_disk):
    anna, berta = two_nodes
    begin(berta, "before")
    wait_until(lambda: anna.sessions()["before"]["state"] == "running")

    fill(small_disk)
    before = berta.sessions()["before"]
    os.kill(before["pid"], signal.SIGKILL)  # what happens must be recorded, room or not
    wait_until(lambda: "disk" in alarms(berta), "the alarm")
    refused_as_full(register(berta, "during"))
    refused = run(berta, "during")
    refused_as_full(refused)
    assert refused.error["message"].startswith("the agent was not started: ")
    refused_as_full(berta.call("steer", "--agent-id", "living", "hello", "-o", "json"))
    killed = anna.call("kill", "--agent-id", "living", "--yes", "-o", "json")
    refused_as_full(killed)
    assert "session-mesh down --close-sessions" in killed.error["hint"]
    check = wait_until(lambda: checks(berta).get("alarm:disk"), "doctor")
    assert check["ok"] is False
    assert "ALARM" in berta.call("status").out

    begin(anna, "elsewhere")
    wait_until(lambda: "elsewhere" in berta.sessions(), "others' news")
    assert berta.sessions()["before"]["state"] == "failed"
    assert anna.sessions()["before"]["state"] == "running"  # nothing is said that is not on disk
    assert "during" not in anna.sessions()

    (small_disk / "filler").unlink()
    wait_until(lambda: not alarms(berta), "the end of the alarm")
    wait_until(lambda: anna.sessions("--filter", "all")["before"]["state"] == "failed")
    assert register(berta, "after").code == 0
    log = [line for line in (berta.home / "node.log").read_text().splitlines() if "is full" in line]
    assert sum('"raised": true' in line for line in log) <= 1  # a full disk may take not even that
    assert "Traceback" not in (berta.home / "node.log").read_text() + berta.stderr
    berta.end()
    berta.up(*LOCAL)
    assert berta.sessions("--filter", "all")["before"]["state"] == "failed"


@pytest.mark.timeout(120)
def test_a_node_that_cannot_write_that_it_left_stays_and_says_so(two_nodes, small_disk):
    anna, berta = two_nodes
    fill(small_disk)
    leaving = ("leave", "--yes", "--close-sessions", "-o", "json")
    refused = [berta.call(*leaving), berta.call(*leaving)]  # the second: with the alarm
    assert all(answer.code in {1, 8} for answer in refused), refused
    assert all("is full" in answer.error["message"] for answer in refused), refused
    assert berta.process.poll() is None
    (small_disk / "filler").unlink()
    wait_until(lambda: not alarms(berta), "the end of the alarm")
    berta.end()
    berta.up(*LOCAL)
    wait_until(lambda: anna.states()["berta"] == "alive")
    assert berta.call(*leaving).code == 0
    wait_until(lambda: anna.states()["berta"] == "left")
    berta.process.wait()
    assert berta.call("up", "-o", "json", *LOCAL).code == 4


def test_a_home_on_a_read_only_disk_is_named(fleet, small_disk):
    node = fleet.node("anna")
    node.home = small_disk / "anna"
    node.home.mkdir(mode=0o700)
    wanted = fleet.directory / "wanted.yaml"
    wanted.write_text("labels: {room: lab}\n")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = ("cannot write", "Read-only file system", f"make {node.home} writable")
    for words in (("init",), ("load-config", str(wanted)), ("up", *LOCAL), ("up", "--detach")):
        refused(node, 5, said, *words)


def test_a_home_on_a_read_only_disk_is_read_and_starts_no_node(fleet, small_disk):
    node = fleet.node("anna")
    node.home = small_disk / "anna"
    node.json("init", "--name", "anna")
    node.up(*LOCAL)
    node.end()
    known = node.json("id")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (("list",), ("nodes",), ("cost",), ("events",), ("audit",)):
        answer = node.call(*words)
        assert (answer.code, "what its disk remembers" in answer.err) == (0, True), answer
    assert node.json("id") == known
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(node, 5, ("node.lock", "Read-only file system", "remount,rw"), *words)
    assert "the disk of" in (told := absence(node)["detail"])
    assert "is read-only" in told


def absence(node) -> dict[str, str]:
    """Return what `doctor` says of a node that is not running."""
    checks = json.loads(node.call("doctor", "-o", "json").out)["checks"]
    return next(one for one in checks if one["id"] == "node")


def test_a_lock_that_a_full_disk_does_not_take_is_named(fleet, small_disk):
    node = fleet.node("anna")
    node.home = small_disk / "anna"
    node.json("init", "--name", "anna")
    (node.home / "run" / "node.lock").unlink()
    fill(small_disk)
    said = ("cannot write", "node.lock", "No space left on device", "df -h")
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(node, 1, said, *words)
    assert absence(node)["detail"].endswith(" has 0 KiB left")
    assert f"df -h {node.home}" in absence(node)["fix"]


@pytest.mark.timeout(120)
def test_a_node_starts_on_a_full_disk_and_answers(fleet, small_disk):
    berta = fleet.node("berta")
    berta.home = small_disk / "berta"
    berta.json("init", "--name", "berta")
    berta.up(*LOCAL)
    register(berta, "before")
    berta.end()
    with sqlite3.connect(berta.home / "state.db") as connection:  # keeps the log of writes in place
        connection.execute("SELECT count(*) FROM rows").fetchone()
        berta.up(*LOCAL)
        berta.end(signal.SIGKILL)
        fill(small_disk)
        answer = berta.call("up", "--detach", "-o", "json", *LOCAL)
        if answer.code:  # no room to open a database with: said so, and not called damaged
            assert "is full" in answer.error["message"], answer
        else:
            assert "disk" in alarms(berta)
            assert [node["name"] for node in berta.json("nodes")["nodes"]] == ["berta"]
            assert register(berta, "during").code == 8
        (small_disk / "filler").unlink()
        if not answer.code:
            wait_until(lambda: not alarms(berta), "the end of the alarm")
            assert berta.call("down", "--keep-sessions").code == 0


def spoil(node, statement: str, *values: str) -> None:
    with closing(sqlite3.connect(node.home / "state.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


FLIPPED = "UPDATE rows SET value = value || X'00' WHERE origin = ? AND tab = ?"


@pytest.mark.timeout(120)
def test_rows_that_a_disk_has_spoilt_are_left_out_told_and_returned_by_peers(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    begin(anna, "worker")
    wait_until(lambda: "worker" in berta.sessions())
    node_id, name = anna.ready["node_id"], f"feed:{anna.ready['node_id'][:12]}"
    berta.end()
    spoil(berta, FLIPPED, node_id, "sessions")
    assert checks(berta)["database"]["ok"] is False
    assert "worker" not in berta.sessions()  # from the disk: not believed
    anna.end(signal.SIGKILL)
    berta.up(*LOCAL)
    assert list(alarms(berta)) == [name]
    assert "worker" not in berta.sessions("--filter", "all")
    assert any("not as signed" in line for line in berta.stderr.splitlines())
    anna.up("--listen", anna.ready["listen"], "--no-mdns")
    wait_until(lambda: "worker" in berta.sessions(), "what peers return")
    wait_until(lambda: not alarms(berta), "the end of the alarm")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "statement", [FLIPPED, "UPDATE feeds SET payload = X'00' WHERE origin = ?"]
)
def test_a_node_whose_own_rows_were_spoilt_keeps_its_sessions_and_its_peers(fleet, statement):
    anna, berta = fleet.mesh("anna", "berta")
    begin(berta, "worker")
    wait_until(lambda: anna.sessions()["worker"]["state"] == "running")
    node_id = berta.ready["node_id"]
    epochs = {one["name"]: one["epoch"] for one in anna.json("nodes")["nodes"]}
    berta.end()
    spoil(berta, statement, *(node_id, "sessions")[: statement.count("?")])
    berta.up(*LOCAL)
    assert list(alarms(berta)) == ["own_feed"]
    for node in (anna, berta):
        wait_until(lambda node=node: node.sessions()["worker"]["state"] == "running", node.name)
    epoch = {one["name"]: one["epoch"] for one in anna.json("nodes")["nodes"]}["berta"]
    assert epoch > epochs["berta"]
    killed = anna.call("kill", "--agent-id", "worker", "--force", "-o", "json")
    assert killed.json["outcome"] == "applied", killed
    berta.end()
    berta.up()
    assert alarms(berta) == {}


@pytest.mark.timeout(120)
def test_a_copied_home_is_told_by_the_node_that_falls_silent(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    berta.end()
    copy = fleet.node("copy")
    shutil.copytree(berta.home, copy.home, ignore=shutil.ignore_patterns("run"))
    both = (berta, copy)
    for node in both:
        node.up(*LOCAL)
    silent = wait_until(
        lambda: [node for node in both if "cloned_home" in alarms(node)], "the alarm"
    )[0]
    answer = register(silent, "linting")
    assert (answer.code, "another machine" in answer.error["message"]) == (8, True), answer
    told = wait_until(lambda: silent_checks(silent), "doctor")
    assert told["alarm:cloned_home"]["fix"]
    assert {told[one]["ok"] for one in ("listening", "joiners_port")} == {None}
    (other,) = [node for node in both if node is not silent]
    assert register(other, "linting").code == 0
    assert "cloned_home" not in alarms(other)
    assert {"anna", "berta"} <= set(anna.states())


def silent_checks(node) -> dict[str, dict]:
    """Return what doctor says of a node that has given way; nothing before it has."""
    told = checks(node)
    return told if "alarm:cloned_home" in told else {}


@pytest.mark.timeout(120)
def test_a_mesh_of_one_gets_its_operator_back_from_what_the_home_began_with(fleet):
    (anna,) = fleet.mesh("anna")
    anna.end()
    spoil(anna, "UPDATE control SET signature = zeroblob(64)")
    anna.up()
    assert list(alarms(anna)) == ["control_set"]
    assert register(anna, "linting").code == 0
    anna.end()
    anna.up()
    assert alarms(anna) == {}
    assert register(anna, "testing").code == 0


@pytest.mark.timeout(120)
def test_a_node_that_has_left_stays_gone_when_its_rows_are_spoilt(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    assert berta.call("leave", "--yes").code == 0
    berta.process.wait()
    spoil(berta, FLIPPED, berta.ready["node_id"], "links")
    refused = berta.call("up", "-o", "json", *LOCAL)
    assert refused.code == 4, refused
    assert "has left" in refused.error["message"]
    assert anna.states()["berta"] == "left"


def test_a_home_on_a_full_disk_is_read_without_a_node_time_and_again(fleet, small_disk):
    node = fleet.node("berta")
    node.home = small_disk / "berta"
    log = fleet.directory / "access.log"
    log.write_text(line("r1"))
    words = ("usage", "--source", "higress", "--path", str(log))
    assert node.call("init", "--name", "berta").code == 0
    assert node.json(*words)["records"] == 1

    fill(small_disk)
    for _ in range(2):  # what would write leaves a log of no bytes, and no room for what is beside
        answer = node.call(*words, "-o", "json")
        assert (answer.code, answer.json["records"]) == (0, 1), answer
        answer = node.call("cost", "-o", "json")
        assert (answer.code, answer.json["records"]) == (0, 1), answer
    assert (node.home / "state.db-wal").stat().st_size == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("is_replaced", [False, True], ids=["moved", "replaced"])
def test_a_database_that_is_moved_under_a_node_stops_its_writes(fleet, is_replaced: bool):
    (anna,) = fleet.mesh("anna")
    begin(anna, "before")
    database = anna.home / "state.db"
    aside = database.rename(anna.home / "aside.db")
    if is_replaced:
        shutil.copyfile(aside, database)
    wait_until(lambda: register(anna, "lost").code != 0, "a refusal")
    alarm = wait_until(lambda: alarms(anna).get("disk"), "the alarm")
    assert "was moved or replaced" in alarm["detail"]
    assert "down --keep-sessions" in alarm["fix"]
    aside.rename(database)
    wait_until(lambda: not alarms(anna), "the end of the alarm")
    assert register(anna, "kept").code == 0


@pytest.mark.timeout(120)
def test_a_node_whose_database_was_moved_ends_and_starts_with_what_peers_return(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    begin(berta, "living")
    wait_until(lambda: "living" in anna.sessions())
    aside = berta.home / "state.db.damaged"
    aside.mkdir()
    for file in berta.home.glob("state.db*"):
        if file != aside:
            file.rename(aside / file.name)
    wait_until(lambda: alarms(berta).get("disk"), "the alarm")
    assert berta.call("down", "--keep-sessions").code == 0
    assert berta.wait() == 0
    berta.up(*LOCAL)
    wait_until(lambda: berta.sessions().get("living", {}).get("state") == "running")
    wait_until(lambda: register(berta, "testing").code == 0)
