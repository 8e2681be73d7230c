"""A pseudo terminal for an agent, and the caller's own terminal while it stands in for that.

Invariant: the caller's terminal is raw only while we have it, and is given back as it was found;
nothing here stops us, which touching a terminal that is another's would.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from meshnode.agents.sequences import Sequences
from meshnode.agents.streams import Inlet, Piece
from meshnode.app.sessions.opening import PTY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from meshnode.agents.steering import Steer

WINSIZE = struct.Struct("HHHH")
SIZE = 24, 80, 0, 0  # rows, columns, pixels: where nobody looks, or a terminal does not know
NO_KEY = b"\0"  # a special character that is switched off
LINE_BYTES_MAX = 4095  # what a terminal keeps of a line that it edits; it drops the rest unsaid
ENDS = (
    3  # of input: one completes a line without an end, one ends that, and one is looked for again
)
LOCAL, CHARACTERS = 3, 6  # where tcgetattr has the flags of editing, and the special characters
KEY_COUNTS_S = 10.0  # where no terminal edits lines, and a key may be all that an agent waits for
LINE_ENDS = (b"\r", b"\n", b"\x03", b"\x04", b"\x15")  # Enter, and what throws a line away
_TYPEABLE = bytes(32 if one < 32 or one == 127 else one for one in range(256))  # noqa: PLR2004 - C0 and DEL


def is_behind() -> bool:
    """Whether 0 is our terminal and another's turn: to read it stops our group, the agent too."""
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # no terminal, or none that stops us
        return False


@contextmanager
def opened(adapter: str, *, in_front: bool) -> Iterator[Terminal | None]:
    """Open a terminal for an agent that shall have one, and give back the caller's at the end."""
    if adapter != PTY:
        yield None
        return
    terminal = Terminal(in_front=in_front)
    try:
        yield terminal
    finally:
        terminal.give_back()


class Terminal:
    """One pseudo terminal; `in_front` of a caller at a terminal, it is as large as that."""

    def __init__(self, *, in_front: bool) -> None:
        """Open it; raises OSError."""
        self.master, self.slave = os.openpty()
        self._has_caller = in_front and os.isatty(0)
        self._found: list[Any] | None = None  # how the caller's terminal was
        self._is_raw = False
        self.fit()

    def adopt(self) -> None:
        """Make 0 the terminal of this process, which leads a session of its own."""
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def begun(self) -> None:
        """The agent has its end: when it lets go of it, we hear."""
        os.close(self.slave)

    def fit(self) -> None:
        """Make it as large as the caller's; the agent is told by the kernel."""
        size: tuple[int, ...] = SIZE
        if self._has_caller:
            with suppress(OSError):
                known = WINSIZE.unpack(fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(WINSIZE.size)))
                size = tuple(one or other for one, other in zip(known, SIZE, strict=True))
        with suppress(OSError):
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, WINSIZE.pack(*size))

    def take(self) -> None:
        """Let every key through to the agent. Call it only when 0 is ours."""
        if not self._has_caller or self._is_raw:
            return
        with suppress(termios.error):
            if self._found is None:
                self._found = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
            self._is_raw = True

    def lost(self) -> None:
        """Whoever had the caller's terminal meanwhile may have changed it."""
        self._is_raw = False

    def give_back(self) -> None:
        """Leave the caller's terminal as it was found, unless it is another's now."""
        if self._found is not None and not is_behind():
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self._found)  # nor wait for who reads it
        self._is_raw = False


class TypedInlet(Inlet):
    """The agent's end of a terminal, as a keyboard: a steer is a line that is typed, with Enter."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._is_ended = False
        self._sequences = Sequences()
        self._has_keys = False  # since a line has ended
        self._was_edited = False  # by the terminal, when something was typed last
        self._typed_at_s: float | None = 0.0  # None: since `expire` was called

    def refusal(self, line: bytes) -> str:
        """Say why a line would be refused at once; empty: it is taken, or waits for room."""
        if self._edited() and len(line) > LINE_BYTES_MAX:
            return f"a line of a terminal has at most {LINE_BYTES_MAX} bytes"
        return super().refusal(line)

    def steer(self, steer: Steer) -> None:
        """Queue one line, or refuse it at once; what would be a key of its own is a space."""
        steer.line = steer.line.rstrip(b"\n").translate(_TYPEABLE) + b"\r"
        super().steer(steer)

    def ask_to_end(self, why: str) -> None:
        """Type the end of input, and go on: its keyboard is its caller's only way to stop it."""
        del why
        self._type_the_end()
        self.flush()

    def end(self, why: str) -> None:
        """Type the end of input, and nothing more."""
        self._type_the_end()
        super().end(why)

    def _type_the_end(self) -> None:
        """Type it once, where a terminal knows one."""
        settings = self._edited()
        if settings and not self._is_ended:
            self._is_ended = True
            key = settings[CHARACTERS][termios.VEOF]
            if key != NO_KEY:
                self._queue.append(Piece(key * ENDS))

    def expire(self, now_s: float) -> None:
        """Let steers in where a key may have been all there was; withdraw what waited too long."""
        if self._typed_at_s is None:
            self._typed_at_s = now_s
        if self._held and not self._is_in_line() and self._typed_at_s + KEY_COUNTS_S <= now_s:
            self._sequences.forget()
            self._mid_line = self._has_keys = False
            self._let_in()
            self.flush()
        super().expire(now_s)

    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do."""
        deadline_s = super().next_deadline_s()
        if deadline_s is None or self._typed_at_s is None or not self._held or self._is_in_line():
            return deadline_s
        return min(deadline_s, self._typed_at_s + KEY_COUNTS_S)

    def _is_mid_line_after(self, chunk: bytes) -> bool:
        self._typed_at_s = None
        self._was_edited = bool(self._edited())
        if self._was_edited:
            self._sequences.forget()
            keys = chunk  # whatever is typed is in the line
        else:
            keys = self._sequences.keys_of(chunk)
        if keys:
            self._has_keys = not keys.endswith(LINE_ENDS)
        return self._has_keys or self._sequences.is_amid

    def _is_in_line(self) -> bool:
        """Whether what was typed waits in the terminal for the end of its line."""
        return self._was_edited and bool(self._edited())

    def _edited(self) -> list[Any]:
        """Return how the terminal edits lines; empty where the agent takes each key itself."""
        with suppress(termios.error):
            settings = termios.tcgetattr(self.fd) if self.fd is not None else []
            if settings and settings[LOCAL] & termios.ICANON:
                return settings
        return []
