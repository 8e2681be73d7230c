import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest
from integration.agents.front import ECHO, PYTHON, WAIT, Supervised, python

from meshnode.agents import tree
from meshnode.agents.agent import why_not_started
from meshnode.agents.clients import LINE_BYTES_MAX
from meshnode.agents.log import LOG_BYTES_MAX
from meshnode.agents.supervisor import GRACE_S_MAX

pytestmark = pytest.mark.integration

COPY = (
    "import os\nprint('ready', flush=True)\nwhile chunk := os.read(0, 9999): os.write(1, chunk)\n"
)
LANDED = {"ok": True, "stdin": True, "followed": False}
OVER = b"the agent was not started: its session is over already\n"


def test_streams_are_pumped_and_the_agents_exit_code_is_ours(supervise):
    one = supervise("sh", "-c", "cat; echo oops >&2; exit 3")
    assert one.process.communicate(b"words\n") == (b"words\n", b"oops\n")
    assert one.process.returncode == 3
    state = one.state()
    assert (state["state"], state["exit_code"], state["signal"]) == ("ended", 3, None)
    assert sorted((one.home / "output.log").read_bytes().split()) == [b"oops", b"words"]
    assert not one.socket.exists()


def test_a_socket_that_was_removed_is_put_back_once_its_directory_is_there(supervise):
    one = python(supervise, ECHO)
    directory, aside = one.socket.parent, one.socket.parent.with_suffix(".gone")
    directory.rename(aside)
    for is_there in (False, True):
        if is_there:
            directory.mkdir(mode=0o700)
        for _ in range(2):  # it has looked between two answers
            assert one.ask("info")["ok"], "who has come in stays"
        assert one.socket.exists() == is_there
    assert one.socket.stat().st_mode & 0o777 == 0o600
    one.replies.close()
    one.connect()
    assert one.ask("steer", message="hi")["ok"]
    assert one.line() == b"got hi\n"
    with socket.socket(socket.AF_UNIX) as caller:  # a home that was only moved may come back
        caller.connect(str(aside / one.socket.name))
        caller.sendall(b'{"id": 8, "op": "info"}\n')
        assert json.loads(caller.makefile("rb").readline())["ok"]
    shutil.rmtree(aside)
    one.socket.unlink()
    one.socket.write_text("somebody else's")
    for _ in range(2):
        assert one.ask("info")["ok"]
    assert one.socket.read_text() == "somebody else's"


def test_a_signal_is_recorded_by_name(supervise):
    one = supervise("sh", "-c", "kill -KILL $$")
    assert one.finish()[0] == 128 + signal.SIGKILL
    assert (one.state()["exit_code"], one.state()["signal"]) == (None, "SIGKILL")


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/", 126)])
def test_a_command_that_cannot_start_answers_as_docker_does(supervise, command, code):
    one = supervise(command)
    returned, _, errors = one.finish()
    assert returned == code
    assert command.encode() in errors
    assert (one.state()["state"], one.state()["exit_code"]) == ("ended", code)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_machine_has_no_room_for_is_not_the_commands_fault(number):
    code, why = why_not_started(OSError(number, os.strerror(number)))
    assert (code, why) == (125, os.strerror(number))


def test_an_agent_for_which_no_descriptors_are_left_is_not_said_to_be_no_program(supervise):
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (12, 12))  # enough for us alone
    code, _, errors = supervise("true", preexec_fn=few).finish()
    assert (code, errors) == (125, b"session-mesh: true: Too many open files\n")


def test_the_supervisors_own_failure_is_125(supervise):
    assert supervise(options=("--no-such-option",)).finish()[0] == 125


@pytest.mark.parametrize("options", [(), ("--detached",)])
def test_a_supervisor_that_can_keep_no_notes_starts_nothing_and_says_so(supervise, options):
    one = supervise("touch", "started", options=("--directory", "/proc/none", *options))
    code, _, errors = one.finish()
    assert code == 125
    assert b"the agent was not started: no such file or directory (/proc/none)" in errors
    assert list(one.home.iterdir()) == []
    assert not Path("started").exists()


def test_a_supervisor_whose_session_is_over_starts_nothing_and_says_so(supervise):
    first = supervise("true")
    first.finish()
    before = first.state()
    again = supervise("touch", "started", options=("--directory", str(first.home)))
    code, _, errors = again.finish()
    assert (code, errors) == (125, b"session-mesh: " + OVER)
    assert first.state() == before
    assert not Path("started").exists()


@pytest.mark.parametrize("command", ["sh", "no-such-command"])
def test_what_its_caller_has_to_say_comes_before_what_the_agent_says(supervise, command):
    one = supervise(command, "-c", "echo mine >&2", options=("--say=first", "--say=second"))
    _, output, errors = one.finish()
    assert (output, errors.splitlines()[:2]) == (b"", [b"first", b"second"])
    assert len(errors.splitlines()) == 3


def test_a_supervisor_leaves_nothing_open_that_a_developer_of_python_is_warned_of(
    supervise, monkeypatch
):
    monkeypatch.setattr(Supervised, "program", ("-X", "dev", "-m", "meshnode.agents.supervise"))
    one = python(supervise, "print('ready')\ninput()\n")
    assert one.ask("info")["ok"]
    one.process.stdin.write(b"\n")
    assert one.finish() == (0, b"", b"")


def test_files_are_private_whatever_the_umask(supervise):
    one = python(supervise, ECHO)
    modes = [(one.home / name).stat().st_mode & 0o777 for name in ("output.log", "state.json")]
    assert [*modes, one.socket.stat().st_mode & 0o777] == [0o600] * 3


def test_a_steer_is_one_line_on_stdin(supervise):
    one = python(supervise, ECHO)
    assert one.ask("steer", command_id="c1", message="turn\nleft\r\nnow") == {"id": 7} | LANDED
    assert one.line() == b"got turn left now\n"
    assert one.ask("steer", command_id="c2", direction="north")["ok"]
    assert one.line() == b"got direction: north\n"
    assert not one.ask("steer", command_id="c3")["ok"]


def test_a_steer_as_json_carries_its_command(supervise):
    one = python(supervise, ECHO, "--steer-format", "json")
    assert one.ask("steer", command_id="c1", direction="north", message="a\nb")["ok"]
    order = json.loads(one.line().removeprefix(b"got "))
    said = {"direction": "north", "message": "a\nb", "mode": "soft"}
    assert order == {"command_id": "c1"} | said


def test_a_steer_waits_for_the_end_of_the_callers_line(supervise):
    one = python(supervise, COPY)
    one.process.stdin.write(b"half ")
    one.process.stdin.flush()
    assert one.process.stdout.read(5) == b"half "
    one.write(b'{"id": 1, "op": "steer", "message": "steered"}')
    one.process.stdin.write(b"a line\nmore\n")
    one.process.stdin.flush()
    assert one.read() == {"id": 1} | LANDED
    assert [one.line() for _ in range(3)] == [b"a line\n", b"steered\n", b"more\n"]


def test_a_steer_of_more_than_the_buffer_holds_waits_for_the_end_of_the_callers_line(supervise):
    one = python(supervise, COPY, "--steer-format", "json")
    one.process.stdin.write(b"half ")
    one.process.stdin.flush()
    assert one.process.stdout.read(5) == b"half "
    message = "\1" * 20_000  # as JSON six times as long
    one.write(json.dumps({"op": "steer", "message": message}).encode())
    assert one.ask("info")["state"] == "running", "the steer was heard before the line goes on"
    one.process.stdin.write(b"a line\n")
    one.process.stdin.flush()
    assert one.line() == b"a line\n"
    assert json.loads(one.line())["message"] == message
    assert one.read()["ok"]


def test_a_steer_after_the_callers_stdin_ended_is_refused(supervise):
    code = "import signal, sys\nprint('ready', flush=True)\nsys.stdin.read()\nprint('end')\n" + WAIT
    one = python(supervise, code)
    one.process.stdin.close()
    one.process.stdin = None
    assert one.line() == b"end\n"
    reply = one.ask("steer", message="too late")
    assert (reply["ok"], reply["error"]) == (
        False,
        "the agent's stdin is closed: the caller's stdin has ended",
    )


def test_a_steer_to_an_agent_that_closed_its_stdin_is_refused(supervise):
    one = python(supervise, "import os\nos.close(0)\n" + WAIT)
    assert "the agent closed it" in one.ask("steer", message="hello")["error"]


def test_a_steer_is_refused_while_the_pipe_is_full_and_later_ones_get_through(supervise):
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "print('ready', flush=True)\nsignal.pause()\n"
        "for line in sys.stdin: print(len(line))\n"
    )
    one = python(supervise, code)
    message = "x" * 4095  # with its newline one page: the pipe takes all of it or nothing
    replies = []
    while not replies or replies[-1]["ok"]:
        replies.append(one.ask("steer", message=message))
    assert replies[-1]["error"] == "the agent does not read its stdin: the pipe is full"
    os.kill(one.ask("info")["pid"], signal.SIGUSR1)
    assert [one.line() for _ in replies[1:]] == [b"4096\n"] * (len(replies) - 1)
    assert one.ask("steer", message="again")["ok"]
    assert one.line() == b"6\n"


def test_steers_beyond_the_buffer_are_refused_at_once(supervise):
    one = python(supervise, WAIT)
    message = "x" * 40_000  # the pipe takes one and a half of them, the buffer one more
    for number in range(4):
        one.write(json.dumps({"id": number, "op": "steer", "message": message}).encode())
    replies = {reply["id"]: reply for reply in (one.read() for _ in range(4))}
    assert replies[0]["ok"]
    assert replies[1]["indeterminate"]  # half a line cannot be taken back
    assert replies[2] == {
        "id": 2,
        "ok": False,
        "error": "the agent does not read its stdin: the pipe is full",
    }
    assert "buffer" in replies[3]["error"]


def test_a_kill_takes_the_whole_tree_and_says_so(supervise):
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.execve('/bin/sleep', ['sleep', '1000'], {})\n"
        "os.write(1, b'ready\\n')\n"
        "while True: signal.pause()\n"
    )
    one = python(supervise, code)
    assert one.ask("subscribe")["state"] == "running"
    reply = one.ask("kill", command_id="c9", grace_s=0.05)
    assert reply["found"] == reply["gone"] >= 2
    assert reply["survivors"] == []
    event = one.read()
    assert (event["event"], event["signal"], event["killed_by_command"]) == (
        "ended",
        "SIGKILL",
        "c9",
    )
    assert one.finish()[0] == 128 + signal.SIGKILL
    assert tree.members(one.session_id) == frozenset()


@pytest.mark.parametrize(("second_s", "force"), [(0.05, False), (GRACE_S_MAX, True)])
def test_the_less_patient_of_two_kills_sets_the_pace(supervise, second_s, force):
    one = python(supervise, "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + WAIT)
    patient = {"id": 1, "op": "kill", "command_id": "c1", "grace_s": GRACE_S_MAX}
    one.write(json.dumps(patient).encode())
    one.write(json.dumps(patient | {"id": 2, "grace_s": second_s, "force": force}).encode())
    replies = [one.read() for _ in range(2)]
    assert [(reply["id"], reply["gone"]) for reply in replies] == [(1, 1), (2, 1)]
    assert one.finish()[0] == 128 + signal.SIGKILL


def test_a_more_patient_kill_does_not_slow_down_the_one_before(supervise):
    one = python(supervise, "import signal\nsignal.signal(15, signal.SIG_IGN)\n" + WAIT)
    for grace_s in (0.5, GRACE_S_MAX):
        one.write(json.dumps({"op": "kill", "command_id": "c1", "grace_s": grace_s}).encode())
    assert [one.read()["gone"] for _ in range(2)] == [1, 1]


def test_what_an_agent_leaves_running_is_stopped_and_counted(supervise):
    one = supervise("sh", "-c", "setsid sleep 1000 & exit 0")
    assert one.finish()[0] == 0
    assert one.state()["leftovers"] == 1
    assert one.state()["reason"] is None
    assert tree.members(one.session_id) == frozenset()


def test_control_c_reaches_the_agent_and_not_the_supervisor(supervise):
    one = python(supervise, "import signal\nsignal.signal(2, signal.SIG_DFL)\n" + WAIT)
    os.killpg(one.process.pid, signal.SIGINT)
    assert one.finish()[0] == 128 + signal.SIGINT
    assert one.state()["signal"] == "SIGINT"


def test_a_term_to_the_supervisor_is_passed_on(supervise):
    one = python(supervise, WAIT)
    one.process.terminate()
    assert one.finish()[0] == 128 + signal.SIGTERM
    assert one.state()["signal"] == "SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_suspended_agent_acts_upon_a_signal_that_asks_it_to_end(supervise, number):
    one = python(supervise, WAIT)
    assert one.ask("suspend")["found"] == 1
    one.process.send_signal(number)
    assert one.finish()[0] == 128 + number
    assert not one.state()["suspended"]


def test_a_closed_stdout_does_not_end_the_agent(supervise):
    code = (
        "import sys\nprint('ready', flush=True)\n"
        "for line in sys.stdin: print('x' * 200_000, file=sys.stderr if 'e' in line else None)\n"
    )
    one = python(supervise, code)
    one.process.stdout.close()
    one.process.stdout = None
    assert one.ask("steer", message="out")["ok"]
    assert one.ask("steer", message="err")["ok"]
    assert len(one.process.stderr.readline()) == 200_001
    assert one.ask("info")["state"] == "running"


def test_a_detached_agent_lives_in_a_session_of_its_own_with_an_open_stdin(supervise):
    one = supervise(
        *(*PYTHON, "import os\nprint(os.getsid(0) == os.getpid())\nprint(input())"),
        options=("--detached",),
        stdin=subprocess.DEVNULL,
    )
    assert one.process.stdout.read() == b""  # closed by the supervisor once it is listening
    one.connect()
    assert one.ask("subscribe")["ok"]
    assert one.ask("steer", message="hello")["ok"]
    assert one.read()["exit_code"] == 0
    assert one.finish()[0] == 0
    assert (one.home / "output.log").read_bytes() == b"True\nhello\n"


def test_the_log_is_rotated_and_its_end_kept(supervise):
    size = LOG_BYTES_MAX + (LOG_BYTES_MAX >> 1)
    one = supervise("sh", "-c", f"head -c {size} /dev/zero; echo end", stdout=subprocess.DEVNULL)
    assert one.finish()[0] == 0
    newest, older = one.home / "output.log", one.home / "output.log.1"
    assert newest.stat().st_size + older.stat().st_size == size + 4
    assert older.stat().st_size <= LOG_BYTES_MAX
    assert newest.read_bytes().endswith(b"\0end\n")


@pytest.mark.parametrize(
    "line", [b"[]", b"{", b'{"op": "dance"}', b'{"op": "kill", "grace_s": -1}', b"\xff"]
)
def test_a_malformed_request_is_answered_and_changes_nothing(supervise, line):
    one = python(supervise, WAIT)
    one.write(line)
    assert one.read()["ok"] is False
    assert one.ask("info")["state"] == "running"


def test_a_request_whose_id_can_be_read_and_not_written_is_refused_and_ends_nobody(supervise):
    one = python(supervise, WAIT)
    depths = range(100, 1100)  # where reading still succeeds, and writing fails, depends on Python
    for depth in depths:
        one.write(b'{"op": "info", "id": %s%s}' % (b"[" * depth, b"]" * depth))
        assert not one.read()["ok"]
    assert one.ask("info")["state"] == "running"


def test_an_endless_request_line_is_hung_up_on(supervise):
    one = python(supervise, WAIT)
    one.write(b"x" * (LINE_BYTES_MAX + 1))
    assert one.read()["error"] == "the request line is too long"
    assert one.replies.readline() == b""
    one.connect()
    assert one.ask("info")["state"] == "running"


def test_a_word_of_others_to_who_waits_in_front_moves_no_cursor(supervise):
    one = python(supervise, WAIT)
    whose = "by budget \x1b[2Jté\u202eam\n: done"
    assert one.ask("kill", command_id="c1", force=True, whose=whose)["ok"]
    _, _, errors = one.finish()
    assert errors.decode() == "session-mesh: the agent was killed by budget ?[2Jté?am?: done\n"
