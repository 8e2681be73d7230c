"""Watching from another node: everything that happens is told once, through kills and restarts."""

import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress

import pytest
from e2e.fleet import PATIENCE_S, PROGRAM, wait_until


class Watching:
    """A `session-mesh watch` in a process of its own, and what it has printed."""

    def __init__(self, node, *flags: str) -> None:
        self.events: list[dict] = []
        self.process = subprocess.Popen(
            [PROGRAM, "watch", "-o", "json", *flags],
            env=node.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._rest = b""

    def until(self, wanted) -> dict:
        """Read on to the first new event that is wanted, and return it."""
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            line, newline, after = self._rest.partition(b"\n")
            if newline:
                self._rest = after
                self.events.append(json.loads(line))
                if wanted(self.events[-1]):
                    return self.events[-1]
            elif select.select([self.process.stdout], [], [], 0.5)[0]:
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                assert piece, f"the watch ended: {self.process.stderr.read()}"
                self._rest += piece
        raise AssertionError(f"never came: {[told(one) for one in self.events]}")

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    @property
    def position(self) -> str:
        return [event["position"] for event in self.events if event["position"]][-1]


@contextmanager
def watching(node, *flags: str):
    watch = Watching(node, *flags)
    try:
        yield watch
    finally:
        if watch.process.poll() is None:
            watch.end()


def told(event: dict) -> tuple[str, ...]:
    """Say in three words what a session or a node is said to be."""
    thing = event["object"] or {}
    return (event["op"], thing.get("agent_id") or thing.get("name") or "", thing.get("state") or "")


def is_told(*words: str):
    return lambda event: told(event) == words


def states_of(events: list[dict], name: str) -> list[str]:
    """Return the states that one was told to be in, one after the other."""
    states = []
    for event in events:
        op, who, state = told(event)
        moved = op == "added" or any(one["field"] == "state" for one in event["changes"])
        if who == name and event["kind"] in {"session", "node"} and moved:
            states.append(state)
    return states


def test_what_happens_elsewhere_is_told_once_through_kills_and_restarts(fleet):
    anna, berta, carl = fleet.mesh("anna", "berta", "carl")
    with watching(carl) as first:
        first.until(is_told("complete", "", ""))
        assert Counter(event["op"] for event in first.events) == {"snapshot": 3, "complete": 1}
        anna.call("run", "--detach", "--agent-id", "walker", "--", "cat")
        berta.call("run", "--detach", "--agent-id", "islander", "--", "cat")
        first.until(is_told("changed", "islander", "running"))
        anna.json("kill", "walker", "--yes")
        first.until(is_told("changed", "walker", "killed"))
        assert states_of(first.events, "walker") == ["pending", "running", "killed"]
    berta.end(signal.SIGKILL)  # nobody watches meanwhile
    wait_until(lambda: carl.states()["berta"] == "unreachable")
    with watching(carl, "--position", first.position) as second:
        second.until(is_told("changed", "islander", "unreachable"))
        assert second.events[0]["op"] == "resumed"
        berta.up()
        second.until(is_told("changed", "islander", "running"))
        assert states_of(second.events, "berta") == ["unreachable", "alive"]
        assert states_of(second.events, "walker") == []
    carl.end()
    berta.json("kill", "islander", "--yes")
    carl.up()
    with watching(carl, "--position", second.position) as third:
        third.until(is_told("changed", "islander", "killed"))
        assert third.events[0]["op"] == "resumed"
        assert states_of(third.events, "islander") == ["killed"]
        assert states_of(third.events, "berta") == states_of(third.events, "anna") == []
    positions = [
        event["position"]
        for watch in (first, second, third)
        for event in watch.events
        if event["position"] and event["kind"] != "watch"
    ]
    assert positions == sorted(set(positions)), "nothing twice, and all in order"


def test_one_watch_lives_through_a_restart_and_after_a_crash_begins_anew(fleet):
    anna, berta = fleet.mesh("anna", "berta")
    with watching(berta, "--kind", "session") as watch:
        watch.until(is_told("complete", "", ""))
        berta.end()
        anna.call("run", "--detach", "--agent-id", "walker", "--", "cat")
        berta.up()
        watch.until(lambda event: told(event)[1:] == ("walker", "running"))
        assert "reset" not in {event["op"] for event in watch.events}
        berta.end(signal.SIGKILL)
        berta.up()
        watch.until(is_told("reset", "", ""))
        watch.until(is_told("snapshot", "walker", "running"))
        anna.json("kill", "walker", "--yes")
        watch.until(is_told("changed", "walker", "killed"))
        assert watch.end(signal.SIGINT) == 130


def test_history_is_told_by_the_node_and_without_it_by_its_disk(fleet):
    (anna,) = fleet.mesh("anna")
    anna.call("run", "--detach", "--agent-id", "walker", "--", "cat")
    wait_until(lambda: "pending → running" in anna.call("events", "walker").out)
    anna.json("kill", "walker", "--yes")
    history = wait_until(lambda: (h := anna.call("events", "walker")) and "→ killed" in h.out and h)
    assert "session  added     walker on anna" in history.out
    lines = anna.call("events", "walker", "--since", "15m", "-o", "json").out.splitlines()
    assert [json.loads(line)["op"] for line in lines] == ["added", "changed", "changed"]
    assert all("session_epoch" not in line for line in lines)
    assert anna.call("events", "--since", "2040-01-01").out == ""
    assert "session_id" in anna.call("events", "--kind", "session", "-o", "csv").out
    anna.end()
    stopped = anna.call("events", "walker", "-o", "json")
    documents = [json.loads(line) for line in stopped.out.splitlines()]
    assert [one["op"] for one in documents] == ["added", "changed", "changed"]
    assert {one["source"] for one in documents} == {"disk"}
    assert "no node is running" in stopped.err
    with closing(sqlite3.connect(anna.home / "state.db")) as database:
        database.execute("UPDATE events SET packed = x'ffff' WHERE op = 'added'")
        database.execute(
            "UPDATE events SET names = '[' WHERE op = 'changed' AND seq ="
            " (SELECT max(seq) FROM events WHERE kind = 'session')"
        )
        database.commit()
    spoilt = anna.call("events", "walker", "-o", "json")
    assert (spoilt.code, len(spoilt.out.splitlines())) == (0, 1), spoilt.err
    anna.up()
    assert anna.call("events", "walker").code == 0, "a spoilt history is no reason not to serve"


def test_following_a_history_goes_on_without_telling_it_twice(fleet):
    (anna,) = fleet.mesh("anna")
    anna.call("run", "--agent-id", "walker", "--", "true")
    follow = subprocess.Popen(
        [PROGRAM, "events", "walker", "--follow"],
        env=anna.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    with follow:
        assert "added" in follow.stdout.readline()
        anna.call("run", "--agent-id", "walker", "--", "true")
        lines = [follow.stdout.readline()]
        while "added" not in lines[-1]:
            lines.append(follow.stdout.readline())
        assert len(lines) == len(set(lines)), lines
        follow.send_signal(signal.SIGINT)
        assert follow.wait(PATIENCE_S) == 130


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("watch", "--kind", "nonsense"), 2),
        (("events", "--kind", "nonsense"), 2),
        (("events", "--since", "yesterday-ish"), 2),
        (("events", "x" * 1000), 2),
        (("watch", "--position", "x" * 1000), 2),
        (("watch", "-o", "csv"), 2),
        (("events", "--follow", "-o", "yaml"), 2),
        (("watch",), 6),
        (("events", "--follow"), 6),
    ],
)
def test_what_cannot_be_is_one_sentence_and_the_right_code(fleet, words, code):
    node = fleet.node("anna")
    node.json("init", "--name", "anna")
    answer = node.call(*words)
    assert answer.code == code, answer.err
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err


def test_a_table_on_a_terminal_follows_the_mesh_and_q_leaves_it_as_it_was(fleet):
    (anna,) = fleet.mesh("anna")
    anna.call("run", "--detach", "--agent-id", "walker", "--", "cat")
    ours, theirs = pty.openpty()
    watch = subprocess.Popen(
        [PROGRAM, "watch"],
        env=anna.environment | {"COLUMNS": "100", "LINES": "12", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""

    def shows(*words: bytes) -> bool:
        nonlocal drawn
        with suppress(OSError):  # how a terminal ends that nobody writes to any more
            while select.select([ours], [], [], 0)[0]:
                drawn += os.read(ours, 1 << 16)
        return all(word in drawn for word in words)

    wait_until(lambda: shows(b"walker", b"running", b"sessions alive: 1, nodes heard: 1 of 1"))
    drawn = b""
    anna.json("kill", "walker", "--yes")
    wait_until(lambda: shows(b"killed", b"sessions alive: 0"))
    os.write(ours, b"q")
    assert watch.wait(PATIENCE_S) == 0
    wait_until(lambda: shows(b"\x1b[?1049l"))
    os.close(ours)


def test_a_watch_ends_when_nobody_reads_it_although_nothing_happens(fleet):
    (anna,) = fleet.mesh("anna")
    watch = Watching(anna, "--kind", "cost")
    watch.until(lambda event: event["op"] == "complete")
    watch.process.stdout.close()
    assert watch.process.wait(PATIENCE_S) == 128 + signal.SIGPIPE
    assert watch.process.stderr.read() == b""
    watch.process.stderr.close()
