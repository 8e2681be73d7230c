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
TOO = 0x20000000  # besides what the same directory is watched for already
LOST = 0x4000  # there were more events than the kernel keeps
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
        self._waited: dict[int, set[bytes] | None] = {}  # the names by watch; None for all
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self.arm()

    def arm(self) -> None:
        """Watch what there is now and nothing else; what is watched already stays so."""
        if self.fd < 0:
            return
        needed: dict[int, set[bytes] | None] = {}
        for path, mask in self._masks.items():
            # Not pathlib's, which raises for what may not be looked into.
            there = next((one for one in (path, *path.parents) if os.path.isdir(one)), path)  # noqa: PTH112 - as said above
            wanted = MADE | TO | ONLY_DIRECTORIES | TOO | (mask if there == path else 0)
            watch = self._libc.inotify_add_watch(self.fd, os.fsencode(there), wanted)
            names = needed.setdefault(watch, set())
            if there == path:
                needed[watch] = None
            elif names is not None:
                names.add(os.fsencode(path.relative_to(there).parts[0]))
        needed.pop(-1, None)  # the kernel gives no watch
        for watch in self._waited.keys() - needed.keys():
            self._libc.inotify_rm_watch(self.fd, watch)
        self._waited = needed

    def drain(self) -> bool:
        """Take what was told; whether any of it is news."""
        is_news = False
        with suppress(BlockingIOError):
            while told := os.read(self.fd, READ_BYTES):
                at = 0
                while at < len(told):
                    watch = int.from_bytes(told[at : at + 4], "little", signed=True)
                    mask = int.from_bytes(told[at + 4 : at + 8], "little")
                    begin, at = at + _EVENT_BYTES, at + _EVENT_BYTES
                    at += int.from_bytes(told[begin - 4 : begin], "little")
                    is_news |= self._is_news(watch, mask, told[begin:at].rstrip(b"\0"))
        return is_news

    def _is_news(self, watch: int, mask: int, name: bytes) -> bool:
        if mask & LOST:
            return True
        # Whoever lists a directory opens it, as we do.
        if watch not in self._waited or (mask & OPENED and mask & IS_DIRECTORY):
            return False
        names = self._waited[watch]
        return names is None or not name or name in names

    def close(self) -> None:
        """Watch nothing any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
