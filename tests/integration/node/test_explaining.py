"""Why a figure is what it is, asked of logs that are gone, broken, or no logs at all."""

import gzip
import json
import os
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gateway_log import AT, line

from meshnode.client.home import Home
from meshnode.core.errors import NotFoundError
from meshnode.ingest.reading import SourceConfig
from meshnode.ingest.tree import CHUNK_BYTES
from meshnode.node.ledger.usage import Usage

pytestmark = pytest.mark.integration


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Usage]:
    with Usage(Home(tmp_path / "home"), lambda: 1.8e9) as opened:
        yield opened


@pytest.fixture
def log(usage: Usage, tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    path.write_text(line("r1"))
    assert usage.read(SourceConfig("higress", str(path))).state.records == 1
    return path


def fates(usage: Usage) -> list[tuple[int, int, str]]:
    return [(one["line"], one["offset"], one["fate"]) for one in usage.explain("r1")["lines"]]


def packed_brokenly(log: Path) -> None:
    log.with_name("access.log.1.gz").write_bytes(gzip.compress(b"x" * 10_000)[:-20])


def packed_pipe(log: Path) -> None:
    os.mkfifo(log.with_name("access.log.1.gz"))


def packed_bomb(log: Path) -> None:
    with gzip.open(log.with_name("access.log.1.gz"), "wb", compresslevel=1) as file:
        for _ in range(16):
            file.write(bytes(CHUNK_BYTES))


def packed(log: Path) -> Path:
    with gzip.open(older := log.with_name("access.log.1.gz"), "wb") as file:
        file.write(log.read_bytes())
    log.unlink()
    return older


@pytest.mark.parametrize("turn", [packed, lambda log: log.rename(f"{log}.1")])
def test_the_line_that_counted_is_found_where_rotation_has_put_it(
    usage: Usage, log: Path, turn: Callable[[Path], Path]
):
    older = turn(log)
    log.write_text(line("r2") + line("r1"))
    usage.read(SourceConfig("higress", str(log)))
    told = [(one["file"], one["line"], one["fate"]) for one in usage.explain("r1")["lines"]]
    assert sorted(told) == [
        (str(log), 2, "the same response again"),
        (str(older), 1, "counted, where it was before"),
    ]


@pytest.mark.parametrize("lay", [packed_brokenly, packed_pipe, packed_bomb])
def test_what_lies_beside_a_log_hides_nothing_in_it(
    usage: Usage, log: Path, lay: Callable[[Path], None]
):
    lay(log)
    assert fates(usage) == [(1, 0, "counted")]


def test_a_line_of_any_length_is_passed_over(usage: Usage, log: Path):
    log.write_text(line("r0") + "x" * (CHUNK_BYTES + 10) + " r1\n" + line("r1"))
    [(number, offset, _)] = fates(usage)
    assert (number, offset) == (3, len(line("r0")) + CHUNK_BYTES + 10 + len(" r1\n"))


@pytest.mark.parametrize("source", ["claude", "codex", "gemini"])
def test_a_tree_that_is_gone_explains_nothing_and_harms_nothing(
    usage: Usage, tmp_path: Path, source: str
):
    root = tmp_path / "tree"
    tokens = {"input_tokens": 10, "output_tokens": 5}
    said: dict[str, object] = {"timestamp": "2026-11-20T10:00:00Z", "id": "r1"}
    said |= {"type": "assistant", "message": {"id": "r1", "model": "m", "usage": tokens}}
    said["tokens"] = {"input": 1, "output": 1}
    if source == "codex":
        said["type"] = "token_usage_record"
        said["payload"] = {"response_id": "r1", "usage": tokens}
    directory = root / {"claude": "p", "codex": "sessions", "gemini": "p/chats"}[source]
    directory.mkdir(parents=True)
    (directory / "rollout-1.jsonl").write_text(json.dumps(said) + "\n")
    assert usage.read(SourceConfig(source, str(root))).state.records == 1
    name = "r1" if source != "gemini" else "rollout-1:r1"
    assert [one["fate"] for one in usage.explain(name)["lines"]] == ["counted"]
    shutil.rmtree(root)
    found = usage.explain(name)
    assert (found["lines"], found["files_gone"]) == ([], [str(directory / "rollout-1.jsonl")])


def test_an_advisor_is_counted_once_and_explained_with_the_answer_that_it_was_asked_for(
    usage: Usage, tmp_path: Path
):
    golden = Path(__file__).parents[2] / "golden" / "claude"
    lines = (golden / "advisor.jsonl").read_bytes().splitlines(keepends=True)
    log = tmp_path / "tree" / "projects" / "p" / "s1.jsonl"
    log.parent.mkdir(parents=True)
    counted = []
    for line_ in lines:  # as they are written, one at a time
        with log.open("ab") as file:
            file.write(line_)
        counted.append(usage.read(SourceConfig("claude", str(tmp_path / "tree"))).state.records)
    (log.parent / "s2.jsonl").write_bytes((golden / "advisor_forked.jsonl").read_bytes())
    counted.append(usage.read(SourceConfig("claude", str(tmp_path / "tree"))).state.records)
    assert counted == [1, 2, 2, 2]
    found = usage.explain("msg_A")
    assert [(one["key"], one["model"], one["counts"]) for one in found["records"]] == [
        ("claude:msg_A", "claude-opus-4-6", False),
        ("claude:msg_A", "claude-opus-4-6", True),
        ("claude:msg_A:advisor:1", "claude-opus-4-7", True),
    ]
    told = [(Path(one["file"]).stem, one["line"], one["output"]) for one in found["lines"]]
    its_own = [("s1", 1, 45), *[("s1", line, 491) for line in (2, 3)], ("s2", 1, 491)]
    asked = [("s1", 2, 7805), ("s1", 3, 7805), ("s2", 1, 7805)]
    assert sorted(told) == sorted(its_own + asked)
    alone = usage.explain("msg_A:advisor:1")
    assert [one["key"] for one in alone["records"]] == ["claude:msg_A:advisor:1"]
    assert sorted((Path(one["file"]).stem, one["line"]) for one in alone["lines"]) == [
        (stem, line) for stem, line, _ in asked
    ]
    [session] = [one["session"] for one in alone["records"]]
    assert session == "s1"


def test_a_line_behind_a_mark_of_the_byte_order_is_explained(usage: Usage, tmp_path: Path):
    log = tmp_path / "marked.log"
    log.write_bytes(BOM_UTF8 + line("r1").encode())
    assert usage.read(SourceConfig("higress", str(log))).state.records == 1
    assert fates(usage) == [(1, 0, "counted")]


def test_parts_cost_what_the_total_says_although_a_price_begins_inside_their_half_hour(
    tmp_path: Path,
):
    priced = "{model: m, effective_from: '2026-11-20T10:15:00Z', input: '100', output: '100'}"
    prices, log = tmp_path / "p.yaml", tmp_path / "access.log"
    prices.write_text(f"prices: [{priced}, {{model: m, input: '1', output: '1'}}]")
    log.write_text(line("r1") + line("r2").replace("T10:00", "T10:20"))
    with Usage(Home(tmp_path / "home"), lambda: 1.8e9, str(prices)) as usage:
        usage.read(SourceConfig("higress", str(log)))
        told = usage.explain("s")
    parts = [one["price"]["cost_usd"] for one in told["records"]]
    assert parts == ["0.00001", "0.00001"]
    assert told["total"]["cost_usd"] == "0.00002"


def test_of_a_long_session_it_is_said_how_many_responses_are_not_shown(usage: Usage, log: Path):
    log.write_text("".join(line(f"r{number}") for number in range(1500)))
    assert usage.read(SourceConfig("higress", str(log))).state.records == 1500
    told = usage.explain("s")
    shown = (len(told["records"]), len(told["lines"]))
    assert (*shown, told["records_more"], told["lines_more"]) == (1000, 1000, 500, 0)
    assert usage.explain("r7")["records_more"] == 0


def rollout(root: Path) -> str:
    """Write a rollout of one response, whose key is a hash of its totals."""
    counts = {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5}
    info = {"total_token_usage": counts, "last_token_usage": counts}
    at, file = "2026-11-20T10:00:00Z", root / "sessions" / "rollout-1.jsonl"
    file.parent.mkdir(parents=True)
    said = [
        {"timestamp": at, "type": "session_meta", "payload": {"id": "abc"}},
        {"timestamp": at, "type": "event_msg", "payload": {"type": "token_count", "info": info}},
    ]
    file.write_text("".join(json.dumps(one) + "\n" for one in said))
    return "abc"


def unnamed(root: Path) -> str:
    """Write a transcript whose response has no id of its provider."""
    tokens = {"input_tokens": 10, "output_tokens": 5}
    said = {"type": "assistant", "sessionId": "abc", "timestamp": "2026-11-20T10:00:00Z"}
    file = root / "p" / "t.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(said | {"message": {"model": "m", "usage": tokens}}) + "\n")
    return "abc"


@pytest.mark.parametrize(("source", "write"), [("codex", rollout), ("claude", unnamed)])
def test_a_response_whose_key_is_in_no_file_is_explained_by_the_file_it_was_read_in(
    usage: Usage, tmp_path: Path, source: str, write: Callable[[Path], str]
):
    session = write(tmp_path / "tree")
    assert usage.read(SourceConfig(source, str(tmp_path / "tree"))).state.records == 1
    [record] = usage.explain(session)["records"]
    assert [one["fate"] for one in usage.explain(record["key"])["lines"]] == ["counted"]


def test_a_chat_id_leads_to_the_request_that_its_line_is_counted_by(usage: Usage, log: Path):
    call = {"chat_id": "chatcmpl-7", "model": "m", "input_token": 5, "output_token": 6}
    said = json.dumps({"chat_id": "chatcmpl-8"})
    other = call | {"chat_id": "chatcmpl-9", "question": f"is {said} yours?"}
    for ident, one in (("r7", call), ("r9", other)):
        outer = {"ai_log": json.dumps(one), "request_id": ident, "start_time": AT}
        log.write_text(log.read_text() + json.dumps(outer) + "\n")
    usage.read(SourceConfig("higress", str(log)))
    log.rename(log.with_name("access.log.1"))
    log.write_text(line("r10"))
    value = usage.explain("chatcmpl-7")
    assert [(one["key"], one["counts"]) for one in value["records"]] == [("higress:r7", True)]
    assert (value["kind"], value["lines"][0]["line"]) == ("response", 2)
    for unknown in ("chatcmpl-8", "chatcmpl-", "chatcmpl-70"):
        with pytest.raises(NotFoundError):
            usage.explain(unknown)


@pytest.mark.parametrize("session", ["agent:main:", "chat:7", "7", "olga's"])
def test_a_session_is_told_of_no_line_that_was_left_out_of_others(
    usage: Usage, log: Path, session: str
):
    others = ["nonsense 17\n", line("r17", session=f"{session}7", tokens=-1), line("r3", tokens=-1)]
    log.write_text(line("r2", session=session) + "".join(others))
    log.write_text(log.read_text() + line("r4", session=session, tokens=-1))
    usage.read(SourceConfig("higress", str(log)))
    told = usage.explain(session)
    assert [(one["line"], one["fate"]) for one in told["lines"]] == [
        (1, "counted"),
        (5, "numbers that cannot be true"),
    ]


def test_a_name_without_a_letter_is_told_of_no_line_that_was_left_out(usage: Usage, log: Path):
    log.write_text(line("r2", session=":") + "{:}\n" + line("r4", session=":", tokens=-1))
    usage.read(SourceConfig("higress", str(log)))
    assert [one["fate"] for one in usage.explain(":")["lines"]] == ["counted"]


def test_a_response_is_told_of_each_line_that_names_it(usage: Usage, log: Path):
    log.write_text(line("r1:") + line("r1:", tokens=-1) + line("r10", tokens=-1))
    usage.read(SourceConfig("higress", str(log)))
    for name in ("r1:", "higress:r1:"):
        assert [one["line"] for one in usage.explain(name)["lines"]] == [1, 2]
