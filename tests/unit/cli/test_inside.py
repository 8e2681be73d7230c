"""What the command line does where a ticket is in the environment, and what it refuses to do."""

import json

import pytest
from unit.cli.doubles import BUCKETS, FULL, SESSION

from meshnode.client.errors import ConflictError, NotAuthenticatedError
from meshnode.client.home import Home
from meshnode.client.inside import Usage
from session_mesh.call import Call
from session_mesh.dispatch import VERBS
from session_mesh.inside import ALLOWED

ME = SESSION | {
    "agent_id": "builder",
    "waiting_for": None,
    "labels": {},
    "owner": "me",
    "project": None,
    "cwd": None,
    "pid": 7,
    "created_at": "2026-11-20T00:00:00Z",
    "observed_at": "2026-11-20T00:00:00Z",
    "ended_at": None,
    "end_reason": None,
    "exit_code": None,
    "signal": None,
    "ended_by": None,
    "message_count": 0,
    "tool_calls": 0,
    "model": None,
    "usage": BUCKETS,
    "can": {"steer": "queue", "kill": "tree"},
    "orders": [],
}
STEERS = [
    {"position": 3, "command_id": "c3", "direction": "north", "message": "", "at": "T"},
    {"position": 4, "command_id": "c4", "direction": "", "message": "\x1b[2J", "at": "T"},
]
# Where each verb needs words to get past its own parser.
WORDS = {
    "keys": ["new"],
    "join": ["smj1_x"],
    "kill": ["a", "--force"],
    "steer": ["a", "b"],
    "run": ["--", "true"],
    "nodes": ["forget", "berta", "--yes"],
    "logs": ["a"],
    "load-config": ["a.yaml"],
    "config": ["check", "a.yaml"],
    "show": ["a"],
    "export": ["-"],
    "operator": ["list"],
    "root": ["list"],
    "prices": ["explain", "m"],
    "receipt": ["verify", "-"],
    "orders": ["list"],
}


class Session:
    """The session of this process; remembers what it was told."""

    def __init__(self) -> None:
        self.calls = []
        self.fault = None

    def __enter__(self):
        if self.fault is not None:
            raise self.fault
        return self

    def __exit__(self, *_):
        pass

    def who(self):
        return ME

    def list_sessions(self, selection=None, limit=None):
        return {"sessions": [SESSION], "coverage": FULL}

    def find(self, specialization):
        return {"agents": [], "coverage": FULL, "more": 0}

    def register(self, *entry):
        return self._told("register", entry[0], entry[1])

    def unregister(self, specialization):
        return self._told("unregister", specialization)

    def report(self, *report, **more):
        self.calls.append((*report, more))
        return len(self.calls) == 1

    def steers(self, *, absent, **options):
        absent(True)
        self.calls.append(options)
        yield from STEERS

    def _told(self, *call):
        self.calls.append(call)
        told = {"agent_id": "builder", "specialization": call[1]}
        return told | {"outcome": "applied", "detail": "done"}


@pytest.fixture
def session(monkeypatch):
    fake = Session()
    monkeypatch.setenv("SESSION_MESH_TICKET", "smt1_x")
    monkeypatch.setenv("SESSION_MESH_AGENT_ID", "builder")
    monkeypatch.setattr(Call, "inside", lambda _: fake)
    monkeypatch.setattr(Home, "operator_key", property(lambda _: pytest.fail("a key was read")))
    monkeypatch.setattr(Call, "mesh", lambda _: pytest.fail("the user's node was asked"))
    return fake


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ALLOWED])
def test_inside_a_session_no_other_verb_runs_though_there_is_a_home_and_a_key(
    run, session, monkeypatch, verb
):
    monkeypatch.setenv("SESSION_API_KEY", "smk1_of_somebody")
    code, out, err = run(verb, *WORDS.get(verb, []))
    assert (code, out) == (5, "")
    assert err.startswith(f"error: {verb} is not allowed inside a session; allowed are self, list")
    assert "outside the session" in err
    assert session.calls == []


def test_help_is_given_inside_a_session_too(run, session):
    assert run("kill", "--help")[0] == 0


def test_self_shows_the_session(run, session):
    assert "builder" in run("self")[1]
    assert json.loads(run("self", "-o", "json")[1])["session_id"] == SESSION["session_id"]
    assert run("self", "-q")[1] == SESSION["session_id"] + "\n"


def test_list_and_find_are_asked_with_the_ticket(run, session):
    assert SESSION["session_id"][:10] in run("list")[1]
    assert run("find", "review")[0] == 0


@pytest.mark.parametrize("words", [(), ("--agent-id", "builder")])
def test_an_agent_registers_and_unregisters_itself(run, session, words):
    attr = ("--attr", "load=0.2")
    assert run("register", "--spec", "a", "--spec", "b", *attr, *words)[0] == 0
    assert run("unregister", "--spec", "a", *words)[:2] == (0, "applied: done\n")
    load = {"load": "0.2"}
    calls = [("register", "a", load), ("register", "b", load), ("unregister", "a")]
    assert session.calls == calls


@pytest.mark.parametrize("verb", ["register", "unregister"])
def test_an_agent_registers_nobody_else(run, session, verb):
    code, _, err = run(verb, "--spec", "a", "--agent-id", "boss")
    assert (code, session.calls) == (5, [])
    assert "this one is builder, not boss" in err


def test_a_file_that_names_another_agent_registers_none_of_its_entries(run, session):
    document = "[{agent_id: builder, spec: a}, {agent_id: boss, spec: b}]"
    code, _, _ = run("register", "-f", "-", stdin=document)
    assert (code, session.calls) == (5, [])


@pytest.mark.parametrize("verb", ["register", "unregister"])
def test_an_agents_own_entry_is_no_command(run, session, verb):
    assert run(verb, "--spec", "a", "--command-id", "x")[0] == 2


def test_a_report_says_whether_it_counted(run, session):
    words = ("report", "--model", "m", "--id", "r1", "--input", "5", "--output", "6")
    assert run(*words)[:2] == (0, "counted\n")
    code, out, _ = run(*words, "--cache-read", "7", "--tier", "batch", "-o", "json")
    assert (code, json.loads(out)) == (0, {"id": "r1", "counted": False})
    used = Usage(input=5, output=6, cache_read=7)
    assert session.calls[1] == ("r1", "m", used, {"provider": "", "tier": "batch"})


def test_steers_are_one_document_a_line_and_harmless_to_a_terminal(run, session):
    code, out, err = run("steer-inbox", "--follow", "--after", "2")
    assert code == 0
    assert list(map(json.loads, out.splitlines())) == STEERS
    assert "\x1b" not in out
    assert session.calls == [{"after": 2, "follow": True}]
    assert err == "warning: the node does not answer: waiting for it\n"
    assert run("steer-inbox", "-q")[1] == "c3\nc4\n"
    assert run("steer-inbox", "-o", "csv")[0] == 2


@pytest.mark.parametrize("fault", [NotAuthenticatedError("it has ended"), ConflictError("no")])
def test_what_the_node_says_is_the_exit_code(run, session, fault):
    session.fault = fault
    assert run("self")[0] == fault.exit_code


@pytest.mark.parametrize("verb", ["self", "report", "steer-inbox"])
def test_outside_a_session_verbs_for_agents_say_where_they_work(run, monkeypatch, verb):
    monkeypatch.delenv("SESSION_MESH_TICKET", raising=False)
    words = ("--model", "m", "--id", "r", "--input", "1") if verb == "report" else ()
    code, _, err = run(verb, *words)
    assert code == 4
    assert "in no session" in err
    assert "session-mesh run -- CMD" in err


def test_a_ticket_that_is_none_gets_a_sentence_and_is_not_shown(run, monkeypatch):
    monkeypatch.setenv("SESSION_MESH_TICKET", "not a ticket")
    code, _, err = run("self")
    assert (code, "not a ticket" in err) == (4, False)


@pytest.mark.parametrize("socket", ["", "node.sock", "/run/other.sock"])
def test_a_ticket_without_a_socket_of_a_node_gets_a_sentence(run, monkeypatch, socket):
    monkeypatch.setenv("SESSION_MESH_TICKET", "smt1_x")
    monkeypatch.setenv("SESSION_MESH_SOCKET", socket)
    code, _, err = run("self")
    assert code == 2
    assert "SESSION_MESH_SOCKET" in err
