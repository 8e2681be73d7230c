"""`usage` over logs in a home of its own: what can be asked, and what is said beside figures."""

import csv
import io
import json
from pathlib import Path

import pytest
from gateway_log import line

from meshnode.app.cost import tally
from meshnode.client.durations import seconds_of
from session_mesh import call
from session_mesh.main import main
from session_mesh.output.render import Streams
from session_mesh.views import monitor


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line("r1") + line("r2"))
    return path


@pytest.mark.parametrize(
    "flag",
    [
        ("--since", "7d"),
        ("--until", "1d"),
        ("--days", "3"),
        ("--tz", "UTC"),
        ("--by", "model"),
        ("--session-key", "s"),
        ("--prices-at", "today"),
        ("--follow",),
    ],
    ids="".join,
)
def test_an_explanation_refuses_what_it_would_ignore(run, log: Path, flag: tuple[str, ...]):
    words = ("usage", "--source", "higress", "--path", str(log), "--explain", "r1")
    assert run(*words)[0] == 0
    code, out, err = run(*words, *flag)
    assert (code, out) == (2, "")
    assert f"leave out {flag[0]}" in err


def test_an_explanation_says_how_many_responses_it_leaves_out(run, log: Path):
    log.write_text("".join(line(f"r{number}") for number in range(1500)))
    words = ("usage", "--source", "higress", "--path", str(log), "--explain", "s")
    code, out, _ = run(*words)
    assert code == 0
    assert "total  1,500 responses" in out
    assert "and 500 more responses with their lines" in out


def answers(*idents: str, at: str = "2026-11-20T10:00:00Z") -> str:
    """Write a transcript: each response is told in two lines, as by Claude Code."""
    lines: list[str] = []
    for ident in idents:
        for ended in (None, "end_turn"):
            usage = {"input_tokens": 5, "output_tokens": 5}
            message = {"id": ident, "model": "m", "stop_reason": ended, "usage": usage}
            said = {"type": "assistant", "sessionId": "s", "timestamp": at}
            lines.append(json.dumps(said | {"message": message}) + "\n")
    return "".join(lines)


@pytest.fixture
def transcripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Claude's, where usual: two blocks of November, and one that is active at 10:30Z."""
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    monkeypatch.setattr(call, "wall_s", lambda: seconds_of("2026-11-20T10:30:00Z"))
    times = ("19T04:10", "19T08:59", "19T09:00", "20T08:15", "20T08:45", "20T09:45")
    path = tmp_path / "claude" / "projects" / "p" / "s.jsonl"
    path.parent.mkdir(parents=True)
    told = [answers(f"m{n}", at=f"2026-11-{at}:00Z") for n, at in enumerate(times)]
    path.write_text("".join(told))
    return path


BLOCKS = ("usage", "--by", "block", "--tz", "Europe/Berlin")


@pytest.mark.usefixtures("transcripts")
def test_blocks_say_when_they_begin_and_end_and_the_active_one_how_it_goes_on(run):
    value = json.loads(run(*BLOCKS, "-o", "json")[1])
    assert [(one["key"]["block"], one["block"]["end"]) for one in value["groups"]] == [
        ("2026-11-19T05:00+01:00", "2026-11-19T10:00+01:00"),
        ("2026-11-19T10:00+01:00", "2026-11-19T15:00+01:00"),
        ("2026-11-20T09:00+01:00", "2026-11-20T14:00+01:00"),
    ]
    assert [one["usage"]["total"] for one in value["groups"]] == [20, 10, 30]
    ended, _, active = (one["block"] for one in value["groups"])
    assert ended | {"end": ""} == dict.fromkeys(active) | {"end": "", "active": False}
    # 30 tokens in 90 minutes, and 150 minutes to go
    del active["end"]
    assert active == {
        "active": True,
        "remaining_s": 9000,
        "tokens_per_minute": 0,
        "cost_usd_per_hour": None,
        "projected_tokens": 80,
        "projected_cost_usd": None,
    }
    rows = list(csv.DictReader(io.StringIO(run(*BLOCKS, "-o", "csv")[1])))
    assert [row["block.remaining_s"] for row in rows] == ["", "", "9000"]
    assert run(*BLOCKS, "-q")[1].splitlines() == [one["key"]["block"] for one in value["groups"]]


@pytest.mark.parametrize("more", [(), ("--by", "model")], ids="".join)
@pytest.mark.usefixtures("transcripts")
def test_a_table_of_blocks_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, more, tmp_path: Path):
    monkeypatch.setenv("SESSION_MESH_HOME", str(tmp_path / "home"))
    streams = Streams(io.StringIO(), io.StringIO(), out_is_terminal=True, width=80)
    assert main([*BLOCKS, *more], streams) == 0
    lines = streams.out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("2026-11-19 05:00-10:00  ")
    assert lines[3].startswith("2026-11-20 09:00-14:00  ")
    assert "2h30m" in lines[3]
    assert lines[4].startswith("total")
    assert lines[5:] == ["active: 0 tokens a minute", "at this rate 80 tokens by 14:00"]


@pytest.mark.usefixtures("transcripts")
def test_a_block_that_is_asked_for_in_part_is_told_whole(run):
    code, out, err = run(*BLOCKS, "--since", "2026-11-20T10:30", "--until", "2026-11-20T11:00")
    assert (code, out.splitlines()[1].split()[-2]) == (0, "30")
    assert "blocks count whole: this is what was used from 2026-11-20T09:00+01:00 until 20" in err
    value = json.loads(run(*BLOCKS, "--since", "2026-11-20T10:30", "-o", "json")[1])
    assert (value["tz_exact"], value["records"]) == (False, 3)
    whole = json.loads(run(*BLOCKS, "--since", "2026-11-19T15:00", "-o", "json")[1])
    assert (whole["tz_exact"], whole["records"], whole["notes"]) == (True, 3, [])


@pytest.mark.usefixtures("transcripts")
@pytest.mark.parametrize("words", [(), ("--source", "claude"), ("--by", "model")])
def test_blocks_stay_when_logs_are_gone(run, tmp_path: Path, words: tuple[str, ...]):
    before = run(*BLOCKS, *words)
    (tmp_path / "claude").rename(tmp_path / "away")
    code, out, err = run(*BLOCKS, *words)
    assert (code, out) == (0, before[1])
    assert ("no claude logs here" in err) is ("claude" in words)


@pytest.mark.usefixtures("transcripts")
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_source_without_logs_and_records_is_not_found(run, log: Path, tmp_path, is_begun: bool):
    (tmp_path / "claude").rename(tmp_path / "away")
    if is_begun:
        assert run("usage", "--source", "higress", "--path", str(log))[0] == 0
    code, out, err = run(*BLOCKS, "--source", "claude")
    assert (code, out) == (3, "")
    assert "no claude logs here" in err
    code, out, _ = run(*BLOCKS, "-o", "json")
    assert (code, json.loads(out)["records"]) == (0, 0)


@pytest.mark.usefixtures("transcripts")
def test_usage_of_others_is_in_no_block(run, log: Path):
    assert run("usage", "--source", "higress", "--path", str(log))[0] == 0
    assert json.loads(run(*BLOCKS, "-o", "json")[1])["records"] == 6
    assert json.loads(run("usage", "-o", "json")[1])["records"] == 8


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--source", "codex"), "leave out --source"),
        (("--source", "claude", "--source", "codex"), "leave out --source"),
        (("--session-key", "s"), "--by block --by session"),
        (("--follow",), "--follow shows sessions, not blocks"),
    ],
    ids="".join,
)
def test_blocks_refuse_what_has_none(run, words: tuple[str, ...], says: str):
    code, out, err = run("usage", "--by", "block", *words)
    assert (code, out) == (2, "")
    assert says in err


@pytest.mark.parametrize("source", ["claude", "higress"])
def test_a_copy_of_which_a_part_is_counted_from_elsewhere_says_so(run, tmp_path: Path, source: str):
    one, copy = tmp_path / "one" / "p" / "s1.jsonl", tmp_path / "copy" / "p" / "s1.jsonl"
    for file, names in ((one, ("m1", "m2")), (copy, ("m1", "m2", "m3"))):
        file.parent.mkdir(parents=True)
        file.write_text(answers(*names) if source == "claude" else "".join(map(line, names)))
    words = ["usage", "--source", source, "--path"]
    paths = [str(file if source == "higress" else file.parents[1]) for file in (one, copy)]
    first = run(*words, paths[0])
    assert (first[0], "counted already" in first[2]) == (0, False)
    for _ in range(2):
        err = run(*words, paths[1])[2]
        assert f"in {paths[1]} tell of responses that are counted already" in err
        assert "is not in these figures (usage without --path has it)" in err
    value = json.loads(run(*words, paths[1], "-o", "json")[1])
    assert (value["records"], len(value["notes"])) == (1, 1)


def test_the_fast_service_costs_what_it_does_or_it_is_said_that_nobody_knows(run, tmp_path: Path):
    lines = []
    for number, (model, speed) in enumerate(
        [("claude-opus-4-8", "fast"), ("claude-opus-4-6", "fast"), ("claude-opus-4-6", "standard")]
    ):
        usage = {"input_tokens": 1_000_000, "output_tokens": 0, "speed": speed}
        message = {"id": f"m{number}", "model": model, "stop_reason": "end_turn", "usage": usage}
        said = {"type": "assistant", "sessionId": "s", "timestamp": "2026-11-20T10:00:00Z"}
        lines.append(json.dumps(said | {"message": message}) + "\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "s.jsonl").write_text("".join(lines))
    words = ("usage", "--source", "claude", "--path", str(tmp_path), "--by", "model")
    value = json.loads(run(*words, "-o", "json")[1])
    cost = {group["key"]["model"]: group["cost_usd"] for group in value["groups"]}
    assert cost == {"claude-opus-4-8": "10", "claude-opus-4-6": "10"}
    [note] = value["notes"]
    assert note.startswith(
        "claude-opus-4-6: 1 response(s) of 1,000,000 tokens in the tier fast are"
    )
    assert note in run(*words)[2].replace("\n", " ")
    explained = json.loads(run(*words[:5], "--explain", "m1", "-o", "json")[1])
    assert explained["records"][0]["price"]["as_standard"]
    assert "as standard: it has no price of this tier" in run(*words[:5], "--explain", "m1")[1]


def test_transcripts_beside_those_of_another_path_are_no_copies_of_them(run, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "p").mkdir(parents=True)
        (tmp_path / name / "p" / f"{name}.jsonl").write_text(answers(name))
        code, _, err = run("usage", "--source", "claude", "--path", str(tmp_path / name))
        assert (code, "counted already" in err) == (0, False)


def follow(
    run, monkeypatch: pytest.MonkeyPatch, *words: str, form: tuple[str, ...] = ("-o", "json")
) -> tuple[str, str]:
    """Follow for one look; return what was said on both streams."""

    def ended(_pause_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(monitor.time, "sleep", ended)
    code, out, err = run("usage", *words, "--follow", *form)
    assert code == 130
    return out, err


def test_more_groups_than_an_answer_holds_are_refused_with_what_can_be_asked(
    run, log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tally, "GROUPS_MAX", 1)
    log.write_text(line("r1", "s1") + line("r2", "s2"))
    words = ("usage", "--source", "higress", "--path", str(log), "--by", "session", "-o", "json")
    code, _, err = run(*words)
    hint = json.loads(err)["error"]["hint"]
    assert (code, hint) == (
        2,
        "ask about less (--since, --until, fewer --by), or cost --most 100: the dearest",
    )
    run("cost", "--help")
    assert "\n  --most" in capsys.readouterr().out
    for verb in ("cost", "usage"):
        run(verb, "--help")
        taken = capsys.readouterr().out
        assert all(f"\n  {option}" in taken for option in ("--since", "--until", "--by"))


def test_following_more_sessions_than_an_answer_holds_shows_the_dearest(
    run, log: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(monitor, "SESSIONS_MAX", 3)
    monkeypatch.setattr(tally, "GROUPS_MAX", 3)
    log.write_text("".join(line(f"r{number}", f"s{number % 7}") for number in range(8)))
    out, _ = follow(run, monkeypatch, "--source", "higress", "--path", str(log))
    value = json.loads(out)
    assert (value["records"], value["sessions"]) == (8, 7)
    assert [group["key"]["session"] for group in value["groups"]] == ["s0", "s1", "s2", "(4 more)"]
    assert sum(group["records"] for group in value["groups"]) == 8


def test_following_says_where_its_figures_are_coarser_than_what_was_asked(
    run, log: Path, monkeypatch: pytest.MonkeyPatch
):
    words = ("--source", "higress", "--path", str(log), "--until", "2026-11-20T10:10:00Z")
    out, err = follow(run, monkeypatch, *words)
    assert json.loads(out)["records"] == 2
    assert "half hours count whole" in err


def test_following_off_a_terminal_writes_lines_of_what_has_changed(
    run, log: Path, monkeypatch: pytest.MonkeyPatch
):
    log.write_text(line("r1", "s1") + line("r2", "s2"))
    said: list[str] = []

    def grows(_pause_s: float) -> None:
        if said:
            raise KeyboardInterrupt
        said.append(line("r3", "s2"))
        with log.open("a") as file:
            file.writelines(said)

    monkeypatch.setattr(monitor.time, "sleep", grows)
    words = ("usage", "--source", "higress", "--path", str(log), "--follow")
    code, out, _ = run(*words)
    names = [one.split("  ")[:2] for one in out.splitlines()]
    grown = [["s2", "msgs 2"], ["total", "msgs 3"]]
    assert (code, names) == (
        130,
        [["s1", "msgs 1"], ["s2", "msgs 1"], ["total", "msgs 2"], *grown],
    )
    assert follow(run, monkeypatch, *words[1:-1], form=("-q",))[0].split() == ["s2", "s1"]
