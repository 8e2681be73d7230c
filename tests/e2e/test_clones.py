"""A copy of a home, started on a machine that sees no process of the original."""

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from e2e.bad_input.refusal import LOCAL
from e2e.fleet import PROGRAM, wait_until

from meshnode.agents.namespaces import MACHINE_ID
from meshnode.node.presence.yielding import GAVE_WAY_FACT
from meshnode.store import facts

ELSEWHERE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MOUNT = """mount --bind "$0" {place} && exec "$@" """


def alarms(node) -> dict[str, dict]:
    return {alarm["id"]: alarm for alarm in node.json("status")["alarms"]}


def begin(node, agent: str) -> None:
    answer = node.call("run", "--agent-id", agent, "--detach", "-o", "json", "--", "sleep", "600")
    assert answer.code == 0, answer


def state_of(node, agent: str) -> str:
    return node.sessions("--filter", "all")[agent]["state"]


@pytest.fixture
def copy_of(fleet):
    """Start a copy of a home that runs, as on a machine that sees no process of the original."""
    started = []

    def start(node, *kept_there: str, copy=None):
        there = [*ELSEWHERE]
        for place in kept_there:
            (said := fleet.directory / Path(place).name).write_text(f"{uuid4()}\n")
            there += ["sh", "-c", MOUNT.format(place=place), str(said)]
        done = subprocess.run([*there, "true"], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"namespaces are not permitted here: {done.stderr.strip()}")
        if copy is None:
            copy = fleet.node("copy")
            shutil.copytree(node.home, copy.home, ignore=shutil.ignore_patterns("run"))
        words = [*there, PROGRAM, "up", "-o", "json", *LOCAL]
        process = subprocess.Popen(words, env=copy.environment, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert json.loads(process.stdout.readline())
        return copy, process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.timeout(180)
def test_the_copy_of_a_home_that_runs_takes_no_agent_from_it(fleet, copy_of):
    anna, berta = fleet.mesh("anna", "berta")
    for agent in ("one", "other"):
        begin(berta, agent)
    wait_until(lambda: {"one", "other"} <= anna.sessions().keys(), "both agents")
    copy, process = copy_of(berta, BOOT_ID, MACHINE_ID)
    wait_until(lambda: "cloned_home" in alarms(copy), "the alarm")
    refused = copy.call("kill", "--agent-id", "one", "--yes", "-o", "json")
    assert refused.code == 8, refused
    assert "another machine" in refused.error["message"]
    assert "cloned_home" not in alarms(berta)
    killed = anna.call("kill", "--agent-id", "one", "--yes", "-o", "json")
    assert (killed.json["outcome"], killed.json["processes"]["found"]) == ("applied", 1), killed
    process.kill()
    process.wait()
    berta.end()
    berta.up()
    for node in (anna, berta):
        wait_until(lambda node=node: node.sessions()["other"]["state"] == "running", node.name)
    assert alarms(berta) == {}
    assert_log_unharmed(anna, berta)


def assert_log_unharmed(anna, berta) -> None:
    for node in (anna, berta):
        verified = node.call("audit", "--verify", "--node", "berta", "-o", "json")
        assert verified.code == 0, verified
    assert "berta" not in anna.call("audit", "--verify").err


@pytest.mark.timeout(180)
def test_a_copy_that_ends_at_once_in_good_order_leaves_the_originals_log_alone(fleet, copy_of):
    anna, berta = fleet.mesh("anna", "berta")
    begin(berta, "one")
    wait_until(lambda: "one" in anna.sessions(), "the agent")
    _, process = copy_of(berta, BOOT_ID, MACHINE_ID)
    psutil.Process(process.pid).children(recursive=True)[-1].terminate()
    process.wait()
    begin(berta, "other")  # which its log tells, too
    wait_until(lambda: "other" in anna.sessions(), "another agent")
    assert_log_unharmed(anna, berta)


@pytest.mark.timeout(180)
def test_an_agent_that_a_copy_has_told_lost_is_listed_again_by_the_node_that_has_it(fleet, copy_of):
    anna, berta = fleet.mesh("anna", "berta")
    begin(berta, "worker")
    wait_until(lambda: "worker" in anna.sessions(), "the agent")
    berta.end()
    copy, process = copy_of(berta, BOOT_ID)  # while the original is away nobody else can tell
    wait_until(lambda: state_of(anna, "worker") == "failed", "what the copy says")
    process.kill()
    process.wait()
    for file in copy.home.glob("state.db*"):  # all that the original had is the copy's now
        shutil.copy(file, berta.home / file.name)
    berta.up()
    for node in (anna, berta):
        wait_until(lambda node=node: state_of(node, "worker") == "running", node.name)
    killed = anna.call("kill", "--agent-id", "worker", "--yes", "-o", "json")
    assert (killed.json["outcome"], killed.json["processes"]["found"]) == ("applied", 1), killed


def keeps_that_it_gave_way(node) -> bool:
    with closing(sqlite3.connect(node.home / "state.db")) as connection:
        return facts.recall(connection, GAVE_WAY_FACT) is not None


@pytest.mark.timeout(180)
def test_a_copy_that_gave_way_does_so_again_when_it_is_started_again(fleet, copy_of):
    anna, berta = fleet.mesh("anna", "berta")
    begin(berta, "worker")
    copy, process = copy_of(berta)
    wait_until(lambda: "cloned_home" in alarms(copy), "the alarm")
    wait_until(lambda: keeps_that_it_gave_way(copy), "that its home keeps it")
    process.kill()
    process.wait()
    berta.end()
    berta.up()  # the copy's disk does not know this start
    wait_until(lambda: state_of(anna, "worker") == "running", "the original")
    copy_of(berta, copy=copy)
    wait_until(lambda: "cloned_home" in alarms(copy), "the alarm again")
    assert "cloned_home" not in alarms(berta)
    killed = anna.call("kill", "--agent-id", "worker", "--yes", "-o", "json")
    assert (killed.json["outcome"], killed.json["processes"]["found"]) == ("applied", 1), killed


@pytest.mark.timeout(180)
def test_a_backup_that_is_started_beside_its_home_gives_way(fleet, copy_of):
    anna, berta = fleet.mesh("anna", "berta")
    copy = fleet.node("copy")
    berta.end()
    shutil.copytree(berta.home, copy.home, ignore=shutil.ignore_patterns("run"))
    berta.up()
    begin(berta, "worker")
    wait_until(lambda: "worker" in anna.sessions(), "the agent")
    copy_of(berta, copy=copy)
    wait_until(lambda: "cloned_home" in alarms(copy), "the alarm")
    assert "cloned_home" not in alarms(berta)
    wait_until(lambda: state_of(anna, "worker") == "running", "the original, linked again")
