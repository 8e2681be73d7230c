"""What the mesh has spent, asked on a node that has spent nothing, while an owner is away."""

import csv
import io
import json
import signal
from decimal import Decimal

import pytest
from e2e.fleet import wait_until

CALLS = {  # session, model, day
    "anna": [("s1", "gpt-4o", 1), ("s1", "gpt-4o", 2), ("s2", "o1", 2), ("shared", "odd", 2)],
    "berta": [("s3", "gpt-4o", 2), ("shared", "GPT-4o", 2)],
}


def line(name: str, number: int, call: tuple[str, str, int]) -> str:
    session, model, day = call
    said = {
        "session_id": session,
        "chat_id": f"{name}-{number}",
        "model": model,
        "input_token": 1000,
        "output_token": 100,
        "total_token": 1100,
    }
    at = f"2026-02-0{day}T09:30:15.123Z"
    outer = {"ai_log": json.dumps(said), "request_id": f"{name}-{number}", "start_time": at}
    return json.dumps(outer, separators=(",", ":")) + "\n"


@pytest.fixture
def spenders(fleet):
    """Anna and Berta have spent; Carl looks on."""
    first = None
    for name, calls in CALLS.items():
        node = fleet.node(name)
        log = fleet.directory / f"{name}.log"
        log.write_text("".join(line(name, *numbered) for numbered in enumerate(calls)))
        if first is None:
            first = node
            node.json("init", "--mesh", "test", "--name", name)
        else:
            fleet.join(first, node)
        config = f"ingest:\n  - source: higress\n    path: {log}\n    refresh_interval: 1s\n"
        (node.home / "config.yaml").write_text(config)
        node.up("--listen", "127.0.0.1:0", "--no-mdns")
    carl = fleet.node("carl")
    fleet.join(first, carl)
    carl.up("--listen", "127.0.0.1:0", "--no-mdns")
    wait_until(lambda: carl.json("cost")["records"] == 6)
    return fleet.nodes


def summed(answer: dict) -> tuple[int, int, Decimal]:
    groups = answer["groups"]
    return (
        sum(int(one["records"]) for one in groups),
        sum(int(one["usage"]["total"]) for one in groups),
        sum((Decimal(one["cost_usd"]) for one in groups if one["cost_usd"]), Decimal(0)),
    )


def test_an_owner_that_is_away_counts_and_is_named(spenders):
    anna, _, carl = spenders
    before = carl.json("cost")
    wait_until(lambda: carl.json("cost")["coverage"]["nodes_heard"] == 3)
    anna.end(signal.SIGKILL)
    wait_until(lambda: carl.json("cost")["coverage"]["nodes_heard"] == 2)
    after = carl.json("cost")
    assert after["totals"] == before["totals"]
    assert (after["cost_usd"], after["sessions"]) == (before["cost_usd"], 4)
    assert [one["node_name"] for one in after["coverage"]["missing"]] == ["anna"]
    assert carl.call("cost", "--require-full").code == 6
    assert "2 of 3 nodes heard" in carl.call("cost").err
    for by in (
        ("model", "day"),
        ("month", "week"),
        ("node", "session"),
        ("hour", "owner", "agent", "project", "tier"),
    ):
        words = [word for one in by for word in ("--by", one)]
        answer = carl.json("cost", *words)
        total = (after["records"], after["totals"]["total"], Decimal(after["cost_usd"]))
        assert summed(answer) == total, by
    carl.end()
    from_disk = carl.call("cost", "-o", "json")
    assert (from_disk.json["source"], from_disk.json["totals"]) == ("disk", after["totals"])


def test_each_flag_narrows_and_each_format_says_the_same(spenders):
    *_, carl = spenders
    by_model = {one["key"]["model"]: one for one in carl.json("cost", "--by", "model")["groups"]}
    assert set(by_model) == {"GPT-4o", "o1", "odd"}
    assert (by_model["GPT-4o"]["records"], by_model["GPT-4o"]["sessions"]) == (4, 3)
    assert by_model["odd"]["cost_usd"] is None
    only = carl.json("cost", "--by", "session", "--node", "berta")
    assert {one["key"]["session"] for one in only["groups"]} == {"s3", "shared"}
    assert carl.json("cost", "--session", "shared")["records"] == 2
    days = ("--since", "2026-02-01", "--until", "2026-02-02")
    assert carl.json("cost", *days)["records"] == 1
    local = carl.json("cost", "--by", "day", "--tz", "Pacific/Kiritimati")
    assert {one["key"]["day"] for one in local["groups"]} == {"2026-02-01", "2026-02-02"}
    assert carl.json("cost", "--days", "1")["records"] == 0


def test_models_and_days_have_statistics_in_every_format(spenders):
    *_, carl = spenders
    told = carl.json("stats-model")
    rows = list(csv.DictReader(io.StringIO(carl.call("stats-model", "-o", "csv").out)))
    assert [int(row["records"]) for row in rows] == [one["records"] for one in told["groups"]]
    assert "records: 6" in carl.call("stats-model", "-o", "yaml").out
    lines = carl.call("stats-date", "--days", "3650").out.splitlines()
    assert [row.split()[:3] for row in lines[1:]] == [
        ["2026-02-01", "1", "1"],
        ["2026-02-02", "5", "4"],
        ["TOTAL", "6", "4"],
    ]


@pytest.mark.parametrize(
    "words",
    [("cost", "--by", "model", "--by", "node"), ("stats-model",), ("stats-date",), ("list",)],
    ids=" ".join,
)
def test_a_csv_without_rows_has_the_columns_of_one_with_rows(spenders, fleet, words):
    filled = spenders[-1].call(*words, *(["--filter", "all"] * (words == ("list",))), "-o", "csv")
    nobody = fleet.node("nobody")
    nobody.json("init", "--mesh", "nobody", "--name", "nobody")
    empty = nobody.call(*words, "-o", "csv")
    assert empty.out.splitlines() == filled.out.splitlines()[:1]


def test_bad_questions_are_answered_with_a_sentence(spenders):
    *_, carl = spenders
    for words, code in {
        ("--by", "modl"): 2,
        ("--tz", "Mars/Olympus"): 2,
        ("--since", "soon"): 2,
        ("--since", "1d", "--until", "2d"): 2,
        ("--days", "0"): 2,
        ("--node", "nobody"): 3,
        ("--session", "unknown"): 3,
        ("--session", "🦊\u202e"): 3,
        ("--node", "x" * 5000): 2,
    }.items():
        answer = carl.call("cost", *words, "-o", "json")
        assert answer.code == code, words
        assert set(answer.error) == {"code", "message", "hint"}


def test_what_is_read_while_no_node_runs_counts_from_the_disk_as_it_does_once_one_runs(fleet):
    node, log = fleet.node("dora"), fleet.directory / "dora.log"
    log.write_text("".join(line("dora", *numbered) for numbered in enumerate(CALLS["anna"][:3])))
    words = ("usage", "--source", "higress", "--path", str(log))
    spent = node.json(*words)
    node.json("init", "--mesh", "test", "--name", "dora")
    assert (answer := node.json("cost"))["cost_usd"] == spent["cost_usd"]
    assert (answer["source"], answer["totals"]) == ("disk", spent["totals"])
    assert node.call("cost", "--require-full").code == 6
    node.up("--listen", "127.0.0.1:0", "--no-mdns")
    wait_until(lambda: node.json("cost")["records"] == 3)
    node.end()
    with log.open("a") as file:
        file.write(line("dora", 9, ("s9", "gpt-4o", 3)))
    spent = node.json(*words)
    assert node.json("cost")["totals"] == spent["totals"]


SHARED = {"session_id": "team", "model": "gpt-4o", "input_token": 1000, "output_token": 100}
CONSUMERS = [("olga", "openai", 3), ("paul", "openai", 2), ("paul", "azure", 1)]


def test_consumers_that_share_a_session_are_told_apart_on_another_node(fleet):
    anna, carl = fleet.mesh("anna", "carl")
    log = fleet.directory / "gateway.log"
    with log.open("w") as file:
        for owner, provider, times in CONSUMERS:
            call = {**SHARED, "consumer": owner, "provider": provider}
            for number in range(times):
                outer = {"ai_log": json.dumps(call), "request_id": f"{owner}-{provider}-{number}"}
                file.write(json.dumps({**outer, "start_time": "2026-11-20T09:30:15Z"}) + "\n")
    anna.json("usage", "--source", "higress", "--path", str(log))
    wait_until(lambda: carl.json("cost")["records"] == 6)
    by_owner = carl.json("cost", "--by", "owner")["groups"]
    assert {one["key"]["owner"]: one["records"] for one in by_owner} == {"olga": 3, "paul": 3}
    [tier] = carl.json("cost", "--by", "tier")["groups"]
    assert (tier["key"], tier["records"], tier["sessions"]) == ({"tier": "standard"}, 6, 1)
    priced = carl.json("cost", "--by", "model")
    here = anna.json("usage", "--source", "higress", "--path", str(log), "--by", "owner")
    assert priced["cost_usd"] == here["cost_usd"]
    assert {one["key"]["owner"]: one["records"] for one in here["groups"]} == {"olga": 3, "paul": 3}
