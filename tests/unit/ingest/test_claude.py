from functools import reduce
from itertools import permutations
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import Buckets, UsageRecord
from meshnode.core.ledger.usage_log import preferred
from meshnode.ingest.claude import ADVICE, Transcript, Transcripts, project_of
from meshnode.ingest.claude_line import STEPS_MAX
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
        "E": ("standard+us", 0),
        "F": ("fast+us", 0),
        "G": ("standard", 0),  # no place
        "H": ("standard", 0),  # anywhere
        "I": ("standard+us", 0),  # with a text for a number
    }


def advice(name: str) -> dict[str, tuple[str, str, Buckets]]:
    return {
        key.removeprefix("claude:msg_"): (one.model, one.tier, one.usage)
        for key, one in records(name).items()
        if ADVICE in key
    }


ASKED = ("claude-opus-4-7", "standard>128000", Buckets(input=159_419, output=7805))
SUM = Buckets(input=2, cache_read=226_584, cache_write_5m=7853, output=491)


def test_an_advisor_is_a_response_of_its_own_once_however_often_its_line_is_told():
    findings = read("advisor")
    answer, asked = findings.records
    assert (answer.model, answer.usage) == ("claude-opus-4-6", SUM)
    assert advice("advisor") == {"A:advisor:1": ASKED}
    assert (asked.session, asked.project, asked.flags) == ("s1", "my-app", ())
    assert (asked.rank, asked.offset, asked.provider) == (answer.rank, answer.offset, "anthropic")
    assert (answer.at_s, asked.at_s) == (AT_S - 2, AT_S)
    # Three lines of the answer, two of its advisor.
    assert findings.skipped == {Reason.DUPLICATE: 3}


def test_an_advisor_is_the_same_one_in_whatever_pieces_its_lines_are_read():
    lines = (GOLDEN / "advisor_twice.jsonl").read_bytes().splitlines(keepends=True)
    one_by_one = Findings()
    for line in lines:
        Transcript(FOLDER / "s1.jsonl").take(line, 0, one_by_one)
    keys = {one.idem_key for one in one_by_one.records}
    assert keys == set(records("advisor_twice"))
    later = Buckets(input=500, cache_read=600, cache_write_5m=70, output=50)
    assert advice("advisor_twice") == {
        "B:advisor:1": ("claude-opus-4-7", "standard", Buckets(input=1000, output=100)),
        "B:advisor:2": ("claude-fable-5", "standard", later),
    }


def test_an_advisor_stays_with_the_session_that_asked_it():
    original, copy = records("advisor"), records("advisor_forked")
    for key, one in copy.items():
        assert one.session == "s0"
        assert preferred(one, original[key]).session == "s1"
        assert preferred(original[key], one).session == "s1"
    assert advice("advisor_forked") == {"A:advisor:1": ASKED}


def test_an_advisor_is_read_however_it_is_written():
    assert advice("advisor_oddly") == {
        "A:advisor:1": ("claude-opus-4-7", "standard", Buckets(input=10, output=1)),
        "A:advisor:2": ("claude-opus-4-7", "fast", Buckets(input=20, output=2)),
        "A:advisor:4": ("unknown", "standard", Buckets(input=30, output=3)),
    }
    assert set(usages("advisor_oddly")) - set(advice("advisor_oddly")) == {"A", "C"}
    assert left_out("advisor_oddly") == [(Reason.QUARANTINED, 1)]


def test_a_line_of_more_steps_than_an_answer_takes_is_set_aside():
    line = (GOLDEN / "advisor.jsonl").read_bytes().splitlines(keepends=True)[1]
    step = b'{"type":"advisor_message","input_tokens":1},'
    for steps, reasons in ((STEPS_MAX - 3, []), (STEPS_MAX - 2, [Reason.QUARANTINED])):
        findings = Findings()
        many = line.replace(b'"iterations":[', b'"iterations":[' + steps * step)
        Transcript(FOLDER / "s1.jsonl").take(many, 0, findings)
        assert [one.reason for one in findings.remarks] == reasons


def test_the_longest_prompt_of_several_makes_the_tier():
    assert {key[-1]: one.tier for key, one in records("steps").items()} == {
        "A": "standard>128000",
        "B": "standard>200000",
        "C": "standard>200000",
        "D": "standard>200000",
        "E": "standard>200000",
    }


def test_lines_that_differ_in_their_steps_alone_are_given_to_the_ledger_in_any_order():
    line = (GOLDEN / "steps.jsonl").read_bytes().splitlines(keepends=True)[0]
    lines = [line, line.replace(b":120000,", b":20000,").replace(b":130000,", b":230000,")]
    counting = []
    for order in (lines, lines[::-1]):
        findings = Findings()
        Transcript(FOLDER / "s1.jsonl").take(b"".join(order), 0, findings)
        counting.append(reduce(preferred, findings.records).tier)
    assert counting[0] == counting[1]


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
