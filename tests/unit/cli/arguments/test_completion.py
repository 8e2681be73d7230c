"""What a shell completes: the words of every option that takes one of those we know."""

import os
import pty
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.main import get_command

from meshnode.client.errors import NotFoundError
from meshnode.client.targets.targets import EVENT_KINDS
from meshnode.core.vocabulary import ACTIONS, KINDS, SOURCES
from meshnode.ingest import sources
from session_mesh.call import Call
from session_mesh.dispatch import app
from session_mesh.main import main
from session_mesh.views.amounts import BLOCK, GROUPINGS

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


SAID = """
compopt() { echo "files"; }
eval "$SHOWN"
COMP_WORDS=(session-mesh "$@" behind); COMP_CWORD=$#
_session_mesh_completion session-mesh
echo "${COMPREPLY[@]}"
"""
SAID_ZSH = """
compdef() { }
_files() { echo files }
_arguments() { echo $1 }
eval "$SHOWN"
words=(session-mesh "$@"); CURRENT=$(( $# + 1 ))
_session_mesh_completion
"""
WITHOUT_FILES = [("steer", ""), ("list", "--node", ""), ("list", "--spec", ""), ("kill", "x")]
WITH_FILES = [("up", "--config", ""), ("load-config", ""), ("run", "--", "ls", "x")]


def shell(script, *words, by, home, **environment):
    environment |= os.environ | {
        "PATH": f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "SESSION_MESH_HOME": str(home / "none"),
    }
    asked = [by, "-f", "-c", script, by, *words] if by == "zsh" else [by, "-c", script, by, *words]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(("by", "script"), [("bash", SAID), ("zsh", SAID_ZSH)])
def test_files_are_offered_only_where_a_file_is_meant(tmp_path, by, script):
    if shutil.which(by) is None:
        pytest.skip(f"no {by} here")
    shown = shell(f"session-mesh --show-completion {by}", by="bash", home=tmp_path)
    said = partial(shell, script, by=by, home=tmp_path, SHOWN=shown)
    for words in WITHOUT_FILES:
        assert said(*words) == "", words
    for words in WITH_FILES:
        assert said(*words) == "files", words
    assert "order_cancelled" in said("audit", "--kind", "order")
    assert "kill,order_cancelled" in said("audit", "--kind", "kill,order_c")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        (("list", "--filter", "=", "ali"), "alive"),
        (("list", "--filter", "="), "alive"),
        (("usage", "--by", "model,da"), "model,day"),
        (("usage", "--path", "=", "/et"), "files"),
        (("usage", "--path", "="), "files"),
        (("steer", "x", "=", ""), ""),
    ],
)
def test_bash_completes_behind_an_equals_sign(tmp_path, line, completed):
    shown = shell("session-mesh --show-completion bash", by="bash", home=tmp_path)
    said = shell(SAID, *line, by="bash", home=tmp_path, SHOWN=shown)
    assert said.partition(" ")[0] == completed


def test_the_first_tab_of_a_zsh_completes(tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    shell("session-mesh --install-completion zsh", by="bash", home=tmp_path)
    loaded = """
compdef() { echo "not yet" }
_arguments() { echo $1 }
fpath=($HOME/.zfunc)
autoload -Uz _session-mesh
words=(session-mesh audit --kind order); CURRENT=4
_session-mesh
"""
    assert "order_cancelled" in shell(loaded, by="zsh", home=tmp_path)


def test_completion_is_installed_for_the_shell_that_is_named(tmp_path):
    for named, path in (
        ("zsh", ".zfunc/_session-mesh"),
        ("bash", ".bash_completions/session-mesh.sh"),
        ("fish", ".config/fish/completions/session-mesh.fish"),
    ):
        asked = 'session-mesh --install-completion "$1"'
        said = shell(asked, named, by="bash", home=tmp_path)
        assert said.startswith(f"{named} completes session-mesh ")
        shown = shell('session-mesh --show-completion "$1"', named, by="bash", home=tmp_path)
        assert (tmp_path / path).read_text().strip() == shown
    shown = shell("session-mesh --show-completion; true", by="bash", home=tmp_path)
    assert "complete_bash" in shown, "the shell that calls"


def test_a_shell_that_we_do_not_know_is_refused(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = run("--install-completion", "tcsh")
    assert (code, out) == (2, "")
    assert "no completion for 'tcsh'" in err
    assert "bash|zsh|fish" in err
    assert list(tmp_path.iterdir()) == []


def a_home_that_is_a_file(home):
    home.write_text("")


def a_home_that_nobody_can_make(home):
    home.symlink_to("/proc/nowhere")


def a_directory_for_a_file(home):
    (home / ".bashrc").mkdir(parents=True)


def another_encoding(home):
    home.mkdir()
    (home / ".bashrc").write_bytes(b"alias x='\xe9'\n")


@pytest.mark.parametrize(
    ("made", "named", "why"),
    [
        (a_home_that_is_a_file, "zsh", "home is not a directory"),
        (a_home_that_is_a_file, "fish", "home/.config/fish/completions: Not a directory"),
        (a_home_that_nobody_can_make, "bash", "home is not a directory"),
        (a_directory_for_a_file, "bash", "home/.bashrc: Is a directory"),
        (another_encoding, "bash", "home/.bashrc is not UTF-8"),
        (Path.mkdir, "pwsh", "no pwsh in PATH"),
    ],
)
def test_what_keeps_completion_from_being_installed_is_named(
    run, monkeypatch, tmp_path, made, named, why
):
    home = tmp_path / "home"
    made(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = run("--install-completion", named)
    assert (code, out) == (2, "")
    said, hint = err.splitlines()
    assert said.startswith(f"error: cannot install completion for {named}: ")
    assert said.endswith(why)
    assert hint == (
        f"hint: session-mesh --show-completion {named} prints it, for a file of your choice"
    )
    if made is another_encoding:
        assert (home / ".bashrc").read_bytes() == b"alias x='\xe9'\n"


def test_who_has_no_home_is_told_so(run, monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    code, out, err = run("--install-completion", "bash")
    assert (code, out) == (2, "")
    assert "cannot install completion for bash: Could not determine home directory" in err


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("usage --by=mod", "usage --by=model "),
        ("usage --by=model,da", "usage --by=model,day "),
        ("list --output=ya", "list --output=yaml "),
        ("usage --path=/etc/hostn", "usage --path=/etc/hostname"),
    ],
)
def test_a_zsh_at_a_terminal_completes_behind_an_equals_sign(tmp_path, typed, completed):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    shown = shell("session-mesh --show-completion zsh", by="bash", home=tmp_path)
    (tmp_path / "_session-mesh").write_text(shown)
    begun = 'fpath=($HOME $fpath); autoload -Uz compinit; compinit -u -D; PS1="ready "\n'
    (tmp_path / ".zshrc").write_text(begun)
    own = {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    path = f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"
    above, below = pty.openpty()
    zsh = subprocess.Popen(
        ["zsh", "-i"],
        env=os.environ | own | {"PATH": path},
        stdin=below,
        stdout=below,
        stderr=below,
        start_new_session=True,
    )
    os.close(below)
    try:
        read_until(above, "ready ")
        os.write(above, f"session-mesh {typed}\t".encode())
        read_until(above, f"session-mesh {completed}")
    finally:
        zsh.kill()
        zsh.wait()
        os.close(above)


def read_until(fd, wanted):
    said = ""
    while wanted not in said:
        said += os.read(fd, 4096).decode(errors="replace").replace("\0", "").replace("\x07", "")


class Known:
    """A mesh with agents, one of whose names a shell would run."""

    patience_s = 0.0
    listed = (
        ("builder", "k" * 26, ["build", "x y"], None, "anna"),
        ("a$(touch y)", "m" * 26, ["build"], None, "anna"),
        ("-rf", "n" * 26, [], None, "anna"),
        ("gone", "o" * 26, ["old"], "2026-11-20T08:00:00Z", "berta"),
    )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def list_sessions(self, selection, limit):
        assert limit <= 200
        names = ("agent_id", "session_id", "specializations", "ended_at", "node_name")
        found = [dict(zip(names, one, strict=True)) for one in self.listed]
        known = {"", "anna", "berta"}
        if selection.node not in known:
            raise NotFoundError("no such node")
        return {"sessions": [one for one in found if selection.node in {"", one["node_name"]}]}

    def find(self, specialization):
        assert specialization == ""
        return {"agents": [{"specialization": one} for one in ("build", "draw", "b;x")]}

    def nodes(self):
        return {"nodes": [{"name": "anna"}, {"name": "berta"}, {"name": "b;x"}]}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("steer", ""), ["builder"]),
        (("kill", "kkkk"), ["k" * 26]),
        (("kill", "kkk"), []),
        (("logs", "go"), ["gone"]),
        (("steer", "builder", ""), []),
        (("list", "--node", "b"), ["berta"]),
        (("nodes", "forget", "a"), ["anna"]),
        (("list", "--spec", ""), ["build", "old"]),
        (("find", "b"), ["build"]),
        (("find", ""), ["build", "draw", "old"]),
        (("steer", "anna/"), ["anna/-rf", "anna/builder"]),
        (("kill", "anna/bu"), ["anna/builder"]),
        (("show", "berta/"), ["berta/gone"]),
        (("logs", "berta/g"), ["berta/gone"]),
        (("kill", "berta/"), []),
        (("kill", "carl/"), []),
        (("show", "--session", ""), ["k" * 26, "m" * 26, "n" * 26, "o" * 26]),
        (("kill", "--session", ""), ["k" * 26, "m" * 26, "n" * 26]),
        (("kill", "--session", "kkk,m"), [f"kkk,{'m' * 26}"]),
        (("keys", "new", "--spec", "build,"), ["build,old"]),
        (("list", "--spec", "build,"), []),
        (("logs", "--agent-id", ""), ["builder", "gone"]),
        (("kill", "--agent-id", ""), ["builder"]),
        (("logs", "--agent-id", "kkkk"), []),
    ],
)
def test_agents_nodes_and_specializations_of_a_mesh_are_offered(
    monkeypatch, capsys, words, offered
):
    monkeypatch.setattr(Call, "mesh", lambda _: Known())
    monkeypatch.setenv("COMP_WORDS", " ".join(("session-mesh", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setenv("_SESSION_MESH_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit):
        main([])
    assert capsys.readouterr().out.split() == offered


def test_a_node_that_does_not_answer_is_no_word_and_is_not_waited_for(tmp_path):
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(home / "run" / "node.sock"))
        silent.listen()
        done = completed("kill", "", SESSION_MESH_HOME=str(home))
    assert (done.stdout.strip(), done.stderr) == ("", "")
