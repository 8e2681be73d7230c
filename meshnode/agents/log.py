"""The agent's output on the disk: two files of raw bytes, and beside each when it was written.

Invariant: whenever `output.log` can be opened, its index can be found; a full disk loses output of
the log, never the agent, and a rotation that fails leaves no file open and the log as it was.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.agents.times import Times

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOG_BYTES_MAX = 16 << 20  # then the log is renamed to output.log.1, replacing the one before
ROTATE_AGAIN_S = 1.0  # after a rotation that failed; what is written meanwhile is lost
LOG, OLDER_LOG = "output.log", "output.log.1"
TIMES, OLDER_TIMES = "output.times", "output.times.1"
DRAFT, TIMES_DRAFT = "output.new", "output.times.new"


class Log:
    """The agent's output as raw bytes, bounded; `clock` returns seconds since 1970."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        """Begin a log; raises OSError."""
        self._directory = directory
        self._clock = clock
        self._failed_at_s: float | None = None
        self._base = self._size = 0
        self._begin(0)

    def write(self, chunk: bytes) -> None:
        """Append; rotates first if the file would grow beyond its limit."""
        try:
            self._notice_a_cut()
            if self._size and self._size + len(chunk) > LOG_BYTES_MAX and not self._rotate():
                return
            self._times.note(self._base + self._size)
            self._size += os.write(self._fd, chunk)
        except OSError:
            return

    def _notice_a_cut(self) -> None:
        """Begin later where somebody else has shortened the log, so that positions go on."""
        size = os.fstat(self._fd).st_size
        if size < self._size:
            self._times.begin_at(self._base + self._size - size)  # before any more is in it
            self._base += self._size - size
            self._size = size

    def _rotate(self) -> bool:
        """Begin the next log; False: that has failed, now or just before."""
        now_s = self._clock()
        if self._failed_at_s is not None and 0 <= now_s - self._failed_at_s < ROTATE_AGAIN_S:
            return False
        full, its_times = self._fd, self._times
        try:
            self._begin(self._base + self._size)
        except OSError:
            self._failed_at_s = now_s
            return False
        self._failed_at_s = None
        os.close(full)
        its_times.close()
        return True

    def _begin(self, base: int) -> None:
        """Put a log in place that begins at this byte of the output, and its index before it."""
        draft = self._directory / DRAFT
        draft.unlink(missing_ok=True)  # ours, or put there by the agent: never written through
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(draft, flags, mode=0o600)
        try:
            inode = os.fstat(fd).st_ino
            times = Times(self._directory / TIMES_DRAFT, inode, base, self._clock)
            try:
                self._put_in_place()
            except OSError:
                times.close()
                raise
        except OSError:
            os.close(fd)
            raise
        self._fd, self._times, self._base, self._size = fd, times, base, 0

    def _put_in_place(self) -> None:
        """Rename the two before and the two drafts, or none of them; raises OSError."""
        done: list[tuple[Path, Path]] = []
        try:
            for name, then in (LOG, OLDER_LOG), (TIMES, OLDER_TIMES):
                with suppress(FileNotFoundError):
                    done.append(self._renamed(name, then))
            for name, then in (TIMES_DRAFT, TIMES), (DRAFT, LOG):
                done.append(self._renamed(name, then))
        except OSError:
            for before, after in reversed(done):
                with suppress(OSError):
                    after.replace(before)
            raise

    def _renamed(self, name: str, then: str) -> tuple[Path, Path]:
        return self._directory / name, (self._directory / name).replace(self._directory / then)
