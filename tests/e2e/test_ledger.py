"""The ledger of a running node: checkpoints, corrections, and who finds out that it was changed."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from e2e.fleet import Fleet, wait_until

pytestmark = pytest.mark.e2e


def line(request: str, tokens: int) -> str:
    call = {"session_id": "s1", "model": "gpt-4o", "input_token": tokens, "output_token": 10}
    outer = {"ai_log": json.dumps(call), "request_id": request}
    return json.dumps({**outer, "start_time": "2026-11-20T09:30:15Z"}) + "\n"


def test_a_node_signs_its_ledger_and_names_the_record_that_was_changed(
    fleet: Fleet, tmp_path: Path
):
    [anna] = fleet.mesh("anna")
    log = tmp_path / "access.log"
    log.write_text(line("r1", 1000) + line("r2", 2000))
    anna.json("usage", "--source", "higress", "--path", str(log))
    assert anna.json("audit", "--verify")["ledger"]["records"] == 2
    anna.end()
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")

    def signed() -> bool:
        return bool(anna.json("audit", "--kind", "ledger_checkpoint")["records"])

    wait_until(signed, "a checkpoint")
    found = anna.call("audit", "--verify", "-o", "json")
    assert (found.code, found.json["ledger"]["checkpoints"]) == (0, 1)
    assert "2 records up to 2 are as written" in anna.call("audit", "--verify").out
    with closing(sqlite3.connect(anna.home / "state.db")) as database:
        database.execute("UPDATE usage_log SET input = 1 WHERE seq = 2")
        database.commit()
    found = anna.call("audit", "--verify", "-o", "json")
    assert (found.code, found.json["ledger"]["wrong"]["seq"]) == (1, 2)
    assert "ledger: record 2: it was edited" in anna.call("audit", "--verify").out


def response(session: str) -> str:
    """Return one response of Claude, as the transcript of some session has it."""
    usage = {"input_tokens": 1000, "output_tokens": 100}
    said = {"id": "msg_A", "model": "claude-opus-4-6", "stop_reason": "end_turn", "usage": usage}
    outer = {"type": "assistant", "sessionId": session, "requestId": "req_A", "message": said}
    return json.dumps({**outer, "timestamp": "2026-11-22T09:00:00Z"}) + "\n"


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_corrected_while_the_node_was_down_is_counted_once_for_good(
    fleet: Fleet, tmp_path: Path, ended_by: signal.Signals
):
    [anna] = fleet.mesh("anna")
    logs = tmp_path / "claude" / "projects" / "p"
    logs.mkdir(parents=True)
    source = ("usage", "--source", "claude", "--path", str(logs.parents[1]))

    def counted() -> dict[str, int]:
        groups = anna.json("cost", "--by", "session")["groups"]
        return {one["key"]["session"]: one["records"] for one in groups if one["records"]}

    (logs / "bbbb.jsonl").write_text(response("bbbb"))
    anna.json(*source)
    wait_until(lambda: counted() == {"bbbb": 1}, "what was read beside the node")
    anna.end(ended_by)
    (logs / "aaaa.jsonl").write_text(response("aaaa"))  # copied by `claude --resume`
    assert anna.json(*source)["records"] == 1
    for _ in range(2):
        anna.up()
        assert counted() == {"aaaa": 1}
        anna.end()
