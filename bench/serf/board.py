"""What members notice, pinned to one board as soon as this process hears of it."""

from __future__ import annotations

import json
import os
import selectors
import time
from dataclasses import dataclass
from threading import Thread
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

READY, ALIVE, LOST, TOLD_LOST, NEWS, STORED = (
    "ready",
    "alive",
    "lost",
    "told_lost",
    "news",
    "stored",
)


@dataclass(frozen=True, slots=True)
class Notice:
    """One member noticed something: when we heard of it, and when it says that was."""

    watcher: str
    what: str
    about: str
    at_s: float
    own_at_s: float


class Board:
    """All notices so far, and whom each member sees alive."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.views: dict[str, set[str]] = {}

    def post(self, notice: Notice) -> None:
        """Take a notice in."""
        view = self.views.setdefault(notice.watcher, set())
        if notice.what == ALIVE:
            view.add(notice.about)
        elif notice.what == LOST:
            view.discard(notice.about)
        self.notices.append(notice)

    def first(self, what: str, about: str, since_s: float = 0.0) -> dict[str, Notice]:
        """Return the first such notice of every member that gave one."""
        found: dict[str, Notice] = {}
        for notice in list(self.notices):
            if notice.what == what and notice.about == about and notice.at_s >= since_s:
                found.setdefault(notice.watcher, notice)
        return found


class Lines:
    """Notices that a member writes to stdout, each a line of JSON with its own instant."""

    def __init__(self, watcher: str, board: Board) -> None:
        self._watcher = watcher
        self._board = board
        self._rest = b""

    def hear(self, heard: bytes, at_s: float) -> None:
        """Take the next bytes."""
        *lines, self._rest = (self._rest + heard).split(b"\n")
        for line in lines:
            told = json.loads(line)
            own_s = told.get("at_s", at_s)
            about = told.get("about", self._watcher)
            self._board.post(Notice(self._watcher, told["event"], about, at_s, own_s))


class Ears(Thread):
    """The one thread that reads what members tell; an instant is when their bytes were there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._selector = selectors.DefaultSelector()

    def listen(
        self, source: socket.socket | IO[bytes], hear: Callable[[bytes, float], None]
    ) -> None:
        """Read a socket or pipe to its end, then close it; nobody else does."""
        self._selector.register(source, selectors.EVENT_READ, hear)

    def run(self) -> None:
        """Read for ever."""
        while True:
            for key, _ in self._selector.select():
                at_s = time.perf_counter()
                try:
                    heard = os.read(key.fd, 1 << 16)
                except OSError:  # reset: its process was killed
                    heard = b""
                if heard:
                    key.data(heard, at_s)
                else:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
