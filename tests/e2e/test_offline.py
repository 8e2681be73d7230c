"""Reading a home whose node does not run: everything is answered, and nothing is written."""

import os
import signal
import sqlite3
from contextlib import closing

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.fleet import wait_until

from meshnode.client.durations import seconds_of

READING = (
    ("list",),
    ("nodes",),
    ("cost",),
    ("stats-model",),
    ("stats-date",),
    ("events",),
    ("find", "talk"),
    ("audit",),
    ("audit", "--verify"),
    ("export", "-"),
)
BEFORE = """
DROP TABLE usage_checkpoints; DROP TABLE usage_dropped; ALTER TABLE standing DROP COLUMN issuer;
PRAGMA user_version=8
"""


@pytest.fixture
def home(fleet):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    return node


def kept(node) -> dict[str, bytes]:
    """Return what lies in a home, but for SQLite's shared memory, which is none of the database."""
    files = (path for path in node.home.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.suffix != ".db-shm"}


def has_run(node) -> None:
    node.up(*LOCAL)
    node.call("run", "--agent-id", "past", "--", "true")
    wait_until(lambda: node.sessions("--filter", "all")["past"]["ended_at"])


def assert_only_read(node) -> None:
    before = kept(node)
    listed = node.json("list", "--filter", "all")
    assert [one["agent_id"] for one in listed["sessions"]] == ["past"]
    assert kept(node) == before


def test_a_home_is_read_as_its_node_left_it(home):
    has_run(home)
    home.end()
    before = kept(home)
    for words in READING:
        answer = home.call(*words, "-o", "json")
        assert answer.code == 0, (words, answer)
        assert kept(home) == before, words
    answer = home.call("export", "-", "-o", "json")
    assert (answer.json["source"], answer.err.count("what its disk remembers")) == ("disk", 1)
    assert home.call("events", "past").code == 0
    assert home.call("events", "past", "--since", "2099-01-01").code == 0
    assert home.call("events", "anna", "--kind", "budget").code == 0
    assert home.call("events", "nosuch", "-o", "json").error["code"] == "not_found"


def test_a_home_is_read_as_its_killed_node_left_it(home):
    has_run(home)
    home.end(signal.SIGKILL)
    assert (home.home / "state.db-wal").stat().st_size > 0
    assert_only_read(home)


def test_a_home_of_an_older_version_is_read_and_stays_one(home):
    has_run(home)
    home.end()
    with closing(sqlite3.connect(home.home / "state.db")) as connection:
        connection.executescript(BEFORE)
    assert_only_read(home)


def test_a_node_that_hangs_is_not_written_to_behind_its_back(home):
    has_run(home)
    os.kill(home.process.pid, signal.SIGSTOP)
    try:
        assert_only_read(home)
    finally:
        os.kill(home.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("left", [None, b""], ids=["missing", "empty"])
def test_a_database_that_is_gone_is_told_and_not_made_anew(home, left):
    database = home.home / "state.db"
    database.unlink()
    if left is not None:
        database.write_bytes(left)
    for words in (("list",), ("cost",)):
        refused(home, 1, (str(database), "session-mesh up"), *words)
    assert database.exists() == (left is not None)
    home.up(*LOCAL)
    assert list(home.states()) == ["anna"]


@pytest.mark.parametrize("words", [("down", "--keep-sessions"), ("leave", "--yes")])
def test_who_was_heard_to_the_end_is_missing_since_then(fleet, words):
    anna, berta = fleet.mesh("anna", "berta")
    flushed_s = last_heard_s(berta, "berta", "since")
    wait_until(lambda: last_heard_s(anna, "berta") > flushed_s + 3)
    heard_s = last_heard_s(anna, "berta")
    assert anna.call(*words).code == 0
    anna.wait()
    coverage = anna.json("list")["coverage"]
    missing = {one["node_name"]: one for one in coverage["missing"]}
    assert ("anna" in missing) == (words[0] == "down")
    assert seconds_of(missing["berta"]["observed_at"]) >= heard_s
    assert last_heard_s(anna, "berta") >= heard_s


def last_heard_s(node, name: str, field: str = "last_heard") -> float:
    nodes = {one["name"]: one for one in node.json("nodes")["nodes"]}
    return seconds_of(nodes[name][field])
