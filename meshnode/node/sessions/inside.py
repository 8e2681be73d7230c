"""What a node has for the agents inside its sessions, put together.

Invariant: a ticket's hash lies beside its session's log, in a file that is the user's alone, so it
outlives the node and even the loss of its database.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.agents.inbox_reader import SupervisorInboxes
from meshnode.app.sessions.inboxes import Inboxes
from meshnode.app.sessions.own_entries import OwnEntries
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.reporting import ReportDesk
from meshnode.app.sessions.tickets import TicketDesk
from meshnode.client.keys.keyfiles import read_secret, write_secret
from meshnode.core.errors import MeshError, RefusedError, StorageError
from meshnode.node.clock import chance
from meshnode.node.configuration.pricing import charging_now
from meshnode.rpc.inside import SessionServicer, TicketGate
from meshnode.store import reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from sqlite3 import Connection

    from meshnode.app.queries.queries import Queries
    from meshnode.app.sessions.reporting import Tally
    from meshnode.core.ledger.ledger import LedgerRow, UsageRecord
    from meshnode.node.configuration.pricing import LatePrices
    from meshnode.node.ground import Ground
    from meshnode.node.ledger.following import Following
    from meshnode.node.sessions.hosting import Hosting
    from meshnode.store.database import Database

TICKET_FILE = "ticket.sha256"


class Inside:
    """Tickets, and what they are good for."""

    def __init__(
        self,
        ground: Ground,
        hosting: Hosting,
        queries: Queries,
        following: Following,
        prices: LatePrices,
    ) -> None:
        mesh, sessions = ground.world.mesh, hosting.sessions
        self.tickets = TicketDesk(
            sessions, TicketFiles(lambda one: sessions.place_of(one)[0]), ground.clock, chance
        )
        registrar = Registrar(mesh.roster, ground.world.publish)
        writable = ground.alarms.check_writable
        book = StoredReports(ground.database, prices, writable, following.counting)
        reports = ReportDesk(sessions, book, following.publish, ground.clock, ground.spawn)
        reports.on_report = hosting.worked
        self.servicer = SessionServicer(
            self.tickets,
            queries,
            OwnEntries(registrar, mesh.roster.entries, mesh.self_id),
            reports,
            Inboxes(SupervisorInboxes(sessions.place_of)),
            hosting.worked,
        )
        self.gate = TicketGate(self.tickets)


class TicketFiles:
    """The hash of a session's ticket, in the session's directory."""

    def __init__(self, directory_of: Callable[[str], Path]) -> None:
        self._directory_of = directory_of

    async def keep(self, session_id: str, digest: bytes) -> None:
        """Write a hash; raises StorageError, ConflictError, NotPermittedError."""
        await asyncio.to_thread(write_secret, self._directory_of(session_id) / TICKET_FILE, digest)

    async def digest_of(self, session_id: str) -> bytes | None:
        """Read a hash; None if there is none that is the user's alone."""
        path = self._directory_of(session_id) / TICKET_FILE
        try:
            return await asyncio.to_thread(read_secret, path)
        except MeshError:
            return None


class StoredReports:
    """The ledger in the node's database, as reports reach it."""

    def __init__(
        self,
        database: Database,
        prices: LatePrices,
        check_writable: Callable[[], None],
        counting: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]],
    ) -> None:
        self._database = database
        self._prices = prices  # of the thread of the database alone
        self._check_writable = check_writable
        self._counting = counting  # whoever is inside says what the ledger says now

    async def tally(self, session_id: str) -> Tally:
        """Count what a session has reported: all models, and responses whose records are kept."""
        return await self._database.run(reports.tally, session_id)

    async def knows(self, record: UsageRecord) -> bool:
        """Whether it is counted already; raises ConflictError if it said something else."""
        return await self._database.run(reports.knows, record)

    async def count(self, record: UsageRecord) -> list[LedgerRow]:
        """Keep a record that is not known; raises RefusedError while the disk takes nothing."""
        try:
            async with self._counting(self._check_writable):
                return await self._database.run(self._charged, record)
        except StorageError as error:
            raise RefusedError(
                f"this node takes nothing new: {error.message}", error.hint
            ) from error

    def _charged(self, connection: Connection, record: UsageRecord) -> list[LedgerRow]:
        return reports.count(connection, record, charging_now(self._prices))
