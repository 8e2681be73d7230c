"""The agent's three streams, as the supervisor holds them.

Invariants: nothing here blocks, every buffer has a limit, and the agent never notices a caller who
has gone. A steer goes between two lines of the caller's.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.agents.log import Log
    from meshnode.agents.steering import Steer

INPUT_BYTES_MAX = 64 << 10  # waiting for the agent to read; a steer that makes it more is refused
OUTPUT_BYTES_MAX = 64 << 10  # waiting for the caller to read; beyond, the agent's pipe is left full
CHUNK_BYTES = 64 << 10
STDOUT_WRITE_BYTES = select.PIPE_BUF  # a poll that says writable promises no more than this
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # for now
DRAIN_BYTES_MAX = 4 << 20  # what is read from an ended agent's pipes if somebody still fills them


class Piece:
    """Bytes for the agent's stdin: the caller's, or a steer's."""

    def __init__(self, rest: bytes, steer: Steer | None = None) -> None:
        self.rest = rest
        self.steer = steer

    @property
    def begun(self) -> bool:
        """Whether some of the steer is in the pipe already."""
        return self.steer is not None and len(self.rest) < len(self.steer.line)


class Inlet:
    """The agent's stdin. A steer goes between two lines of the caller's, never into one."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd: int | None = fd
        self.bytes_in = 0  # of all that was written into it
        self._closed_because = ""  # set as soon as nothing more is taken
        self._queue: deque[Piece] = deque()
        self._held: list[Steer] = []  # until the caller's line is complete
        self._mid_line = False

    @property
    def waiting(self) -> bool:
        """Whether bytes wait for room in the pipe."""
        return bool(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether more may be read from the caller."""
        # Steers that are held wait for the end of a line that is yet to be read: not counted.
        return not self._closed_because and self._queued() < INPUT_BYTES_MAX

    def refusal(self, line: bytes) -> str:
        """Say why a line would be refused at once; empty: it is taken, or waits for room."""
        if not self._closed_because and self._has_no_reader():
            self.shut("the agent closed it")
        if self._closed_because:
            return f"the agent's stdin is closed: {self._closed_because}"
        if 0 < self._bytes() > INPUT_BYTES_MAX - len(line):
            return "the agent does not read its stdin: the pipe and the buffer are full"
        return ""

    def steer(self, steer: Steer) -> None:
        """Queue one line, or refuse it at once."""
        if why := self.refusal(steer.line):
            steer.refused(why)
        elif self._mid_line:
            self._held.append(steer)
        else:
            self._queue.append(Piece(steer.line, steer))
            self.flush()

    def pump(self, chunk: bytes) -> None:
        """Pass on what the caller typed."""
        self._mid_line = self._is_mid_line_after(chunk)
        head, newline, tail = chunk.partition(b"\n")
        if self._held and newline:
            self._queue.append(Piece(head + newline))
            self._let_in()
            chunk = tail
        if chunk:
            self._queue.append(Piece(chunk))
        if not self._mid_line:
            self._let_in()
        self.flush()

    def _let_in(self) -> None:
        self._queue.extend(Piece(steer.line, steer) for steer in self._held)
        self._held.clear()

    def _is_mid_line_after(self, chunk: bytes) -> bool:
        return not chunk.endswith(b"\n")

    def ask_to_end(self, why: str) -> None:
        """Let the agent see the end of its input, and take nothing more."""
        self.end(why)

    def end(self, why: str) -> None:
        """Close the pipe as soon as what is queued is in it."""
        self._closed_because = why
        for steer in self._held:
            steer.refused(f"the agent's stdin is closed: {why}")
        self._held.clear()
        self.flush()

    def shut(self, why: str) -> None:
        """Close the pipe now and tell those who wait."""
        if self.fd is not None:
            os.close(self.fd)
        self.fd = None
        for piece in self._queue:
            if piece.steer and piece.begun:
                piece.steer.unsure(f"the agent's stdin closed in the middle of the line: {why}")
            elif piece.steer:
                piece.steer.refused(f"the agent's stdin is closed: {why}")
        self._queue.clear()
        self.end(why)

    def flush(self) -> None:
        """Write what the pipe takes."""
        while self.fd is not None and self._queue:
            piece = self._queue[0]
            try:
                written = os.write(self.fd, piece.rest)
            except BlockingIOError:
                return
            except OSError:
                self.shut("the agent closed it")
                return
            self.bytes_in += written
            piece.rest = piece.rest[written:]
            if not piece.rest:
                self._queue.popleft()
                if piece.steer:
                    piece.steer.delivered()
        if self._closed_because and self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def expire(self, now_s: float) -> None:
        """Withdraw steers that waited too long; one that has begun cannot be withdrawn."""
        late = [piece for piece in self._queue if piece.steer and piece.steer.give_up_at_s <= now_s]
        for piece in late:
            if piece.steer and piece.begun:
                piece.steer.unsure("the agent stopped reading its stdin in the middle of the line")
            elif piece.steer:
                self._queue.remove(piece)
                piece.steer.refused("the agent does not read its stdin: the pipe is full")
        for steer in [one for one in self._held if one.give_up_at_s <= now_s]:
            self._held.remove(steer)
            steer.refused("the caller has left the agent's stdin in the middle of a line")

    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do."""
        steers = [piece.steer for piece in self._queue if piece.steer] + self._held
        return min((one.give_up_at_s for one in steers if not one.answered), default=None)

    def _has_no_reader(self) -> bool:
        if self.fd is None:
            return False
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))

    def _bytes(self) -> int:
        return sum(len(steer.line) for steer in self._held) + self._queued()

    def _queued(self) -> int:
        return sum(len(piece.rest) for piece in self._queue)


class Outlet:
    """The caller's stdout or stderr. If it is closed, or its disk is full, the agent never notices.

    `lost` says why some of it is lost for good, for another reason than that its reader has gone.
    """

    def __init__(self, fd: int) -> None:
        self.fd = _unblocking(fd)
        self.open = True
        self.has_output = False  # else only words of ours can be lost
        self.pending = bytearray()
        self.full = ""  # why a disk takes nothing for now, though poll says that there is room
        self.lost = ""

    @property
    def has_room(self) -> bool:
        """Whether the agent is listened to: a slow reader holds it up, a full disk does not."""
        return bool(self.full) or len(self.pending) < OUTPUT_BYTES_MAX

    def write(self, chunk: bytes) -> None:
        """Queue output of the agent for the caller."""
        self.has_output = True
        self.add(chunk)

    def add(self, chunk: bytes) -> None:
        """Queue for the caller; what is beyond the limit is lost."""
        if not self.open:
            return
        room = max(OUTPUT_BYTES_MAX - len(self.pending), 0) if self.full else len(chunk)
        self.pending += chunk[:room]
        if len(chunk) > room:
            self.lost = self.full

    def flush(self) -> None:
        """Write one piece; call it only when poll says that there is room."""
        try:
            written = os.write(self.fd, self.pending[:STDOUT_WRITE_BYTES])
        except BlockingIOError:
            return
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            if error.errno in NO_ROOM:
                self.full = why
                return
            self.open = False
            self.pending.clear()
            self.lost = self.lost or ("" if error.errno == errno.EPIPE else why)
        else:
            self.full = ""
            del self.pending[:written]

    def let_go(self, why: str) -> None:
        """Try once more; what is not taken at once is lost."""
        self.flush_some()
        if self.pending:
            self.lost = self.full or why
            self.pending.clear()

    def flush_some(self) -> None:
        """Write what is taken at once."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        left = 0
        while self.pending and len(self.pending) != left and poll.poll(0):
            left = len(self.pending)
            self.flush()


class Patience:
    """How long is waited for somebody who takes bytes: anew with each that is taken."""

    def __init__(self, wait_s: float, now_s: float) -> None:
        self._wait_s = wait_s
        self._until_s = now_s + wait_s
        self._waiting = 0

    def left_s(self, waiting: int, now_s: float) -> float:
        """Return how long is still waited while so many bytes are left; 0: no more."""
        if waiting < self._waiting:
            self._until_s = now_s + self._wait_s
        self._waiting = waiting
        return max(self._until_s - now_s, 0.0) if waiting else 0.0


def _unblocking(fd: int) -> int:
    """Open the caller's terminal or pipe once more: room for one byte is not room for a piece.

    It may have been filled since poll, by our other stream too, and a write to it then waits for
    who reads it. What the caller has opened is left as it is, since others write to it as well.
    """
    if not os.isatty(fd) and not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # another user's, or its reader has gone
        return fd


class Source:
    """A pipe or terminal that the agent writes to, copied to the log and, in front, the caller."""

    def __init__(self, fd: int, log: Log, outlet: Outlet | None) -> None:
        os.set_blocking(fd, False)
        self.fd: int | None = fd
        self.bytes_out = 0  # of all that was read from it
        self.is_let_go = False  # a terminal that nobody has open: the agent may open it again
        self._log = log
        self._outlet = outlet

    @property
    def wanted(self) -> bool:
        """Whether there is room for more of it, and poll tells when there is some."""
        has_room = self._outlet is None or self._outlet.has_room
        return self.fd is not None and has_room and not self.is_let_go

    def read(self) -> int:
        """Copy one chunk; returns its length, 0 if there is none now."""
        if self.fd is None:
            return 0
        self.is_let_go = False
        try:
            chunk = os.read(self.fd, CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:
                self.is_let_go = True
                return 0
            chunk = b""
        if not chunk:
            os.close(self.fd)
            self.fd = None
            return 0
        self.bytes_out += len(chunk)
        self._log.write(chunk)
        if self._outlet:
            self._outlet.write(chunk)
        return len(chunk)

    def drain(self) -> None:
        """Copy what an ended agent left in the pipe."""
        left = DRAIN_BYTES_MAX
        while left > 0 and (size := self.read()):
            left -= size
