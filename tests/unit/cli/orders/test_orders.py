"""What `steer`, `kill` and `register` order of the mesh, and how they end."""

import json

import pytest
from unit.cli.doubles import PARTIAL, SESSION, outcome

from meshnode.client.commands import fanning, standing
from meshnode.client.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from meshnode.client.targets.targets import Delivery, Selection, Target
from session_mesh.call import Call


@pytest.fixture
def in_turn(monkeypatch):
    """Act on one target after the other, so that scripted answers meet theirs."""
    whole = fanning.fan_out
    monkeypatch.setattr(fanning, "fan_out", lambda *given: whole(*given, at_once=1))


# steer


@pytest.mark.parametrize(
    ("words", "target", "said"),
    [
        (["a", "hello"], Target("a"), ("hello", "")),
        (["a", "--message", "hello"], Target("a"), ("hello", "")),
        (["--agent-id", "123", "--direction", "west"], Target(agent_id="123"), ("", "west")),
        (["--agent-id", "a", "hello"], Target(agent_id="a"), ("hello", "")),
        (["--session", "s", "hello"], Target(session_id="s"), ("hello", "")),
        (["a", "-", "--node", "n"], Target("a", node="n"), ("from stdin", "")),
        (["--agent-id", "a", "-"], Target(agent_id="a"), ("from stdin", "")),
        (["a", "--", "-x"], Target("a"), ("-x", "")),
    ],
)
def test_every_form_of_steer_names_the_same_things(run, mesh, words, target, said):
    code, out, _ = run("steer", *words, stdin="from stdin\n")
    assert (code, out) == (0, "delivered\n")
    ((verb, aimed, options),) = mesh.calls
    assert (verb, aimed) == ("steer", target)
    assert (options["message"], options["direction"]) == said
    assert options["delivery"] == Delivery(10, "")


@pytest.mark.parametrize(
    ("became", "code"),
    [
        ("applied", 0),
        ("delivered", 0),
        ("queued", 0),
        ("accepted", 0),
        ("refused", 8),
        ("failed", 1),
        ("indeterminate", 1),
        ("expired", 6),
    ],
)
def test_outcomes_have_the_exit_codes_of_the_contract(run, mesh, became, code):
    mesh.outcomes = [outcome(outcome=became)]
    assert run("steer", "a", "b")[0] == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("none"), 3),
        (UnreachableError("away"), 6),
        (ConflictError("two"), 7),
        (RefusedError("no"), 8),
    ],
)
def test_errors_have_the_exit_codes_of_the_contract(run, mesh, error, code):
    mesh.outcomes = [error]
    got, _, err = run("steer", "a", "b", "-o", "json")
    assert got == code
    assert json.loads(err)["error"]["code"] == error.code


# kill


def test_steer_to_all_tells_each_and_ends_with_the_worst(run, mesh, in_turn):
    mesh.sessions = [SESSION | {"session_id": one} for one in "abc"]
    mesh.outcomes = [outcome(), UnreachableError("away", "wait"), outcome(outcome="refused")]
    code, out, _ = run("steer", "--all", "--spec", "s", "hello", "-o", "json")
    value = json.loads(out)
    assert code == 8
    assert mesh.calls[0] == ("list", Selection(specialization="s", sort="created"), None)
    assert [one["outcome"] for one in value["results"]] == ["delivered", "unreachable", "refused"]
    counts = {"delivered": 1, "unreachable": 1, "refused": 1}
    assert value["summary"] == {"targets": 3, **counts, "started_meanwhile": []}
    assert value["coverage"]["nodes_heard"] == 2


def test_kill_off_a_terminal_needs_a_word(run, mesh):
    code, _, err = run("kill", "a")
    assert code == 2
    assert "--yes or --force" in err
    assert run("kill", "a", "--yes")[0] == 0
    assert run("kill", "--agent-id", "456", "--force")[0] == 0
    assert [(asked[1], asked[2]["force"]) for asked in mesh.calls] == [
        (Target("a"), False),
        (Target(agent_id="456"), True),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("a", "--agent-id", "b"),
        ("a", "--session", "b"),
        ("--session", "a", "--agent-id", "b"),
    ],
)
def test_kill_takes_no_option_for_one_more_where_elsewhere_it_stands_instead(run, mesh, words):
    code, _, err = run("kill", *words, "--force")
    assert (code, mesh.calls) == (2, [])
    assert "give one kind" in err
    assert run("kill", "--agent-id", "a", "--agent-id", "b", "--force")[0] == 0


@pytest.mark.parametrize(("answer", "killed"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_kill_asks_on_a_terminal(run, mesh, monkeypatch, answer, killed):
    monkeypatch.setattr(Call, "can_ask", True)
    code, _, err = run("kill", "a", stdin=answer)
    assert "kill anna/builder? [y/N]" in err
    assert code == (0 if killed else 1)
    aimed = [asked[1] for asked in mesh.calls if asked[0] == "kill"]
    assert aimed == ([SESSION] if killed else [])


def test_kill_of_several_ends_with_the_worst(run, mesh, in_turn):
    mesh.outcomes = [outcome(outcome="applied"), NotFoundError("no such session")]
    code, out, _ = run("kill", "a", "b", "--yes", "--grace", "9s", "-o", "json")
    assert code == 3
    assert [one["target"] for one in json.loads(out)["results"]] == ["a", "b"]
    assert [asked[2]["grace_s"] for asked in mesh.calls if asked[0] == "kill"] == [9, 9]


def test_of_several_that_were_named_agent_and_node_are_told(run, mesh, in_turn, monkeypatch):
    def resolve(target):
        if str(target) == "nobody":
            raise NotFoundError("no such session")
        return SESSION | {"agent_id": str(target)}

    monkeypatch.setattr(mesh, "resolve", resolve)
    mesh.outcomes = [outcome(outcome="applied", node_id="a" * 52), UnreachableError("away")]
    code, out, _ = run("kill", "one", "two", "nobody", "--yes")
    rows = [line.split() for line in out.splitlines()]
    assert code == 6
    assert rows[1] == ["s", "one", "anna", "applied"]
    assert rows[2][1:4] == ["two", "anna", "unreachable"]
    assert rows[3][:2] == ["nobody", "not_found"]


def test_a_dry_run_only_shows_who_is_meant(run, mesh):
    code, out, _ = run("kill", "--all", "--dry-run", "-q")
    assert (code, out) == (0, SESSION["session_id"] + "\n")
    assert not [asked for asked in mesh.calls if asked[0] == "kill"]


def test_a_question_about_many_lists_them_first(run, mesh, monkeypatch):
    monkeypatch.setattr(Call, "can_ask", True)
    mesh.sessions = [SESSION | {"session_id": f"{n:026d}"} for n in range(12)]
    mesh.coverage = PARTIAL
    for verb in ("kill", "steer"):
        code, _, err = run(verb, "--all", *(["stop"] if verb == "steer" else []), stdin="n\n")
        assert (code, err.count("anna/builder")) == (1, 12)
        assert f"{verb} these 12 sessions? [y/N]" in err
        assert "1 of 2 nodes heard; missing: berta" in err
    assert {asked[0] for asked in mesh.calls} == {"list"}


def test_steer_to_all_goes_ahead_where_nobody_can_be_asked(run, mesh, monkeypatch):
    assert run("steer", "--all", "stop")[0] == 0
    monkeypatch.setattr(Call, "can_ask", True)
    assert run("steer", "--all", "stop", "--yes")[0] == 0
    assert [asked[1] for asked in mesh.calls if asked[0] == "steer"] == [SESSION, SESSION]


def test_what_has_ended_is_not_meant_and_what_cannot_be_reached_is(run, mesh):
    mesh.sessions = [
        SESSION | {"phase": "CLOSED"},
        SESSION | {"session_id": "away", "state": "unreachable", "phase": "RECONNECT"},
    ]
    run("kill", "--all", "--yes")
    assert [asked[1]["session_id"] for asked in mesh.calls if asked[0] == "kill"] == ["away"]


def test_what_started_meanwhile_is_said(run, mesh):
    late = SESSION | {"session_id": "l" * 26, "agent_id": "late"}
    mesh.after_orders = lambda: mesh.sessions.append(late)
    code, _, err = run("kill", "--all", "--yes")
    assert code == 0
    assert "started meanwhile, and not meant: anna/late; run it again" in err
    mesh.sessions = [SESSION]
    value = json.loads(run("kill", "--all", "--yes", "-o", "json")[1])
    assert value["summary"]["started_meanwhile"] == ["l" * 26]


def test_nobody_to_kill_is_no_error(run, mesh):
    mesh.sessions = []
    assert run("kill", "--all", "--yes") == (0, "", "nothing to kill\n")


@pytest.mark.parametrize(
    "words",
    [
        ["a", "--yes", "--expires", "1h"],
        ["a", "--yes", "--standing", "--expires", "8d"],
        ["a", "--yes", "--standing", "--expires", "0"],
        ["a", "--yes", "--standing", "--command-id", "c"],
        ["a", "b", "--yes", "--command-id", "c"],
        ["--all", "--yes", "--command-id", "c"],
        ["--all", "a", "--yes"],
        ["a", "--spec", "s", "--yes"],
    ],
)
def test_kill_refuses_what_makes_no_sense(run, mesh, words):
    code, _, err = run("kill", *words)
    assert (code, mesh.calls) == (2, [])
    assert err.startswith("error: ")


# close, suspend, resume


def test_close_gives_the_agent_time(run, mesh):
    mesh.outcomes = [outcome(outcome="applied", detail="1 process is gone")]
    assert run("close", "a", "--grace", "1m") == (0, "applied: 1 process is gone\n", "")
    assert mesh.calls == [("close", Target("a"), {"grace_s": 60, "delivery": Delivery(10, "")})]


@pytest.mark.parametrize("verb", ["suspend", "resume"])
@pytest.mark.parametrize(
    ("words", "target"),
    [
        (["berta/a"], Target("berta/a")),
        (["--agent-id", "7", "--node", "n"], Target(agent_id="7", node="n")),
        (["--session", "s"], Target(session_id="s")),
    ],
)
def test_suspend_and_resume_take_every_form_of_a_target(run, mesh, verb, words, target):
    code, out, _ = run(verb, *words, "-o", "json")
    assert (code, json.loads(out)["outcome"]) == (0, "delivered")
    assert mesh.calls == [(verb, target, Delivery(10, ""))]
    assert run(verb)[0] == 2
    mesh.outcomes = [outcome(outcome="refused", detail="it is being killed")]
    assert run(verb, "a")[0] == 8


# register


def test_survivors_are_told(run, mesh):
    processes = {"found": 3, "gone": 2, "survivors": [77]}
    mesh.outcomes = [outcome(outcome="failed", detail="one is stuck", processes=processes)]
    code, out, _ = run("kill", "a", "--force")
    assert code == 1
    assert out == "failed: one is stuck (still there: 77)\n"


def test_register_takes_flags(run, mesh):
    assert run("register", "--spec", "data", "--agent-id", "789", "--attr", "load=0.3")[0] == 0
    assert mesh.calls == [("register", "789", "data", {"load": "0.3"}, Delivery(10, ""))]


@pytest.mark.parametrize(
    "text",
    [
        "spec: data\nagent_id: 007\nattributes: {load: 0.3}\n",
        "- {specialization: data, agent_id: 007, attributes: {load: 0.3}}\n",
    ],
)
def test_register_takes_a_file_as_it_is_written(run, mesh, tmp_path, text):
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    assert run("register", "-f", str(path))[0] == 0
    assert run("register", "-f", "-", stdin=text)[0] == 0
    assert [asked[1:4] for asked in mesh.calls] == [("007", "data", {"load": "0.3"})] * 2


def test_the_seeds_file_names_only_the_specialization(run, mesh, tmp_path):
    path = tmp_path / "agents.yaml"
    path.write_text("spec: [data-analysis, review]\n")
    code, out, _ = run("register", "-f", str(path), "--agent-id", "789", "-o", "json")
    assert code == 0
    assert [asked[1:3] for asked in mesh.calls] == [("789", "data-analysis"), ("789", "review")]
    assert len(json.loads(out)["results"]) == 2


@pytest.mark.usefixtures("mesh")
def test_a_misspelt_key_of_the_file_is_named(run, tmp_path):
    path = tmp_path / "agents.yaml"
    path.write_text("spec: a\nagent: b\n")
    code, _, err = run("register", "-f", str(path))
    assert code == 2
    assert 'agents.yaml:2: unknown key "agent" (did you mean "agent_id"?)' in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {spec: a, agent_id: b}\n- {spec: a}\n", "agents.yaml:2: entry 2: without an agent_id"),
        ("- {spec: a, agent_id: b}\n- {agent_id: b}\n", "agents.yaml:2: entry 2: without a spec"),
        ("spec: a\nagent_id: b\nattributes: {load: 2}\n", "agents.yaml:1: entry 1: load is '2'"),
        (
            "spec: a\nspecialization: b\nagent_id: c\n",
            "agents.yaml:2: both spec and specialization, which are one key",
        ),
        ("[]\n", "agents.yaml:1: no entry in it"),
        ("", "agents.yaml:1: entry 1: without a spec"),
    ],
)
def test_of_a_file_with_a_wrong_entry_nothing_is_registered(run, mesh, tmp_path, text, said):
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    code, _, err = run("register", "-f", str(path))
    assert (code, mesh.calls) == (2, [])
    assert said in err


# unregister


def test_unregister_names_one_entry(run, mesh):
    assert run("unregister", "--spec", "data", "--agent-id", "789")[0] == 0
    assert mesh.calls == [("unregister", "789", "data", Delivery(10, ""))]
    assert run("unregister", "--spec", "data")[0] == 2


def test_what_nobody_registered_is_not_found(run, mesh):
    mesh.outcomes = [outcome(outcome="unknown", detail="789 is not registered for data")]
    code, out, _ = run("unregister", "--spec", "data", "--agent-id", "789")
    assert (code, out) == (3, "unknown: 789 is not registered for data\n")


def test_an_order_for_what_nobody_heard_of_says_what_it_means(run, mesh, monkeypatch):
    mesh.coverage = PARTIAL
    mesh.node_id_of = lambda name: name * 10
    monkeypatch.setattr(standing, "kill_or_park", lambda *_: outcome(outcome="parked"))
    monkeypatch.setattr(standing, "park_for", lambda *_: {"order_id": "zsnz6mebaxvlgwjd"})
    words = ("kill", "--all", "--standing", "--yes", "--spec", "docs")
    assert run(*words)[2].splitlines()[-1] == (
        "order zsnz6mebax waits for sessions that were not heard of (spec docs, started by now)"
    )
    assert "(spec docs on berta, started by now)" in run(*words, "--node", "berta")[2]


def test_who_interrupts_a_kill_leaves_no_order_for_what_nobody_heard_of(run, mesh, monkeypatch):
    def cut_short(targets, *_):
        known = {"target": "s", "session_id": "s", "detail": "", "exit_code": 130}
        raise fanning.CutShortError([known | {"outcome": "not_ordered"} for _ in targets])

    mesh.coverage = PARTIAL
    monkeypatch.setattr(fanning, "fan_out", cut_short)
    monkeypatch.setattr(standing, "park_for", lambda *_: pytest.fail("an order was left"))
    code, out, _ = run("kill", "--all", "--standing", "--yes", "--spec", "docs", "-o", "json")
    assert (code, json.loads(out)["summary"]["not_ordered"]) == (130, 1)
