"""Rows of sessions that are published later: counts come in bursts, and a full feed has no room.

Invariant: what has no room is tried again until it has, and for so long somebody is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

COUNT_S = 0.1  # from a steer to the row that says so: a flush costs every member a signature
FULL_S = 10.0  # between two attempts to publish what had no room


class Untold:
    """The sessions of a node whose rows are not as they should be.

    For each at most one task waits as long as a count does, and one for room.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[None, None, None]], None],
        publish: Callable[[str], Coroutine[None, None, None]],
    ) -> None:
        self._spawn = spawn
        self._publish = publish
        self._waiting: set[str] = set()
        self._asleep: set[tuple[str, float]] = set()  # one for each task, with how long it waits
        self._full: set[str] = set()
        self.on_full: Callable[[int], None] = _nobody_told  # so many have no room

    def tell_later(self, session_id: str, after_s: float = COUNT_S) -> None:
        """Publish a session's row, with what becomes of it until then."""
        if session_id in self._waiting:
            return
        self._waiting.add(session_id)
        if (session_id, after_s) not in self._asleep:  # since it was told of, its task sleeps on
            self._asleep.add((session_id, after_s))
            self._spawn(self._tell(session_id, after_s))

    def told(self, session_id: str) -> None:
        """Note that a session is being published as it is."""
        self._waiting.discard(session_id)

    def has_no_room(self, session_id: str) -> None:
        """Note that a session's row was refused, and try again later."""
        self._full.add(session_id)
        self.on_full(len(self._full))
        self.tell_later(session_id, FULL_S)

    def has_room(self, session_id: str) -> None:
        """Note that a session's row was taken, or is wanted no more."""
        if session_id in self._full:
            self._full.discard(session_id)
            self.on_full(len(self._full))

    async def tell_all(self) -> None:
        """Publish at once all that is not told: the node is about to stop."""
        for session_id in list(self._waiting):
            await self._publish(session_id)

    async def _tell(self, session_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._asleep.discard((session_id, after_s))  # what is refused once more needs another
        if session_id in self._waiting:
            await self._publish(session_id)


def _nobody_told(count: int) -> None:
    del count
