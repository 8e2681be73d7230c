"""Who runs it has no name, no home or no streams, or stands in a directory that is gone."""

import os
import subprocess
from pathlib import Path

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.fleet import PROGRAM, wait_until

UID = 54321
NAMED_BY = ("LOGNAME", "USER", "LNAME", "USERNAME")


def as_nobody_known(node, *words, without=()):
    """Run it as a user without a name, as `docker run -u 54321` does."""
    command = ["unshare", "--user", f"--map-user={UID}", PROGRAM, *words]
    unsaid = {*NAMED_BY, *without}
    return subprocess.run(
        command,
        env={name: value for name, value in node.environment.items() if name not in unsaid},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def nameless(fleet):
    """A node of such a user, which does not run."""
    node = fleet.node("anna")
    done = as_nobody_known(node, "init")
    if "unshare" in done.stderr:
        pytest.skip(f"another user id is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    yield node
    as_nobody_known(node, "down", "--close-sessions")


def test_a_user_without_a_name_runs_agents_under_its_number(nameless):
    up = as_nobody_known(nameless, "up", "--detach", *LOCAL)
    assert up.returncode == 0, up.stderr
    done = as_nobody_known(nameless, "run", "--agent-id", "a", "--", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    listed = as_nobody_known(nameless, "list", "--owner", f"uid-{UID}", "--filter", "all", "-q")
    assert listed.stdout.count("\n") == 1


@pytest.mark.parametrize("words", [("list",), ("--home", "~/x", "list"), ("usage",)])
def test_a_user_without_a_home_is_told_to_name_one(nameless, words):
    without = ("SESSION_MESH_HOME", "HOME", "XDG_DATA_HOME")
    done = as_nobody_known(nameless, *words, without=without)
    assert done.returncode == 2, done.stderr
    assert "HOME" in done.stderr
    assert "internal" not in done.stderr


@pytest.mark.parametrize("words", [("list",), ("usage",), ("up",), ("doctor",)])
def test_a_home_whose_name_is_no_text_is_refused(stopped, words):
    for variable in ("SESSION_MESH_HOME", "HOME"):
        env = {"SESSION_MESH_HOME": "", "XDG_DATA_HOME": "", variable: "/tmp/d\udcff"}
        answer = stopped.call(*words, env=env)
        assert (answer.code, "not UTF-8: '/tmp/d\\udcff" in answer.err) == (2, True), answer


@pytest.mark.parametrize(
    "words",
    [
        ("--home", "~nosuchuser/x", "list"),
        ("usage", "--source", "higress", "--path", "~nosuchuser/x"),
    ],
)
def test_the_home_of_nobody_is_named(stopped, words):
    refused(stopped, 2, ("~nosuchuser/x", "HOME"), *words)


def test_a_configuration_that_names_the_home_of_nobody_is_refused_by_line(stopped):
    file = stopped.home / "config.yaml"
    file.write_text("mdns: off\ningest:\n  - source: higress\n    path: ~nosuchuser/x\n")
    refused(stopped, 2, ("config.yaml:4", "~nosuchuser/x"), "up", *LOCAL)
    file.write_text("prices: ~nosuchuser/x\n")
    refused(stopped, 2, ("~nosuchuser/x",), "up", *LOCAL)
    file.unlink()


@pytest.mark.parametrize(
    "words", [("list",), ("run", "--", "true"), ("usage",), ("up", "--detach")]
)
def test_a_home_of_another_user_is_refused_in_a_sentence(tmp_path, words):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0)
    powerless = ["setpriv", "--bounding-set", "-all"] if os.geteuid() == 0 else []
    command = [*powerless, str(PROGRAM), "--home", str(theirs), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert done.stderr.startswith("error: ")
    assert "permission denied" in done.stderr.lower()
    assert "internal" not in done.stderr


@pytest.mark.parametrize(("options", "code"), [("", 125), ("--detach", 1)], ids=["front", "detach"])
def test_where_there_is_no_proc_no_agent_is_started_and_that_is_told(anna, tmp_path, options, code):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = (
        f"cd {gone} && rmdir {gone} && mount -t tmpfs none /proc || exit 77\n"
        f"exec {PROGRAM} run {options} --agent-id unseen -- echo hello"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(
        command, env=anna.environment, capture_output=True, text=True, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"another namespace of mounts is not permitted here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (code, "")
    assert "the agent was not started: this process is not in /proc" in done.stderr


def test_an_agent_runs_in_a_directory_that_is_gone(anna, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone}; rmdir {gone}; exec {PROGRAM} run --agent-id lost -- echo hello"
    done = subprocess.run(
        ["sh", "-c", script], env=anna.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    shown = anna.json("show", "lost")
    assert shown["cwd"] == f"{gone} (deleted)"


def test_nothing_of_a_node_takes_the_place_of_streams_that_it_was_started_without(fleet):
    node = fleet.node("anna")
    node.json("init")
    shell = 'exec "$0" "$@" <&- >&- 2>&-'
    words = ["sh", "-c", shell, PROGRAM, "up", *LOCAL]
    with subprocess.Popen(words, env=node.environment) as process:
        wait_until(lambda: node.call("status").code == 0)
        streams = [Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in range(3)]
        assert node.call("down").code == 0
    assert set(map(str, streams)) == {os.devnull}
