"""Telling the mesh that agents are at work: that they write, and report what they use.

Invariant: a node publishes the activity of its sessions at most once in TELL_S, all of it together:
a flush costs every member a signature, and one that prints all day shall not cost more than that.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.ports import Clock
    from meshnode.app.sessions.sessions import OwnSessions

LOOK_S = 5.0  # until the first sign of work after a quiet time is told
TELL_S = 60.0  # how old what is told of an agent at work may be
_log = logging.getLogger("session_mesh.sessions")


class Activity:
    """Looks at the live sessions of this node; `written_at_s` says when one wrote output last."""

    def __init__(
        self,
        sessions: OwnSessions,
        written_at_s: Callable[[str], float | None],
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._written_at_s = written_at_s
        self._clock = clock
        self._noted: dict[str, float] = {}

    def note(self, session_id: str) -> None:
        """Note that a session has just shown that it is at work."""
        self._noted[session_id] = self._clock.wall_s()

    async def watch(self) -> None:
        """Look for ever; what fails is tried again, and no sooner than what was told."""
        while True:
            told = True
            try:
                told = await self.look()
            except Exception as error:  # noqa: BLE001 - a disk that is full, or whatever it was
                _log.warning("it is not told which agents are at work: %s", error)
            await asyncio.sleep(TELL_S if told else LOOK_S)

    async def look(self) -> bool:
        """Tell what was active since the last look, in one flush; return whether any was."""
        noted, self._noted = self._noted, {}
        now_s = self._clock.wall_s()
        told = []
        for record in self._sessions.live():
            session_id = record.session_id
            latest_s = max(noted.get(session_id, 0.0), self._written_at_s(session_id) or 0.0)
            at_s = min(latest_s, now_s)  # the agent may have set the time of its log
            if at_s > record.last_activity_s:
                told.append(self._sessions.active(session_id, at_s))
        await asyncio.gather(*told)
        return bool(told)
