"""What `keys` takes for a key, and what it says of anything else."""

import pytest

from meshnode.client.keys import keyring
from meshnode.core.errors import NotAuthenticatedError

SHOWN = {
    "key_id": "4f0c21aa9be0d377",
    "actions": ["steer"],
    "expires_at": "2026-11-20T01:00:00.000Z",
    "links": [],
    "verdict": None,
}


@pytest.mark.parametrize(
    ("renewable", "said"), [(False, "(not judged) may steer"), (True, "may make keys for steer")]
)
def test_what_a_key_may_do_is_said_in_a_sentence(run, mesh, monkeypatch, renewable, said):
    mesh.missing = True
    monkeypatch.setattr(keyring, "inspect", lambda _: SHOWN | {"renewable": renewable})
    code, _, err = run("keys", "inspect", "smk1_x")
    assert code == 0
    assert said in err


def test_the_id_of_a_key_is_not_taken_for_the_key(run, mesh):
    code, out, err = run("keys", "inspect", SHOWN["key_id"])
    assert (code, out) == (2, "")
    assert "the id of a key" in err
    assert "session-mesh keys list" in err
    assert mesh.calls == []


def test_what_a_key_is_limited_to_may_be_repeated_or_written_with_commas(run, mesh, monkeypatch):
    wishes = []
    made = SHOWN | {"key": "smk1_x", "renewable": False}
    monkeypatch.setattr(keyring.Maker, "make", lambda _, wish: wishes.append(wish.scope) or made)
    mesh.members = [{"node_id": letter * 52, "name": letter} for letter in "ab"]
    limits = ("--action", "read,steer", "--spec", "x, y", "--spec", "z", "--node", "a,b")
    code, _, err = run("keys", "new", *limits, "--agent-id", "p,q", "--agent-id", "r")
    assert code == 0, err
    (scope,) = wishes
    assert (scope.actions, scope.specializations) == (("read", "steer"), ("x", "y", "z"))
    assert scope.nodes == ("a" * 52, "b" * 52)
    assert scope.agents == ("p,q", "r"), "an agent may be called so"


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize(("verb", "hint"), [("inspect", "the key itself"), ("revoke", "its id")])
def test_an_empty_stdin_is_no_key_and_the_hint_names_what_is_taken(run, verb, hint):
    code, out, err = run("keys", verb, "-")
    assert (code, out) == (2, "")
    assert f"hint: give {hint}" in err


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize(
    "words", [("keys", "inspect", "-"), ("keys", "revoke", "-"), ("receipt", "verify", "-")]
)
def test_bytes_on_stdin_that_are_no_text_are_a_usage_error(run, words):
    code, out, err = run(*words, stdin="ab\udcd0\udcff")
    assert (code, out) == (2, "")
    assert "not UTF-8" in err


@pytest.mark.usefixtures("mesh")
def test_a_key_is_asked_for_on_a_terminal_and_not_shown(run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "session_mesh.commands.keys.getpass", lambda said: asked.append(said) or "x"
    )
    monkeypatch.setattr("session_mesh.commands.keys.on_terminal", lambda: True)
    code, _, err = run("keys", "inspect", "-")
    assert code == NotAuthenticatedError.exit_code, err
    assert "paste the key" in asked[0]
