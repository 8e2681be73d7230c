"""`export`: the report of the Higress monitor, of the whole mesh, whole or not at all."""

import csv
import json
from pathlib import Path

import pytest
from e2e.fleet import Fleet

pytestmark = pytest.mark.e2e


def line(request: str, session: str, model: str) -> str:
    call = {"session_id": session, "model": model, "input_token": 1000, "output_token": 100}
    said = {**call, "cached_tokens": 400}
    outer = {"ai_log": json.dumps(said), "request_id": request}
    return json.dumps({**outer, "start_time": "2026-11-20T09:30:15Z"}) + "\n"


@pytest.fixture
def node(fleet: Fleet, tmp_path: Path):
    [anna] = fleet.mesh("anna")
    log = tmp_path / "access.log"
    log.write_text(
        line("r1", "s1", "gpt-4o") + line("r2", "s2", "gpt-4o") + line("r3", "s2", "=odd")
    )
    anna.json("usage", "--source", "higress", "--path", str(log))
    anna.end()
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    return anna


def test_the_report_has_the_layout_of_the_monitor(node, tmp_path: Path):
    path = tmp_path / "finops-report.json"
    answer = node.json("export", str(path), "--days", "3650")
    assert answer["files"] == [str(path)]
    report = json.loads(path.read_text())
    assert report["summary"]["total_sessions"] == 2
    assert report["summary"]["total_input_tokens"] == 3000
    assert report["by_model"]["gpt-4o"] == {
        "session_count": 2,
        "total_input": 2000,
        "total_output": 200,
        "total_reasoning": 0,
        "total_cost": report["summary"]["total_cost_usd"],
        "usage": node.json("cost", "--by", "model")["groups"][0]["usage"],
    }
    assert report["by_model"]["gpt-4o"]["usage"]["input"] == 1200
    assert report["by_model"]["=odd"]["total_cost"] is None
    assert report["by_date"]["2026-11-20"]["models"] == ["=odd", "gpt-4o"]
    assert [one["model"] for one in report["unpriced"]] == ["=odd"]
    printed = node.call("export", "-", "--days", "3650")
    assert json.loads(printed.out)["by_model"] == report["by_model"]

    before = path.read_text()
    refused = node.call("export", str(path))
    assert (refused.code, path.read_text()) == (7, before)
    assert "--force" in refused.err
    assert node.call("export", str(path), "--force").code == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["access.log", path.name]

    table = tmp_path / "report.csv"
    node.json("export", str(table), "--days", "3650")
    assert not table.exists()
    with (tmp_path / "report.model.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    heads = ["Model", "Sessions", "Input Tokens", "Output Tokens", "Cost (USD)", "Cached Tokens"]
    assert rows[0] == heads
    assert ["'=odd", "1", "1000", "100", "", "400"] in rows
    with (tmp_path / "report.date.csv").open(newline="") as file:
        [head, row] = csv.reader(file)
    assert head[-2:] == ["Models", "Cached Tokens"]
    assert (row[0], row[1], row[-2], row[-1]) == ("2026-11-20", "2", "'=odd, gpt-4o", "1200")
    forced = node.call("export", str(tmp_path / "one.csv"), "--format", "json")
    assert (forced.code, "by_model" in json.loads((tmp_path / "one.csv").read_text())) == (0, True)
    (tmp_path / "report.model.csv").unlink()
    assert node.call("export", str(table), "--format", "csv").code == 7
    assert not (tmp_path / "report.model.csv").exists()
    beyond = tmp_path / "no" / "report.json"
    nowhere = node.call("export", str(beyond), "-o", "json")
    assert nowhere.code == 2
    assert nowhere.error["message"] == f"cannot write {beyond}: No such file or directory"
