"""What this process was started with: streams that take few characters, nothing, or are closed."""

import json
import os
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("session-mesh")
NAME = "é\u6f22\U0001f600"
SHOWING = """
import sys
from session_mesh.output.render import Streams, Style, View, render
from session_mesh.output.tables import Table
streams = Streams.of_process()
rows = [{"name": sys.argv[2]}, {"name": "last"}]
view = View({"rows": rows}, Table(("NAME",), [tuple(one.values()) for one in rows]), "rows")
sys.exit(render(view, streams, Style(sys.argv[1])))
"""
WATCHING = """
import json, sys
from session_mesh.output.render import Streams
Streams.of_process().out.write(json.dumps({"name": sys.argv[1]}, ensure_ascii=False) + "\\n")
"""


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, "-c", *words],
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("latin-1", "\xe9\\u6f22\\ud83d\\ude00"), ("ascii", "\\u00e9\\u6f22\\ud83d\\ude00")],
)
@pytest.mark.parametrize("form", ["table", "csv"])
def test_what_a_stream_cannot_carry_is_spelled_out(encoding, shown, form):
    done = python(SHOWING, form, NAME, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).splitlines()[1:] == [shown, "last"]


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_stays_json_whatever_a_stream_can_carry(encoding):
    done = python(WATCHING, NAME, PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode(encoding)) == {"name": NAME}


def call(redirected, *words, home, **environment):
    """Call it from a shell, with streams redirected."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirected}', PROGRAM, *words],
        env=os.environ | {"SESSION_MESH_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("redirected", ["<&-", "2>&-", "2>&- <&-"])
@pytest.mark.parametrize("words", [("--version",), ("config", "show"), ("--help",)])
def test_a_closed_stream_gives_nothing_and_harms_nothing(tmp_path, redirected, words):
    done = call(redirected, *words, home=tmp_path / "home")
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
    assert done.stdout


@pytest.mark.parametrize("redirected", [">&-", ">&- <&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize(
    "words", [("--version",), ("config", "show"), ("config", "show", "-q"), ("--help",)]
)
def test_an_answer_that_cannot_be_written_is_no_success(tmp_path, redirected, words):
    done = call(redirected, *words, home=tmp_path / "home")
    assert (done.returncode, done.stdout) == (1, "")
    told = "error: cannot write the output: Bad file descriptor" in done.stderr
    assert told == ("2>&-" not in redirected), done.stderr


def test_what_was_done_is_done_though_it_cannot_be_told(tmp_path):
    home = tmp_path / "home"
    done = call(">&-", "init", home=home)
    assert (done.returncode, "Bad file descriptor" in done.stderr) == (1, True)
    assert "whatever was ordered is done" in done.stderr, "or a retry would order it twice"
    assert (home / "genesis.bin").exists()
    refused = call(">&-", "--help", home=home)
    assert (refused.returncode, "is done" in refused.stderr) == (1, False)


@pytest.mark.parametrize("words", [("--version",), ("config", "show"), ("--help",)])
def test_an_answer_that_nobody_reads_is_told_as_a_shell_tells_it(tmp_path, words):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as unread:
        done = subprocess.run(
            [PROGRAM, *words],
            env=os.environ | {"SESSION_MESH_HOME": str(tmp_path / "home")},
            stdout=unread,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 141
    assert b"rror" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [("--version",), ("config", "show"), ("config", "show", "-o", "csv"), ("--help",)],
)
def test_output_that_has_no_room_is_told_as_that(tmp_path, words):
    done = call("> /dev/full", *words, home=tmp_path / "home")
    assert done.returncode == 1
    said, hint = [line for line in done.stderr.splitlines() if "missing: these are" not in line]
    assert said == "error: cannot write the output: No space left on device"
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("words", "code"), [(("no-such-verb",), 2), (("status",), 6), (("--version",), 0)]
)
@pytest.mark.parametrize("taker", ["2> /dev/full", "2>&-"])
def test_a_stderr_that_takes_nothing_hides_no_exit_code(tmp_path, taker, words, code):
    done = call(taker, *words, home=tmp_path / "home")
    assert (done.returncode, done.stderr) == (code, "")


def test_a_stderr_that_nobody_reads_hides_no_exit_code(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    home = os.environ | {"SESSION_MESH_HOME": str(tmp_path / "home")}
    with os.fdopen(writer, "wb") as unread:
        done = subprocess.run([PROGRAM, "status"], env=home, stderr=unread, check=False)
    assert done.returncode == 6


def test_an_interrupt_while_it_is_loaded_ends_it_in_order(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = call("", "list", home=tmp_path / "home", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


LONG = """
import sys
from session_mesh.main import main
import session_mesh.dispatch as dispatch
def answer(words, streams):
    lines = [f"{number:07}\\n" for number in range(400_000)]
    streams.out.writelines(lines[:200_000])
    streams.out.write("".join(lines[200_000:]))
    return 0
dispatch._run = answer
sys.exit(main())
"""
WHOLE = "".join(f"{number:07}\n" for number in range(400_000)).encode()
UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"])


def long_answer(unbuffered, **streams):
    return subprocess.Popen(
        [sys.executable, "-c", LONG],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        **streams,
    )


def drained(reader):
    """Read in pieces so small that the writer meets a full pipe again and again."""
    with os.fdopen(reader, "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(10_000), b""))


@UNBUFFERED
def test_what_a_disk_took_in_part_is_no_success(tmp_path, unbuffered):
    limit = 'ulimit -f 100; exec "$0" "$@"'  # of 512 bytes each: what is left of a disk
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            ["sh", "-c", limit, sys.executable, "-c", LONG],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, (tmp_path / "out").stat().st_size) == (1, 51_200)
    assert done.stderr.startswith(b"error: cannot write the output: File too large")


@UNBUFFERED
def test_a_reader_that_leaves_amid_an_answer_is_told_as_a_shell_tells_it(unbuffered):
    with long_answer(unbuffered, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(10) == WHOLE[:10]
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


@UNBUFFERED
@pytest.mark.parametrize("ends", [os.pipe, lambda: [one.detach() for one in socket.socketpair()]])
def test_a_stream_that_does_not_block_is_waited_for(unbuffered, ends):
    reader, writer = ends()
    os.set_blocking(writer, False)
    with long_answer(unbuffered, stdout=writer) as process:
        os.close(writer)
        assert drained(reader) == WHOLE
        assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_a_reader_that_leaves_is_noticed_by_who_waits_for_it():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with long_answer("", stdout=writer) as process:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        assert (process.wait(60), process.stderr.read()) == (141, b"")


@UNBUFFERED
def test_a_complaint_is_whole_where_stderr_does_not_block(unbuffered):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    code = (
        "from session_mesh.output.render import Streams; Streams.of_process().complain('y' * 10**6)"
    )
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=writer) as process:
        os.close(writer)
        assert drained(reader) == b"y" * 10**6
        assert process.wait(60) == 0


@UNBUFFERED
def test_each_piece_that_is_flushed_is_read_at_once(unbuffered):
    code = (
        "import sys; from session_mesh.output.render import Streams\n"
        "out = Streams.of_process().out; out.write('one\\n'); out.flush()\n"
        "out.buffer.write(b'two\\n'); out.buffer.flush(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert [process.stdout.readline(), process.stdout.readline()] == [b"one\n", b"two\n"]
        process.stdin.close()


def test_what_an_interrupt_comes_upon_is_not_written_twice():
    code = """
import signal, sys
from session_mesh.output.render import Streams
out, number, is_armed = Streams.of_process().out, 0, False
class Interrupted(Exception): pass
def interrupt(*_):
    global is_armed
    if is_armed:
        is_armed = False
        raise Interrupted
signal.signal(signal.SIGINT, interrupt)
while number < 3000:
    try:
        while number < 3000:
            is_armed, number = True, number + 1
            out.write(f"{number}\\n")
            out.flush()
    except Interrupted:
        pass
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a handler is gone before the process is
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        numbers = []
        for line in process.stdout:
            numbers.append(int(line))
            if len(numbers) < 1000:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert len(numbers) > 1000
    assert [one for one, after in pairwise(numbers) if one >= after] == []
