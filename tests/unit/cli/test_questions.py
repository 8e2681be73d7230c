# nodes


"""What `nodes`, `list` and `cost` ask the mesh, and what they show of its answer."""

import io
import json
import sys

import pytest
from unit.cli.doubles import PARTIAL, SESSION, Mesh

from meshnode.client.targets.targets import Selection
from session_mesh.main import main
from session_mesh.output.render import Streams


def member(letter, **changes):
    return {
        "node_id": letter * 52,
        "name": "anna",
        "state": "alive",
        "sessions": 0,
        "addresses": ["192.0.2.1:7707"],
        "version": "1.0",
        "last_heard": "2026-11-20T00:00:00Z",
        "labels": {},
        "links": [],
        "epoch": 1,
        "self": False,
    } | changes


def test_namesakes_are_told_apart_in_tables(run, mesh):
    mesh.members = [member("a", links=["b" * 52]), member("b"), member("c", name="carl")]
    for words in (["nodes"], ["nodes", "--links"]):
        out = run(*words)[1]
        assert "anna/aaaaaaaa" in out
        assert "anna/bbbbbbbb" in out
        assert "carl/" not in out
    assert "alive  anna/bbbbbbbb" in out
    mesh.sessions = [SESSION, SESSION | {"node_id": "b" * 52}]
    assert "anna/bbbbbbbb" in run("list")[1]
    mesh.sessions = [SESSION, SESSION]
    assert "anna/aaaaaaaa" in run("list")[1], "though its namesake has no session"
    mesh.members = mesh.members[::2]
    assert "anna/" not in run("list")[1]


@pytest.mark.parametrize(
    ("answer", "code", "forgotten"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)]
)
def test_whoever_lets_a_node_be_forgotten_is_told_what_that_hides(
    mesh, monkeypatch, answer, code, forgotten
):
    mesh.members = [member("b", name="berta", state="dead", sessions=2)]
    keyboard = io.StringIO(answer)
    keyboard.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", keyboard)
    streams = Streams(io.StringIO(), io.StringIO(), err_is_terminal=True)
    assert main(["nodes", "forget", "berta"], streams) == code
    said = streams.err.getvalue()
    for words in (
        "hide berta (bbbbbbbbbb)",
        "2 sessions that have not ended, its registrations",
        "spent stays counted",
        "if the node runs again, it shows again with what it writes from then on",
    ):
        assert words in said
    assert len([call for call in mesh.calls if call[0] == "forget"]) == forgotten


def test_who_forgets_a_node_that_nobody_has_heard_is_told_that_this_home_alone_does(run, mesh):
    mesh.members = [member("b", name="berta", state="unreachable", epoch=0)]
    code, _, err = run("nodes", "forget", "berta")
    assert code == 2
    assert "nothing of berta (bbbbbbbbbb) has come here" in err
    assert "by this home alone" in err


# list and cost


def test_a_narrow_list_of_nodes_keeps_addresses_whole(mesh):
    address = "[2001:db8:1111:2222:3333:4444:5555:6666]:7707"
    mesh.members = [member("a", name="a-host-with-a-long-name", addresses=[address])]
    streams = Streams(io.StringIO(), io.StringIO(), out_is_terminal=True, width=80)
    assert main(["nodes"], streams) == 0
    assert mesh.calls == [("nodes", {})]
    heading, row = streams.out.getvalue().splitlines()
    assert address in row
    assert len(row.rstrip()) <= 80
    assert {"LABELS", "VERSION"}.isdisjoint(heading.split())


def test_list_selects_and_limits(run, mesh):
    code, out, _ = run(
        *("list", "--filter", "alive", "--node", "n", "--spec", "s", "--owner", "o"),
        *("--agent-id", "0123", "--label", "a=b", "--label", "c=d=e", "--sort", "cost"),
        *("--limit", "5", "-q"),
    )
    labels = {"a": "b", "c": "d=e"}
    assert code == 0
    assert out == SESSION["session_id"] + "\n"
    assert mesh.calls == [("list", Selection("alive", "n", "s", "o", "0123", labels, "cost"), 6)]


def test_a_list_that_is_cut_says_so(run, mesh):
    mesh.sessions = [SESSION | {"session_id": letter * 26} for letter in "abc"]
    _, out, err = run("list", "--limit", "2")
    assert ("there are more than these 2" in err, "cccc" in out) == (True, False)
    cut = json.loads(run("list", "--limit", "2", "-o", "json")[1])
    assert (len(cut["sessions"]), cut["more"]) == (2, True)
    assert "there are more" not in run("list", "--limit", "3")[2]
    assert "more" not in json.loads(run("list", "--limit", "3", "-o", "json")[1])


def test_partial_coverage_is_said_on_stderr(run, mesh):
    mesh.coverage = PARTIAL
    assert "1 of 2 nodes heard; missing: berta (unreachable since T)" in run("list")[2]
    assert run("list", "-o", "json")[2] == ""


def test_cost_groups_and_cuts_days(run, mesh):
    code, out, err = run("cost", "--by", "model", "--by", "day", "--days", "2", "--tz", "UTC")
    assert code == 0
    assert mesh.calls == [("cost", ("model", "day"), "2026-11-19T00:00:00.000Z", None, "UTC", None)]
    assert out.splitlines()[0].split() == [
        "MODEL",
        "DAY",
        "INPUT",
        "CACHED",
        "OUTPUT",
        "TOKENS",
        "USD",
    ]
    assert "$1.25" in out
    assert "no price known for m: 9 tokens" in err


def test_cost_is_asked_of_one_node_or_session(run, mesh):
    code, _, _ = run("cost", "--by", "session", "--node", "berta", "--session", "0123")
    assert code == 0
    asked = ("cost", ("session",), None, None, "", None, ("berta", "0123"))
    assert mesh.calls[-1] == asked


def test_a_zone_that_does_not_fit_is_told(run, mesh):
    assert "not exact to the hour or day" in run("cost", "--by", "day", "--tz", "Asia/Kathmandu")[2]


def test_models_and_days_have_statistics_with_a_total(run, mesh):
    _, out, err = run("stats-model")
    heading, model, total = (line.split() for line in out.splitlines())
    assert heading[:3] == ["MODEL", "REQUESTS", "SESSIONS"]
    assert (model[:3], total[:3]) == (["m", "3", "2"], ["TOTAL", "3", "2"])
    assert "no price known for m" in err
    _, out, _ = run("stats-date", "--days", "2")
    assert [line.split()[0] for line in out.splitlines()] == [
        *("DAY", "2026-11-19", "2026-11-20", "TOTAL")
    ]
    asked = ("cost", ("day",), "2026-11-19T00:00:00.000Z", None, "", None)
    assert mesh.calls == [("cost", ("model",), None, None, "", None, 9_999), asked]


@pytest.mark.parametrize(
    "words", [("stats-model",), ("export", "-"), ("cost", "--by", "model", "--most", "9999")]
)
def test_models_that_are_too_many_are_one_and_that_is_said(run, mesh, monkeypatch, words):
    asked = []

    def cost(by, *_, most=0, **__):
        asked.append((by, most))
        return Mesh().cost(by) | {"groups_more": 1_502 if most else 0}

    monkeypatch.setattr(mesh, "cost", cost)
    code, _, err = run(*words)
    assert (code, asked[0]) == (0, (("model",), 9_999))
    assert "the others are one group: (1502 more)\n" in err


@pytest.mark.parametrize("verb", ["stats-model", "stats-date"])
def test_statistics_are_printed_for_programs(run, mesh, verb):
    assert json.loads(run(verb, "-o", "json")[1])["sessions"] == 2
    assert "cost_usd: '1.25'" in run(verb, "-o", "yaml")[1]
    heading, *rows = run(verb, "-o", "csv")[1].splitlines()
    assert {"records", "sessions", "usage.input", "cost_usd"} <= set(heading.split(","))
    assert rows


def test_require_full_fails_when_somebody_is_missing(run, mesh):
    mesh.coverage = PARTIAL
    code, out, err = run("cost", "--require-full")
    assert (code, out) == (6, "")
    assert "1 of 2 nodes heard" in err


def test_of_no_node_at_all_nobody_was_heard(run, mesh):
    mesh.coverage = PARTIAL | {"nodes_known": 0, "nodes_heard": 0, "missing": []}
    code, out, err = run("cost", "--require-full")
    assert (code, out) == (6, "")
    assert "0 of 0 nodes heard" in err


# find


def test_find_shows_what_agents_tell_in_columns_of_their_own(run, mesh):
    told = {"load": "0.3", "cost_per_mtok_usd": "2.50", "team": "red"}
    mesh.agents = [
        agent("a", load=0.3, attributes=told),
        agent("b", load=None, attributes={}),
    ]
    code, out, _ = run("find", "docs")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["AGENT", "NODE", "SESSION", "LOAD", "USD/MTOK", "ATTRIBUTES"],
        ["a", "anna", "-", "0.3", "2.50", "team=red"],
        ["b", "anna", "-", "-"],
    ]
    assert run("find", "docs", "-q")[1] == "a\nb\n"
    mesh.more = 1_234
    assert run("find", "docs")[2] == "and 1,234 more that are not listed\n"


def test_find_wants_to_know_what_for(run, mesh):
    assert run("find", "") == (2, "", "error: name a specialization\n")
    assert mesh.calls == []


def agent(name, **fields):
    return {"agent_id": name, "node_name": "anna", "session_id": None, **fields}
