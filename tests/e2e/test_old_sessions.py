"""A node with more sessions than its feed has room for: what is new is seen, held and costed."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e.fleet import Fleet, Node, wait_until
from e2e.higress_log import read
from e2e.test_budgets import budget_of, run, suspended

from meshnode.core.ledger.marks import FOLDED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
DAYS, EACH = 200, 95  # 19,000 sessions: a feed takes 17,998 rows
OLD = 1000 * DAYS * EACH


def line(request: str, session: str, tokens: int, at: datetime) -> str:
    call = {
        "session_id": session,
        "model": "gpt-4o",
        "input_token": tokens,
        "output_token": 0,
    }
    outer = {"ai_log": json.dumps(call), "request_id": request}
    return json.dumps({**outer, "start_time": at.strftime("%Y-%m-%dT09:30:15Z")}) + "\n"


def write_chats(directory: Path) -> Path:
    """Write a log of many short chats a day, of some months that ended 40 days ago."""
    first = datetime.fromtimestamp(time.time(), UTC) - timedelta(days=DAYS + 40)
    log = directory / "access.log"
    log.write_text(
        "".join(
            line(f"r{day}-{number}", f"chat-{day}-{number}", 1000, first + timedelta(days=day))
            for day in range(DAYS)
            for number in range(EACH)
        )
    )
    return log


def spent_on(node: Node, *more: str) -> int:
    return node.json("cost", *more)["totals"]["input"]


def test_thousands_of_old_sessions_hide_nothing_new_from_costs_and_budgets(
    fleet: Fleet, tmp_path: Path
):
    anna, berta = fleet.mesh("anna", "berta")
    log = write_chats(tmp_path)
    assert read(anna, log)["totals"]["input"] == OLD
    wait_until(lambda: spent_on(berta) == OLD, "all of it on the other node")
    assert spent_on(anna) == OLD
    days = berta.json("cost", "--by", "day")["groups"]
    assert {one["usage"]["input"] for one in days} == {1000 * EACH}
    dearest, _ = berta.json("cost", "--by", "session", "--most", "1")["groups"]
    assert dearest["key"] == {"session": FOLDED}
    newest = berta.json("cost", "--session", f"chat-{DAYS - 1}-0")  # it has its name
    assert newest["totals"]["input"] == 1000
    assert FOLDED in " ".join(newest["notes"])
    assert berta.json("cost")["notes"] == []
    assert anna.json("status")["alarms"] == []

    berta.json("budget", "set", "team", "--limit", "1usd", "--per", "day")
    wait_until(lambda: budget_of(anna, "team"))
    run(anna, "spender", tokens=1_000_000)
    suspended(anna, "spender")
    wait_until(lambda: budget_of(berta, "team").get("state") == "exceeded", "the other node")
    assert spent_on(berta, "--since", "1d") == spent_on(anna, "--since", "1d") == 1_000_000

    with log.open("a") as more:  # what is told late of an old chat is told, too
        more.write(line("late", "chat-0-0", 500, datetime.now(UTC) - timedelta(days=DAYS + 40)))
    assert read(anna, log)["totals"]["input"] == OLD + 500
    wait_until(lambda: spent_on(berta) == OLD + 500 + 1_000_000, "what came late")
    anna.end()
    assert spent_on(anna) == OLD + 500 + 1_000_000  # as its disk tells it
    anna.up(*anna.flags)
    assert spent_on(anna) == OLD + 500 + 1_000_000
