"""Being told by the kernel at once when something changes in a few directories (inotify(7)).

One that is not there yet is waited for in the nearest that is. Invariant: a change only makes
somebody look sooner: where the kernel gives no watch, they look now and then in any case.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WRITTEN, OPENED, FROM, TO, MADE, GONE = 0x8, 0x20, 0x40, 0x80, 0x100, 0x200
ONLY_DIRECTORIES, IS_DIRECTORY = 0x1000000, 0x40000000
READ_BYTES = 64 << 10
_EVENT_BYTES = 16  # before the name


class Directories:
    """Watches directories; `fd` is readable when something has changed, -1 if there is no watch.

    Of those with locks it also tells what is opened: who takes up a lock that another has left
    behind makes nothing new.
    """

    def __init__(self, paths: Iterable[Path], with_locks: Iterable[Path]) -> None:
        self._masks = dict.fromkeys(paths, WRITTEN | FROM | GONE)
        self._masks |= dict.fromkeys(with_locks, OPENED | FROM | GONE)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.arm()

    def arm(self) -> None:
        """Watch what there is now; what is watched already stays so."""
        if self.fd < 0:
            return
        for path, mask in self._masks.items():
            # Not pathlib's, which raises for what may not be looked into.
            there = next((one for one in (path, *path.parents) if os.path.isdir(one)), path)  # noqa: PTH112
            wanted = MADE | TO | ONLY_DIRECTORIES | (mask if there == path else 0)
            self._libc.inotify_add_watch(self.fd, os.fsencode(there), wanted)

    def drain(self) -> bool:
        """Take what was told; whether any of it is news."""
        is_news = False
        with suppress(BlockingIOError):
            while told := os.read(self.fd, READ_BYTES):
                at = 0
                while at < len(told):
                    mask = int.from_bytes(told[at + 4 : at + 8], "little")
                    # Whoever lists a directory opens it, as we do.
                    is_news |= not (mask & OPENED and mask & IS_DIRECTORY)
                    at += _EVENT_BYTES + int.from_bytes(told[at + 12 : at + 16], "little")
        return is_news

    def close(self) -> None:
        """Watch nothing any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
