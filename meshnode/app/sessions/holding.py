"""Closing, suspending and resuming the sessions that this node owns.

Invariant: a session is shown suspended only after its whole tree stands still, and running only
after it was let go on; a session that was asked to end and does not is neither hidden nor killed,
and one that was suspended before stands still again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.app.sessions.done import ALREADY_ENDED, Done, are, counted
from meshnode.app.sessions.sessions import grace_of
from meshnode.core.errors import ConflictError, RefusedError
from meshnode.core.sessions.sessions import WORKING, SessionRecord, State

if TYPE_CHECKING:
    from meshnode.app.sessions.sessions import OwnSessions


class Holding:
    """Orders to a session that leave its agent alive, or let it end by itself."""

    def __init__(self, sessions: OwnSessions) -> None:
        self._sessions = sessions
        self._agents = sessions.agents

    async def close(
        self, record: SessionRecord, command_id: str, args: dict[str, Any], by: str
    ) -> Done:
        """Ask the agent to end: its stdin ends, TERM follows after the grace, and nothing more."""
        if record.ended and not await self._sessions.find_lost(record.session_id):
            return ALREADY_ENDED
        grace_s = grace_of(args)
        self._sessions.ending_by(record.session_id, by)
        standing = await self._agents.ask_to_end(record.session_id, command_id, grace_s)
        if standing.survivors:
            said = f"{are(len(standing.survivors))} still there: it was asked, and did not end"
            if standing.suspended:
                said += "; it is suspended again"
            await self._sessions.held(record.session_id, suspended=standing.suspended)
            return Done("failed", said, counted(standing))
        await self._sessions.told_of_end(record.session_id, closed=True)
        said = f"{are(standing.gone)} gone"
        if standing.needed:
            said += f"; the end of its input was not enough: {standing.needed} was needed"
        return Done("applied", said, counted(standing))

    async def suspend(self, record: SessionRecord) -> Done:
        """Stop the whole tree where it stands."""
        if record.state not in WORKING | {State.SUSPENDED}:
            raise _not_now(record, "suspended")
        count = await self._agents.suspend(record.session_id)
        await self._sessions.held(record.session_id, suspended=True)
        return Done("applied", f"{are(count)} suspended")

    async def resume(self, record: SessionRecord) -> Done:
        """Let the whole tree run on."""
        if record.state not in WORKING | {State.SUSPENDED}:
            raise _not_now(record, "resumed")
        count = await self._agents.resume(record.session_id)
        await self._sessions.held(record.session_id, suspended=False)
        return Done("applied", f"{are(count)} running again" if count else "it was not suspended")


def _not_now(record: SessionRecord, asked: str) -> ConflictError | RefusedError:
    if record.ended:
        return ConflictError(f"session {record.session_id} has ended ({record.state})")
    return RefusedError(f"session {record.session_id} has not started yet: it cannot be {asked}")
