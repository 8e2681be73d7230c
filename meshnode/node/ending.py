"""The one end of a node: seen through, whether or not whoever asked for it waits for the answer.

Invariant: a call that is given up, or runs out of time, leaves no node that was ended by half; a
signal changes nothing of an end that was begun, which is what its caller is told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from meshnode.app.outcomes import settle
from meshnode.core.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from meshnode.app.queries.views import Stopped

    Work = Coroutine[Any, Any, Stopped]
    End = Callable[[bool, str, float | None], Work]  # leave, keep or close, seconds for closing

CLOSE_SESSIONS_S = 30.0  # for all of them, after a signal; what is left lives on


class Ending:
    """Carries out an end as a task of the node; who asks for the same again waits for it too."""

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, None]], None], end: End, on_exit: str
    ) -> None:
        self._spawn, self._end, self._on_exit = spawn, end, on_exit
        self._asked = (False, "")
        self._outcome: asyncio.Future[Stopped] | None = None
        self._signalled = False
        self.over = asyncio.Event()  # nothing is left to be told: the node may go

    async def ask(self, leave: bool, sessions: str) -> Stopped:  # noqa: FBT001 - as asked
        """Return what was left behind; raises ConflictError if another end is under way.

        Raises what the end does: then the node stays, and may be asked again.
        """
        if sessions not in {"", "keep", "close"}:
            raise UsageError("sessions are kept or closed")
        asked, outcome = (leave, sessions or self._on_exit), self._outcome
        if outcome is None:
            outcome = self._begin(asked, self._end(*asked, None))
        elif self._asked != asked:
            raise ConflictError("this node is ending already", "wait until it has")
        return await asyncio.shield(outcome)

    def obey(self) -> None:
        """Stop as a signal asks: reversible. An end under way stands; if it fails, then."""
        self._signalled = True
        if self._outcome is None:
            asked = (False, self._on_exit)
            self._begin(asked, self._stop(*asked))

    async def _stop(self, leave: bool, sessions: str) -> Stopped:  # noqa: FBT001 - as `ask` has it
        try:
            return await self._end(leave, sessions, CLOSE_SESSIONS_S)
        finally:
            self.over.set()  # whatever failed

    def _begin(self, asked: tuple[bool, str], work: Work) -> asyncio.Future[Stopped]:
        self._asked, self._outcome = asked, asyncio.Future()
        self._spawn(self._see_through(work, self._outcome))
        return self._outcome

    async def _see_through(self, work: Work, outcome: asyncio.Future[Stopped]) -> None:
        try:
            await settle(work, outcome)
        finally:
            if not outcome.cancelled():
                self._settled(failed=outcome.exception() is not None)

    def _settled(self, *, failed: bool) -> None:
        if not failed:
            self.over.set()
        elif not self.over.is_set():
            self._outcome = None
            if self._signalled:
                self.obey()
