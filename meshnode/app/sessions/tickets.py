"""Tickets: by which a node knows the agent inside a session, for that session's life.

Invariant: the node keeps a ticket's hash and never the ticket; a ticket names its session, so it
speaks for no other one; it signs nothing and authorises no command.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol

from meshnode.app.sessions.endings import Ended
from meshnode.core.errors import MeshError, NotAuthenticatedError

if TYPE_CHECKING:
    from meshnode.app.ports import Clock
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.ids import Chance
    from meshnode.core.sessions.sessions import SessionRecord

TICKET_MARK = "smt1_"
SECRET_BYTES = 32
_TICKET = re.compile(rf"{TICKET_MARK}([a-z2-7]{{26}})_[A-Za-z0-9_-]{{43}}")
_HINT = "a ticket is made by session-mesh run, for the life of that session"


class TicketBook(Protocol):
    """Where the hashes of tickets outlive a restart of the node."""

    async def keep(self, session_id: str, digest: bytes) -> None:
        """Keep a hash; raises a MeshError."""

    async def digest_of(self, session_id: str) -> bytes | None:
        """Return the hash kept for a session, None if there is none that can be read."""


class TicketDesk:
    """Makes tickets for the sessions of this node, and recognises them."""

    def __init__(
        self, sessions: OwnSessions, book: TicketBook, clock: Clock, chance: Chance
    ) -> None:
        self._sessions = sessions
        self._book = book
        self._clock = clock
        self._chance = chance

    async def issue(self, session_id: str) -> str:
        """Make the ticket of a session that was just opened; a session without one has failed."""
        secret = urlsafe_b64encode(self._chance(SECRET_BYTES)).decode().rstrip("=")
        ticket = f"{TICKET_MARK}{session_id}_{secret}"
        try:
            await self._book.keep(session_id, digest_of(ticket))
        except MeshError:
            why = "its ticket could not be written to disk"
            ending = Ended(None, None, why, killed=False, at_s=self._clock.wall_s())
            await self._sessions.ended(session_id, ending)
            raise
        return ticket

    async def admit(self, ticket: str) -> SessionRecord:
        """Return the session that a ticket is of; raises NotAuthenticatedError."""
        named = _TICKET.fullmatch(ticket)
        if named is None:
            raise NotAuthenticatedError("this is no ticket", _HINT)
        record = self._sessions.get(named[1])
        kept = None if record is None else await self._book.digest_of(record.session_id)
        if record is None or kept is None or not compare_digest(kept, digest_of(ticket)):
            raise NotAuthenticatedError("this ticket is of no session of this node", _HINT)
        record = self._sessions.get(named[1]) or record  # as it is after reading
        if record.ended:
            raise NotAuthenticatedError(
                f"session {record.session_id} has ended, and its ticket with it", _HINT
            )
        return record


def digest_of(ticket: str) -> bytes:
    """Return the hash that is kept of a ticket."""
    return sha256(ticket.encode(errors="replace")).digest()
