"""The command line explains itself, and its exit codes are the ones that the README promises."""

import re
import shlex
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from meshnode.core.control.grants import ACTIONS_OF_NEW_KEY
from meshnode.core.errors import BY_CODE
from meshnode.core.vocabulary import ACTIONS
from session_mesh.dispatch import VERBS, app
from session_mesh.main import main
from session_mesh.output.render import Streams

README = Path(__file__).parents[2] / "README.md"
CONTRACT = (  # all verbs there will ever be, in the order in which people meet them
    *("init", "id", "up", "down", "leave", "invite", "join", "nodes", "status", "doctor", "audit"),
    *("service", "run", "list", "show", "watch", "events", "logs", "steer", "kill", "close"),
    *("suspend", "resume", "orders", "handoff", "attach", "permit", "register", "unregister"),
    *("find", "keys"),
    *("operator", "root", "receipt", "cost", "usage", "stats-model", "stats-date", "export"),
    *("prices", "statusline", "budget", "load-config", "config", "self", "report", "steer-inbox"),
)
BENEATH = (
    *("keys new", "keys list", "keys inspect", "keys revoke"),
    *("nodes forget", "nodes revoke", "orders list", "orders cancel", "receipt verify"),
    *("budget set", "budget list", "budget remove"),
    *("operator add", "operator list", "operator remove"),
    *("prices explain", "config check", "config show", "config schema"),
    *("root list", "root export", "root rotate", "root retire", "nodes promote"),
)
GROUPS = ("keys", "operator", "root", "receipt", "prices", "config")  # nothing by themselves
EVERYWHERE = {"--home", "--verbose", "--yes", "--output", "--format", "--quiet", "--help"}
PAGES = [(), *((verb,) for verb in VERBS), *(tuple(verb.split()) for verb in BENEATH)]


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    code = main([*words, "--help"], Streams(StringIO(), StringIO()))
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, ""), words
    return shown.out


def examples_in(text: str) -> list[str]:
    return re.findall(r"^\s+(.*\bsession-mesh .*)$", text.partition("Examples:")[2], re.MULTILINE)


@pytest.mark.parametrize("verb", [*(verb for verb in VERBS if verb not in GROUPS), *BENEATH])
def test_every_verb_explains_itself_with_examples_that_are_right(verb, capsys):
    text = help_of(*verb.split(), capsys=capsys)
    examples = examples_in(text)
    assert examples, text
    assert any(f"session-mesh {verb}" in example for example in examples)
    for example in examples:
        own = example.partition(f"session-mesh {verb}")[2].partition(" -- ")[0].partition("|")[0]
        for flag in re.findall(r"(?<=\s)--?[a-z][a-z-]*", own):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), (example, flag)
        assert shlex.split(example, comments=True)
        # Typed in a home, a shell empties the file that is to be read before anybody reads it.
        assert not re.search(r"> *(config|prices|selection)\.yaml", example)


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_help_says_what_is_to_be_typed_in_words_of_people(words, capsys):
    text = help_of(*words, capsys=capsys)
    assert not re.search(r"<(str|int|float|path|list|bool|Path)\b", text), "a type of Python's"
    assert "x<=" not in text
    assert "x>=" not in text
    usage = text.partition("\n\n")[0]
    assert not re.search(r"[{}]|\]\]|\.\.\.\]\.\.\.", usage.replace("[ARGS]...", "")), usage
    for entries in re.findall(r"^(?:Arguments|Options):\n((?:  .*\n?)+)", text, re.MULTILINE):
        for entry in re.split(r"\n(?=  \S)", entries):
            named = entry.strip().splitlines()
            assert len(named) > 1 or re.search(r"\S  +\S", named[0]), f"{words}: {entry!r}"


def test_what_keys_may_do_is_told_where_one_is_made(capsys):
    text = help_of("keys", "new", capsys=capsys)
    page = (README.parent / "docs" / "keys.md").read_text()
    for action in ACTIONS:
        assert re.search(rf"^ +{action}  +\w", text, re.MULTILINE), action
        default = "yes" if action in ACTIONS_OF_NEW_KEY else ""
        assert re.search(rf"^\| `{action}` \| .* \| *{default} *\|$", page, re.MULTILINE), action


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_help_fits_a_terminal(words, capsys):
    text = help_of(*words, capsys=capsys)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("verb", ["usage", "cost", "stats-model", "stats-date"])
def test_a_column_of_two_prices_is_explained(verb, capsys):
    text = " ".join(help_of(verb, capsys=capsys).split())
    assert "CACHED was read from caches or written into them." in text


def test_verbs_stand_in_the_order_of_a_first_day(capsys):
    assert [verb for verb in CONTRACT if verb in VERBS] == list(VERBS)
    listed = help_of(capsys=capsys).partition("\nA mesh and its nodes:")[2]
    assert re.findall(r"^  ([a-z][a-z-]*)", listed, re.MULTILINE) == list(VERBS)


def test_the_readme_names_every_exit_code():
    rows = [line for line in README.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [cell.strip() for row in rows for cell in row.strip("| ").split("|")]
    named = dict(zip(map(int, filter(None, cells[::2])), cells[1::2], strict=False))
    assert set(named) == {0, *(error.exit_code for error in BY_CODE.values())}
    for code, meaning in named.items():
        names = [e.code.replace("_", " ") for e in BY_CODE.values() if e.exit_code == code]
        assert code == 0 or any(meaning.startswith(name) for name in names), (code, meaning)


def options_of(command: Any, name: str) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        words = (*parameter.opts, *parameter.secondary_opts)
        yield from ((name, word) for word in words if word.startswith("--"))
    for beneath, inner in getattr(command, "commands", {}).items():
        yield from options_of(inner, f"{name} {beneath}")


def test_every_option_stands_in_a_section_that_names_its_verb():
    pages = [README, *README.parent.glob("docs/*.md")]
    sections = [one for page in pages for one in re.split("(?m)^#+ ", page.read_text())]
    words = [set(re.findall(r"(?<![\w-])-*[a-z][\w-]*", one)) for one in sections]
    root = get_command(app)
    missing = [
        f"{name} {option}"
        for verb in VERBS
        for name, option in options_of(root.get_command(None, verb), verb)
        if option not in EVERYWHERE
        and not any({option, name.split()[-1]} <= section for section in words)
    ]
    assert missing == []


def test_the_names_that_are_kept_free_are_told_and_are_no_verbs_yet():
    page = (README.parent / "docs" / "architecture.md").read_text()
    told = re.findall("`([a-z-]+)`", page.partition("## Names kept free")[2].partition(";")[0])
    assert set(told) == set(CONTRACT) - set(VERBS)
