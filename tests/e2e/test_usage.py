"""`usage`: reading this machine's logs into a home, with and without a node on it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Fleet, wait_until

pytestmark = pytest.mark.e2e
TRANSCRIPT = Path(__file__).parents[1] / "golden" / "claude" / "plain.jsonl"


def line(request: str, session: str, tokens: int, day: int = 20, model: str = "gpt-4o") -> str:
    call = {"session_id": session, "model": model, "input_token": tokens, "output_token": 10}
    outer = {
        "ai_log": json.dumps(call),
        "request_id": request,
        "start_time": f"2026-11-{day}T09:30:15Z",
    }
    return json.dumps(outer) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line("r1", "s1", 1000) + line("r2", "s1", 2000, 19) + line("r3", "s2", 7))
    return path


def read(node, log: Path, *more: str):
    return node.json("usage", "--source", "higress", "--path", str(log), *more)


def test_a_home_without_a_node_keeps_what_was_read_although_the_log_goes(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    first = read(node, log)
    assert [group["key"]["day"] for group in first["groups"]] == ["2026-11-19", "2026-11-20"]
    assert (first["records"], first["totals"]["total"]) == (3, 3037)
    assert first["coverage"]["nodes_heard"] == 1
    log.rename(log.with_name("access.log.1"))
    log.write_text(line("r4", "s2", 100))
    second = read(node, log)
    assert (second["records"], second["diagnostics"]["duplicates_ignored"]) == (4, 0)
    log.unlink()
    log.with_name("access.log.1").unlink()
    third = node.json("usage", "--by", "session")
    assert {g["key"]["session"]: g["records"] for g in third["groups"]} == {"s1": 2, "s2": 2}


def test_a_rescan_counts_nothing_twice(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    read(node, log)
    again = read(node, log, "--rescan")
    assert (again["records"], again["diagnostics"]["duplicates_ignored"]) == (3, 3)


def test_one_session_one_source_and_one_path_can_be_asked_for(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    other = log.with_name("other.log")
    other.write_text(line("x1", "s9", 5))
    read(node, log)
    assert read(node, other)["totals"]["input"] == 5
    assert read(node, log, "--session-key", "s2")["totals"]["input"] == 7
    assert node.json("usage", "--source", "higress", "--path", str(other))["records"] == 1
    assert node.json("usage")["records"] == 4


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
    why = node.json("usage", "--source", "higress", "--path", str(tmp_path), "--explain", "msg_A")
    assert ([one["counts"] for one in why["records"]], why["lines"]) == ([True], [])
    assert why["files_gone"] == [str(logs / "projects" / "shop" / "s1.jsonl")]


def test_days_come_in_their_order_and_what_else_is_asked_for_the_dearest_first(
    fleet: Fleet, log: Path
):
    log.write_text(line("r1", "s1", 3, 18) + line("r2", "s2", 2, 19) + line("r3", "s3", 1, 20))
    node = fleet.node("anna")
    days = [group["key"]["day"] for group in read(node, log)["groups"]]
    assert days == ["2026-11-18", "2026-11-19", "2026-11-20"]
    sessions = [group["key"]["session"] for group in read(node, log, "--by", "session")["groups"]]
    assert sessions == ["s1", "s2", "s3"]


def test_a_csv_says_on_stderr_what_is_not_in_the_money(fleet: Fleet, log: Path):
    log.write_text(line("r1", "s1", 3, model="house-llm"))
    words = ("usage", "--source", "higress", "--path", str(log), "--by", "day", "-o", "csv")
    answer = fleet.node("anna").call(*words)
    assert "house-llm" in answer.err
    assert len(answer.out.splitlines()) == 2


def test_a_path_that_holds_something_else_is_said(fleet: Fleet, log: Path):
    answer = fleet.node("anna").call("usage", "--source", "codex", "--path", str(log.parent))
    assert answer.code == 0
    assert f"nothing in {log.parent} is usage as codex logs it" in answer.err


def test_a_session_that_nothing_is_counted_of_is_said(fleet: Fleet, log: Path):
    words = ("usage", "--source", "higress", "--path", str(log), "--session-key", "s7")
    answer = fleet.node("anna").call(*words)
    assert (answer.code, "'s7'" in answer.err) == (0, True)


def test_what_is_read_beside_a_running_node_reaches_the_whole_mesh(fleet: Fleet, log: Path):
    anna, berta = fleet.mesh("anna", "berta")
    read(anna, log)
    wait_until(lambda: berta.json("cost")["records"] == 3, "anna's usage")
    [group] = berta.json("cost", "--by", "node")["groups"]
    assert (group["key"]["node"], group["usage"]["total"]) == ("anna", 3037)


def test_a_home_that_only_counted_becomes_a_node(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    read(node, log)
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    assert node.json("cost")["records"] == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--source", "claud"], 2, "claud"),
        (["--path", "/nowhere"], 2, "--source"),
        (["--source", "higress", "--path", "/nowhere/x.log"], 3, "/nowhere/x.log"),
        (["--source", "higress"], 3, "--path"),
        (["--by", "dya"], 2, "day"),
        (["--tz", "Mars/Olympus"], 2, "Mars"),
        (["--refresh-interval", "0s"], 2, "refresh-interval"),
        (["--explain", "x", "--follow"], 2, "follow"),
        (["--since", "soon"], 2, "soon"),
        (["--explain", ""], 2, "--explain"),
        (["--session-key", " "], 2, "--session-key"),
    ],
)
def test_what_cannot_be_asked_is_said(fleet: Fleet, words: list[str], code: int, said: str):
    answer = fleet.node("anna").call("usage", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_following_ends_when_nobody_reads_it_any_more(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    command = [PROGRAM, "usage", "--source", "higress", "--path", str(log), "--follow"]
    with subprocess.Popen(
        [*command, "-o", "json"], env=node.environment, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["records"] == 3
        with log.open("a") as file:
            file.write(line("r9", "s9", 1))
        assert json.loads(following.stdout.readline())["records"] == 4
        following.stdout.close()
        assert following.wait(20) == 141


def test_lines_that_mean_nothing_are_counted_and_named(fleet: Fleet, log: Path):
    with log.open("ab") as file:
        file.write(b'nonsense\n{"ai_log":"\xff\xfe"}\r\n' + line("r9", "../../x", -5).encode())
        file.write(b'{"ai_log": "half')
    value = read(fleet.node("anna"), log)
    assert value["records"] == 3
    kinds = [one["reason"] for one in value["sources"][0]["left_out"]]
    assert kinds == ["unparsable", "unparsable", "quarantined"]
    assert value["diagnostics"]["partial_tail_bytes"] == 16


def test_a_lost_disk_and_logs_read_again_count_nothing_twice_and_lose_nothing(
    fleet: Fleet, log: Path
):
    anna, berta = fleet.mesh("berta", "anna")
    older = log.with_name("older.log")
    older.write_text(line("o1", "s1", 50, 18) + line("o2", "s1", 60, 20))
    read(berta, older)
    read(berta, log)
    wait_until(lambda: anna.json("cost")["records"] == 5, "berta's usage")
    before = anna.json("cost", "--by", "session", "--by", "day")["groups"]
    older.unlink()
    berta.end()
    for file in berta.home.glob("state.db*"):
        file.unlink()
    assert read(berta, log)["records"] == 3
    berta.up()
    wait_until(lambda: berta.json("cost")["coverage"]["nodes_heard"] == 2, "anna")
    read(berta, log, "--rescan")
    with log.open("a") as file:
        file.write(line("r5", "s2", 10, 21))
    read(berta, log)
    wait_until(lambda: anna.json("cost")["records"] == 6, "what is new")
    after = anna.json("cost", "--by", "session", "--by", "day", "--until", "2026-11-21")["groups"]
    assert after == before
    berta.end()
    berta.up()
    assert berta.json("cost")["records"] == 6
