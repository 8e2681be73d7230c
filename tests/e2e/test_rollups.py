"""A home whose ledger holds three years, rolled up while another node looks on: nothing changes."""

import json
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import pytest
from e2e.clocks import clock_library_in
from e2e.fleet import Fleet, Node, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
RECORDS = 547 * 4 + 1
YEARS_S = 4 * 365 * 86_400  # by which the clock is back while the logs are read: all is young then
PRICES = 'prices:\n  - {model: "our-*", input: "3", output: "9"}\n'


def line(number: int, at: datetime) -> str:
    call = {
        "session_id": f"s{number // 4 % 7}",
        "model": ("our-large", "our-small")[number % 2],
        "input_token": 1000 + number,
        "output_token": 10,
    }
    outer = {"ai_log": json.dumps(call), "request_id": f"r{number}"}
    return json.dumps({**outer, "start_time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}) + "\n"


def three_years() -> str:
    """Return a log of some hours on every other day."""
    today = datetime.fromtimestamp(time(), UTC).replace(hour=8, minute=0, second=0)
    first = today - timedelta(days=3 * 365)
    times = (
        first + timedelta(days=2 * day, hours=hour) for day in range(547) for hour in (0, 3, 4, 5)
    )
    return "".join(line(number, at) for number, at in enumerate(times))


def amounts(node: Node, *by: str) -> dict:
    with node.client() as mesh:
        answer = mesh.cost(by)
    groups = {
        tuple(one["key"][name] for name in by): (one["usage"], one["sessions"], one["cost_usd"])
        for one in answer["groups"]
    }
    return {name: answer[name] for name in ("records", "totals", "cost_usd")} | {"groups": groups}


def by_days(node: Node) -> dict:
    with node.client() as mesh:
        return mesh.cost(("day",))


def all_amounts(node: Node) -> list[dict]:
    return [amounts(node, *by) for by in ((), ("model",), ("session", "tier"), ("owner", "agent"))]


def kinds(node: Node, table: str) -> dict[int, int]:
    """Count rows of counters on disk by the kind of their keys."""
    query = f"SELECT key FROM {table}"
    found: dict[int, int] = {}
    with closing(sqlite3.connect(f"file:{node.home / 'state.db'}?mode=ro", uri=True)) as disk:
        for (key,) in disk.execute(query):
            found[key[1]] = found.get(key[1], 0) + 1
    return found


def believing_its_clock_at_once(directory: Path) -> str:
    """Return a path for Python on which nodes roll up right after their start, not 10 minutes."""
    said = "from meshnode.app import settling\nsettling.SETTLED_S = 0.0\n"
    (directory / "sitecustomize.py").write_text(said)
    return str(directory)


def days_that_are_months_are_told(anna: Node, berta: Node, before: dict[str, Any]):
    by_day = by_days(berta)
    names = {one["key"]["day"] for one in by_day["groups"]}
    assert by_day["totals"] == before["totals"]
    assert {len(name) for name in names} == {7, 10}  # 2024-03, and 2026-10-17
    assert not by_day["tz_exact"]
    assert "only UTC months are known" in " ".join(by_day["notes"])
    said = berta.call("cost", "--by", "day", "--tz", "Asia/Tokyo").err
    assert "only UTC days are known: they are not those of Asia/Tokyo" in said
    said = anna.call("stats-date", "--days", "1000").err
    assert "only UTC months are known" in said


def read_long_ago(node: Node, log: Path, source: tuple[str, ...]) -> None:
    """Read three years by a clock that was back, all of it as young; then a line by the right one.

    All the rest is old by that one.
    """
    log.write_text(three_years())
    back = {
        "LD_PRELOAD": str(clock_library_in(log.parent)),
        "SM_TEST_CLOCK_OFFSET_S": str(-YEARS_S),
    }
    assert node.json(*source, env=back)["records"] == RECORDS - 1
    with log.open("a") as more:
        more.write(line(RECORDS - 1, datetime.now(UTC) - timedelta(days=3)))
    assert node.json(*source)["records"] == RECORDS
    assert set(kinds(node, "usage_slots")) == {0}


def test_three_years_are_rolled_up_and_no_node_sees_another_total(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    anna, berta = fleet.mesh("anna", "berta")
    for node in (anna, berta):
        (node.home / "prices.yaml").write_text(PRICES)
    log = tmp_path / "access.log"
    source = ("usage", "--source", "higress", "--path", str(log))
    read_long_ago(anna, log, source)
    wait_until(lambda: amounts(berta)["records"] == RECORDS, "all of it on the other node")
    before = all_amounts(berta)
    by_day = by_days(berta)
    assert by_day["tz_exact"]
    assert len(by_day["groups"]) == 547

    for _ in range(2):  # killed at some moment of the work; then it goes on
        anna.end(signal.SIGKILL)
        assert anna.json("cost")["totals"] == before[0]["totals"]
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONPATH", believing_its_clock_at_once(tmp_path))
            anna.up(*anna.flags)
        assert amounts(berta) == before[0] == amounts(anna)

    def rolled_up() -> bool:
        assert amounts(berta) == before[0]
        held = kinds(anna, "usage_slots")
        return (
            held.get(0, 0) < 200
            and held.get(2, 0) > 0
            and held.get(3, 0) > 0
            and ("rolled up" in (anna.home / "node.log").read_text())
        )

    wait_until(rolled_up, "a ledger that is rolled up")
    held = kinds(anna, "usage_slots")
    query = "rows WHERE tab = 'ledger' AND substr(key, 2, 1) <> x'01'"
    wait_until(lambda: kinds(berta, query) == held, "the same rows on the other node")
    assert all_amounts(berta) == before == all_amounts(anna)

    days_that_are_months_are_told(anna, berta, before[0])
    anna.json("audit", "--verify")
    anna.json(*source, "--rescan")  # all of it is known
    assert anna.json("usage")["records"] == RECORDS
    assert anna.json("usage")["totals"] == before[0]["totals"]


def test_what_is_read_years_later_makes_no_slots(fleet: Fleet, tmp_path: Path):
    node = fleet.node("alone")
    log = tmp_path / "access.log"
    log.write_text(three_years())
    read = node.json("usage", "--source", "higress", "--path", str(log))
    assert read["records"] == 547 * 4
    whole = node.json("usage", "--by", "day", "--tz", "Europe/Berlin")
    assert whole["totals"] == read["totals"]
    assert any("only UTC months are known" in note for note in whole["notes"])
    old = datetime.fromtimestamp(time(), UTC) - timedelta(days=36)
    with log.open("a") as more:
        more.write(line(99_000, old) + line(99_001, old - timedelta(days=700)))
    assert node.json("usage", "--source", "higress", "--path", str(log))["records"] == 547 * 4 + 2
    held = kinds(node, "usage_slots")
    assert held[0] <= 18 * 4 * 2
    assert sum(held.values()) < 1200
    assert node.json("usage")["records"] == 547 * 4 + 2
