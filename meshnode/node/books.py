"""The journal and the invites of a node, as the use cases want them: in the node's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.store import invites, journal

if TYPE_CHECKING:
    from meshnode.app.ports import Device, JournalEntry, OutstandingInvite
    from meshnode.core.keys import Signed
    from meshnode.store.database import Database


class StoredJournal:
    """The replay journal on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        """Insert a command, synced; None if new, else its receipt; raises ConflictError."""
        return await self._database.run(journal.begin, entry, now_s)

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        """Keep what became of a command."""
        await self._database.run(journal.finish, command_id, receipt)


class StoredInvites:
    """The outstanding invites on disk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, invite: OutstandingInvite, now_s: float) -> None:
        """Keep an invite."""
        await self._database.run(invites.add, invite, now_s)

    async def get(self, invite_id: bytes) -> OutstandingInvite:
        """Return an invite; raises NotFoundError."""
        return await self._database.run(invites.get, invite_id)

    async def take_use(self, invite_id: bytes, device: Device, now_s: float) -> None:
        """Take one use for a device; raises NotPermittedError."""
        await self._database.run(invites.take_use, invite_id, device, now_s)
