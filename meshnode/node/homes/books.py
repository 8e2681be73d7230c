"""The journal and the invites of a node, as the use cases want them: in the node's database."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from meshnode.core.errors import ConflictError, RefusedError, StorageError
from meshnode.core.packing import unpack_map
from meshnode.store import invites, journal, standing

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Sequence

    from meshnode.app.ports import Device, JournalEntry, OutstandingInvite
    from meshnode.core.keys import Signed
    from meshnode.store.database import Database

    Work = Callable[[sqlite3.Connection], Signed | None]

GROUP_MAX = 256  # written together; more wait for the next
STOP_ELSE = "; until then session-mesh down --close-sessions, on its machine, stops all its agents"
RECEIPTS_MAX = (
    4096  # that wait for a disk that failed, meanwhile nothing is begun: more than lanes hold
)


class StoredJournal:
    """The replay journal on disk; what comes while the disk is busy is then written together.

    Invariant: nothing is begun that is not on disk. A receipt that the disk did not take is
    returned all the same, for what it says has happened, also to who sends the command again; it
    waits for the next that is begun.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unkept: dict[bytes, Signed] = {}
        self._held: journal.Held | None = None  # used on the database's thread only
        self._waiting: list[tuple[Work, asyncio.Future[Signed | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def begin(self, entry: JournalEntry, now_s: float) -> Signed | None:
        """Insert a command, synced; None if new, else its receipt.

        Raises ConflictError, and RefusedError if the disk does not take it.
        """
        if entry.command_id in self._unkept:
            return self._unkept_of(entry)
        async with _or_refused(STOP_ELSE if entry.is_stop else ""):
            while self._unkept:
                command_id, receipt = next(iter(self._unkept.items()))
                await self._write(partial(_finish, command_id, receipt))
                self._unkept.pop(command_id, None)
            return await self._write(partial(self._begin, entry, now_s))

    async def answered(self, entry: JournalEntry) -> Signed | None:
        """Return a command's receipt, None if it is not known; raises ConflictError."""
        if entry.command_id in self._unkept:
            return self._unkept_of(entry)
        async with _or_refused():
            return await self._database.run(journal.answered, entry)

    async def execute(self, command_id: bytes) -> None:
        """Mark a command whose execution begins; raises RefusedError if the disk fails."""
        async with _or_refused():
            await self._write(partial(_execute, command_id))

    async def finish(self, command_id: bytes, receipt: Signed) -> None:
        """Keep what became of a command."""
        try:
            await self._write(partial(_finish, command_id, receipt))
        except StorageError:
            if len(self._unkept) < RECEIPTS_MAX:
                self._unkept[command_id] = receipt

    async def raise_floor(self, now_s: float) -> None:
        """Note the latest time that the clock has shown, as far as the disk takes it."""
        with suppress(StorageError):
            await self._database.run(journal.raise_floor, now_s)

    def _unkept_of(self, entry: JournalEntry) -> Signed:
        receipt = self._unkept[entry.command_id]
        if unpack_map(receipt.payload)["command_hash"] != entry.content_hash:
            raise ConflictError("another command was sent with the same id", journal.ANOTHER_ID)
        return receipt

    def _begin(
        self, entry: JournalEntry, now_s: float, connection: sqlite3.Connection
    ) -> Signed | None:
        if self._held is None:
            self._held = journal.count(connection)
        return journal.begin(connection, entry, now_s, self._held)

    async def _write(self, work: Work) -> Signed | None:
        """Have something written with whatever else waits; raises what it raises."""
        written: asyncio.Future[Signed | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all())
        return await written

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:GROUP_MAX], self._waiting[GROUP_MAX:]
            results: Sequence[Signed | Exception | None]
            try:
                results = await self._database.run(journal.together, [work for work, _ in group])
            except Exception as error:  # noqa: BLE001 - each of those who wait raises it
                self._held = None  # what was counted has not happened
                results = [error] * len(group)
            for (_, written), result in zip(group, results, strict=True):
                _tell(written, result)


def _execute(command_id: bytes, connection: sqlite3.Connection) -> None:
    journal.execute(connection, command_id)


def _finish(command_id: bytes, receipt: Signed, connection: sqlite3.Connection) -> None:
    journal.finish(connection, command_id, receipt)


def _tell(written: asyncio.Future[Signed | None], result: Signed | Exception | None) -> None:
    if written.done():  # whoever waited has gone
        return
    if isinstance(result, Exception):
        written.set_exception(result)
    else:
        written.set_result(result)


class StoredOrders:
    """What became of standing kills, on disk. A failing disk keeps none from being told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, key: tuple[bytes, str], issuer: bytes, expires_s: int, now_s: float
    ) -> bool:
        """Insert one, synced; False if it was answered before. Raises RefusedError."""
        async with _or_refused():
            return await self._database.run(standing.begin, key, issuer, expires_s, now_s)

    async def finish(self, key: tuple[bytes, str], outcome: str) -> None:
        """Keep what became of it; what the disk does not take is begun again after a restart."""
        with suppress(StorageError):
            await self._database.run(standing.finish, key, outcome)


class StoredInvites:
    """The outstanding invites on disk. Each call raises RefusedError if the disk fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, invite: OutstandingInvite, now_s: float, old_s: float) -> None:
        """Keep an invite, and none that expired before `old_s`; raises ConflictError."""
        async with _or_refused():
            await self._database.run(invites.add, invite, now_s, old_s)

    async def get(self, invite_id: bytes) -> OutstandingInvite:
        """Return an invite; raises NotFoundError."""
        async with _or_refused():
            return await self._database.run(invites.get, invite_id)

    async def take_use(self, invite_id: bytes, device: Device, now_s: float) -> bool:
        """Take one use for a device, False if it has had one; raises NotPermittedError."""
        async with _or_refused():
            return await self._database.run(invites.take_use, invite_id, device, now_s)


@asynccontextmanager
async def _or_refused(till_then: str = "") -> AsyncIterator[None]:
    """Nothing was begun, so it is a refusal: the caller may try again later."""
    try:
        yield
    except StorageError as error:
        hint = error.hint + till_then
        raise RefusedError(f"this node takes nothing new: {error.message}", hint) from error
