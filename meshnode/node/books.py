"""The journal and the invites of a node, as the use cases want them: in the node's database."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from meshnode.core.errors import RefusedError, StorageError
from meshnode.store import invites, journal, standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from meshnode.app.ports import Device, JournalEntry, OutstandingInvite
    from meshnode.core.keys import Signed
    from meshnode.store.database import Database


RECEIPTS_MAX = 1000  # that wait for a disk that failed; more: after a restart they are not known


class StoredJournal:
    """The replay journal on disk.

    Invariant: nothing is begun that is not on disk. A receipt that the disk did not take is
    returned all the same, for what it says has happened; it waits for the next that is begun.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unkept: dict[bytes, Signed] = {}

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        """Insert a command, synced; None if new, else its receipt.

        Raises ConflictError, and RefusedError if the disk does not take it.
        """
        async with _or_refused():
            while self._unkept:
                command_id, receipt = next(iter(self._unkept.items()))
                await self._database.run(journal.finish, command_id, receipt)
                self._unkept.pop(command_id, None)
            return await self._database.run(journal.begin, entry, now_s)

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        """Keep what became of a command."""
        try:
            await self._database.run(journal.finish, command_id, receipt)
        except StorageError:
            if len(self._unkept) < RECEIPTS_MAX:
                self._unkept[command_id] = receipt


class StoredOrders:
    """What became of standing kills, on disk. A failing disk keeps none from being told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, key: tuple[bytes, str], expires_s: int, now_s: float) -> bool:
        """Insert one, synced; False if it was answered before. Raises RefusedError."""
        async with _or_refused():
            return await self._database.run(standing.begin, key, expires_s, now_s)

    async def finish(self, key: tuple[bytes, str], outcome: str) -> None:
        """Keep what became of it; what the disk does not take is begun again after a restart."""
        with suppress(StorageError):
            await self._database.run(standing.finish, key, outcome)


class StoredInvites:
    """The outstanding invites on disk. Each call raises RefusedError if the disk fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, invite: OutstandingInvite, now_s: float) -> None:
        """Keep an invite."""
        async with _or_refused():
            await self._database.run(invites.add, invite, now_s)

    async def get(self, invite_id: bytes) -> OutstandingInvite:
        """Return an invite; raises NotFoundError."""
        async with _or_refused():
            return await self._database.run(invites.get, invite_id)

    async def take_use(self, invite_id: bytes, device: Device, now_s: float) -> None:
        """Take one use for a device; raises NotPermittedError."""
        async with _or_refused():
            await self._database.run(invites.take_use, invite_id, device, now_s)


@asynccontextmanager
async def _or_refused() -> AsyncIterator[None]:
    """Nothing was begun, so it is a refusal: the caller may try again later."""
    try:
        yield
    except StorageError as error:
        raise RefusedError(f"this node takes nothing new: {error.message}", error.hint) from error
