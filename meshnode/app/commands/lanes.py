"""Commands that are under way at their owner: what each waits for, and how many may be at a time.

Invariant: a command runs in a task of the node, never in a caller's: whoever waits for it may go
away, and those who wait for the same one are answered alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from meshnode.core.errors import MeshError
    from meshnode.core.keys import Signed

EXECUTING_MAX = 64  # at once, of one lane; more wait in it, and what expires there is told so
WAITING_MAX = 1000  # a command for each session that a node may have; more: ExhaustedError
EXECUTING_OF_SESSION_MAX = 8  # an agent that hangs must not hold up those of others
OF_SESSION_MAX = 32  # that wait included; more: ExhaustedError


class UnderWay:
    """One command, from the moment it was judged until its receipt is signed."""

    def __init__(self, command_hash: bytes) -> None:
        self.hash = command_hash
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[Callable[[], Signed] | None] = loop.create_future()
        self._done: asyncio.Future[Signed] = loop.create_future()

    def accept(self, receipt: Callable[[], Signed]) -> None:
        """Tell those who wait for no more than that: it is journalled, and will be executed."""
        if not self._accepted.done():
            self._accepted.set_result(receipt)

    def finish(self, receipt: Signed) -> None:
        """Tell what became of it."""
        self._done.set_result(receipt)
        if not self._accepted.done():
            self._accepted.set_result(None)

    def fail(self, error: MeshError) -> None:
        """Tell why it is not known, or was not begun."""
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # read here, so that nobody waiting is no warning
        if not self._accepted.done():
            self._accepted.set_result(None)

    async def accepted(self) -> Signed:
        """Wait until it is journalled; returns what became of it, should that be known by then."""
        receipt = await asyncio.shield(self._accepted)
        return receipt() if receipt and not self._done.done() else await self.done()

    async def done(self) -> Signed:
        """Wait for what becomes of it; raises a MeshError."""
        return await asyncio.shield(self._done)


class Lane:
    """Lets so many execute at a time, in order of arrival, and of one session fewer."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(EXECUTING_MAX)
        self._inside: Counter[str] = Counter()  # by session, those that wait included
        self._of_session: dict[str, asyncio.Semaphore] = {}

    def check_room(self, session: str) -> None:
        """Raise ExhaustedError if too many are inside."""
        if self._inside.total() >= EXECUTING_MAX + WAITING_MAX:
            raise ExhaustedError(
                f"{self._inside.total()} commands wait to be executed", "try again"
            )
        if session and self._inside[session] >= OF_SESSION_MAX:
            raise ExhaustedError(f"{OF_SESSION_MAX} commands to this session wait", "try again")

    def enter(self, session: str) -> None:
        """Count a command from the moment it is taken."""
        self._inside[session] += 1

    def has_turn(self, session: str) -> bool:
        """Whether whoever was entered last need not wait for a turn."""
        crowd = self._inside[session] if session else 0
        return crowd <= EXECUTING_OF_SESSION_MAX and self._inside.total() <= EXECUTING_MAX

    def leave(self, session: str) -> None:
        """Count it no more."""
        self._inside[session] -= 1
        if not self._inside[session]:
            del self._inside[session]
            self._of_session.pop(session, None)

    @asynccontextmanager
    async def turn(self, session: str) -> AsyncIterator[None]:
        """Wait for a turn; the block is executed in it."""
        at_a_time = EXECUTING_OF_SESSION_MAX if session else EXECUTING_MAX
        own = self._of_session.setdefault(session, asyncio.Semaphore(at_a_time))
        async with own, self._turns:  # first its own: who waits there holds up nobody else
            yield
