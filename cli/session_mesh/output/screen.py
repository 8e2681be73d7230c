"""The terminal while a picture is drawn over itself: its other screen, and single keys.

Invariant: the terminal is left as it was found, whatever ends or stops this process, but for the
signals KILL and STOP that nobody can hear.
"""

import errno
import os
import re
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

PICTURE_S = 0.2  # between two pictures
# The other screen, no cursor, and no wrapping: what is too wide is cut, and rows stay rows.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
DOWN, UP = b"\x1b[B", b"\x1b[A"
PAGE_DOWN, PAGE_UP = b" ", b"b"
KEY = re.compile(b"|".join(map(re.escape, (DOWN, UP, PAGE_DOWN, PAGE_UP))))
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
STOPPING = (signal.SIGTSTP, signal.SIGCONT)
SIGNALLED = 128  # and the signal, as a shell would report it


def scrolled(first: int, keys: bytes, page: int, rows: int) -> int:
    """Return which row comes first after keys were pressed, where a page of all rows is shown."""
    for key in KEY.findall(keys):
        first += {DOWN: 1, UP: -1, PAGE_DOWN: page, PAGE_UP: -page}[key]
        first = max(0, min(first, rows - page))
    return first


def part(first: int, shown: int, rows: int) -> str:
    """Say which part of all rows is shown, and how to see the others; "" for all."""
    if shown >= rows:
        return ""
    return f"{first + 1} to {first + shown} of {rows}; arrows, space and b show the others"


@contextmanager
def taken(out: TextIO) -> Iterator["Screen"]:
    """Take the terminal, and give it back; SystemExit for a signal that ends us.

    Ctrl-C stays an interrupt. Who is stopped gives it back, and takes it again.
    """
    screen = Screen(out)
    own = dict.fromkeys(ENDING, _end) | dict.fromkeys(STOPPING, screen.note)
    before = {one: signal.getsignal(one) for one in (*own, signal.SIGINT)}
    try:
        for one, how in own.items():
            if before[one] != signal.SIG_IGN:  # as of nohup
                signal.signal(one, how)
        screen.take()
        yield screen
    finally:
        for one in before:  # the next Ctrl-C may come while it is given back
            signal.signal(one, signal.SIG_IGN)
        screen.give_back()
        for one, found in before.items():
            signal.signal(one, found)


class Screen:
    """What is drawn on, and the keys beneath it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._found = termios.tcgetattr(self._keyboard) if self._keyboard is not None else []
        self._is_taken = False
        self._asked: int | None = None  # the signal to stop or to go on that came last
        self._body: Sequence[str] = ()

    def draw(self, body: Sequence[str]) -> None:
        """Draw lines over what is on the screen; those that do not fit are left out."""
        self._body = body
        # Cleared first: behind a line as wide as the terminal, its last character would go too.
        lines = shutil.get_terminal_size().lines
        text = "\n".join(CLEAR_LINE + one for one in body[: max(1, lines - 1)])
        self._out.write(HOME + text + BELOW)
        self._out.flush()

    def pressed(self) -> bytes:
        """Wait until the next picture is due or a key is pressed; return what was."""
        keyboard = self._keyboard
        readable, _, _ = select.select([] if keyboard is None else [keyboard], [], [], PICTURE_S)
        self._stop_or_go_on()
        return os.read(keyboard, 64) if readable and keyboard is not None else b""

    def note(self, number: int, _: FrameType | None) -> None:
        """Hear a signal, to be obeyed between two pictures: half of one may be written now."""
        self._asked = number

    def _stop_or_go_on(self) -> None:
        if self._asked is None:
            return
        if self._asked == signal.SIGTSTP:
            self.give_back()
            ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)  # returns when we go on
            signal.signal(signal.SIGTSTP, ours)
        self._asked = None
        self.take()
        self.draw(self._body)

    def take(self) -> None:
        """Take the terminal, anew if need be; in the background this stops us."""
        self._is_taken = True
        if self._keyboard is not None:
            # At once: to wait, as is usual, throws away the keys that were pressed meanwhile.
            _persist(tty.setcbreak, self._keyboard, termios.TCSANOW)
        self._out.write(ENTER)

    def give_back(self) -> None:
        """Leave the terminal as it was found."""
        if not self._is_taken:
            return
        self._is_taken = False
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # who ends shall not be stopped
        with suppress(OSError, termios.error):  # a terminal that is gone needs nothing
            if self._keyboard is not None:
                _persist(termios.tcsetattr, self._keyboard, termios.TCSADRAIN, self._found)
            self._out.write(LEAVE)
            self._out.flush()
        signal.signal(signal.SIGTTOU, before)


def _end(number: int, _: FrameType | None) -> None:
    for one in ENDING:  # once is enough
        signal.signal(one, signal.SIG_IGN)
    sys.exit(SIGNALLED + number)


def _persist(act: Any, *words: Any) -> None:  # noqa: ANN401 - of two functions
    """Do what a signal may interrupt, which Python does not do again by itself here."""
    while True:
        try:
            act(*words)
        except termios.error as error:
            if error.args[0] != errno.EINTR:
                raise
        else:
            return
