"""What a caller's keyboard does to an agent in a terminal of its own, and what steers it meets."""

import fcntl
import os
import select
import signal
import subprocess
import termios

import pytest
from integration.agents.test_supervise import PYTHON, Supervised

pytestmark = pytest.mark.integration

PATIENCE_S = 20.0
# Ends by INT and QUIT alone, and says which it was.
STUBBORN = """
import os, signal
def told(number, _):
    os.write(1, b"told %d" % number)
    os._exit(number)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, told)
os.write(1, b"ready\\n")
while True: signal.pause()
"""


class Seat(Supervised):
    """A supervisor in front of somebody at a terminal."""

    def __init__(self, home, socket_path, code):
        self.keyboard, terminal = os.openpty()
        super().__init__(
            *(home, socket_path, (*PYTHON, code), ("--adapter", "pty")),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.sees(b"ready")
        self.connect()

    def type(self, keys):
        os.write(self.keyboard, keys)

    def sees(self, text):
        shown = b""
        while text not in shown:
            readable, _, _ = select.select([self.keyboard], [], [], PATIENCE_S)
            assert readable, (text, shown)
            shown += os.read(self.keyboard, 65536)

    def end(self):
        super().end()
        os.close(self.keyboard)


@pytest.fixture
def sit(tmp_path, short_path):
    seats = []

    def at(code):
        seats.append(Seat(tmp_path, short_path / "0", code))
        return seats[-1]

    yield at
    for seat in seats:
        seat.end()


@pytest.fixture
def unseated(tmp_path, short_path):
    """A supervisor of an agent in a terminal, whose caller has none."""
    options = ("--adapter", "pty")
    one = Supervised(
        *(tmp_path, short_path / "0", (*PYTHON, STUBBORN), options),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield one
    one.end()


def test_who_was_asked_to_end_and_has_not_still_has_its_keyboard(sit):
    seat = sit(STUBBORN)
    assert seat.ask("close", grace_s=0)["survivors"]
    seat.type(b"\x03")
    seat.sees(b"told %d" % signal.SIGINT)
    assert seat.process.wait(PATIENCE_S) == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_what_a_callers_keyboard_signals_reaches_an_agent_whose_terminal_is_its_own(
    unseated, number
):
    assert unseated.line() == b"ready\r\n"
    os.killpg(unseated.process.pid, number)
    assert unseated.process.wait(PATIENCE_S) == number
