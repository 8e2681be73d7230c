"""Commands that are under way at their owner: what each waits for, and how many may be at a time.

Invariant: a command runs in a task of the node, never in a caller's: whoever waits for it may go
away, and those who wait for the same one are answered alike.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from meshnode.core.errors import MeshError
    from meshnode.core.keys import Signed

EXECUTING_MAX = 64  # at once, of one lane; more wait in it
WAITING_MAX = 1000  # a command for each session that a node may have; more: ExhaustedError


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
    """Lets so many execute at a time, in order of arrival."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(EXECUTING_MAX)
        self._inside = 0

    def check_room(self) -> None:
        """Raise ExhaustedError if too many wait."""
        if self._inside >= EXECUTING_MAX + WAITING_MAX:
            raise ExhaustedError(f"{self._inside} commands wait to be executed", "try again")

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        self._inside += 1
        try:
            await self._turns.acquire()
        except BaseException:
            self._inside -= 1
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let the next one."""
        del kind, error, at
        self._inside -= 1
        self._turns.release()
