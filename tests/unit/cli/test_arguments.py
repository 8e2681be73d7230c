"""What words on the command line mean, through the very `main` that a shell calls."""

import json
import platform

import pytest
import yaml

from meshnode.node import version
from meshnode.store.database import VERSION as SCHEMA
from session_mesh.arguments.options import several
from session_mesh.dispatch import VERBS


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize("words", [["-o", "json", "list"], ["list", "--output", "json"]])
def test_global_options_stand_before_or_after_the_verb(run, words):
    code, out, _ = run(*words)
    assert code == 0
    assert json.loads(out)["sessions"][0]["agent_id"] == "builder"
    assert "session_epoch" not in out


@pytest.mark.usefixtures("mesh")
def test_what_stands_after_the_verb_wins(run):
    assert run("-o", "yaml", "list", "-o", "json")[1].startswith("{")


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize("number", [2**63, 10**40])
@pytest.mark.parametrize(
    "words",
    [
        ("logs", "builder", "--tail"),
        ("invite", "--uses"),
        ("list", "--limit"),
        ("steer-inbox", "--after"),
        ("report", "r1", "--model", "m", "--input"),
    ],
    ids=" ".join,
)
def test_a_number_that_nothing_can_hold_is_refused(run, words, number):
    code, _, err = run(*words, str(number))
    assert code == 2
    assert err.startswith("error: Invalid value for ")
    assert f"'{words[-1]}': a number is at most 9223372" in err


@pytest.mark.parametrize(
    "words",
    [
        ("find", "a,b"),
        ("list", "--spec", "a,b"),
        ("kill", "--all", "--spec", "a,b", "--yes"),
        ("steer", "--all", "--spec", "a,b", "--yes", "stop"),
        ("budget", "set", "n", "--limit", "1usd", "--per", "day", "--spec", "a,b"),
    ],
    ids=" ".join,
)
def test_where_one_specialization_is_meant_two_are_refused(run, mesh, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "one specialization has no comma in its name: 'a,b'" in err
    assert mesh.calls == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (None, ()),
        (["a"], ("a",)),
        (["a,b", "c"], ("a", "b", "c")),
        (["a, b", "b"], ("a", "b")),
        (["a,"], ("a", "")),
    ],
)
def test_an_option_for_several_is_repeated_or_has_commas(words, found):
    assert several(words) == found


def test_no_verb_shows_the_help_and_is_a_usage_error(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "Usage: session-mesh" in err


BENEATH = {  # of groups that do nothing by themselves
    "keys": ("keys", "new"),
    "receipt": ("receipt", "verify"),
    "prices": ("prices", "explain"),
    "operator": ("operator", "list"),
    "root": ("root", "list"),
    "orders": ("orders", "list"),
    "config": ("config", "check"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(run, capsys, verb):
    words = BENEATH.get(verb, (verb,))
    assert run(*words, "--help")[0] == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert "--home" in shown


def test_the_version_is_printed(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("session-mesh ")


def test_version_build_and_schema_are_printed_as_text_and_as_what_was_asked_for(run, monkeypatch):
    monkeypatch.setattr(version, "BUILD", "0011aabb")
    python = platform.python_version()
    told = f"build 0011aabb, schema {SCHEMA}, Python {python}"
    assert run("version") == (0, f"session-mesh {version.VERSION} ({told})\n", "")
    expected = {"version": version.VERSION, "build": "0011aabb", "schema": SCHEMA, "python": python}
    for words in (
        ("version", "-o", "json"),
        ("-o", "json", "--version"),
        ("version", "-qo", "json"),
    ):
        code, out, err = run(*words)
        assert (code, json.loads(out), err) == (0, expected, "")
    assert yaml.safe_load(run("version", "-o", "yaml")[1]) == expected
    assert run("version", "-o", "csv")[1].splitlines()[0] == ",".join(expected)


@pytest.mark.parametrize(
    "words",
    [
        ["lst"],
        ["list", "--filter", "dead"],
        ["list", "--limit", "0"],
        ["list", "--nope"],
        ["list", "-o", "xml"],
        ["list", "--label", "nope"],
        ["cost", "--by", "modl"],
        ["cost", "--tz", "Nowhere/Never"],
        ["cost", "--since", "soon"],
        ["cost", "--since", "7d", "--days", "7"],
        ["cost", "--since", "1d", "--until", "2d"],
        ["cost", "--days", "0"],
        ["stats-date", "--days", "-1"],
        ["stats-date", "--tz", "Nowhere/Never"],
        ["stats-model", "m"],
        ["find"],
        ["show"],
        ["show", "a", "--agent-id", "b"],
        ["steer", "a"],
        ["steer", "a", "b", "c"],
        ["steer", "--agent-id", "a", "b", "c"],
        ["steer", "a", "b", "--message", "c"],
        ["steer", "a", "b", "--timeout", "x"],
        ["steer", "a", "b", "--mode", "hard"],
        ["steer", "a", "b", "--spec", "s"],
        ["steer", "--all", "b", "--command-id", "x"],
        ["kill", "a"],
        ["kill", "--yes"],
        ["kill", "--all", "a", "--yes"],
        ["kill", "a", "--spec", "s", "--yes"],
        ["kill", "a", "b", "--command-id", "c", "--yes"],
        ["register", "--spec", "s"],
        ["register", "--agent-id", "a"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_a_usage_error_and_does_nothing(run, mesh, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert not {asked[0] for asked in mesh.calls} & {"steer", "kill", "register"}


def test_a_misspelt_verb_is_corrected(run):
    assert "Did you mean 'list'?" in run("lst")[2]


def test_a_choice_that_was_not_made_is_offered_in_one_line(run):
    code, _, err = run("budget", "set", "team", "--limit", "1usd")
    assert code == 2
    assert "Missing option '--per'. Choose from: hour, day, month\n" in err


@pytest.mark.parametrize("words", [["list", "--nope", "-o", "json"], ["-ojson", "lst"]])
def test_usage_errors_are_json_when_json_was_asked_for(run, words):
    code, _, err = run(*words)
    assert code == 2
    assert json.loads(err)["error"]["code"] == "usage"


@pytest.mark.usefixtures("mesh")
def test_what_follows_two_dashes_is_not_ours(run):
    code, _, err = run("list", "--nope", "--", "-o", "json")
    assert code == 2
    assert err.startswith("error: ")


def test_without_a_node_the_exit_code_is_6_and_the_hint_helps(run, mesh):
    mesh.missing = True
    code, out, err = run("status")
    assert (code, out) == (6, "")
    assert "hint: start one: session-mesh up --detach" in err


def test_a_node_that_does_not_answer_is_not_said_to_be_absent(run, mesh):
    mesh.silent = True
    code, out, err = run("status")
    assert (code, out) == (6, "")
    assert "the node (pid 7) does not answer" in err
    assert "hint: session-mesh doctor says why" in err


def test_an_internal_error_is_one_sentence(run, mesh):
    mesh.outcomes = [ZeroDivisionError("oops")]
    code, _, err = run("steer", "a", "b")
    assert code == 1
    assert err.count("\n") == 2
    assert "internal error: ZeroDivisionError: oops" in err
    assert "please report" in err


def test_verbose_shows_the_traceback_of_an_internal_error(run, mesh):
    mesh.outcomes = [ZeroDivisionError("oops")]
    assert "Traceback" in run("steer", "a", "b", "--verbose")[2]


# homes without a mesh


def test_an_interrupt_is_130(run, mesh):
    mesh.outcomes = [KeyboardInterrupt()]
    assert run("steer", "a", "b")[0] == 130


def test_join_without_an_invite_says_where_it_may_come_from(run):
    code, _, err = run("join")
    assert code == 2
    assert "SESSION_MESH_INVITE" in err


def test_a_home_that_has_no_role_makes_no_keys(run):
    code, _, err = run("keys", "new")
    assert code == 4
    assert "it lists sessions and costs, but neither commands nor reads logs" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("invite", "--uses", "x"), "'--uses': it should be a whole number\n"),
        (("invite", "--uses", "0"), "'--uses': it should be at least 1\n"),
        (("list", "--limit", "1.5"), "'--limit': it should be a whole number\n"),
        (("run", "--agent-id", "a/b", "--", "true"), "an agent id has no slash: 'a/b'\n"),
        (("init", "--name", "a/b"), "use letters, digits, dots, dashes and underscores"),
    ],
)
def test_what_is_allowed_is_said_in_plain_words(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
