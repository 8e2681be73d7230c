"""How `run` was told to run an agent: for how long, and through what."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from e2e.fleet import PATIENCE_S, PROGRAM, Fleet, Node, wait_until

pytestmark = pytest.mark.e2e

# As PID 1 of a container is, before it becomes what stays there: orphans come to it.
ADOPTING = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if sys.argv[1]:
    subprocess.Popen(["sh", "-c", sys.argv[1]])
os.execv(sys.argv[2], sys.argv[2:])
"""
LIMITS = {"--timeout": "timed out after 1 s", "--idle-timeout": "timed out: idle for 1 s"}


@pytest.fixture(scope="module")
def anna(shared_fleet: Fleet) -> Node:
    return shared_fleet.mesh("anna")[0]


def ended(node: Node, agent: str) -> dict:
    def shown() -> dict | None:
        session = node.json("show", agent)
        return session if session["ended_at"] else None

    return wait_until(shown, agent)


@pytest.mark.parametrize("option", LIMITS)
def test_an_agent_that_takes_too_long_is_stopped_with_all_that_it_started(anna: Node, option: str):
    agent = "slow" + option
    answer = anna.call(
        *("run", "--agent-id", agent, option, "1s", "--"),
        *("sh", "-c", "trap '' TERM; sleep 600 & echo $!; trap 'echo asked; exit 3' TERM; wait"),
    )
    child, *said = answer.out.split()
    assert (answer.code, said) == (124, ["asked"])
    assert answer.err.endswith(f"session-mesh: the agent {LIMITS[option]}\n")
    assert not psutil.pid_exists(int(child))
    session = ended(anna, agent)
    assert session["state"] == "expired"
    assert session["end_reason"] == LIMITS[option]
    assert (session["exit_code"], session["ended_by"]) == (3, None)
    listed = anna.sessions("--filter", "failed")[agent]
    assert listed["end_reason"] == session["end_reason"]
    audited = anna.json("audit", "--session", session["session_id"], "--kind", "session_expired")
    assert [one["detail"] for one in audited["records"]] == [LIMITS[option]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("option", LIMITS)
def test_a_detached_agent_is_stopped_without_its_node(
    anna: Node, option: str, number: signal.Signals
):
    agent = f"alone{option}-{number}"
    run = anna.call("run", "--detach", "--agent-id", agent, option, "2s", "--", "sleep", "60")
    assert run.code == 0
    pid = anna.json("show", agent)["pid"]
    anna.end(number)
    wait_until(lambda: not psutil.pid_exists(pid))
    anna.up()
    assert ended(anna, agent)["end_reason"] == LIMITS[option].replace("1", "2")


def test_an_agent_that_ends_in_time_ends_as_it_likes(anna: Node):
    answer = anna.call("run", "--agent-id", "quick", "--timeout", "8h", "--", "sh", "-c", "exit 7")
    assert answer.code == 7
    assert "the agent" not in answer.err, "its own end says itself"
    assert ended(anna, "quick")["state"] == "failed"
    for option in LIMITS:
        for word in ("0", "soon", "-1s", "99999999d"):
            assert anna.call("run", option, word, "--", "true").code == 2
        assert option in anna.call("run", option, "0s", "--", "true").err


@pytest.mark.parametrize(
    ("words", "said"),
    [(("kill", "--force"), "killed"), (("close", "--grace", "0s"), "closed")],
    ids=["kill", "close"],
)
def test_who_waits_in_front_is_told_whose_order_ended_the_agent(
    anna: Node, words: tuple[str, ...], said: str
):
    with subprocess.Popen(
        [PROGRAM, "run", "-q", "--agent-id", said, "--", "sleep", "600"],
        env=anna.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as front:
        wait_until(lambda: said in anna.sessions() and anna.sessions()[said]["pid"], said)
        anna.json("suspend", said)
        assert "session-mesh resume" in front.stderr.readline()
        receipt = anna.json(words[0], said, *words[1:])
        shown = front.stderr.read()
        assert front.wait(PATIENCE_S) == (137 if said == "killed" else 143)
    key = ended(anna, said)["ended_by"]
    assert shown == f"session-mesh: the agent was {said} by order of key {key}\n"
    assert ("TERM was needed" in receipt["detail"]) == (said == "closed")


def test_an_agent_begins_although_nobody_reads_what_is_said_of_it(anna: Node):
    reader, full = os.pipe()
    os.set_blocking(full, False)
    with suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    os.set_blocking(full, True)
    words = [PROGRAM, "run", "--agent-id", "unread", "--", "sleep", "600"]
    with subprocess.Popen(words, env=anna.environment, stderr=full) as front:
        wait_until(lambda: anna.sessions().get("unread", {}).get("pid"), "it to begin")
        anna.json("kill", "unread", "--force")
        os.close(full)
        shown = b"".join(iter(lambda: os.read(reader, 65536), b""))
        assert front.wait(PATIENCE_S) == 137
    os.close(reader)
    assert b"agent unread\nsession-mesh: the agent was killed" in shown


@pytest.mark.parametrize(("where", "code"), [((), 5), (("--detach",), 0)])
def test_an_agent_runs_on_a_new_home_though_stderr_takes_nothing(fleet: Fleet, where, code):
    node = fleet.node("new")
    node.home.mkdir(mode=0o700)
    (node.home / "config.yaml").write_text("listen: 127.0.0.1:0\nmdns: false\n")
    words = [PROGRAM, "run", *where, "--", "sh", "-c", "echo hi; sleep 1; exit 5"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            words, env=node.environment, stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert node.call("down", "--close-sessions").code == 0
    assert (done.returncode, done.stdout.split()[0]) == (code, b"session" if where else b"hi")


def test_who_starts_an_agent_under_a_name_that_one_has_is_told_how_to_name_each(anna: Node):
    started = [
        anna.call("run", "--detach", "--agent-id", "twin", "-o", "json", "--", "cat")
        for _ in range(2)
    ]
    first, second = (one.json["session_id"][:10] for one in started)
    assert "ambiguous" not in started[0].err
    assert f"say {second} for this session, and for the others {first} (anna)" in started[1].err
    assert anna.call("steer", "twin", "hello").code == 7
    assert anna.call("steer", first, "hello").code == 0
    anna.json("kill", first, second, "--force")
    third = anna.call("run", "--agent-id", "twin", "--", "true")
    assert (third.code, "ambiguous" in third.err) == (0, False)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("sh", "-c", "exit 3"), 3, "exit code 3"),
        (("true",), 0, "finished, exit code 0"),
        (("no-such-tool",), 127, "no-such-tool: command not found, exit code 127"),
        (("sh", "-c", "kill -9 $$"), 1, "ended by SIGKILL"),
    ],
)
def test_of_who_ends_at_once_is_said_how_and_where_to_read_on(anna: Node, command, code, said):
    answer = anna.call("run", "--detach", "--agent-id", "brief", "--", *command)
    assert (answer.code, answer.err) == (code, "")
    first, second = answer.out.splitlines()
    session_id = first.split()[1].rstrip(",")
    assert first == f"session {session_id}, agent brief, has ended: {said}"
    assert second == f"what it wrote: session-mesh logs {session_id}"
    assert anna.call("logs", session_id).code == 0


@pytest.mark.parametrize("where", [(), ("--detach",)], ids=["in front", "detached"])
def test_a_command_of_bytes_that_are_no_text_fails_like_any_that_is_not_there(
    anna: Node, where: tuple[str, ...]
):
    agent = "mistyped" + "".join(where)
    environment = {"LOGNAME": os.fsdecode(b"j\xf6rg")}
    run = anna.call("run", *where, "--agent-id", agent, "--", b"no\xffcmd", env=environment)
    assert run.code == 127
    session = ended(anna, agent)
    assert (session["state"], session["exit_code"]) == ("failed", 127)
    assert session["end_reason"] == "no?cmd: command not found"
    assert session["owner"] == "j\ufffdrg"
    assert anna.json("status")["alarms"] == []


def test_an_agent_in_front_has_what_its_caller_has_opened_for_it_and_has_it_alone(anna: Node):
    given, to_give = os.pipe()
    read, write = os.pipe()
    os.write(to_give, b"a configuration\n")
    os.close(to_give)
    reads = f"os.write({write}, os.read({given}, 99)); os.close({write})"  # as `cat <(...)` would
    code = f"import os; {reads}; input(); raise SystemExit(5)"
    with subprocess.Popen(
        [PROGRAM, "run", "-q", "--", sys.executable, "-c", code],
        env=anna.environment,
        stdin=subprocess.PIPE,
        pass_fds=(given, write),
    ) as front:
        os.close(given)
        os.close(write)
        assert os.read(read, 99) == b"a configuration\n"
        assert os.read(read, 99) == b"", "to its end, while the agent runs"
        os.close(read)
        front.communicate(b"go\n")
    assert front.returncode == 5


def test_an_agent_whose_caller_has_no_locale_has_none(anna: Node):
    bare = {name: anna.environment[name] for name in ("PATH", "SESSION_MESH_HOME")}
    words = [PROGRAM, "run", "-q", "--", "env"]
    shown = subprocess.run(words, env=bare, capture_output=True, text=True, check=True).stdout
    names = {line.partition("=")[0] for line in shown.splitlines()}
    assert {name for name in names if not name.startswith("SESSION_MESH_")} == {"PATH"}


@pytest.fixture
def boxed(fleet: Fleet):
    """Start what orphans come to, on a home of its own; its node is ended with the test."""
    node = fleet.node("boxed")
    node.home.mkdir(mode=0o700)
    (node.home / "config.yaml").write_text("listen: 127.0.0.1:0\nmdns: false\n")
    started = []

    def start(*words: str, before: str = ""):
        argv = [sys.executable, "-c", ADOPTING, before, PROGRAM, *words]
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(argv, env=node.environment, text=True, **streams))
        return node, started[-1]

    yield start
    for one in started:
        below = psutil.Process(one.pid).children(recursive=True) if one.poll() is None else []
        for process in below:
            process.kill()
        one.kill()
        one.communicate()


def test_a_node_to_which_nobody_is_a_parent_is_no_part_of_the_agent_in_front(boxed):
    node, front = boxed("run", "-q", "--agent-id", "first", "--", "sleep", "600")
    wait_until(lambda: '"running"' in node.call("list", "-o", "json").out, "it to begin")
    mine = psutil.Process(node.json("status")["pid"])
    assert mine.ppid() == front.pid
    assert node.json("suspend", "first")["outcome"] == "applied"
    assert mine.status() != psutil.STATUS_STOPPED
    killed = node.json("kill", "first", "--yes")
    assert (killed["outcome"], killed["processes"]["found"]) == ("applied", 1)
    assert front.wait(PATIENCE_S) == 143
    assert node.json("status")["pid"] == mine.pid
    assert node.call("down").code == 0


def test_what_a_supervisor_does_not_heed_stays_with_the_init_in_front(boxed):
    agent = "import signal, sys\nsignal.signal(signal.SIGUSR1, lambda *_: sys.exit(9))\n"
    agent += "print('ready', flush=True)\nwhile True: signal.pause()\n"
    node, front = boxed("run", "-q", "--", sys.executable, "-c", agent)
    assert front.stdout.readline() == "ready\n"
    for number in (signal.SIGABRT, signal.SIGSYS, signal.SIGPIPE, signal.SIGTTIN, signal.SIGTTOU):
        front.send_signal(number)
    front.send_signal(signal.SIGUSR1)
    assert front.wait(PATIENCE_S) == 9
    assert node.call("down").code == 0


def test_who_ends_beside_a_node_to_which_orphans_would_come_is_collected(boxed):
    later = f"read go && exec {PROGRAM} run --detach --agent-id orphan -- sh -c 'exit 7'"
    node, front = boxed("up", "-o", "json", before=later)
    assert front.stdout.readline()
    front.stdin.write("go\n")
    front.stdin.flush()
    wait_until(lambda: "orphan" in node.sessions("--filter", "failed"))
    own = [node.json("status")["pid"]]
    wait_until(lambda: [one.pid for one in psutil.Process(front.pid).children()] == own)
    front.send_signal(signal.SIGPWR)  # which ends no PID 1
    assert node.json("status")["pid"] == own[0]
    front.terminate()
    assert front.wait(PATIENCE_S) == 0
