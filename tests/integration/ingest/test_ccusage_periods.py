"""Weeks, months and blocks of the same transcripts, by ccusage and by us: what differs, and why."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import ccusage
import pytest

from meshnode.app.cost.blocks import Spent, forecast
from meshnode.client.durations import rfc3339, seconds_of
from meshnode.client.home import Home
from meshnode.ingest.reading import SourceConfig
from meshnode.node.ledger.usage import Asked, Usage, Wanted

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CLAUDE = Wanted(sources=("claude",))
BEGIN_S = seconds_of("2026-09-20T00:00:00Z")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")  # the clocks of two go back
Used = dict[str, tuple[int, int, int, int, int]]  # records, and tokens by kind, by name


class Told:
    """Transcripts with one line for each answer, so that all agree on when it was."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._path = root / "projects" / "p" / "s.jsonl"
        self._path.parent.mkdir(parents=True)
        self._told = 0

    def answer(self, at_s: float, model: str = "claude-opus-4-6", ident: str = "", **usage: int):
        """Write a line; times are those of a log, in milliseconds."""
        self._told += 1
        message = {
            "id": ident or f"msg_{self._told}",
            "model": model,
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 0, "output_tokens": 0} | usage,
        }
        line = {
            "type": "assistant",
            "sessionId": "s",
            "timestamp": rfc3339(at_s),
            "requestId": ident or f"req_{self._told}",
            "message": message,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def ours(self, by: str, tz: str = "UTC", now_s: float = BEGIN_S) -> list[dict[str, Any]]:
        home = Home(self.root / "home")
        with Usage(home, lambda: now_s) as usage:
            usage.read(SourceConfig("claude", str(self.root)))
            answer = usage.answer(CLAUDE, Asked((by,), tz=tz))
        assert answer["tz_exact"]
        return sorted(answer["groups"], key=lambda group: group["key"][by])


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.fixture(params=range(3))
def work(request: pytest.FixtureRequest, told: Told) -> Told:
    """Half a year of it: bursts, pauses of some hours, and of days."""
    chance, at_s = Random(request.param), BEGIN_S
    for _ in range(1200):
        at_s += chance.choice((5, 60, 900, 900, 3600, 4 * 3600, 9 * 3600, 60 * 3600)) * (
            chance.random() + 0.1
        )
        told.answer(
            at_s,
            input_tokens=chance.randint(1, 999),
            output_tokens=chance.randint(1, 999),
            cache_read_input_tokens=chance.choice((0, 5000)),
            cache_creation_input_tokens=chance.choice((0, 700)),
        )
    return told


def counted(group: dict[str, Any]) -> tuple[int, int, int, int]:
    used = group["usage"]
    written = used["cache_write_5m"] + used["cache_write_1h"]
    return used["input"], used["output"], used["cache_read"], written


def of_period(row: dict[str, Any]) -> tuple[int, int, int, int]:
    kinds = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheCreationTokens")
    input_, output, read, written = (row[kind] for kind in kinds)
    return input_, output, read, written


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize(("by", "report"), [("week", "weekly"), ("month", "monthly")])
def test_weeks_and_months_are_the_same(program: Path, work: Told, by: str, report: str, tz: str):
    of_monday = ("--start-of-week", "monday") if by == "week" else ()
    rows = ccusage.report(program, work.root, report, *of_monday, tz=tz)
    theirs = {row[by]: of_period(row) for row in rows}
    assert {group["key"][by]: counted(group) for group in work.ours(by, tz)} == theirs
    assert len(theirs) > 5


def test_weeks_of_one_source_begin_on_sunday_there_unless_told(program: Path, told: Told):
    for day in range(7):
        told.answer(seconds_of(f"2026-11-{15 + day}T12:00:00Z"), output_tokens=10**day)
    by_week = {
        row["week"]: row["outputTokens"] for row in ccusage.report(program, told.root, "weekly")
    }
    assert by_week == {"2026-11-15": 1_111_111}
    ours = {group["key"]["week"]: group["usage"]["output"] for group in told.ours("week")}
    assert ours == {"2026-11-09": 1, "2026-11-16": 1_111_110}


def blocks(program: Path, root: Path) -> list[dict[str, Any]]:
    return [row for row in ccusage.report(program, root, "blocks") if not row["isGap"]]


def of_block(row: dict[str, Any]) -> tuple[str, str, int, int, int, int, int]:
    kinds = (
        "inputTokens",
        "outputTokens",
        "cacheReadInputTokens",
        "cacheCreationInputTokens",
    )
    input_, output, read, written = (row["tokenCounts"][kind] for kind in kinds)
    begin, end = (row[name].replace(":00.000Z", "Z") for name in ("startTime", "endTime"))
    return begin, end, row["entries"], input_, output, read, written


def test_blocks_are_the_same(program: Path, work: Told):
    ours = [
        (group["key"]["block"], group["block"]["end"], group["records"], *counted(group))
        for group in work.ours("block")
    ]
    assert ours == [of_block(row) for row in blocks(program, work.root)]
    assert len(ours) > 100


def test_the_active_block_goes_on_alike(program: Path, told: Told):
    now_s = time.time()
    first_s = now_s - now_s % 3600 - 3600  # so that the hour's end may come while this runs
    for minutes in (0, 3, 20, 31, 59):
        told.answer(first_s + 60 * minutes, input_tokens=1000 * minutes, output_tokens=7)
    [theirs] = blocks(program, told.root)
    [ours] = told.ours("block", now_s=time.time())
    assert ours["block"]["active"] is theirs["isActive"] is True
    assert ours["block"]["tokens_per_minute"] == round(theirs["burnRate"]["tokensPerMinute"])
    # They round what remains to minutes, and each has a time of its own.
    left_s = 60 * theirs["projection"]["remainingMinutes"]
    assert abs(ours["block"]["remaining_s"] - left_s) < 180
    spent = Spent(int(first_s), first_s, first_s + 59 * 60, theirs["totalTokens"], None)
    at_their_time = forecast(spent, first_s + 5 * 3600 - left_s)
    assert at_their_time.tokens == pytest.approx(theirs["projection"]["totalTokens"], abs=1)


def test_a_use_at_the_very_end_of_a_block_is_in_the_next_one_here(program: Path, told: Told):
    for hours in (0.2, 5.0, 5.1):
        told.answer(BEGIN_S + hours * 3600, output_tokens=1)
    assert [row["entries"] for row in blocks(program, told.root)] == [2, 1]
    assert [group["records"] for group in told.ours("block")] == [1, 2]


def test_an_answer_that_the_program_made_up_begins_no_block_here(program: Path, told: Told):
    told.answer(BEGIN_S, "<synthetic>")
    told.answer(BEGIN_S + 2 * 3600, output_tokens=1)
    begin = datetime.fromtimestamp(BEGIN_S, UTC)
    assert [row["startTime"] for row in blocks(program, told.root)] == [rfc3339(BEGIN_S)]
    assert [group["key"]["block"] for group in told.ours("block")] == [
        f"{begin + timedelta(hours=2):%Y-%m-%dT%H:%MZ}"
    ]


def test_an_answer_told_over_the_hour_begins_its_block_when_it_began_here(
    program: Path, told: Told
):
    for seconds, tokens in ((-5, 1), (5, 9)):
        told.answer(BEGIN_S + 3600 + seconds, ident="msg_long", output_tokens=tokens)
    [theirs] = blocks(program, told.root)
    [ours] = told.ours("block")
    assert (ours["usage"]["output"], theirs["tokenCounts"]["outputTokens"]) == (9, 9)
    assert (ours["key"]["block"], theirs["startTime"][11:13]) == ("2026-09-20T00:00Z", "01")
