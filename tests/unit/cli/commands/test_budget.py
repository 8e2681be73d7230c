"""`budget`: what it asks for, how budgets read, and what it says where something is missing."""

import csv
import io
import json

import pytest
from unit.cli.doubles import FULL, PARTIAL

from meshnode.client.commands import budgets
from meshnode.core.ledger.budgets import budget_of

TEAM = {
    "budget_id": "b" * 52,
    "name": "team",
    "limit": "20usd",
    "per": "day",
    "then": "suspend",
    "warn_percent": 80,
    "owner": "olga",
    "agent_id": None,
    "specialization": None,
    "project": None,
    "spent_usd": "19.5",
    "spent_tokens": 4_000,
    "percent": 97,
    "window_start": "2026-11-20T00:00:00Z",
    "window_end": "2026-11-21T00:00:00Z",
    "state": "warned",
    "reason": "97% is spent",
    "nodes_heard": 2,
    "nodes_known": 2,
    "unpriced": {},
    "unpriced_more": 0,
    "unpriced_more_tokens": 0,
    "held": [],
    "held_more": 0,
    "issuer": "k",
    "issued_at": "2026-11-20T00:00:00Z",
    "by_admin": True,
}
HELD = [{"node_name": "anna", "agent_id": f"agent-{number}"} for number in range(5)]
SET = ("budget", "set", "team", "--limit", "20usd", "--per", "day")


@pytest.fixture
def kept(mesh, monkeypatch):
    """What is set and removed, and what is listed."""
    kept = {"budgets": [TEAM], "set": [], "removed": [], "ahead": [], "stands": {}}

    def set_budget(_, said):
        budget_of(said)  # as the client does: raises UsageError
        kept["set"].append(said)
        said_now = {"then": said["then"], "limit": said["limit"], "per": said["per"]}
        return TEAM | {"left_held": [], "left_held_more": 0} | said_now | kept["stands"]

    def remove_budget(_, name):
        kept["removed"].append(name)
        return TEAM | kept["stands"]

    listed = {
        "budgets": lambda: kept["budgets"],
        "coverage": lambda: mesh.coverage,
        "ahead": lambda: kept["ahead"],
    }
    monkeypatch.setattr(budgets, "budgets", lambda _: {name: ask() for name, ask in listed.items()})
    monkeypatch.setattr(budgets, "set_budget", set_budget)
    monkeypatch.setattr(budgets, "remove_budget", remove_budget)
    return kept


@pytest.mark.parametrize("verb", [("budget",), ("budget", "list")])
def test_budgets_are_listed_with_what_is_spent(run, kept, verb):
    code, out, err = run(*verb)
    assert (code, err) == (0, "")
    heads, row = out.splitlines()
    assert heads.split() == [
        *("BUDGET", "FOR", "SPENT", "LIMIT", "%", "STATE", "THEN", "ENDS", "HEARD", "HELD"),
    ]
    assert " owner olga  $19.5000  20usd  97%  warned " in row
    assert "2026-11-21 00:00Z  2/2    -" in row
    assert json.loads(run(*verb, "-o", "json")[1])["budgets"] == [TEAM]
    assert run(*verb, "-q") == (0, "team\n", "")


def test_quiet_leaves_out_what_has_no_price(run, kept):
    kept["budgets"] = [TEAM | {"unpriced": {"no-such": 7}}]
    assert "no price known for no-such" in run("budget", "list")[2]
    assert run("budget", "list", "-q") == (0, "team\n", "")


def test_columns_of_a_csv_do_not_depend_on_models(run, kept):
    plain = run("budget", "list", "-o", "csv")[1].splitlines()[0]
    kept["budgets"] = [TEAM | {"unpriced": {"no-such": 7, "nor-such": 1}}]
    names, row = csv.reader(io.StringIO(run("budget", "list", "-o", "csv")[1]))
    assert ",".join(names) == plain
    assert row[names.index("unpriced")] == '{"no-such": 7, "nor-such": 1}'


def test_what_a_clock_that_was_ahead_has_set_is_said(run, kept):
    one = {"name": "crawl", "issuer": "f" * 16, "issued_at": "2027-12-25", "removes": False}
    kept["ahead"] = [one | {"name": f"crawl{number}"} for number in range(10)]
    _, _, told = run("budget")
    assert "crawl0 does not count before 2027-12-25" in told
    assert "set it by a clock that was ahead" in told
    assert "and 2 more" in told


def test_no_budget_is_said_so(run, kept):
    kept["budgets"] = []
    assert run("budget") == (0, "", "no budget is set\n")


def test_tokens_are_counted_where_the_limit_is_in_tokens(run, kept):
    kept["budgets"] = [TEAM | {"spent_usd": None, "limit": "5Mtok", "unpriced": {"m": 9}}]
    _, out, err = run("budget")
    assert (" 4,000  5Mtok" in out, err) == (True, "")


def test_what_has_no_price_and_who_is_missing_is_said(run, kept, mesh):
    kept["budgets"] = [TEAM | {"unpriced": {"m": 9}}]
    mesh.coverage = PARTIAL
    _, _, err = run("budget")
    assert "no price known for m: 9 tokens are not in budget team\n" in err
    assert "berta" in err
    mesh.coverage = FULL
    assert "berta" not in run("budget")[2]


def test_of_many_models_without_a_price_those_with_most_tokens_are_named(run, kept):
    unpriced = {f"m{number:02}": number for number in range(1, 16)}
    more = {"unpriced_more": 20, "unpriced_more_tokens": 1_000}
    kept["budgets"] = [TEAM | more | {"unpriced": unpriced}]
    _, _, err = run("budget")
    assert [f"known for {model}:" in err for model in unpriced] == [False] * 5 + [True] * 10
    assert "nor for 25 more models: 1,015 tokens of budget team\n" in err


def test_who_is_held_is_named_and_how_they_go_on(run, kept):
    kept["budgets"] = [TEAM | {"held": HELD}]
    _, out, err = run("budget")
    assert "anna/agent-0, anna/agent-1, anna/agent-2, and 2 more" in out
    assert err == "who is held runs on with: session-mesh resume ID\n"


def test_what_is_set_is_asked_for_and_read_back(run, kept):
    code, out, _ = run(*SET, "--owner", "olga", "--warn", "50%", "--then", "kill")
    assert (code, out) == (
        0,
        "budget team: 20usd a day for owner olga, then kill; 97% is spent\n",
    )
    [said] = kept["set"]
    assert {name: word for name, word in said.items() if word} == {
        "name": "team",
        "limit": "20usd",
        "per": "day",
        "then": "kill",
        "warn": "50%",
        "owner": "olga",
    }
    assert "20usd an hour for" in run(*SET[:-1], "hour")[1]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("0usd", "allows nothing"),
        ("0tok", "allows nothing"),
        ("0.5tok", "whole multiples of 1tok"),
        ("99999999999999usd", "more than can be counted"),
        ("20", "not a limit: '20'"),
        ("-1usd", "not a limit"),
        ("1e9usd", "not a limit"),
        ("20eur", "not a limit: '20eur'"),
    ],
)
def test_a_limit_that_is_none_is_told_why(run, kept, limit, words):
    code, out, err = run("budget", "set", "team", f"--limit={limit}", "--per", "day")
    assert (code, out, kept["set"]) == (2, "", [])
    assert words in err
    assert "hint: " in err


@pytest.mark.parametrize(
    ("name", "words"), [("", "a budget needs a name"), ("n" * 500, "no budget can be 'nnn")]
)
def test_a_name_that_is_none_is_told_with_a_hint(run, kept, name, words):
    code, _, err = run("budget", "set", name, "--limit", "1usd", "--per", "day")
    assert (code, kept["set"]) == (2, [])
    assert words in err
    assert "hint: session-mesh budget set" in err


@pytest.mark.parametrize(
    "words",
    [
        ("budget", "set", "team", "--limit", "20usd"),
        ("budget", "set", "team", "--per", "day"),
        ("budget", "set", "team", "--limit", "20usd", "--per", "week"),
        (*SET, "--then", "warn"),
        (*SET, "--warn", "0%"),
        (*SET, "--warn", "101%"),
        ("budget", "remove"),
    ],
)
def test_what_is_incomplete_or_unknown_changes_nothing(run, kept, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err
    assert (kept["set"], kept["removed"]) == ([], [])


def test_removing_asks_on_a_terminal_and_needs_yes_elsewhere(run, kept):
    code, _, err = run("budget", "remove", "team")
    assert (code, kept["removed"]) == (2, [])
    assert "--yes" in err
    assert run("budget", "remove", "team", "--yes") == (0, "removed: team\n", "")
    assert kept["removed"] == ["team"]


def test_who_sets_a_budget_that_is_exceeded_hears_what_follows(run, kept):
    kept["stands"] = {"state": "exceeded"}
    code, _, err = run(*SET)
    assert code == 0
    assert "it is exceeded: who spends from it is suspended now" in err
    _, _, err = run(*SET, "--then", "kill")
    assert "is killed now" in err
    kept["stands"] |= {"nodes_heard": 1}  # nobody is killed for what may not be so
    _, _, err = run(*SET, "--then", "kill")
    assert "is suspended now" in err


def test_whom_a_budget_leaves_suspended_is_named_when_it_is_set_anew_or_removed(run, kept):
    kept["stands"] = {"left_held": HELD[:1]}
    assert "by budget team stays so until resumed" in run(*SET)[2]
    kept["stands"] = {"held": HELD, "held_more": 2}
    _, _, err = run("budget", "remove", "team", "--yes")
    assert "anna/agent-0, anna/agent-1, anna/agent-2, and 4 more" in err
