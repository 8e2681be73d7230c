"""What words on the command line mean, through the very `main` that a shell calls."""

import io
import json
import sys
from dataclasses import dataclass, field

import pytest

from meshnode.client.errors import (
    ConflictError,
    NoNodeError,
    NotFoundError,
    RefusedError,
    SilentNodeError,
    UnreachableError,
)
from meshnode.client.targets import Delivery, Selection, Target
from session_mesh import call
from session_mesh.call import Call
from session_mesh.main import VERBS, main
from session_mesh.render import Streams

NOW_S = 1_795_132_800.0
FULL = {"nodes_known": 2, "nodes_heard": 2, "oldest_s": None, "missing": [], "missing_more": 0}
PARTIAL = FULL | {
    "nodes_heard": 1,
    "missing": [{"node_name": "berta", "state": "unreachable", "observed_at": "T"}],
}
BUCKETS = dict.fromkeys(
    ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "total"), 0
)
SESSION = {
    "session_id": "abcdefghijklmnopqrstuvwxyz",
    "agent_id": "builder",
    "title": None,
    "node_id": "a" * 52,
    "node_name": "anna",
    "state": "running",
    "specializations": [],
    "usage": BUCKETS,
    "cost_usd": None,
    "last_activity": "2026-11-20T00:00:00Z",
    "session_epoch": 5,
}


def outcome(**changes):
    return {
        "command_id": "c",
        "session_id": "s",
        "node_id": "n",
        "outcome": "delivered",
        "at": "T",
        "detail": "",
        "receipt": "",
        "receipt_verified": True,
    } | changes


@dataclass
class Mesh:
    """Remembers what it was asked; answers are given or simple."""

    calls: list[tuple] = field(default_factory=list)
    sessions: list[dict] = field(default_factory=lambda: [SESSION])
    outcomes: list[dict | BaseException] = field(default_factory=list)
    coverage: dict = field(default_factory=lambda: FULL)
    missing: bool = False
    silent: bool = False
    members: list[dict] = field(default_factory=list)

    def __enter__(self):
        if self.missing:
            raise NoNodeError
        if self.silent:
            raise SilentNodeError("7")
        return self

    def __exit__(self, *_):
        pass

    def list_sessions(self, selection=None, limit=None):
        self.calls.append(("list", selection, limit))
        return {"sessions": self.sessions, "coverage": self.coverage}

    def nodes(self, labels=None):
        self.calls.append(("nodes", labels))
        return {"nodes": self.members, "coverage": self.coverage}

    def resolve(self, target):
        self.calls.append(("resolve", target))
        return SESSION

    def cost(self, by=(), since=None, until=None, tz=""):
        self.calls.append(("cost", by, since, until, tz))
        return {
            "totals": BUCKETS,
            "cost_usd": "1.25",
            "groups": [{"key": {"model": "m"}, "usage": BUCKETS, "cost_usd": None}],
            "unpriced": [{"model": "m", "records": 1, "total": 9}],
            "coverage": self.coverage,
        }

    def steer(self, target, **options):
        return self._answer("steer", target, options)

    def kill(self, target, **options):
        return self._answer("kill", target, options)

    def register(self, *entry):
        named = {"agent_id": entry[0], "specialization": entry[1]}
        return named | self._answer("register", *entry)

    def _answer(self, *asked):
        self.calls.append(asked)
        answer = self.outcomes.pop(0) if self.outcomes else outcome()
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def mesh(monkeypatch) -> Mesh:
    fake = Mesh()
    monkeypatch.setattr(Call, "mesh", lambda _: fake)
    monkeypatch.setattr(call, "wall_s", lambda: NOW_S)
    return fake


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("SESSION_MESH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SESSION_MESH_INVITE", raising=False)

    def run(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        streams = Streams(io.StringIO(), io.StringIO())
        code = main(words, streams)
        return code, streams.out.getvalue(), streams.err.getvalue()

    return run


# everywhere


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


def test_no_verb_shows_the_help_and_is_a_usage_error(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "Usage: session-mesh" in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(run, capsys, verb):
    words = ("keys", "new") if verb == "keys" else (verb,)
    assert run(*words, "--help")[0] == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert "--home" in shown


def test_the_version_is_printed(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("session-mesh ")


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
    assert "anna/" not in run("list")[1]


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


def test_an_interrupt_is_130(run, mesh):
    mesh.outcomes = [KeyboardInterrupt()]
    assert run("steer", "a", "b")[0] == 130


# list and cost


def test_list_selects_and_limits(run, mesh):
    code, out, _ = run(
        *("list", "--filter", "alive", "--node", "n", "--spec", "s", "--owner", "o"),
        *("--agent-id", "0123", "--label", "a=b", "--label", "c=d=e", "--sort", "cost"),
        *("--limit", "5", "-q"),
    )
    labels = {"a": "b", "c": "d=e"}
    assert code == 0
    assert out == SESSION["session_id"] + "\n"
    assert mesh.calls == [("list", Selection("alive", "n", "s", "o", "0123", labels, "cost"), 5)]


def test_partial_coverage_is_said_on_stderr(run, mesh):
    mesh.coverage = PARTIAL
    assert "1 of 2 nodes heard; missing: berta (unreachable since T)" in run("list")[2]
    assert run("list", "-o", "json")[2] == ""


def test_cost_groups_and_cuts_days(run, mesh):
    code, out, err = run("cost", "--by", "model", "--by", "day", "--days", "2", "--tz", "UTC")
    assert code == 0
    assert mesh.calls == [("cost", ("model", "day"), "2026-11-19T00:00:00.000Z", None, "UTC")]
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


def test_require_full_fails_when_somebody_is_missing(run, mesh):
    mesh.coverage = PARTIAL
    code, out, err = run("cost", "--require-full")
    assert (code, out) == (6, "")
    assert "1 of 2 nodes heard" in err


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


def test_steer_to_all_tells_each_and_ends_with_the_worst(run, mesh):
    mesh.sessions = [SESSION | {"session_id": one} for one in "abc"]
    mesh.outcomes = [outcome(), UnreachableError("away", "wait"), outcome(outcome="refused")]
    code, out, _ = run("steer", "--all", "--spec", "s", "hello", "-o", "json")
    value = json.loads(out)
    assert code == 8
    assert mesh.calls[0] == ("list", Selection("alive", specialization="s"), None)
    assert [one["outcome"] for one in value["results"]] == ["delivered", "unreachable", "refused"]
    assert value["summary"] == {"targets": 3, "delivered": 1, "unreachable": 1, "refused": 1}


# kill


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


@pytest.mark.parametrize(("answer", "killed"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_kill_asks_on_a_terminal(run, mesh, monkeypatch, answer, killed):
    monkeypatch.setattr(Call, "can_ask", True)
    code, _, err = run("kill", "a", stdin=answer)
    assert "kill anna/builder? [y/N]" in err
    assert code == (0 if killed else 1)
    aimed = [asked[1] for asked in mesh.calls if asked[0] == "kill"]
    assert aimed == ([Target(session_id=SESSION["session_id"])] if killed else [])


def test_kill_of_several_ends_with_the_worst(run, mesh):
    mesh.outcomes = [outcome(outcome="applied"), NotFoundError("no such session")]
    code, out, _ = run("kill", "a", "b", "--yes", "--grace", "9s", "-o", "json")
    assert code == 3
    assert [one["target"] for one in json.loads(out)["results"]] == ["a", "b"]
    assert mesh.calls[0][2]["grace_s"] == 9


def test_a_dry_run_only_shows_who_is_meant(run, mesh):
    code, out, _ = run("kill", "--all", "--dry-run", "-q")
    assert (code, out) == (0, SESSION["session_id"] + "\n")
    assert not [asked for asked in mesh.calls if asked[0] == "kill"]


def test_survivors_are_told(run, mesh):
    processes = {"found": 3, "gone": 2, "survivors": [77]}
    mesh.outcomes = [outcome(outcome="failed", detail="one is stuck", processes=processes)]
    code, out, _ = run("kill", "a", "--force")
    assert code == 1
    assert out == "failed: one is stuck (still there: 77)\n"


# register


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
    assert mesh.calls[0][1:4] == ("007", "data", {"load": "0.3"})


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


# join


def test_join_without_an_invite_says_where_it_may_come_from(run):
    code, _, err = run("join")
    assert code == 2
    assert "SESSION_MESH_INVITE" in err


# keys


def test_a_home_that_has_no_role_makes_no_keys(run):
    code, _, err = run("keys", "new")
    assert code == 4
    assert "look but not command" in err
