"""What a status line tells of this machine: what `usage` does, by little reading, at once."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gateway_log
import pytest

from meshnode.client.home import Home
from meshnode.ingest.reading import SourceConfig
from meshnode.node.ledger import glancing
from meshnode.node.ledger.glancing import of_home
from meshnode.node.ledger.latch import alone
from meshnode.node.ledger.usage import Asked, Usage, Wanted

pytestmark = pytest.mark.integration
NOW_S = 1_795_176_000.0  # 2026-11-20T12:00Z
TODAY_S = NOW_S - 12 * 3600
TODAY, YESTERDAY = "2026-11-20T10:00:00Z", "2026-11-19T10:00:00Z"
SESSION = "5b9d3c5e-6b1e-4b51-9d8a-0c1f2d3e4f50"


class Logs:
    """Transcripts of one user, and a home that has read them or not."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "projects"
        self.home = Home(directory / "home")
        self.transcript = self.root / "-srv-x" / f"{SESSION}.jsonl"
        self.transcript.parent.mkdir(parents=True)
        self.told = 0

    def tell(
        self, at: str = TODAY, path: Path | None = None, model: str = "claude-opus-4-6"
    ) -> None:
        """Add a response of 1000 tokens in and out: 0.03 USD."""
        path = path or self.transcript
        path.parent.mkdir(parents=True, exist_ok=True)
        self.told += 1
        usage = {"input_tokens": 1000, "output_tokens": 1000}
        message = {"id": f"msg_{self.told}", "model": model, "stop_reason": "end_turn"}
        line = {"type": "assistant", "timestamp": at, "sessionId": path.stem, "cwd": "/srv/x"}
        with path.open("a") as file:
            file.write(json.dumps(line | {"message": message | {"usage": usage}}) + "\n")

    def read(self, now_s: float = NOW_S) -> None:
        with Usage(self.home, lambda: now_s) as usage:
            usage.read(SourceConfig("claude", str(self.root)))

    def summed(self) -> dict[str, Any]:
        with Usage(self.home, lambda: NOW_S) as usage:
            return usage.answer(Wanted(), Asked(since="2026-11-20T00:00:00Z"))

    def glance(self, transcript: str | None = None) -> dict[str, Any] | None:
        named = SESSION, str(self.transcript) if transcript is None else transcript
        return of_home(self.home, named, TODAY_S, NOW_S)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    return Logs(tmp_path)


def figures(usd: str, records: int, session_usd: str | None = None) -> dict[str, Any]:
    told = {"session_cost_usd": session_usd, "session_cost_source": "ledger"}
    today = {"records": records, "cost_usd": usd, "unpriced": False}
    return {"usage_read": True, "today": today} | (told if session_usd else {})


def test_it_tells_what_usage_does_of_today_and_of_the_session(logs: Logs):
    logs.tell(YESTERDAY)
    logs.tell()
    logs.tell(path=logs.root / "-srv-y" / "another.jsonl")
    logs.read()
    assert logs.glance() == figures("0.06", 2, "0.06")
    assert logs.summed()["cost_usd"] == "0.06"


def test_what_was_counted_on_days_before_is_not_of_today(logs: Logs):
    logs.tell(YESTERDAY)
    logs.read(NOW_S - 86400)
    assert logs.glance() == figures("0", 0, "0.03")


@pytest.mark.parametrize("behind_s", [86400, 400 * 86400])
def test_what_was_read_before_and_while_the_clock_was_behind_is_of_today(
    logs: Logs, behind_s: float
):
    for hour, now_s in ((8, NOW_S), (9, NOW_S - behind_s), (11, NOW_S)):
        logs.tell(f"2026-11-20T{hour:02}:00:00Z")
        logs.read(now_s)
    assert logs.summed()["records"] == 3
    assert logs.glance() == figures("0.09", 3, "0.09")


def test_it_reads_on_in_its_own_transcript_and_its_subagents_alone(logs: Logs):
    logs.tell()
    logs.read()
    logs.tell()
    logs.tell(path=logs.transcript.with_suffix("") / "subagents" / "agent-1.jsonl")
    logs.tell(path=logs.root / "-srv-y" / "another.jsonl")
    assert logs.glance() == figures("0.09", 3, "0.09")
    logs.read()
    assert logs.glance() == figures("0.12", 4, "0.09")
    assert logs.summed()["diagnostics"]["duplicates_ignored"] == 0


@pytest.mark.parametrize("home", ["none", "empty", "of another source"])
def test_logs_that_nobody_has_read_are_not_read_first(logs: Logs, home: str):
    logs.tell()
    if home != "none":
        with Usage(logs.home, lambda: NOW_S) as usage:
            if home == "of another source":
                log = logs.root / "access.log"
                log.write_text(gateway_log.line("r1", at=YESTERDAY))
                usage.read(SourceConfig("higress", str(log)))
    found = logs.glance()
    expected = {"usage_read": False, "today": None}
    assert found == (figures("0", 0) if home == "of another source" else expected)
    assert logs.home.path.exists() is (home != "none")
    logs.read()
    assert logs.glance() == figures("0.03", 1, "0.03")


def test_a_session_is_told_once_it_is_read_to_its_end(logs: Logs, monkeypatch: pytest.MonkeyPatch):
    logs.tell()
    logs.read()
    monkeypatch.setattr(glancing, "READ_BYTES_MAX", 1)
    subagent = logs.transcript.with_suffix("") / "subagents" / "agent-1.jsonl"
    logs.tell()
    logs.tell(path=subagent)
    assert logs.glance() == figures("0.06", 2)
    assert logs.glance() == figures("0.09", 3, "0.09")


@pytest.mark.parametrize(
    "named", ["", ".", "projects", "../x.jsonl", "/etc/passwd", "/dev/zero", "\0"]
)
def test_a_path_that_is_no_transcript_there_is_not_opened(logs: Logs, named: str):
    logs.tell()
    logs.read()
    assert logs.glance(named) == figures("0.03", 1)
    aside = f"{logs.root}/../{named.strip('/')}"
    assert logs.glance(aside) == figures("0.03", 1)


def test_only_what_usage_would_read_is_counted(logs: Logs, tmp_path: Path):
    logs.tell()
    logs.read()
    aside = tmp_path / "aside"
    aside.mkdir()
    (logs.root / "linked").symlink_to(aside)
    own = logs.transcript.parent
    foreign = [
        own / "notes.bak",
        own / "deep" / "s.jsonl",
        logs.root / "subagents" / "s.jsonl",
        logs.root / "linked" / "x",
        aside / "s.jsonl",
    ]
    for path in foreign:
        logs.tell(path=path)
        found = logs.glance(str(path))
        assert found is not None
        assert found["today"]["records"] == 1, path
        path.unlink()
    logs.tell(path=logs.root / "linked" / "y.jsonl")  # a project may be a link
    logs.tell(path=logs.root / "top.jsonl")
    for path in (logs.root / "linked" / "y.jsonl", logs.root / "top.jsonl"):
        assert logs.glance(str(path)) is not None
    found = logs.glance()
    logs.read()
    assert logs.glance() == found == figures("0.09", 3, "0.03")


def test_a_transcript_is_known_by_another_name_of_its_root(logs: Logs, tmp_path: Path):
    logs.tell()
    logs.read()
    logs.tell()
    (tmp_path / "link").symlink_to(logs.root)
    linked = tmp_path / "link" / logs.transcript.relative_to(logs.root)
    assert logs.glance(str(linked)) == figures("0.06", 2, "0.06")
    assert logs.summed()["diagnostics"]["duplicates_ignored"] == 0


@pytest.mark.parametrize("name", ["a\0b.jsonl", "\ud800.jsonl"])
def test_a_path_that_cannot_be_one_is_not_read(logs: Logs, name: str):
    logs.tell()
    logs.read()
    assert logs.glance(str(logs.transcript.parent / name)) == figures("0.03", 1)


def test_an_id_that_cannot_be_one_tells_nothing(logs: Logs):
    logs.tell()
    logs.read()
    assert of_home(logs.home, ("\ud800", str(logs.transcript)), TODAY_S, NOW_S) is None


def test_a_pipe_in_its_place_is_not_waited_for(logs: Logs):
    logs.tell()
    logs.read()
    logs.transcript.unlink()
    os.mkfifo(logs.transcript)
    assert logs.glance() == figures("0.03", 1, "0.03")


def test_while_others_take_their_turn_or_write_it_tells_nothing_new(logs: Logs):
    logs.tell()
    logs.read()
    logs.tell()
    with (logs.home.path / "state.db-turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        assert logs.glance() is None
    with closing(sqlite3.connect(logs.home.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert logs.glance() is None
    assert logs.glance() == figures("0.06", 2, "0.06")


@pytest.mark.parametrize("state", ["damaged", "older", "newer"])
def test_a_ledger_that_cannot_be_read_at_once_is_left_as_it_is(logs: Logs, state: str):
    logs.tell()
    logs.read()
    if state == "damaged":
        logs.home.database.write_bytes(b"no database" * 1000)
    else:
        with closing(sqlite3.connect(logs.home.database)) as disk:
            disk.execute(f"PRAGMA user_version = {9 if state == 'older' else 99}")
    before = logs.home.database.read_bytes()
    assert logs.glance() is None
    assert logs.home.database.read_bytes() == before


def test_what_has_no_price_is_told_and_the_session_has_no_cost(logs: Logs):
    logs.tell(model="nobody-knows-1")
    logs.read()
    today = {"records": 1, "cost_usd": None, "unpriced": True}
    assert logs.glance() == {"usage_read": True, "today": today}


def test_one_process_asks_at_a_time_and_nobody_waits(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with alone(home) as first, alone(home) as second:
        assert (first, second) == (True, False)
    with alone(home) as again:
        assert again
