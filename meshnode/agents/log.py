"""The agent's output on the disk: two files of raw bytes, and beside each when it was written.

Invariant: whenever `output.log` can be opened, its index can be found; a full disk loses output of
the log, never the agent.
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
LOG, OLDER_LOG = "output.log", "output.log.1"
TIMES, OLDER_TIMES = "output.times", "output.times.1"


class Log:
    """The agent's output as raw bytes, bounded; `clock` returns seconds since 1970."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        """Begin a log; raises OSError."""
        self._directory = directory
        self._clock = clock
        self._begin(0)

    def write(self, chunk: bytes) -> None:
        """Append; rotates first if the file would grow beyond its limit."""
        try:
            if self._size and self._size + len(chunk) > LOG_BYTES_MAX:
                full, its_times = self._fd, self._times
                self._begin(self._base + self._size)
                os.close(full)
                its_times.close()
            self._times.note(self._base + self._size)
            self._size += os.write(self._fd, chunk)
        except OSError:
            return

    def _begin(self, base: int) -> None:
        """Put a log in place that begins at this byte of the output, and its index before it."""
        draft, draft_times = self._directory / "output.new", self._directory / "output.times.new"
        draft.unlink(missing_ok=True)  # ours, or put there by the agent: never written through
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(draft, flags, mode=0o600)
        try:
            times = Times(draft_times, os.fstat(fd).st_ino, base, self._clock)
            for draft_of, name, older in (
                (draft_times, TIMES, OLDER_TIMES),
                (draft, LOG, OLDER_LOG),
            ):
                with suppress(FileNotFoundError):
                    (self._directory / name).replace(self._directory / older)
                draft_of.replace(self._directory / name)
        except OSError:
            os.close(fd)
            raise
        self._fd, self._times, self._base, self._size = fd, times, base, 0
