"""Chats of Gemini CLI, each trap of the format as lines written by hand."""

import json
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import Buckets, UsageRecord
from meshnode.core.ledger.usage_log import preferred
from meshnode.ingest.gemini import Chats
from meshnode.ingest.reading import Findings, Reason
from meshnode.ingest.tree import TreeReader

HEADING = {"sessionId": "g1", "projectHash": "ab12", "startTime": "2026-11-20T09:00:00Z"}


def row(ident: str, tokens: object, **more: object) -> dict[str, object]:
    said = {"id": ident, "timestamp": "2026-11-20T09:30:00Z", "type": "gemini"}
    return said | {"model": "gemini-2.5-pro", "content": "hidden", "tokens": tokens} | more


def tokens(sent: int, received: int, cached: int = 0, thoughts: int = 0, tool: int = 0):
    counts = {"input": sent, "output": received, "cached": cached, "thoughts": thoughts}
    return counts | {"tool": tool, "total": sent + received + thoughts + tool}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ab12" / "chats").mkdir(parents=True)
    return tmp_path


def chat(root: Path, *rows: object, name: str = "session-1.jsonl") -> Path:
    path = root / "ab12" / "chats" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def read(root: Path) -> tuple[tuple[UsageRecord, ...], Findings]:
    reading = TreeReader(Chats(), str(root)).read({}, 1 << 30)
    findings = Findings(remarks=list(reading.remarks))
    return reading.batch.records, findings


def test_cached_lies_inside_input_thoughts_and_tools_outside(root: Path):
    chat(root, HEADING, row("m1", tokens(1000, 50, cached=400, thoughts=30, tool=7)))
    [record], _ = read(root)
    assert record.usage == Buckets(input=607, cache_read=400, output=80, reasoning=30)
    assert (record.session, record.project, record.model) == ("g1", "ab12", "gemini-2.5-pro")
    assert (record.idem_key, record.provider) == ("gemini:g1:m1", "google")


def test_a_row_of_tool_prompts_alone_counts(root: Path):
    chat(root, HEADING, row("m1", tokens(0, 0, tool=50)), row("m2", tokens(0, 0)))
    [record], findings = read(root)
    assert record.usage == Buckets(input=50)
    assert [one.reason for one in findings.remarks] in ([], [Reason.NO_USAGE])


def test_a_row_that_is_rewritten_counts_as_its_fullest_version_says(root: Path):
    rows = [row("m1", None), row("m1", tokens(10, 1)), row("m1", tokens(10, 9))]
    chat(root, HEADING, *rows)
    found, _ = read(root)
    assert [one.usage.output for one in found] == [1, 9]
    assert {one.idem_key for one in found} == {"gemini:g1:m1"}
    assert preferred(found[0], found[1]).usage.output == 9
    assert preferred(found[1], found[0]).usage.output == 9


def test_what_was_rewound_was_billed(root: Path):
    rows = [row("m1", tokens(10, 1)), {"$rewindTo": "m0"}, {"$set": {"summary": "x"}}]
    chat(root, HEADING, *rows, row("m2", tokens(20, 2)))
    assert [one.idem_key for one in read(root)[0]] == ["gemini:g1:m1", "gemini:g1:m2"]


def test_an_old_document_is_read_whole_and_matches_its_new_copy(root: Path):
    rows = [row("m1", tokens(10, 1)), {"id": "u1", "type": "user"}, row("m2", None)]
    path = root / "ab12" / "chats" / "session-1.json"
    path.write_text(json.dumps(HEADING | {"messages": rows}, indent=2))
    chat(root, HEADING, rows[0])
    found, _ = read(root)
    assert [one.idem_key for one in found] == ["gemini:g1:m1"] * 2


def test_messages_that_are_set_all_at_once_are_rows_too(root: Path):
    first, again = row("m1", tokens(10, 1)), row("m1", tokens(10, 9))
    sets = [{"$set": {"messages": said, "lastUpdated": "t"}} for said in ([first], [again, {}, 1])]
    odd = [{"$set": {"messages": "none"}}, {"$set": ["messages"]}, {"$set": None}]
    chat(root, HEADING, *sets, *odd, row("m2", tokens(20, 2)))
    found, findings = read(root)
    assert [(one.idem_key, one.usage.output) for one in found] == [
        ("gemini:g1:m1", 1),
        ("gemini:g1:m1", 9),
        ("gemini:g1:m2", 2),
    ]
    assert (found[0].session, findings.remarks) == ("g1", [])


@pytest.mark.parametrize("name", ["session-1.jsonl", "session-1.json"])
def test_a_mark_of_the_byte_order_costs_no_line(root: Path, name: str):
    path = chat(root, HEADING | {"messages": [row("m1", tokens(10, 1))]}, name=name)
    path.write_bytes(BOM_UTF8 + path.read_bytes())
    assert [one.idem_key for one in read(root)[0]] == ["gemini:g1:m1"]


def test_chats_of_subagents_are_read_too(root: Path):
    chat(root, {"sessionId": "sub"}, row("m1", tokens(10, 1)), name="g1/agent.jsonl")
    [record], _ = read(root)
    assert (record.session, record.project) == ("sub", "ab12")


def test_a_directory_above_all_chats_names_no_project(tmp_path: Path):
    root = tmp_path / "chats" / "tmp"
    path = chat(root, HEADING, row("m1", tokens(10, 1)))
    for named in (root, path):
        assert [record.project for record in read(named)[0]] == ["ab12"]


def test_a_chat_without_its_heading_is_a_session_all_the_same(root: Path):
    chat(root, row("m1", tokens(10, 1)))
    assert read(root)[0][0].session == "session-1"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (tokens(10, 1, cached=20), Reason.QUARANTINED),
        (tokens(-5, 1), Reason.QUARANTINED),
        (tokens(1 << 50, 1), Reason.QUARANTINED),
        ("many", Reason.QUARANTINED),
        (tokens(0, 0), Reason.NO_USAGE),
        ({"input": "10", "output": "oops"}, Reason.QUARANTINED),
    ],
)
def test_counts_that_cannot_be_true_are_set_aside(root: Path, said: object, reason: Reason):
    chat(root, HEADING, row("m1", said), row("m2", {"input": "10", "output": 1.0}))
    found, findings = read(root)
    assert [one.reason for one in findings.remarks] == [reason]
    assert [one.usage.total for one in found] == [11]


def test_rows_without_an_id_or_a_time_are_set_aside(root: Path):
    rows = [row("", tokens(10, 1)), row("m1", tokens(10, 1), timestamp="soon")]
    path = chat(root, HEADING, *rows)
    with path.open("ab") as file:
        file.write(b"\xff\xfe nonsense\r\n" + b"[" * 100_000 + b"\n7\n")
    found, findings = read(root)
    assert found == ()
    assert [one.reason for one in findings.remarks] == [
        *[Reason.QUARANTINED] * 2,
        *[Reason.UNPARSABLE] * 3,
    ]
