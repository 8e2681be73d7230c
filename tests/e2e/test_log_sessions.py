"""What programs in sessions of the mesh write into their own logs, told as those sessions'."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import coding_agents
import pytest
from e2e.fleet import Node, wait_until

PROGRAMS = Path(__file__).parents[1] / "programs"
CLAUDE = (sys.executable, "-u", str(PROGRAMS / "claude_like.py"), "claude-sonnet-4-5")
CODEX = (sys.executable, "-u", str(PROGRAMS / "codex_like.py"), "gpt-5")


class Logs:
    """A node that follows the logs of both programs."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.node, self.directory = node, directory
        self.claude, self.codex = directory / "claude", directory / "codex"
        self.claude.mkdir()
        self.codex.mkdir()
        self.environment = {
            "CLAUDE_CONFIG_DIR": str(self.claude),
            "CODEX_HOME": str(self.codex),
            "HOME": str(directory),
        }

    def follow(self, *sources: str) -> None:
        found = [
            f"  - source: {one}\n    path: {self.directory / one}\n    refresh_interval: 1s\n"
            for one in sources
        ]
        (self.node.home / "config.yaml").write_text("ingest:\n" + "".join(found))

    def run(self, agent: str, *command: str) -> str:
        words = ("run", "--detach", "-o", "json", "--agent-id", agent, "--owner", "olga")
        answer = self.node.call(*words, "--", *command, env=self.environment)
        assert answer.code == 0, answer.err
        return answer.json["session_id"]

    def had(self) -> list:
        """Return what the node has noted of log sessions."""
        with closing(sqlite3.connect(f"file:{self.node.home}/state.db?mode=ro", uri=True)) as disk:
            return disk.execute("SELECT name FROM log_sessions").fetchall()

    def prompt(self, session: str, text: str = "go on") -> None:
        assert self.node.json("steer", session, text)["outcome"] == "delivered"

    def said(self, session: str, lines: int) -> list[list[str]]:
        """Return what a program has printed, once it has."""

        def printed() -> list[list[str]]:
            out = self.node.call("logs", session).out
            found = [line.split() for line in out.splitlines()]
            return found if len(found) >= lines else []

        return wait_until(printed, "what it prints")

    def counted(self, records: int) -> dict:
        """Return the cost by session, once so many responses are counted."""
        answer = wait_until(lambda: self._counted(records), f"{records} responses")
        return {group["key"]["session"]: group["records"] for group in answer["groups"]}

    def _counted(self, records: int) -> dict | None:
        answer = self.node.json("cost", "--by", "session")
        assert answer["records"] == sum(group["records"] for group in answer["groups"])
        return answer if answer["records"] == records else None

    def by(self, name: str) -> dict[str, int]:
        groups = self.node.json("cost", "--by", name)["groups"]
        return {group["key"][name]: group["records"] for group in groups}

    def usage(self, *words: str) -> dict:
        return self.node.json("usage", *words)


@pytest.fixture
def logs(fleet):
    node, _ = fleet.mesh("anna", "berta")
    node.end()
    logs = Logs(node, fleet.directory)
    logs.follow("claude", "codex")
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    return logs


@pytest.mark.parametrize("command", [CLAUDE, CODEX], ids=["claude", "codex"])
def test_what_an_agent_spends_is_its_sessions_its_own_and_its_owners(fleet, logs, command):
    session = logs.run("reviewer", *command)
    logs.prompt(session)
    log_session = logs.said(session, 1)[0][0]
    assert logs.counted(1) == {session: 1}
    assert (logs.by("agent"), logs.by("owner")) == ({"reviewer": 1}, {"olga": 1})
    listed = logs.node.sessions("--sort", "cost")["reviewer"]
    assert (listed["session_id"], int(listed["usage"]["input"])) == (session, 1000)
    assert Decimal(listed["cost_usd"]) > 0
    _, berta = fleet.nodes
    wait_until(lambda: berta.sessions()["reviewer"]["cost_usd"] == listed["cost_usd"], "berta")
    assert logs.node.json("show", session)["rounds_total"] == 1
    for name in (log_session, session):
        explained = logs.usage("--explain", name)
        assert [one["log_session"] for one in explained["records"]] == [log_session]
        assert explained["records"][0]["session"] == session
        assert explained["records"][0]["tier"] == "standard"
        assert logs.usage("--session-key", name)["records"] == 1
    assert logs.usage("--by", "session")["groups"][0]["key"]["session"] == session
    assert logs.node.call("audit", "--verify").code == 0


@pytest.fixture(params=["claude", "codex"])
def program(request):
    """A program as npm has it, by its name; some 300 MB, so none stays."""
    with TemporaryDirectory() as directory:
        found = coding_agents.install(Path(directory), request.param)
        if isinstance(found, str):
            pytest.skip(found)
        yield request.param, found


@pytest.mark.timeout(400)
def test_the_programs_themselves_are_counted_so(logs, program):
    """What the imitations leave is what these leave: this holds both to the same."""
    with coding_agents.model(lambda: wait_until(logs.had, "what it says of itself")) as url:
        command, environment = coding_agents.prompted(*program, url, logs.codex)
        logs.environment |= environment
        session = logs.run("reviewer", "sh", "-c", command)
        assert logs.counted(1) == {session: 1}
    assert logs.by("agent") == {"reviewer": 1}
    answer = logs.node.json("cost", "--by", "owner")
    assert {group["key"]["owner"] for group in answer["groups"]} == {"olga"}
    used = {name: int(answer["totals"][name]) for name in ("input", "output")}
    assert used == {"input": 1000, "output": 100}


def test_what_follows_is_whose_it_was_when_it_was_made(logs):
    """After `/clear`, a restart of the node, a run by others, and by nobody of the mesh."""
    node = logs.node
    first = logs.run("reviewer", *CLAUDE)
    logs.prompt(first)
    logs.said(first, 1)
    logs.prompt(first, "/clear")
    logs.prompt(first)
    (name, _), (cleared, _) = logs.said(first, 2)
    assert name != cleared
    assert logs.counted(2) == {first: 2}

    node.end()
    outside(logs, "--resume", name)
    node.up()
    logs.prompt(first)
    logs.said(first, 3)
    assert logs.counted(4) == {first: 3, name: 1}

    assert node.json("kill", first, "--yes")["outcome"] == "applied"
    outside(logs, "--resume", cleared)
    second = logs.run("writer", *CLAUDE, "--resume", cleared)
    logs.prompt(second)
    logs.said(second, 1)
    spent = {first: 3, name: 1, cleared: 1, second: 1}
    assert logs.counted(6) == spent
    assert logs.by("agent") == {"reviewer": 3, "writer": 1, "": 2}
    assert node.json("kill", second, "--yes")["outcome"] == "applied"
    node.end()
    rescanned = logs.usage("--rescan", "--source", "claude", "--path", str(logs.claude))
    assert rescanned["records"] == 6
    again = logs.usage("--by", "session")["groups"]
    assert {one["key"]["session"]: one["records"] for one in again} == spent


def outside(logs, *words):
    """Let the program make one response, inside no session of the mesh."""
    done = subprocess.run(
        [*CLAUDE, *words],
        env=logs.node.environment | logs.environment,
        input="go on\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout


def test_nothing_that_lies_about_keeps_a_node_down(logs, monkeypatch):
    """What no program writes, where one is looked for; and a place that cannot be."""
    node, sessions = logs.node, logs.claude / "sessions"
    node.end()
    monkeypatch.setenv("CODEX_HOME", str(logs.directory / ("n" * 300)))
    logs.follow("claude")
    sessions.mkdir()
    os.mkfifo(sessions / "1.json")
    (sessions / "2.json").write_text('{"sessionId": "x", "pid": 1e999, "procStart": "1"}')
    node.up()
    session = logs.run("reviewer", *CLAUDE)
    logs.prompt(session)
    logs.said(session, 1)
    assert logs.counted(1) == {session: 1}
    node.json("kill", session, "--yes")
    assert node.end() == 0


def test_a_budget_of_an_agent_holds_what_its_program_logs(logs):
    node = logs.node
    node.json("budget", "set", "team", "--limit", "1ktok", "--per", "day", "--agent-id", "reviewer")
    session = logs.run("reviewer", *CLAUDE)
    logs.prompt(session)
    logs.said(session, 1)
    suspended = {"reviewer": "suspended"}
    wait_until(lambda: {a: one["state"] for a, one in node.sessions().items()} == suspended)


def test_doctor_says_which_logs_nobody_follows(logs, monkeypatch):
    node = logs.node
    node.end()
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(logs.claude))
    logs.follow("codex")
    node.up()
    assert "usage_logs" not in doctor(node)
    session = logs.run("reviewer", *CLAUDE)
    logs.prompt(session)
    logs.said(session, 1)
    check = wait_until(lambda: doctor(node).get("usage_logs"))
    assert check["ok"] is None
    assert check["detail"].endswith("logs that are not followed: claude")
    assert check["fix"].endswith("ingest: [{source: claude}]")


def doctor(node):
    found = node.call("doctor", "-o", "json").json["checks"]
    return {check["id"]: check for check in found}
