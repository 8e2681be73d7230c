"""`usage --explain`: which lines and rates made a figure."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from e2e.fleet import Fleet
from e2e.higress_log import line, read, write_log

pytestmark = pytest.mark.e2e
TRANSCRIPT = Path(__file__).parents[1] / "golden" / "claude" / "plain.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path)


def test_a_figure_is_explained_down_to_its_lines(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    with log.open("a") as file:
        file.write(line("r1", "s1", 999))
    read(node, log)
    why = node.json("usage", "--explain", "r1")
    [record] = why["records"]
    assert (record["usage"]["input"], record["counts"], record["revision"]) == (1000, True, 0)
    assert [(one["line"], one["fate"]) for one in why["lines"]] == [
        (1, "counted"),
        (4, "another line of it counts"),
    ]
    whole = node.json("usage", "--explain", "s1")
    assert (whole["kind"], len(whole["records"])) == ("session", 2)
    log.unlink()
    assert node.json("usage", "--explain", "r1")["files_gone"] == [str(log)]
    assert node.call("usage", "--explain", "nothing").code == 3


def test_a_figure_is_explained_although_its_logs_are_gone(fleet: Fleet, tmp_path: Path):
    logs = tmp_path / "claude"
    (logs / "projects" / "shop").mkdir(parents=True)
    shutil.copy(TRANSCRIPT, logs / "projects" / "shop" / "s1.jsonl")
    node = fleet.node("anna")
    node.json("usage", "--source", "claude", "--path", str(logs))
    logs.rename(tmp_path / "elsewhere")
    why = node.json("usage", "--source", "codex", "--path", str(tmp_path), "--explain", "msg_A")
    assert ([one["counts"] for one in why["records"]], why["lines"]) == ([True], [])
    assert why["files_gone"] == [str(logs / "projects" / "shop" / "s1.jsonl")]


def test_an_explanation_multiplies_out_the_money_and_adds_up_a_session(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    read(node, log)
    [record] = node.json("usage", "--explain", "r1")["records"]
    price = record["price"]
    assert price["cost_usd"] == record["cost_usd"] == "0.0026"
    assert [(one["what"], one["count"], one["cost_usd"]) for one in price["parts"]] == [
        ("input", 1000, "0.0025"),
        ("output", 10, "0.0001"),
    ]
    shown = node.call("usage", "--explain", "s1").out
    assert "1,000 x $2.5 a million = $0.0025" in " ".join(shown.split())
    assert "total  2 responses, 3,020 tokens, $0.0077" in shown
    assert node.json("usage", "--explain", "s1")["total"]["cost_usd"] == "0.0077"


def test_what_no_list_knows_has_no_price_to_explain(fleet: Fleet, log: Path):
    log.write_text(line("r1", "s1", 3, model="house-llm"))
    node = fleet.node("anna")
    read(node, log)
    assert node.json("usage", "--explain", "r1")["records"][0]["price"] is None
    assert "no price is known" in node.call("usage", "--explain", "r1").out


def test_what_agents_reported_is_explained_by_the_id_that_they_gave_it(fleet: Fleet):
    (node,) = fleet.mesh("anna")
    said = f"{sys.executable} -m session_mesh report --model gpt-4o --output 1 --id"
    for tokens in (10, 20):
        reports = f"{said} r1 --input {tokens} && {said} r2 --input 5"
        assert node.call("run", "--agent-id", f"a{tokens}", "--", "sh", "-c", reports).code == 0
    why = node.json("usage", "--explain", "r1")
    assert (why["kind"], why["lines"], why["files_gone"]) == ("response", [], [])
    assert [(one["usage"]["input"], one["counts"]) for one in why["records"]] == [
        (10, True),
        (20, True),
    ]
    session = why["records"][0]["session"]
    for one in (f"{session}:r1", f"report:{session}:r1"):
        [record] = node.json("usage", "--explain", one)["records"]
        assert record == why["records"][0]
    assert len(node.json("usage", "--explain", session)["records"]) == 2
    shown = node.call("usage", "--explain", "r1").out
    assert ("byte 0" in shown, shown.count("reported by its agent")) == (False, 2)


def test_an_id_that_moves_the_cursor_is_explained_spelled_out(fleet: Fleet, log: Path):
    log.write_text(line("r\x1b[2J1", "s\x1b]0;x\x07", 3))
    node = fleet.node("anna")
    read(node, log)
    for words in (("r\x1b[2J1",), ("s\x1b]0;x\x07",), ("nothing\x1b[2J",), ("r\x1b[2J1", "-q")):
        answer = node.call("usage", "--explain", *words)
        assert answer.code == (3 if "nothing" in words[0] else 0)
        assert "\x1b" not in answer.out + answer.err
        assert "Traceback" not in answer.err


def test_a_file_whose_name_is_no_text_is_there_until_it_is_gone(fleet: Fleet, tmp_path: Path):
    folder = tmp_path / "claude" / "projects" / "p"
    folder.mkdir(parents=True)
    path = Path(os.fsdecode(os.fsencode(folder) + b"/s\xff\xe91.jsonl"))
    shutil.copy(TRANSCRIPT, path)
    node = fleet.node("anna")
    node.json("usage", "--source", "claude", "--path", str(tmp_path / "claude"))
    assert node.json("usage", "--explain", "msg_A")["files_gone"] == []
    path.unlink()
    assert len(node.json("usage", "--explain", "msg_A")["files_gone"]) == 1


@pytest.mark.parametrize("variable", ["CLAUDE_CONFIG_DIR", "HOME"])
def test_logs_in_a_directory_whose_name_is_no_text_are_read_and_explained(
    fleet: Fleet, tmp_path: Path, variable: str
):
    root = tmp_path / os.fsdecode(b"d\xff")
    folder = root / "projects" if variable != "HOME" else root / ".claude" / "projects"
    folder.mkdir(parents=True)
    shutil.copy(TRANSCRIPT, folder / "s1.jsonl")
    node, env = fleet.node("anna"), {variable: str(root)}
    value = node.json("usage", "--source", "claude", env=env)
    [source] = value["sources"]
    assert value["records"] == source["records"] > 0
    assert source["path"].startswith(f"{tmp_path}/d\\xff")
    why = node.json("usage", "--explain", "msg_A", env=env)
    assert (why["files_gone"], [one["fate"] for one in why["lines"]][-1]) == ([], "counted")
