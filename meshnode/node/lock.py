"""One node a home: a lock that dies with its process.

Invariant: the socket is only ever replaced by whoever holds the lock.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from meshnode.client.home import check_private, make_private
from meshnode.core.errors import ConflictError

if TYPE_CHECKING:
    from meshnode.client.home import Home


class HomeLock:
    """Held while a node runs on a home, or while a verb changes a stopped one."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock; raises ConflictError if a node runs on this home."""
        home = self._home
        check_private(home.path)
        make_private(home.run)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(home.lock, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise ConflictError(
                f"a node already runs on {home.path} (pid {pid or 'unknown'})",
                "session-mesh status shows it, session-mesh down stops it",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        os.close(self._descriptor)
