"""What a shell completes: the words of every option that takes one of those we know."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from meshnode.client.targets import EVENT_KINDS
from meshnode.core.vocabulary import ACTIONS, KINDS, SOURCES
from meshnode.ingest import sources
from session_mesh.amounts import BLOCK, GROUPINGS
from session_mesh.dispatch import app

PROGRAM = str(Path(sys.executable).with_name("session-mesh"))
KNOWN = {
    "audit --kind": KINDS,
    "budget set --per": ("hour", "day", "month"),
    "budget set --then": ("suspend", "kill"),
    "cost --by": GROUPINGS,
    "cost --prices-at": ("then", "today"),
    "events --kind": EVENT_KINDS,
    "export --format": ("json", "csv"),
    "invite --role": ("operator", "observer"),
    "keys new --action": tuple(sorted(ACTIONS)),
    "kill --wait": ("accepted", "delivered", "applied"),
    "list --sort": ("updated", "cost", "tokens", "created"),
    "operator add --role": ("observer", "operator", "admin"),
    "run --adapter": ("process", "pty"),
    "run --interrupt": ("INT", "USR1", "USR2"),
    "run --steer-format": ("none", "text", "json"),
    "steer --mode": ("soft", "now", "after"),
    "steer --wait": ("accepted", "delivered", "applied"),
    "up --http": ("on", "off"),
    "usage --by": (*GROUPINGS, BLOCK),
    "usage --prices-at": ("then", "today"),
    "usage --source": SOURCES,
    "watch --kind": EVENT_KINDS,
}
FORMATS = ("table", "json", "yaml", "csv")
HEAVY = {"cryptography", "grpc", "msgpack", "rich", "sqlite3", "yaml"}


def options_of(command, words=(), parent=None):
    """Yield each option of a command and of those beneath it: its name, metavar and completions."""
    context = command.make_context(" ".join(words), [], parent=parent, resilient_parsing=True)
    for option in command.get_params(context):
        completed = tuple(one.value for one in option.shell_complete(context, ""))
        yield " ".join((*words, option.opts[-1])), option.metavar or "", completed
    for word in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from options_of(command.get_command(context, word), (*words, word), context)


def completed(*words, **environment):
    line = " ".join(("session-mesh", *words))
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    return subprocess.run(
        [PROGRAM],
        env=os.environ | asked | {"_SESSION_MESH_COMPLETE": "complete_bash"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_every_option_that_takes_one_of_known_words_completes_them():
    found = {name: words for name, _, words in options_of(get_command(app)) if words}
    filters = found.pop("list --filter")
    assert {"alive", "all"} <= set(filters)
    assert {name: words for name, words in found.items() if words != FORMATS} == KNOWN
    assert sorted(sources.SOURCES) == sorted(SOURCES)


def test_an_option_whose_help_names_words_completes_all_of_them():
    named = {
        name: [word for word in metavar.split("|") if word.islower()]
        for name, metavar, _ in options_of(get_command(app))
        if "|" in metavar
    }
    assert len(named) > 5
    assert {name: words for name, words in named.items() if words} == {
        name: list(KNOWN[name]) for name, words in named.items() if words
    }


@pytest.mark.parametrize("words", [("audit", "--kind", "order"), ("usage", "--by", "ow")])
def test_a_shell_is_answered_without_what_only_a_verb_needs(words):
    done = completed(*words, PYTHONPROFILEIMPORTTIME="1")
    assert done.stdout.split() == {"order": ["order_cancelled"], "ow": ["owner"]}[words[-1]]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "session_mesh.dispatch" in loaded
    assert loaded & HEAVY == set()
