"""The inboxes of this node's sessions, as the agents inside them read them.

Invariant: an agent reads its own inbox only. Followers are bounded, since each holds a call and the
node answers its user on the same socket.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from meshnode.core.commands.steers import SOFT
from meshnode.core.errors import ExhaustedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FOLLOWERS_MAX = 256  # of all sessions together: half of the calls that the socket serves at a time
FOLLOWERS_OF_ONE_MAX = 4
_HINT = "ask now and then, without following"


class Received(msgspec.Struct, frozen=True):
    """A steer as it lies in an inbox."""

    position: int
    command_id: str
    direction: str
    message: str
    at_s: float
    mode: str = SOFT


class InboxReader(Protocol):
    """Reaches the inbox that a session's supervisor keeps."""

    def read(self, session_id: str, after: int | None, *, follow: bool) -> AsyncIterator[Received]:
        """Yield steers behind a position; raises UnreachableError."""

    async def take(self, session_id: str, position: int) -> None:
        """Note up to where they are dealt with; raises UsageError, UnreachableError."""


class Inboxes:
    """Hands steers to who follows."""

    def __init__(self, reader: InboxReader) -> None:
        self._reader = reader
        self._followers: Counter[str] = Counter()

    async def read(
        self, session_id: str, after: int | None, *, follow: bool
    ) -> AsyncIterator[Received]:
        """Yield what is kept behind a position, then, if followed, what comes until the end.

        Raises ExhaustedError for a follower too many, UnreachableError.
        """
        if not follow:
            async for steer in self._reader.read(session_id, after, follow=False):
                yield steer
            return
        if self._followers[session_id] >= FOLLOWERS_OF_ONE_MAX:
            raise ExhaustedError(f"{FOLLOWERS_OF_ONE_MAX} follow this inbox already", _HINT)
        if self._followers.total() >= FOLLOWERS_MAX:
            raise ExhaustedError(f"{FOLLOWERS_MAX} inboxes of this node are followed", _HINT)
        self._followers[session_id] += 1
        try:
            async for steer in self._reader.read(session_id, after, follow=True):
                yield steer
        finally:
            self._followers[session_id] -= 1
            self._followers += Counter()  # keep no names of sessions that nobody follows

    async def take(self, session_id: str, position: int) -> None:
        """Note up to where an agent has dealt with its steers."""
        await self._reader.take(session_id, position)
