"""What was said in a session: kept where it was read, shown to who may read it, anywhere."""

import json
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Fleet, wait_until

pytestmark = pytest.mark.e2e
WEATHER = {"name": "get_weather", "arguments": '{"location":"Beijing"}'}
TEXTS = {
    "response_type": "normal",
    "messages": [{"role": "user", "content": "Check Beijing weather"}],
    "question": "Check Beijing weather",
    "answer": "Checking\nfor you",
    "reasoning": "I need the API.",
    "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": WEATHER}],
}
SESSION = "agent:main:discord:1465"


def line(request: str, minute: int, **texts: object) -> str:
    call = {"session_id": SESSION, "model": "gpt-4o", "input_token": 250, "output_token": 160}
    at = f"2026-11-20T09:{minute:02}:15Z"
    outer = {"ai_log": json.dumps({**call, **texts}), "request_id": request, "start_time": at}
    return json.dumps(outer) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line("r2", 40, **TEXTS) + line("r1", 30, question="first?", answer="yes"))
    return path


def test_a_session_of_a_log_is_shown_round_by_round_on_every_node(fleet: Fleet, log: Path):
    anna, berta = fleet.mesh("anna", "berta")
    anna.json("usage", "--source", "higress", "--path", str(log), "--keep-messages")
    wait_until(lambda: berta.json("cost")["records"] == 2, "anna's usage")
    for node in (anna, berta):
        shown = node.json("show", SESSION[:8])
        assert node.json("cost", "--session", SESSION[:8])["records"] == 2
        assert (shown["messages_count"], shown["total_input_tokens"]) == (2, 500)
        assert (shown["nodes"], shown["models"], shown["agent_id"]) == (
            ["anna"],
            ["gpt-4o"],
            "main",
        )
        first, second = shown["rounds"]
        assert (first["round"], first["question"]) == (1, "first?")
        assert first["timestamp"] == shown["created_at"] == "2026-11-20T09:30:15.000Z"
        assert second["timestamp"] == shown["updated_at"]
        assert {name: second[name] for name in TEXTS} == TEXTS
        assert (second["input_tokens"], second["output_tokens"]) == (250, 160)
        assert second["cost_usd"] is not None
    words = berta.call("show", SESSION)
    assert "    for you" in words.out.splitlines()
    assert "    - get_weather({" in words.out
    bare = berta.call("show", SESSION, "--no-messages", "-o", "json")
    assert "Beijing" not in bare.out
    assert [one["kept"] for one in bare.json["rounds"]] == [True, True]
    assert berta.call("show", "agent:nobody").code == 3

    blind = berta.json("keys", "new", "--action", "read")["key"]
    answer = berta.call("show", SESSION, "-o", "json", env={"SESSION_API_KEY": blind})
    assert (answer.code, answer.json["rounds"], answer.json["messages_count"]) == (5, [], 2)
    assert "read messages" in berta.call("show", SESSION, env={"SESSION_API_KEY": blind}).err
    numbers = berta.call("show", SESSION, "--no-messages", env={"SESSION_API_KEY": blind})
    assert numbers.code == 0

    seen = anna.json("audit", "--kind", "messages_read")["records"]
    assert {one["action"] for one in seen} == {"read_rounds"}
    anna.end()
    alone = anna.json("show", SESSION[:8])
    assert alone["session_id"] == SESSION
    assert (alone["source"], alone["rounds"][1]["answer"]) == ("disk", "Checking\nfor you")
    assert "logs that were read here\n" in anna.call("show", SESSION).out
    away = berta.call("show", SESSION, "-o", "json")
    assert (away.code, away.json["rounds"], away.json["messages_count"]) == (0, [], 2)


def test_nothing_that_was_said_is_kept_unless_asked_for(fleet: Fleet, log: Path):
    node = fleet.node("anna")
    read = ("usage", "--source", "higress", "--path", str(log))
    node.json(*read)
    first, second = node.json("show", SESSION)["rounds"]
    assert (first["kept"], second["kept"], "question" in second) == (False, False, False)
    assert b"Beijing" not in b"".join(one.read_bytes() for one in node.home.glob("*.db*"))
    node.json(*read, "--rescan", "--keep-messages")
    assert node.json("show", SESSION)["rounds"][1]["question"] == "Check Beijing weather"
    assert node.call("usage", "--source", "codex", "--keep-messages").code in {2, 3}


def test_an_agents_reports_are_its_rounds_and_in_no_log(fleet: Fleet, log: Path):
    [anna] = fleet.mesh("anna")
    report = (
        "session-mesh report --model gpt-4o --input 3 --cache-read 2 --cache-write-5m 4 --output 6"
        " --id r1 && sleep 60"
    )
    anna.call("run", "--agent-id", "a", "--detach", "--", "sh", "-c", report)
    wait_until(lambda: anna.json("cost")["records"] == 1, "the report")
    [one] = anna.json("show", "a")["rounds"]
    shown = anna.call("show", "a").out
    assert "15 (input 3, cache read 2, cache write 4, output 6)" in shown
    assert "Tokens: 9 in (of it 2 read from a cache, 4 written into one) -> 6 out " in shown
    assert anna.json("usage", "--source", "higress", "--path", str(log))["records"] == 2
    assert (one["input_tokens"], one["output_tokens"], one["kept"]) == (9, 6, False)
    assert (one["cached_tokens"], one["cache_write_tokens"]) == (2, 4)
    anna.end_sessions()


def test_a_round_that_an_agent_reports_costs_what_its_session_costs(fleet: Fleet):
    (anna,) = fleet.mesh("anna")
    said = ("report", "--model", "gpt-4o", "--input", "1000", "--output", "100", "--id", "r1")
    assert anna.call("run", "--agent-id", "worker", "--", PROGRAM, *said).code == 0
    shown = anna.json("show", "worker")
    (only,) = shown["rounds"]
    assert only["cost_usd"] == shown["cost_usd"] is not None
