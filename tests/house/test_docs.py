"""What the documentation tells people to type is there, and what it marks as running does run.

Every `$ session-mesh` and `$ ./dev` in a fenced block is looked up in the help. A block after
`<!-- run -->` is executed too, line by line, in a fresh home; with `<!-- run: NAME -->` the blocks
of one name share a home, and `join -` reads what `invite` printed last, in whichever home.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from e2e.fleet import PROGRAM, Answer, Fleet, Node, wait_until

from meshnode.app.audit.auditing import ENTRY_KINDS, READINGS, SHARES
from meshnode.core.commands.audit import DROPPED
from meshnode.core.ledger.checkpoints import CHECKPOINT
from meshnode.core.vocabulary import KINDS
from meshnode.gateway.cost import PARAMETERS
from meshnode.store.audit import LOST

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    {
        *(ROOT / "README.md", ROOT / ".github" / "SECURITY.md"),
        *(*(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.md")),
    }
)
BLOCK = re.compile(
    r"(?:^<!-- (?P<run>run)(?:: *(?P<home>\w+))? -->\n)?^```\w*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
INLINE = re.compile(r"`(session-mesh [^`\n]+)`")
COMMANDS_MAX = 100  # of one document: they run for real
CONFIGURATION = "listen: 127.0.0.1:0\nmdns: off\n"  # what a document's homes have of their own
GROUPS = {"keys", "operator", "root", "receipt", "prices", "config"}  # nothing by themselves
NOT_FOUND = 3
BENEATH = {
    *(("nodes", "forget"), ("nodes", "revoke"), ("nodes", "promote")),
    *(("orders", "list"), ("orders", "cancel")),
    *(("budget", "set"), ("budget", "list"), ("budget", "remove")),
}

SAMPLE = """
<!-- run -->
```console
$ session-mesh init --name sample   # a comment
home  ...
$ session-mesh keys new -q
```

```console
$ session-mesh no-such-verb
```
"""
TWO_HOMES = """
<!-- run: one -->
```console
$ session-mesh up --detach
$ session-mesh invite
```
<!-- run: two -->
```console
$ session-mesh join -
```
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: the lines to type, and in which home they run, None if they do not."""

    lines: tuple[str, ...]
    home: str | None


def blocks_in(text: str) -> list[Block]:
    return [
        Block(
            tuple(re.findall(r"^\$ (.*)$", found["body"], re.MULTILINE)),
            (found["home"] or "") if found["run"] else None,
        )
        for found in BLOCK.finditer(text)
    ]


def lines_in(text: str) -> list[str]:
    return [line for block in blocks_in(text) for line in block.lines] + INLINE.findall(text)


def calls_in(line: str) -> list[list[str]]:
    """Return the words after each session-mesh of a line, up to a pipe or to the agent's own."""
    calls: list[list[str]] = []
    for part in line.split("|"):
        words = shlex.split(part, comments=True)
        if "session-mesh" in words:
            own = words[words.index("session-mesh") + 1 :]
            calls.append(own[: own.index("--")] if "--" in own else own)
    return calls


def run(document: str, fleet: Fleet) -> list[Answer]:
    """Execute the marked blocks of a document; every line must end well."""
    homes: dict[str, Node] = {}
    invite = ""
    answers: list[Answer] = []
    try:
        for block in blocks_in(document):
            if block.home is None:
                continue
            node = homes.setdefault(block.home, fleet.node(block.home or "home"))
            if not node.home.exists():
                node.home.mkdir(mode=0o700)
                (node.home / "config.yaml").write_text(CONFIGURATION)
            for line in block.lines:
                program, *words = shlex.split(line, comments=True)
                assert program == "session-mesh", line
                answer = _news_awaited(node, words, invite if words[:2] == ["join", "-"] else "")
                assert answer.code == 0, f"{line}: {answer.err}"
                invite = answer.out if words[0] == "invite" else invite
                answers.append(answer)
                assert len(answers) <= COMMANDS_MAX
    finally:
        for node in homes.values():
            node.call("down", "--close-sessions")
    return answers


def _news_awaited(node: Node, words: list[str], stdin: str) -> Answer:
    """Call once; again while what another node has just begun is not known here yet."""

    def known() -> Answer | None:
        answer = node.call(*words, stdin=stdin)
        return None if answer.code == NOT_FOUND else answer

    return wait_until(known, f"session-mesh {' '.join(words)}")


@pytest.fixture
def fleet():
    fleet = Fleet()
    yield fleet
    fleet.close()


@cache
def help_of(*words: str) -> str:
    asked = [PROGRAM, *words, "--help"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"session-mesh {' '.join(words)}: {answer.stderr}"
    return answer.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists_with_its_flags(document):
    for line in lines_in(document.read_text()):
        for words in calls_in(line):
            if not words or words[0].startswith("--"):
                continue
            verb = words[: 2 if words[0] in GROUPS or tuple(words[:2]) in BENEATH else 1]
            text = help_of(*verb)
            flags = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
            for flag in flags:
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), (document.name, line, flag)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dev_command_that_is_shown_exists(document):
    known = re.findall(r"^([a-z]+)\(\) \{  # ", (ROOT / "dev").read_text(), re.MULTILINE)
    assert {"check", "test", "demo"} <= set(known)
    shown = re.findall(r"(?:^\$ |`)\./dev ([a-z]+)", document.read_text(), re.MULTILINE)
    assert set(shown) <= set(known)


def alternatives(path: str) -> list[str]:
    """Return the paths that a{b,c}d means to a shell."""
    before, _, rest = path.partition("{")
    inside, _, after = rest.partition("}")
    return [f"{before}{one}{after}" for one in inside.split(",")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_that_is_named_is_there(document):
    named = re.findall(r"`((?:meshnode|cli|tests|proto|bench)/[\w./{},-]+)`", document.read_text())
    missing = [one for path in named for one in alternatives(path) if not (ROOT / one).exists()]
    assert not missing


def test_the_options_that_openapi_compares_parameters_with_exist():
    told = {one["description"].split()[-1].rstrip(".") for one in PARAMETERS}
    assert {"--by", "--session", "--prices-at"} <= told
    assert told <= set(re.findall(r"--[a-z-]+", help_of("cost")))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_marked_as_running_runs(document, fleet):
    run(document.read_text(), fleet)


@pytest.mark.timeout(120)
def test_marked_blocks_are_executed_and_others_are_not(fleet):
    made, key = run(SAMPLE, fleet)
    assert "sample" in made.out
    assert key.out.startswith("smk1_")


@pytest.mark.timeout(120)
def test_homes_of_one_document_can_meet(fleet):
    *_, joined = run(TWO_HOMES, fleet)
    assert "mesh_id" in joined.out


def test_a_marked_line_that_fails_is_told(fleet):
    with pytest.raises(AssertionError, match="no-such-verb"):
        run("<!-- run -->\n```\n$ session-mesh no-such-verb\n```\n", fleet)


def test_every_kind_of_audit_record_is_listed_and_explained():
    rows = (ROOT / "docs" / "audit.md").read_text().splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    first = set(re.findall(r"`([a-z_]+)`", " ".join(cells)))
    listed = {f"session{kind}" if kind.startswith("_") else kind for kind in first}
    assert set(KINDS) - listed == {"entry_taken"}, "named beside the entries that are known"
    written = {*SHARES, *ENTRY_KINDS.values(), *READINGS.values(), DROPPED, LOST, CHECKPOINT}
    assert listed | written <= set(KINDS)
