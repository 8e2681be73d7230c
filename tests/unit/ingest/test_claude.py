from functools import reduce
from itertools import permutations
from pathlib import Path

import pytest

from meshnode.core.ledger import Buckets, UsageRecord
from meshnode.core.usage_log import preferred
from meshnode.ingest.claude import Transcript, Transcripts, project_of
from meshnode.ingest.reading import Findings, Reason

GOLDEN = Path(__file__).parents[2] / "golden" / "claude"
CALL = Buckets(input=3, cache_read=22137, cache_write_5m=2285, output=159)
AT_S = 1795168805.0  # 2026-11-20T10:00:05Z
FOLDER = Path("/srv/ada/.claude/projects/-srv-ada-my-app")


def read(name: str, path: Path = FOLDER / "s1.jsonl") -> Findings:
    findings = Findings()
    Transcript(path).take((GOLDEN / f"{name}.jsonl").read_bytes(), 0, findings)
    return findings


def records(name: str) -> dict[str, UsageRecord]:
    return {record.idem_key: record for record in read(name).records}


def usages(name: str) -> dict[str, Buckets]:
    return {key.removeprefix("claude:msg_"): one.usage for key, one in records(name).items()}


def only(name: str) -> UsageRecord:
    [record] = read(name).records
    return record


def left_out(name: str) -> list[tuple[Reason, int]]:
    """Why lines are no records, and which, from 0."""
    raw = (GOLDEN / f"{name}.jsonl").read_bytes()
    return [(one.reason, raw[: one.offset].count(b"\n")) for one in read(name).remarks]


def test_a_line_is_a_record():
    found = only("plain")
    assert found == UsageRecord(
        idem_key="claude:msg_A",
        source="claude",
        at_s=AT_S,
        session="s1",
        project="my-app",
        agent="",
        owner="",
        model="claude-opus-4-6",
        provider="anthropic",
        tier="standard",
        usage=CALL,
        rank=(1 << 42) + 2 * 159 + 1,
        file=str(FOLDER / "s1.jsonl"),
        offset=found.offset,
    )
    assert (GOLDEN / "plain.jsonl").read_bytes()[found.offset :].startswith(b'{"parentUuid"')


@pytest.mark.parametrize("name", ["streamed", "streamed_backwards"])
def test_of_the_lines_of_one_answer_the_last_counts_at_the_time_of_the_first(name: str):
    findings = read(name)
    [found] = findings.records
    assert (found.usage, found.at_s, found.flags) == (CALL, AT_S - 2, ())
    assert findings.skipped == {Reason.DUPLICATE: 2}


def test_a_line_counts_whole_not_the_largest_of_each_number():
    assert only("whole_line_wins").usage == CALL + Buckets(input=2) - Buckets(output=139)


def test_a_line_of_a_sidechain_counts_only_if_there_is_no_other():
    found = only("sidechain_loses")
    assert (found.usage.output, found.at_s) == (40, AT_S)
    assert only("sidechain_alone").usage == CALL


def test_an_answer_that_never_ended_is_counted_and_flagged():
    found = only("never_finished")
    assert (found.usage.output, found.flags) == (7, ("incomplete",))


def test_cache_writes_of_no_told_lifetime_live_five_minutes():
    split = Buckets(input=3, cache_read=22137, cache_write_5m=285, cache_write_1h=2000, output=159)
    assert usages("breakdown") == {"A": CALL, "B": split, "C": CALL, "D": CALL}


def test_what_no_model_said_is_not_counted():
    assert read("synthetic") == Findings()


def test_echoes_of_usage_elsewhere_in_a_line_are_not_counted():
    assert usages("echoes") == {"F": CALL}


def test_searches_and_tiers_are_told():
    found = {
        key[-1]: (one.tier, one.usage.web_search)
        for key, one in records("web_search_and_tiers").items()
    }
    assert found == {
        "A": ("standard", 3),
        "B": ("batch", 0),
        "C": ("fast", 0),
        "D": ("standard>200000", 0),
    }


def test_without_an_id_a_call_is_known_by_its_request_and_else_by_its_place():
    found = read("without_ids").records
    assert found[0].idem_key == "claude:req_A"
    assert len({one.idem_key for one in found}) == 4
    assert found[1].idem_key.startswith(f"claude:s1:{found[1].offset}:")


def test_models_are_told_as_logged_whoever_hosts_them():
    found = [(one.model, one.provider) for one in read("hosted").records]
    assert found == [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic"),
        ("claude-opus-4-5@20251101", "anthropic"),
        ("glm-4.7", ""),
    ]


@pytest.mark.parametrize("name", ["as_texts", "crlf", "spaced", "typeless", "invalid_utf8"])
def test_odd_writing_changes_nothing(name: str):
    findings = read(name)
    assert {one.usage for one in findings.records} == {CALL}
    assert {one.project for one in findings.records} <= {"my-app"}
    assert not findings.skipped


def test_lines_are_taken_with_broken_characters_in_them():
    assert len(records("invalid_utf8")) == 3
    assert "claude:msg_W?" in records("invalid_utf8")


def test_a_null_is_nothing():
    assert usages("nulls") == {
        "A": Buckets(input=3, output=159),
        "B": Buckets(cache_read=22137, cache_write_5m=2285, output=159),
    }


def test_absurd_lines_are_set_aside_each_with_its_place():
    assert left_out("absurd") == [(Reason.QUARANTINED, line) for line in range(7)]
    assert usages("absurd") == {"H": CALL}


def test_broken_lines_are_told_each_with_its_place():
    assert left_out("broken") == [(Reason.UNPARSABLE, line) for line in (0, 1, 5)]
    assert usages("broken") == {"A": CALL}


def test_ids_are_texts_and_never_paths():
    found = read("paths_as_ids").records
    assert [one.idem_key for one in found[::2]] == ["claude:../../x", "claude:req_7"]
    assert len(found[1].idem_key) == len("claude:") + 64
    assert found[0].session == "../../etc/passwd"


def test_lines_that_only_the_ledger_can_choose_between_are_all_given():
    found = [(one.idem_key[-1], one.session) for one in read("two_sessions").records]
    assert sorted(found) == [("A", "s0"), ("A", "s1"), ("B", "s0")]


@pytest.mark.parametrize("order", list(permutations(("original", "forked", "forked_again"))))
def test_a_response_stays_with_the_session_that_made_it_however_often_that_is_forked(
    order: tuple[str, ...],
):
    found = [records(name) for name in order]
    told = {
        key: [one[key] for one in found if key in one] for key in found[0] | found[1] | found[2]
    }
    counting = {key: reduce(preferred, those) for key, those in told.items()}
    assert {key: one.session for key, one in counting.items()} == {
        "claude:msg_A": "bbbb",
        "claude:msg_B": "aaaa",
    }
    assert {one.usage for one in counting.values()} == {CALL}


def test_a_fork_whose_original_is_gone_tells_of_its_session():
    assert [one.session for one in read("forked").records] == ["bbbb", "aaaa"]
    assert [one.session for one in read("forked_from_nonsense").records] == ["s1", "s1"]


def test_a_subagent_belongs_to_the_session_it_lies_in():
    path = FOLDER / "outer" / "subagents" / "workflows" / "w1" / "agent-1.jsonl"
    [found] = read("plain", path).records
    assert (found.session, found.project) == ("outer", "my-app")


def test_a_directory_above_all_transcripts_says_nothing_of_a_session():
    above = Path("/srv/subagents/mine")
    for root in (above / "projects", above):
        nested = above / "projects" / FOLDER.name / "outer" / "subagents" / "agent-1.jsonl"
        for path, session in (
            (above / "projects" / FOLDER.name / "s1.jsonl", "s1"),
            (nested, "outer"),
        ):
            findings = Findings()
            Transcript(path, b"", root).take((GOLDEN / "plain.jsonl").read_bytes(), 0, findings)
            [found] = findings.records
            assert (found.session, found.project) == (session, "my-app")


def test_a_large_line_and_what_surrounds_it_are_taken():
    line = (GOLDEN / "plain.jsonl").read_bytes().splitlines()[2]
    large = line.replace(b"done", b"x" * 300_000).replace(b"msg_A", b"msg_B")
    findings = Findings()
    Transcript(FOLDER / "s1.jsonl").take(line + b"\n" + large + b"\n", 7, findings)
    assert [(one.usage, one.offset) for one in findings.records] == [
        (CALL, 7),
        (CALL, 8 + len(line)),
    ]


@pytest.mark.parametrize(
    ("folder", "cwd", "project"),
    [
        ("-srv-ada-my-app", "/srv/ada/my-app", "my-app"),
        ("-srv-ada-my-app", "/srv/ada/my-app/src", "my-app"),
        ("-srv-ada-my-app", "/srv/ada/my.app", "my.app"),
        ("C--Users-ada-app", "C:\\Users\\ada\\app\\src", "app"),
        ("-srv-ada-my-app", "/srv/ada/my-apple", ""),
        ("-srv-ada-my-app", "/elsewhere", ""),
        ("", "", ""),
    ],
)
def test_a_project_is_the_directory_that_its_folder_stands_for(folder: str, cwd: str, project: str):
    assert project_of(folder, cwd) == project


def test_a_parser_goes_on_where_another_stopped():
    raw = (GOLDEN / "plain.jsonl").read_bytes()
    first = Transcript(FOLDER / "s1.jsonl")
    first.take(raw, 0, Findings())
    findings = Findings()
    away = raw.replace(b"/srv/ada/my-app", b"/elsewhere")
    Transcript(FOLDER / "s1.jsonl", first.state()).take(away, len(raw), findings)
    assert [one.project for one in findings.records] == ["my-app"]


def test_sessions_and_subagents_are_found_and_nothing_else(tmp_path: Path):
    wanted = [
        "p/s1.jsonl",
        "p/s1/subagents/agent-1.jsonl",
        "p/s1/subagents/workflows/w/agent-2.jsonl",
    ]
    others = [
        "p/s1/tool-results/x.jsonl",
        "p/s1/subagents/journal.jsonl",
        "p/s1/subagents/agent-1.meta.json",
        "p/notes.txt",
    ]
    for name in (*wanted, *others):
        path = tmp_path / "projects" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "history.jsonl").touch()
    projects = tmp_path / "projects"
    expected = {str(projects / name) for name in wanted}
    assert set(Transcripts().files(tmp_path)) == set(Transcripts().files(projects)) == expected
    assert set(Transcripts().files(projects / "p")) == expected
    with pytest.raises(FileNotFoundError):
        list(Transcripts().files(tmp_path / "missing"))
