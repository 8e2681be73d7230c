"""A supervisor in front of a caller that reads nothing of what its agent writes."""

import fcntl
import os
import select
import socket
import subprocess
import termios
import tty
from contextlib import suppress
from pathlib import Path

import pytest
from integration.agents.front import ECHO, PYTHON, Supervised
from integration.attacks.supervised import until

from meshnode.agents.lifetime import TIMED_OUT

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
FLOOD = "import os\nwhile True:\n    for fd in (1, 2): os.write(fd, b'x' * 76 + b'\\n')\n"
BOTH = ("process", "pty")
IMPATIENT = (
    "import sys\nfrom meshnode.agents import supervise, supervisor\n"
    "supervisor.FLUSH_WAIT_S = 0.0\n"
    "sys.exit(supervise.main(sys.argv[1:]))"
)


class Unread(Supervised):
    """A supervisor that writes both streams to one place, which nobody reads yet."""

    def __init__(self, home, socket_path, end, options):
        at_terminal = os.isatty(end)
        super().__init__(
            *(home, socket_path, (*PYTHON, FLOOD), options),
            stdin=end if at_terminal else subprocess.DEVNULL,
            stdout=end,
            stderr=end,
            preexec_fn=_at_a_terminal if at_terminal else None,
        )

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        while client.connect_ex(str(self.socket)):  # until it listens
            assert self.process.poll() is None
        self.replies = client.makefile("rwb")
        client.close()

    def is_read_to_its_end(self, fd):
        self.replies.close()
        while self.process.poll() is None:
            readable, _, _ = select.select([fd], [], [], 0.05)
            if readable:
                os.read(fd, 65536)


def _at_a_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture(params=["terminal", "raw terminal", "pipe"])
def ends(request):
    if request.param == "pipe":
        reader, writer = os.pipe()
    else:
        reader, writer = os.openpty()
    if request.param == "raw terminal":
        tty.setraw(writer)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def unread(tmp_path, short_path, ends):
    started = []

    def start(*options):
        one = Unread(tmp_path, short_path / "0", ends[1], options)
        started.append(one)
        one.connect()
        while select.select([], [ends[1]], [], 0)[1]:  # until nothing more goes into it
            assert one.ask("info")["state"] == "running"
        return one

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("adapter", BOTH)
def test_who_reads_nothing_keeps_nobody_from_a_kill(unread, ends, adapter):
    one = unread("--adapter", adapter)
    killed = one.ask("kill", command_id="c1", grace_s=0.0, force=True)
    assert (killed["ok"], killed["survivors"]) == (True, [])
    one.is_read_to_its_end(ends[0])
    assert one.state()["killed_by_command"] == "c1"


def test_who_reads_nothing_does_not_put_off_a_time_out(unread, ends):
    one = unread("--timeout", "1")
    while one.ask("info")["state"] != "ended":
        pass
    one.is_read_to_its_end(ends[0])
    assert one.process.returncode == TIMED_OUT


def test_the_callers_own_description_stays_as_it_was(unread, ends):
    one = unread()
    assert one.ask("info")["ok"]
    assert os.get_blocking(ends[1])


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, full."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system is not permitted here: {mounted.stderr.strip()}")
    with (place / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def told_of_loss(one, why):
    return (
        f"session-mesh: some of its output was lost here ({why}):"
        f" session-mesh logs {one.session_id} shows what is kept of it\n"
    ).encode()


@pytest.mark.parametrize(("agents", "ours"), [(0, 1), (3, 3)])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_who_lacks_output_for_want_of_room_is_told_once(supervise, agents, ours, lines):
    with Path("/dev/full").open("wb") as full:
        command = ("sh", "-c", f"seq {lines}; exit {agents}")
        one = supervise(*command, stdout=full, stdin=subprocess.DEVNULL)
        code, _, errors = one.finish()
    assert (code, errors) == (ours, told_of_loss(one, "no space left on device"))
    assert one.state()["exit_code"] == agents
    assert (one.home / "output.log").read_bytes().endswith(f"{lines}\n".encode())


@pytest.mark.parametrize(("code", "ours"), [("exit 0", 0), ("echo >&2", 1), ("exit 3", 3)])
def test_words_of_ours_that_have_no_room_change_no_exit_code(supervise, code, ours):
    with Path("/dev/full").open("wb") as full:
        one = supervise("sh", "-c", code, options=("--say", "session x"), stderr=full)
        assert one.finish()[:2] == (ours, b"")


def test_what_waits_for_room_on_a_disk_is_written_once_there_is_some(supervise, small_disk):
    with (small_disk / "out").open("wb") as out:
        one = supervise(*PYTHON, ECHO, stdout=out)
        log = one.home / "output.log"
        until(lambda: log.exists() and log.stat().st_size)  # what it has read is what it tries
        one.connect()
        assert one.ask("steer", message="on")["ok"]
        (small_disk / "filler").unlink()
        one.replies.close()
        one.replies = None
        wanted = b"ready\ngot on\n"
        until(lambda: (small_disk / "out").read_bytes() == wanted)
        assert one.finish() == (0, None, b"")


def test_what_was_lost_on_a_full_disk_does_not_keep_what_follows_from_it(supervise, small_disk):
    code = "import sys\nprint('x' * 150_000)\nfor line in sys.stdin: print(line, end='')\n"
    with (small_disk / "out").open("wb") as out:
        one = supervise(*PYTHON, code, stdout=out)
        assert one.process.stderr.readline() == told_of_loss(one, "no space left on device")
        (small_disk / "filler").unlink()
        until(lambda: (small_disk / "out").stat().st_size)
        _, errors = one.process.communicate(b"the end\n")
    assert (one.process.returncode, errors) == (1, b"")
    assert (small_disk / "out").read_bytes().endswith(b"the end\n")


def test_who_reads_nothing_of_an_end_is_told_that_it_is_lost(supervise, monkeypatch):
    monkeypatch.setattr(Supervised, "program", ("-c", IMPATIENT))
    one = supervise("seq", "30000")  # the pipes have room for it, and we for the rest
    errors = one.process.stderr.read()
    assert errors == told_of_loss(one, "nobody has read it for 0 s")
    assert one.process.wait() == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_who_has_gone_has_lost_nothing(supervise, stream):
    reader, writer = os.pipe()
    os.close(reader)
    one = supervise("sh", "-c", "seq 100000; seq 100000 >&2", **{stream: writer})
    os.close(writer)
    code, output, errors = one.finish()
    assert code == 0
    assert b"lost" not in (output or b"") + (errors or b"")
