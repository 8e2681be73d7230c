"""What a caller's keyboard does to an agent in a terminal of its own, and what steers it meets."""

import fcntl
import os
import select
import signal
import subprocess
import termios
import tty
from contextlib import suppress
from pathlib import Path

import pytest
from integration.agents.front import PYTHON, Supervised

from meshnode.agents.steering import Steer
from meshnode.agents.terminal import KEY_COUNTS_S, TypedInlet

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

KEYS = """
import os, tty
tty.setraw(0)
os.write(1, b"ready")
while True: os.write(1, os.read(0, 256).hex().encode())
"""
SIZES = """
import os
at = os.get_terminal_size()
os.write(1, b"%dx%d ready" % (at.columns, at.lines))
os.read(0, 1)
"""
ANSWERS = {  # of a terminal to the program in it, and keys that are no part of a line
    "what it is": b"\x1b[?62;22c",
    "its colour": b"\x1b]11;rgb:0000/0000/0000\x1b\\",
    "its title": b"\x1b]lwords\x07",
    "its version": b"\x1bP>|XTerm(390)\x1b\\",
    "its focus": b"\x1b[I",
    "a mouse": b"\x1b[<35;12;7M",
    "an old mouse": b"\x1b[M #\r",
    "an arrow": b"\x1b[A",
    "an arrow of vim": b"\x1bOA",
    "a key of Linux": b"\x1b[[A",
    "escape": b"\x1b",
    "several": b"\x1b[I\x1b[24;80R\x1b[O",
}


class Seat(Supervised):
    """A supervisor in front of somebody at a terminal."""

    def __init__(self, home, socket_path, code, size=(30, 100)):
        self.keyboard, terminal = os.openpty()
        termios.tcsetwinsize(terminal, size)
        super().__init__(
            *(home, socket_path, (*PYTHON, code), ("--adapter", "pty")),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.began = self.sees(b"ready")
        self.connect()

    def type(self, keys):
        os.write(self.keyboard, keys)

    def sees(self, text):
        shown = b""
        while text not in shown:
            readable, _, _ = select.select([self.keyboard], [], [], PATIENCE_S)
            assert readable, (text, shown)
            shown += os.read(self.keyboard, 65536)
        return shown

    def end(self):
        super().end()
        os.close(self.keyboard)


@pytest.fixture
def sit(tmp_path, short_path):
    seats = []

    def at(code, **how):
        seats.append(Seat(tmp_path, short_path / "0", code, **how))
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


def worked_s(pid):
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def sit_aside(sit, tmp_path):
    """Seat an agent that has let go of its terminal, and runs some code once it is signalled."""
    gone = tmp_path / "gone"

    def at(code):
        os.mkfifo(gone)
        seat = sit(
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
            "os.write(1, b'ready')\n"
            "for fd in range(3): os.close(fd)\n"
            f"open({str(gone)!r}, 'w').close()\n"
            "signal.sigwait({signal.SIGUSR1})\n" + code
        )
        gone.read_bytes()  # waits for it to be opened
        return seat

    return at


def test_a_terminal_that_an_agent_lets_go_of_is_read_once_it_is_taken_again(sit_aside, tmp_path):
    seat = sit_aside("os.write(os.open('/dev/tty', os.O_RDWR), b'Password: ')\n")
    pid = seat.ask("info")["pid"]
    for _ in range(3):  # each is a round of what it polls for
        assert seat.ask("info")["ok"]
    os.kill(pid, signal.SIGUSR1)
    seat.sees(b"Password: ")
    assert seat.process.wait(PATIENCE_S) == 0
    assert (tmp_path / "output.log").read_bytes() == b"readyPassword: "


def test_a_terminal_that_an_agent_lets_go_of_is_not_waited_for_all_the_time(sit_aside):
    seat = sit_aside("signal.pause()\n")
    os.set_blocking(seat.keyboard, False)
    with suppress(BlockingIOError):
        while True:
            seat.type(b"x" * 99 + b"\n")  # until nobody takes any more of it
            assert seat.ask("info")["ok"]
    before = worked_s(seat.process.pid)
    select.select([], [], [], 1.0)  # to turn round in
    assert worked_s(seat.process.pid) - before < 0.1, "of a second"
    assert seat.ask("kill", grace_s=0, force=True)["survivors"] == []


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_a_terminal_answers_holds_no_steer(sit, answer):
    seat = sit(KEYS)
    seat.type(answer)
    seat.sees(answer.hex().encode())
    assert seat.ask("steer", message="go on")["ok"]
    seat.sees(b"go on\r".hex().encode())


@pytest.mark.parametrize(
    ("size", "shown"),
    [((30, 100), "100x30"), ((0, 0), "80x24"), ((0, 100), "100x24"), ((30, 0), "80x30")],
)
def test_a_terminal_that_does_not_know_its_size_is_as_large_as_none(sit, size, shown):
    seat = sit(SIZES, size=size)
    assert seat.began.startswith(shown.encode())


class Keyboard:
    """The keyboard of a terminal in one process, what came of its steers, and what arrived."""

    def __init__(self, *, raw):
        self.master, self.slave = os.openpty()
        if raw:
            tty.setraw(self.slave)
        self.inlet = TypedInlet(os.dup(self.master))
        self.replies = []

    def type(self, *chunks):
        for chunk in chunks:
            self.inlet.pump(chunk)
        self.inlet.expire(0.0)

    def steer(self, give_up_at_s=1e9):
        self.inlet.steer(Steer(b"go\n", self.replies.append, give_up_at_s))

    def hears(self, text):
        heard = b""
        while len(heard) < len(text):
            readable, _, _ = select.select([self.slave], [], [], PATIENCE_S)
            assert readable, heard
            heard += os.read(self.slave, 4096)
        assert heard == text

    def close(self):
        self.inlet.shut("the test has ended")
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def keyboard():
    opened = []

    def plug(*, raw=True):
        opened.append(Keyboard(raw=raw))
        return opened[-1]

    yield plug
    for one in opened:
        one.close()


@pytest.mark.parametrize("keys", [b"j", b"half a line", b"\x1b[200~pasted\r\x1b[201~"])
def test_a_key_holds_steers_for_a_while_where_nobody_edits_lines(keyboard, keys):
    one = keyboard()
    one.type(keys)
    one.steer()
    one.inlet.expire(KEY_COUNTS_S - 0.1)
    assert one.replies == []
    assert one.inlet.next_deadline_s() == KEY_COUNTS_S
    one.inlet.expire(KEY_COUNTS_S)
    assert one.replies == [{"ok": True}]
    one.hears(keys + b"go\r")


def test_a_later_key_holds_them_anew_and_enter_lets_them_in(keyboard):
    one = keyboard()
    one.type(b"j")
    one.inlet.expire(KEY_COUNTS_S - 1.0)
    one.inlet.pump(b"k")
    one.steer()
    one.inlet.expire(KEY_COUNTS_S)
    assert one.replies == []
    one.type(b"\r")
    assert one.replies == [{"ok": True}]
    one.hears(b"jk\rgo\r")


def test_a_line_that_the_terminal_edits_is_begun_until_it_is_ended(keyboard):
    one = keyboard(raw=False)
    one.type(b"\x1b[A")  # is in the line, as whatever is typed
    one.steer(give_up_at_s=1e6)
    one.inlet.expire(1e5)
    assert one.replies == []
    one.inlet.expire(1e6)
    assert not one.replies[0]["ok"]


@pytest.mark.parametrize("cut", [2, 3, 8])
def test_an_answer_in_two_pieces_holds_no_steer_and_has_none_in_its_midst(keyboard, cut):
    one, answer = keyboard(), b"\x1b[?62;22c"
    one.type(answer[:cut])
    one.steer()
    assert one.replies == []
    one.type(answer[cut:])
    assert one.replies == [{"ok": True}]
    one.hears(answer + b"go\r")


def test_an_answer_without_an_end_is_keys_from_some_length_on(keyboard):
    one = keyboard()
    one.type(b"\x1b]", *[b"x" * 4096] * 2)
    one.type(b"\r")
    one.steer()
    assert one.replies == [{"ok": True}]


def test_a_terminal_that_knows_no_end_of_input_is_typed_none(keyboard):
    one = keyboard(raw=False)
    settings = termios.tcgetattr(one.slave)
    settings[6][termios.VEOF] = b"\0"  # as stty eof undef
    termios.tcsetattr(one.slave, termios.TCSANOW, settings)
    one.inlet.ask_to_end("it was asked to end")
    one.type(b"a line\n")
    one.hears(b"a line\n")
