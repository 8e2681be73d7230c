"""`statusline`: the line that Claude Code shows, with a node, without one, with one that hangs."""

import fcntl
import json
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import coding_agents
import pytest
from e2e.caller import Caller
from e2e.fleet import CALL_S, PROGRAM, wait_until

from session_mesh.statusline.kept import LASTS_S, SILENT_S, TODAY_S

SESSION = "5b9d3c5e-6b1e-4b51-9d8a-0c1f2d3e4f50"
CONTEXT = {"used_percentage": 21, "context_window_size": 200_000}


class Desk:
    """A user with transcripts, and with a home."""

    def __init__(self, node, directory: Path) -> None:
        self.node = node
        self.root = directory / "claude"
        self.transcript = self.root / "projects" / "-srv-x" / f"{SESSION}.jsonl"
        self.transcript.parent.mkdir(parents=True)
        self.told = 0

    def tell(self) -> None:
        """Let Claude Code note a response of 1000 tokens in and out: 0.03 USD."""
        self.told += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        usage = {"input_tokens": 1000, "output_tokens": 1000}
        message = {"id": f"msg_{self.told}", "model": "claude-opus-4-6", "stop_reason": "end_turn"}
        line = {"type": "assistant", "timestamp": at, "sessionId": SESSION, "cwd": "/srv/x"}
        with self.transcript.open("a") as file:
            file.write(json.dumps(line | {"message": message | {"usage": usage}}) + "\n")

    @property
    def document(self) -> str:
        return json.dumps(
            {
                "session_id": SESSION,
                "transcript_path": str(self.transcript),
                "model": {"id": "claude-opus-4-6", "display_name": "Opus 4.6"},
                "cost": {"total_cost_usd": 0.5},
                "context_window": CONTEXT,
            }
        )

    def line(self, *words: str, **env: str) -> str:
        """Return the line; nothing else is printed."""
        answer = self.node.start("statusline", *words, stdin=self.document, env=env)
        assert (answer.code, answer.err) == (0, ""), answer
        assert answer.out.count("\n") == 1
        return answer.out.rstrip("\n")

    def given(self) -> Path:
        """Write the document where a shell finds it."""
        path = self.root / "document.json"
        path.write_text(self.document)
        return path

    def forget(self) -> None:
        """Let what was kept be too old."""
        (self.node.home / "statusline.json").unlink(missing_ok=True)

    def age(self, by_s: float) -> None:
        """Let what is kept be older."""
        path = self.node.home / "statusline.json"
        kept = json.loads(path.read_text())
        for part in (kept["mesh"], *kept["sessions"].values()):
            part["at"] -= by_s
        path.write_text(json.dumps(kept))

    def read(self) -> None:
        words = ("--source", "claude", "--path", str(self.root / "projects"))
        assert self.node.call("usage", *words).code == 0


@pytest.fixture
def desk(fleet, tmp_path):
    return Desk(fleet.node("anna"), tmp_path)


@pytest.fixture
def meshed(fleet, tmp_path):
    """A desk on one of two nodes."""
    anna, _ = fleet.mesh("anna", "berta")
    desk = Desk(anna, tmp_path)
    desk.tell()
    desk.read()
    return desk


def test_without_a_home_it_tells_what_claude_code_says_and_makes_none(desk):
    told = "Opus 4.6 | $0.50 session | usage not read yet | ctx 21%"
    assert desk.line() == told
    assert desk.line("--home", str(desk.node.home)) == told
    value = json.loads(desk.line("-o", "json"))
    assert (value["session_cost_source"], value["usage_read"]) == ("claude", False)
    assert {value[name] for name in ("today", "mesh_today", "alive_sessions", "budgets")} == {None}
    assert desk.line("-q") == SESSION
    assert not desk.node.home.exists()


def test_once_usage_has_read_it_goes_on_reading_its_own_transcript(desk):
    desk.tell()
    desk.read()
    told = "Opus 4.6 | ${0} session | ${0} today | ctx 21%"
    assert desk.line() == told.format("0.03")
    desk.tell()
    desk.forget()
    assert desk.line() == told.format("0.06")
    desk.read()
    answer = desk.node.json("usage")
    assert (answer["records"], answer["diagnostics"]["duplicates_ignored"]) == (2, 0)


def test_it_colours_off_a_terminal_unless_somebody_minds(desk):
    plain = desk.line(NO_COLOR="1")
    assert desk.line(NO_COLOR="", TERM="xterm") == plain.replace(
        "ctx 21%", "\x1b[32mctx 21%\x1b[0m"
    )
    assert desk.line(NO_COLOR="", TERM="dumb") == plain


def test_with_a_node_it_tells_of_the_mesh_and_of_a_budget_that_presses(fleet, meshed):
    _, berta = fleet.nodes
    other = Desk(berta, meshed.root.parent / "berta")
    other.tell()
    other.read()
    assert berta.call("run", "--detach", "--agent-id", "cat", "--", "cat").code == 0
    wait_until(lambda: meshed.node.json("cost")["cost_usd"] == "0.06", "what both have spent")
    wait_until(lambda: "cat" in meshed.node.sessions(), "the session")
    meshed.forget()
    told = "Opus 4.6 | $0.03 session | $0.03 today | mesh $0.06{} | ctx 21%"
    assert meshed.line() == told.format(", 1 alive")
    assert json.loads(meshed.line("-o", "json"))["coverage"]["nodes_heard"] == 2
    meshed.node.json("budget", "set", "team", "--limit", "0.01usd", "--per", "day")
    wait_until(lambda: (pressed(meshed.node) or {}).get("held"), "the budget to hold the session")
    meshed.forget()
    pressing = "Opus 4.6 | $0.03 | $0.03 today | mesh $0.06 | team 600%, 1 held | ctx 21%"
    assert meshed.line() == pressing


def pressed(node):
    return next((b for b in node.json("budget", "list")["budgets"] if b["state"] != "ok"), None)


def test_a_node_that_hangs_costs_a_moment_once_and_the_local_figures_stay(meshed):
    local = "Opus 4.6 | $0.03 session | $0.03 today | ctx 21%"
    meshed.node.process.send_signal(signal.SIGSTOP)
    try:
        assert meshed.line() == local
        kept = json.loads((meshed.node.home / "statusline.json").read_text())["mesh"]
        assert (kept["figures"], kept["lasts_s"]) == ({}, SILENT_S)
        assert meshed.line() == local
    finally:
        meshed.node.process.send_signal(signal.SIGCONT)

    def is_asked_again():
        meshed.forget()
        return "mesh $0.03" in meshed.line()

    wait_until(is_asked_again)  # on a busy machine its first answer may take longer than is waited


def test_a_stopped_node_is_not_started(meshed):
    meshed.node.end()
    meshed.forget()
    assert meshed.line() == "Opus 4.6 | $0.03 session | $0.03 today | ctx 21%"
    assert not (meshed.node.home / "run" / "node.sock").exists()


def test_while_another_asks_what_is_kept_is_told(desk):
    desk.tell()
    desk.read()
    before = desk.line()
    desk.tell()
    desk.age(LASTS_S)
    with (desk.node.home / "statusline.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert desk.line() == before
    assert desk.line() != before


@pytest.mark.parametrize("trouble", ["older", "damaged", "lock"])
def test_figures_that_cannot_be_read_again_are_soon_not_of_today(desk, trouble):
    desk.tell()
    desk.read()
    assert desk.line() == "Opus 4.6 | $0.03 session | $0.03 today | ctx 21%"
    lock = desk.node.home / "statusline.lock"
    if trouble == "older":
        with closing(sqlite3.connect(desk.node.home / "state.db")) as disk:
            disk.execute("PRAGMA user_version = 9")
    elif trouble == "damaged":
        (desk.node.home / "state.db").write_bytes(b"no database" * 1000)
    else:
        lock.unlink()
        lock.mkdir()
    desk.age(TODAY_S)
    for _ in range(2):
        assert desk.line() == "Opus 4.6 | $0.03 session | ctx 21%"
        assert json.loads(desk.line("-o", "json"))["today"] is None


def test_many_at_once_count_once_and_each_prints_its_line(desk):
    desk.tell()
    desk.read()
    for _ in range(5):
        desk.tell()
    started = [
        subprocess.Popen(
            ["sh", "-c", f"exec {PROGRAM} statusline < {desk.given()}"],
            env=desk.node.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    said = [(*process.communicate(timeout=CALL_S), process.returncode) for process in started]
    assert {(err, code, out.count("\n")) for out, err, code in said} == {("", 0, 1)}
    assert any("| $0.18 session | $0.18 today |" in out for out, _, _ in said)
    answer = desk.node.json("usage")
    assert (answer["records"], answer["diagnostics"]["duplicates_ignored"]) == (6, 0)


BAD = [
    ("", "stdin is empty"),
    ("{", "stdin is not JSON"),
    ("[1]", "stdin is no JSON object"),
    ("\x00\x1b[31m", "stdin is not JSON"),
    (" " * (1 << 19), "stdin has more than 256 KiB"),
]


@pytest.mark.parametrize(("stdin", "told"), BAD, ids=[told for _, told in BAD])
def test_what_is_no_document_gets_one_line_and_nothing_is_shown(desk, stdin, told):
    answer = desk.node.start("statusline", stdin=stdin)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {told}, where Claude Code writes")
    assert answer.err.count("\n") == 1


def test_nobody_types_a_document_and_a_closed_stdin_has_none(desk):
    with Caller(desk.node, verb="statusline") as caller:
        caller.sees(b"error: stdin is a terminal")
        assert caller.ends() == 2
    closed = ["sh", "-c", f"exec {PROGRAM} statusline <&-"]
    done = subprocess.run(
        closed, env=desk.node.environment, capture_output=True, timeout=CALL_S, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: stdin is closed")


@pytest.mark.parametrize("name", ["a\nb\x1b[2Jc", "\ud800", "\u202e", "x" * 5000])
def test_names_of_others_stay_in_one_line_that_fits(desk, name):
    document = json.dumps({"model": {"display_name": name}, "session_id": name})
    answer = desk.node.start("statusline", stdin=document)
    assert answer.code == 0
    assert answer.out.rstrip("\n").isprintable()
    assert len(answer.out) <= 81
    assert desk.node.start("statusline", "-o", "json", stdin=document).json["today"] is None


@pytest.mark.parametrize("home", ["file", "open"])
def test_a_home_that_is_none_leaves_what_claude_code_says(desk, home):
    if home == "file":
        desk.node.home.write_text("")
    else:
        desk.node.home.mkdir(mode=0o755)
    answer = desk.node.start("statusline", stdin=desk.document)
    assert (answer.code, answer.out) == (0, "Opus 4.6 | $0.50 session | ctx 21%\n")
    assert answer.err.startswith("warning: ")


def test_inside_a_session_it_goes_by_the_ticket_alone(meshed):
    given = meshed.given()
    line = f"{PROGRAM} statusline < {given}; echo $?"
    agent = f"{line}; {PROGRAM} statusline -o json < {given}; cat"
    assert meshed.node.call("run", "--detach", "--agent-id", "a", "--", "sh", "-c", agent).code == 0
    out = wait_until(lambda: re.search(r"(.*)\n0\n(\{.*\})\n", meshed.node.call("logs", "a").out))
    assert out[1] == "Opus 4.6 | $0.50 session | 1 alive | ctx 21%"
    assert json.loads(out[2])["alive_sessions"] == 1
    assert not (meshed.node.home / "statusline.json").exists()


def test_inside_a_session_its_own_cost_is_that_of_the_mesh(meshed):
    report = f"{PROGRAM} report --model claude-opus-4-6 --input 1000 --output 1000 --id r1"
    said = f'{PROGRAM} self -o json | grep -q \'"cost_usd": "0.03"\''
    line = f"{PROGRAM} statusline < {meshed.given()}"
    agent = f"{report}; until {said}; do :; done; {line}; cat"
    assert meshed.node.call("run", "--detach", "--agent-id", "a", "--", "sh", "-c", agent).code == 0
    wait_until(lambda: "$0.03 session" in meshed.node.call("logs", "a").out)


@pytest.fixture
def claude():
    """Claude Code as npm has it; some 200 MB, so it does not stay."""
    with TemporaryDirectory() as directory:
        found = coding_agents.install(Path(directory), "claude")
        if isinstance(found, str):
            pytest.skip(found)
        yield found


@pytest.mark.timeout(400)
def test_claude_code_itself_shows_the_line(desk, claude):
    """What it writes to us is what we take it for, and what we print is what it shows."""
    desk.tell()
    desk.read()
    said = desk.root.parent / "said"
    command = f"{PROGRAM} statusline | tee -a {said}"
    with coding_agents.model(lambda: None) as url:
        environment = coding_agents.at_a_terminal(desk.root, desk.root.parent, url, command)
        shell = f"cd {desk.root.parent} && exec {claude}"
        with Caller(desk.node, shell=shell, **environment) as caller:
            caller.sees(b"today")
            caller.type(b"say hi")
            caller.sees(b"hi")
            caller.type(b"\r")
            caller.sees(b"ctx")  # it draws what is different alone
            line = wait_until(lambda: re.search(r".*ctx 1\.0k .*", said.read_text()), "the context")
    first, *_ = said.read_text().splitlines()
    assert re.fullmatch(r".+ \| \$0\.00 session \| \$0\.03 today", first)
    assert re.search(r" \| \$0\.\d+ session \| \$0\.\d+ today \| ", line[0])
