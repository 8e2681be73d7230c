"""A supervisor in front of a caller that reads nothing of what its agent writes."""

import fcntl
import os
import select
import socket
import subprocess
import termios
import tty

import pytest
from integration.agents.front import PYTHON, Supervised

from meshnode.agents.lifetime import TIMED_OUT

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
FLOOD = "import os\nwhile True:\n    for fd in (1, 2): os.write(fd, b'x' * 76 + b'\\n')\n"
BOTH = ("process", "pty")


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
