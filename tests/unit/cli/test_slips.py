"""What is misspelt, left out, too short or done twice is answered with a sentence that helps."""

import io

import pytest
from unit.cli.doubles import PARTIAL, SESSION

from meshnode.client.commands import standing
from meshnode.client.errors import NotFoundError
from meshnode.client.keys import authorities, revoking
from meshnode.client.targets.nodes import node_id_in
from meshnode.client.targets.targets import Target, resolve
from meshnode.node.homes import joining
from session_mesh.commands import orders as orders_verb
from session_mesh.main import main
from session_mesh.output.render import Streams

ENDED = SESSION | {"phase": "CLOSED", "state": "closed", "specializations": ["crawler"]}
KILLS = ("kill", "--all", "--yes", "--spec")


@pytest.mark.parametrize(
    ("words", "role", "is_hinted"),
    [
        ((), "operator", False),
        (("--uses", "2"), "", True),
        (("--uses", "2", "--node-only"), "", False),
        (("--uses", "2", "--role", "observer"), "observer", False),
    ],
)
def test_an_invite_for_several_says_that_it_gives_no_role(
    run, mesh, monkeypatch, words, role, is_hinted
):
    asked = []
    made = {"invite": "smj1_x", "expires_at": "T", "command": "session-mesh join -"}
    monkeypatch.setattr(joining, "invite", lambda _home, _mesh, wish: asked.append(wish) or made)
    code, out, err = run("invite", *words)
    assert (code, out, asked[0].role) == (0, "smj1_x\n", role)
    assert ("--role operator or observer" in err) is is_hinted


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("ps",), "did you mean session-mesh list?"),
        (("ls", "-q"), "did you mean session-mesh list?"),
        (("nodes", "list"), "session-mesh nodes lists them"),
        (("run", "--spec"), "session-mesh run --help shows the options"),
        (("keys", "new", "--spec"), "session-mesh keys new --help shows the options"),
        (("list", "--node"), "session-mesh list --help shows the options"),
        (("--verbose", "kill", "--node"), "session-mesh kill --help shows the options"),
        (("help", "lost"), "session-mesh --help shows the options"),
    ],
)
def test_who_calls_a_verb_wrong_is_told_which_help_has_it(run, words, hint):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert f"hint: {hint}\n" in err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("help", "--help"),
        ("help list", "list --help"),
        ("help nodes forget", "nodes forget --help"),
        ("version", "--version"),
        ("-q --home help help list", "-q --home help list --help"),
        ("-o json version", "-o json --version"),
        ("--output=json --verbose version", "--output=json --verbose --version"),
    ],
)
def test_help_and_version_may_be_asked_for_as_verbs(words, meant, capsys):
    def said(*given):
        streams = Streams(io.StringIO(), io.StringIO())
        return main(given, streams), streams.out.getvalue() + capsys.readouterr().out

    assert said(*words.split()) == said(*meant.split())
    assert said(*words.split())[1] != ""


@pytest.mark.parametrize("words", [KILLS, ("steer", "--all", "hello", "--spec")])
def test_a_specialization_that_no_session_has_is_not_found(run, mesh, words):
    mesh.sessions = [ENDED]
    code, out, err = run(*words, "crawlr")
    assert (code, out) == (3, "")
    assert "nothing matched: no session has the specialization 'crawlr'" in err
    assert 'did you mean "crawler"?' in err


def test_a_dry_run_finds_the_slip_too(run, mesh):
    mesh.sessions = [ENDED]
    assert run(*KILLS, "crawlr", "--dry-run")[0] == 3


@pytest.mark.parametrize("words", [KILLS, (*KILLS[:2], "--dry-run", "--spec")])
def test_a_specialization_whose_sessions_have_ended_leaves_nothing_to_kill(run, mesh, words):
    mesh.sessions = [ENDED]
    code, out, err = run(*words, "crawler")
    assert (code, out) == (0, "")
    assert "nothing to kill" in err


def test_who_was_not_heard_is_said_beside_the_slip(run, mesh):
    mesh.sessions, mesh.coverage = [ENDED], PARTIAL
    code, _, err = run(*KILLS, "unheard")
    assert code == 3
    assert "1 of 2 nodes heard" in err


def test_a_standing_kill_may_mean_what_only_an_absent_node_runs(run, mesh, monkeypatch):
    mesh.sessions, mesh.coverage = [], PARTIAL
    monkeypatch.setattr(standing, "park_for", lambda *_: {"order_id": "zsnz6mebaxvlgwjd"})
    assert run(*KILLS, "unheard", "--standing")[0] == 0


@pytest.mark.parametrize("verb", ["receipt"])
def test_a_group_that_lists_nothing_is_a_usage_error_that_names_its_help(run, verb):
    code, out, err = run(verb)
    assert (code, out) == (2, "")
    assert f"session-mesh {verb} --help" in err


@pytest.mark.parametrize("verb", ["keys", "operator", "root", "nodes", "orders"])
def test_a_group_alone_does_what_its_list_does(run, mesh, monkeypatch, verb):
    monkeypatch.setattr(standing, "orders", lambda _: {"orders": []})
    monkeypatch.setattr("meshnode.client.keys.keyring.listed", lambda *_: [])
    monkeypatch.setattr("meshnode.client.keys.keyring.with_verdicts", lambda *_: [])
    monkeypatch.setattr(authorities, "known", lambda _: None)
    monkeypatch.setattr(authorities, "operators", lambda _: [])
    monkeypatch.setattr(
        "meshnode.client.keys.roots.listed", lambda _: {"roots": [], "admitters": []}
    )
    alone = run(verb, "-o", "json")
    assert alone[0] == 0, alone
    assert verb == "nodes" or alone == run(verb, "list", "-o", "json")


@pytest.mark.parametrize("words", [[], ["--provider", "openai"]])
def test_a_report_without_numbers_counts_nothing(run, monkeypatch, words):
    code, _, err = run("report", "--model", "m", "--id", "r", *words)
    assert code == 2
    assert "a report without numbers" in err


def test_the_place_of_a_root_key_is_looked_at_before_a_passphrase_is_asked_for(run, tmp_path):
    there = tmp_path / "root.pem"
    there.touch()
    code, _, err = run("init", "--root-out", str(tmp_path / "missing" / "root.pem"))
    assert (code, "there is no directory" in err) == (2, True), err
    code, _, err = run("init", "--root-out", str(there))
    assert (code, "exists already" in err) == (7, True), err


def test_doctor_counts_what_it_could_check(run):
    code, _, err = run("doctor")
    assert code == 1
    assert "1 of 2 checks failed; " in err
    assert "could not be made" in err


def test_a_node_is_revoked_once(run, mesh, monkeypatch):
    gone = {"node_id": "b" * 52, "name": "berta", "state": "revoked"}
    plan = revoking.Revocation(gone, admits=True, by_root=True, survivors=(), falls=("carl",))
    monkeypatch.setattr(revoking, "planned", lambda *_: plan)
    code, out, _ = run("nodes", "revoke", "berta")
    assert (code, out) == (0, "berta was revoked before; nothing was changed\n")


def test_who_came_by_invite_is_said_to_have(run, mesh, monkeypatch):
    mesh.members = [{"node_id": "a" * 52, "name": "anna"}]
    row = {
        "key_id": "0123456789abcdef",
        "name": None,
        "other_names": [],
        "role": "operator",
        "given_by": "f" * 16,
        "given_by_name": None,
        "by_node": "a" * 52,
        "since": "2026-11-20T00:00:00Z",
        "state": "active",
        "revoked_in_vain_by": ["e" * 16],
    }
    monkeypatch.setattr(authorities, "known", lambda _: None)
    monkeypatch.setattr(authorities, "operators", lambda _: [row])
    code, out, err = run("operator", "list")
    assert code == 0
    assert "(invited, joined at anna)" in out
    row["name"] = "vm/abcdefgh"
    assert "vm/abcdefgh (invited)" in run("operator", "list")[1]
    assert f"was revoked by {'e' * 16}, which does not count" in " ".join(err.split())


def test_the_table_of_orders_names_agent_and_node():
    order = {
        "order_id": "zsnz6mebaxvlgwjdaaaaaaaaaa",
        "state": "standing",
        "session_id": "abcdefghijklmnopqrstuvwxyz",
        "session_agent_id": "builder",
        "agent_id": None,
        "specialization": None,
        "node_id": "b" * 52,
        "node_name": "berta",
        "issued_at": "2026-11-20T00:00:00Z",
        "expires_at": "2026-11-21T00:00:00Z",
        "issuer": "f" * 16,
        "results": [],
        "results_more": 0,
    }
    row = dict(zip(orders_verb.COLUMNS, orders_verb._row(order), strict=True))
    assert (row["AGENT"], row["NODE"]) == ("builder", "berta")
    any_of = order | {"session_id": None, "session_agent_id": None, "node_id": None}
    row = dict(
        zip(orders_verb.COLUMNS, orders_verb._row(any_of | {"node_name": None}), strict=True)
    )
    assert (row["AGENT"], row["NODE"]) == ("any", "any")


def test_the_start_of_an_id_that_is_too_short_is_said_to_be():
    with pytest.raises(NotFoundError) as session:
        resolve(Target("abcdef"), lambda wanted: [] if wanted.session_id else [SESSION])
    with pytest.raises(NotFoundError) as node:
        node_id_in([{"node_id": "c" * 52, "name": "carl"}], "ccc")
    assert session.value.hint == "an id is found by 8 characters of it or more: abcdefghij"
    assert node.value.hint == "an id is found by 8 characters of it or more: cccccccccc"
