"""Taking turns to write, where several processes have one file open.

SQLite lets in whoever asks at the right moment: who waits looks again ten times a second, and who
writes one transaction after the other is nearly always quicker. So whoever is to begin takes the
turn first, and keeps it until it has begun: who has just ended comes after those that wait.

Invariant: the turn decides who is next and nothing else. It dies with its process; where it cannot
be had in time, or at all, SQLite alone decides.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOOK_AGAIN_MS = 5
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Turn(msgspec.Struct, frozen=True):
    """Whose turn it is, as an empty file that is locked; waited for so long."""

    path: Path
    patience_ms: int

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let nobody else begin meanwhile, as far as they take turns."""
        try:
            file = os.open(self.path, _FLAGS, 0o600)
        except OSError:  # no room for it, or something is in its place
            yield
            return
        try:
            for _ in range(self.patience_ms // LOOK_AGAIN_MS):
                if _is_locked(file):
                    break
                sleep(LOOK_AGAIN_MS / 1000)
            yield
        finally:
            os.close(file)

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """Take the turn if it is free, and tell whether it was; nobody is waited for."""
        try:
            file = os.open(self.path, _FLAGS, 0o600)
        except OSError:  # as above; who can do without goes away
            yield False
            return
        try:
            yield _is_locked(file)
        finally:
            os.close(file)


def _is_locked(file: int) -> bool:
    """Lock a file; False if somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
