"""`usage`: reading this machine's logs into a home, with and without a node on it."""

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from e2e.fleet import PROGRAM, Fleet, wait_until
from e2e.higress_log import line, read, write_log
from transcripts import write

pytestmark = pytest.mark.e2e
TRANSCRIPT = Path(__file__).parents[1] / "golden" / "claude" / "plain.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path)


def test_a_home_without_a_node_keeps_what_was_read_although_the_log_goes(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    first = read(node, log)
    assert [group["key"]["day"] for group in first["groups"]] == ["2026-11-19", "2026-11-20"]
    assert (first["records"], first["totals"]["total"]) == (3, 3037)
    assert list(first["coverage"].values()) == [1, 1, None, [], 0]  # in words as `cost` has it
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
    assert (again["records"], again["diagnostics"]["duplicates_ignored"]) == (3, 0)


def test_one_session_one_source_and_one_path_can_be_asked_for(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    other = log.with_name("other.log")
    other.write_text(line("x1", "s9", 5))
    read(node, log)
    assert read(node, other)["totals"]["input"] == 5
    assert read(node, log, "--session-key", "s2")["totals"]["input"] == 7
    assert node.json("usage", "--source", "higress", "--path", str(other))["records"] == 1
    assert node.json("usage")["records"] == 4


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


def test_a_csv_without_rows_has_the_columns_of_one_with_rows(fleet: Fleet, log: Path):
    node, words = fleet.node("anna"), ("--by", "day", "--by", "model", "-o", "csv")
    here = ("usage", "--source", "higress", "--path", str(log))
    filled = node.call(*here, *words).out.splitlines()
    assert node.call(*here, "--session-key", "nobody", *words).out.splitlines() == filled[:1]


def test_a_csv_without_blocks_has_the_columns_of_one_with_blocks(fleet: Fleet, tmp_path: Path):
    write(tmp_path, Random(1), 3)
    node, words = fleet.node("anna"), ("--path", str(tmp_path), "--by", "block", "-o", "csv")
    filled = node.call("usage", "--source", "claude", *words).out.splitlines()
    empty = node.call("usage", "--source", "claude", *words, "--since", "2050-01-01")
    assert len(filled) > 1
    assert empty.out.splitlines() == filled[:1]


def test_a_path_that_holds_something_else_is_said(fleet: Fleet, log: Path):
    answer = fleet.node("anna").call("usage", "--source", "codex", "--path", str(log.parent))
    assert answer.code == 0
    assert f"nothing in {log.parent} is usage as codex logs it" in answer.err


def test_a_copy_and_a_link_of_what_is_counted_are_not_said_to_hold_something_else(
    fleet: Fleet, log: Path
):
    anna = fleet.node("anna")
    assert read(anna, log)["records"] == 3
    copy, link = log.with_name("copy.log"), log.with_name("link.log")
    copy.write_bytes(log.read_bytes())
    answer = anna.call("usage", "--source", "higress", "--path", str(copy))
    assert f"nothing in {copy} is new: 3 lines of responses that are counted already" in answer.err
    assert "is usage as" not in answer.err
    link.symlink_to(log)
    assert read(anna, link)["records"] == 3


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
        (["--source", "higress", "--path", "."], 2, "is a directory"),
        (["--source", "higress", "--path", "/dev/null"], 2, "neither a file nor a directory"),
        (["--source", "codex", "--path", "/dev/null"], 2, "neither a file nor a directory"),
    ],
)
def test_what_cannot_be_asked_is_said(fleet: Fleet, words: list[str], code: int, said: str):
    answer = fleet.node("anna").call("usage", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_packed_file_that_is_not_read_packed_is_refused(fleet: Fleet, tmp_path: Path):
    anna = fleet.node("anna")
    for source, name in (("codex", "x.gz"), ("claude", "x.zst"), ("higress", "x.xz")):
        (tmp_path / name).write_bytes(b"packed")
        answer = anna.call("usage", "--source", source, "--path", str(tmp_path / name))
        assert (answer.code, answer.out) == (2, "")
        assert f"{name} is packed" in answer.err


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
    node = fleet.node("anna")
    value = read(node, log)
    assert value["records"] == 3
    kinds = [one["reason"] for one in value["sources"][0]["left_out"]]
    assert kinds == ["unparsable", "unparsable", "quarantined"]
    assert [one["line"] for one in value["sources"][0]["left_out"]] == [4, 5, 6]
    assert value["diagnostics"]["partial_tail_bytes"] == 16
    again = ("usage", "--source", "higress", "--path", str(log))
    where = "where they are: session-mesh usage --rescan"
    assert where in node.call(*again).err  # they are named as they are read
    told = node.call(*again, "--rescan").err
    named = [told.count(f"{log}:{number}: ") for number in (4, 5, 6)]
    assert (named, where in told) == ([1, 1, 1], False)


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


def test_a_single_rollout_and_a_single_chat_can_be_named(fleet: Fleet, tmp_path: Path):
    counts = {"input_tokens": 7, "output_tokens": 5}
    at = {"timestamp": "2026-11-20T09:30:15Z"}
    said = {"type": "token_count", "info": {"total_token_usage": counts}}
    rollout = tmp_path / "rollout-1.jsonl"
    rollout.write_text(json.dumps(at | {"type": "event_msg", "payload": said}) + "\n")
    chat = tmp_path / "session-1.jsonl"
    row = at | {"id": "m1", "sessionId": "g1", "tokens": {"input": 3, "output": 1}}
    chat.write_text(json.dumps(row) + "\n")
    node = fleet.node("anna")
    for source, path, total in (("codex", rollout, 12), ("gemini", chat, 4)):
        value = node.json("usage", "--source", source, "--path", str(path))
        assert (value["records"], value["totals"]["total"]) == (1, total)


def test_a_directory_that_the_environment_names_and_that_is_not_there_is_told(
    fleet: Fleet, tmp_path: Path
):
    env = {"CLAUDE_CONFIG_DIR": str(tmp_path / "nowhere")}
    answer = fleet.node("anna").call("usage", env=env)
    assert (answer.code, f"waiting for {tmp_path / 'nowhere'}" in answer.err) == (0, True)


def test_quiet_names_the_groups_and_notes_nothing(fleet: Fleet, log: Path):
    log.write_text(line("r1", "s1", 30, model="house-llm") + line("r2", "s2", 20))
    words = ("usage", "--source", "higress", "--path", str(log), "-q")
    answer = fleet.node("anna").call(*words, "--by", "model", "--by", "session")
    assert (answer.out.splitlines(), answer.err) == (["gpt-4o s2", "house-llm s1"], "")


def test_the_ends_of_numbers_stand_below_each_other(fleet: Fleet, log: Path):
    words = ("usage", "--source", "higress", "--path", str(log), "--by", "session")
    head, *rows = fleet.node("anna").call(*words).out.splitlines()
    for name in ("INPUT", "OUTPUT", "TOKENS", "USD"):
        end = head.index(name) + len(name)
        assert all(row[end - 1] != " " and row[end : end + 1] in {"", " "} for row in rows)


def test_following_says_what_has_no_price_and_that_its_directory_is_gone(
    fleet: Fleet, tmp_path: Path
):
    root = tmp_path / "claude"
    (root / "projects" / "shop").mkdir(parents=True)
    transcript = TRANSCRIPT.read_text().replace("claude-opus-4-6", "house-llm")
    (root / "projects" / "shop" / "s1.jsonl").write_text(transcript)
    command = [PROGRAM, "usage", "--source", "claude", "--path", str(root), "--follow"]
    with subprocess.Popen(
        [*command, "-o", "json"],
        env=fleet.node("anna").environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stderr is not None
        assert "no price known for house-llm" in following.stderr.readline()
        root.rename(tmp_path / "elsewhere")
        assert f"waiting for {root}" in following.stderr.readline()
        following.kill()


@contextmanager
def read_only(place: Path):
    if os.geteuid() != 0:
        pytest.skip("a file system that cannot be written needs root")
    bind = ["mount", "--bind", str(place), str(place)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        freeze = ["mount", "-o", "remount,bind,ro", str(place)]
        subprocess.run(freeze, capture_output=True, check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_home_that_cannot_be_written_shows_what_is_known_and_says_so(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    read(node, log)
    with log.open("a") as file:
        file.write(line("r9", "s9", 1))
    with read_only(node.home):
        value = read(node, log)
        assert (value["records"], value["sources"][0]["detail"]) == (
            3,
            "not read: what it says could not be kept",
        )
        answer = node.call("usage", "--source", "higress", "--path", str(log))
        assert (answer.code, "this is what was known" in answer.err) == (0, True)
        assert node.call("usage", "--explain", "r1").code == 0
        rescan = node.call("usage", "--source", "higress", "--path", str(log), "--rescan")
        assert (rescan.code, "cannot be written" in rescan.err) == (1, True)
    assert read(node, log)["records"] == 4


def test_a_home_that_is_new_and_cannot_be_written_is_refused(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    node.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with read_only(node.home):
        answer = node.call("usage", "--source", "higress", "--path", str(log))
    assert (answer.code, answer.out, "Traceback" in answer.err) == (1, "", False)
