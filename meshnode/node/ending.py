"""The one end of a node: seen through, whether or not whoever asked for it waits for the answer.

Invariant: a call that is given up, or runs out of time, leaves no node that was ended by half.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from meshnode.app.outcomes import settle
from meshnode.core.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshnode.app.views import Stopped

    End = Callable[[bool, str], Coroutine[Any, Any, Stopped]]


class Ending:
    """Carries out an end as a task of the node; who asks for the same again waits for it too."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._asked = (False, "")
        self._outcome: asyncio.Future[Stopped] | None = None

    async def ask(self, end: End, leave: bool, sessions: str) -> Stopped:  # noqa: FBT001 - as asked
        """Return what was left behind; raises ConflictError if another end is under way.

        Raises what `end` does: then the node stays, and may be asked again.
        """
        if self._outcome is None:
            self._asked, self._outcome = (leave, sessions), asyncio.Future()
            self._spawn(self._see_through(end(leave, sessions), self._outcome))
        elif self._asked != (leave, sessions):
            raise ConflictError("this node is ending already", "wait until it has")
        return await asyncio.shield(self._outcome)

    async def _see_through(
        self, work: Coroutine[Any, Any, Stopped], outcome: asyncio.Future[Stopped]
    ) -> None:
        try:
            await settle(work, outcome)
        finally:
            if not outcome.cancelled() and outcome.exception() is not None:
                self._outcome = None
