"""What must reach the disk: our own flushes before anybody hears of them, replicas soon.

Invariant: at most PENDING_MAX changes of at most PENDING_BYTES_MAX wait; beyond that a replica's
changes collapse into one copy of its rows. A write that fails is tried again, in order; nothing of
ours is published meanwhile, and the alarm `disk` stands until a write has reached the disk.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from meshnode.app.audit.alarms import DISK, Alarm
from meshnode.core.control.entries import entry_id_of
from meshnode.core.errors import StorageError
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.rows import all_rows
from meshnode.store import facts, feeds, forks
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshnode.app.audit.alarms import Alarms
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.rows import Place
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.store.database import Database

    Work = Callable[[sqlite3.Connection], None]
    """Changes what belongs to a flush, on the database's thread; done again if that fails."""

Entries = dict[bytes, "Signed | None"]  # by id; None: to be deleted
PENDING_MAX = 4096
PENDING_BYTES_MAX = 32 << 20  # of flushes; a snapshot's rows are the replica's own
OTHERS_DELAY_S = 2.0  # rows of others wait for more of them: they are safe with their owner
RETRY_S = 1.0
PROBE_FACT = "probe"
PROBE = bytes(8192)  # needs room of its own, so that it proves that there is some
P = ParamSpec("P")
_log = logging.getLogger("session_mesh.store")


class FeedWriter:
    """Writes changes of feeds and control entries in the background."""

    def __init__(
        self,
        database: Database,
        replica_of: Callable[[NodeId], Replica],
        on_persisted: Callable[[Change], None],
        alarms: Alarms,
    ) -> None:
        self._database = database
        self._alarms = alarms
        self._replica_of = replica_of
        self._on_persisted = on_persisted
        self._changes: list[tuple[Change, bool]] = []
        self._beside: dict[Place, Work] = {}  # until a flush of ours writes that row
        self._works: list[tuple[Change, Work]] = []  # and then with that flush
        self._bytes = 0  # of the flushes that wait
        self._doubted = False  # whether a write outside of here has failed since the last here
        self._collapsed: set[NodeId] = set()
        self._unstorable: set[NodeId] = set()  # until the next start: the disk keeps what it had
        self._entries: Entries = {}
        self._forks: dict[NodeId, Proof] = {}
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None  # while only what can wait does
        self._latest = asyncio.Event()  # set once all that is planned up to now is on disk
        self._latest.set()
        self._taken = True  # whether that is being written, or is on disk
        database.on_trouble = self._doubt

    def put(self, change: Change, *, ours: bool) -> None:
        """Plan a write."""
        if not ours and (change.origin in self._collapsed or change.origin in self._unstorable):
            return  # the copy that is taken later includes it, or there is no storing it
        full = len(self._changes) >= PENDING_MAX or self._bytes >= PENDING_BYTES_MAX
        if full and not ours:
            self._collapsed.add(change.origin)
        else:
            self._changes.append((change, ours))
            self._bytes += 0 if change.flush is None else len(change.flush.delta)
        for place in [one for one in self._beside if ours and one in change.rows]:
            self._works.append((change, self._beside.pop(place)))
        self._wake(urgent=ours)

    def put_beside(self, place: Place, work: Work) -> None:
        """Have something done in the transaction of the next flush of ours that writes this row."""
        self._beside[place] = work

    def drop_beside(self, place: Place) -> None:
        """Take that back, if it has not happened."""
        self._beside.pop(place, None)

    def put_entry(self, entry: Signed) -> None:
        """Plan the write of a control entry."""
        self._entries[entry_id_of(entry)] = entry
        self._wake(urgent=True)

    def drop_entries(self, entry_ids: Iterable[bytes]) -> None:
        """Plan the deletion of control entries."""
        self._entries.update(dict.fromkeys(entry_ids))
        self._wake(urgent=False)

    def put_fork(self, proof: Proof) -> None:
        """Plan the write of a fork proof; of one origin the newest is written."""
        self._forks[proof[0].origin] = proof
        self._wake(urgent=True)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._until_due()
            written, self._taken = self._latest, True
            changes, entries = self._take()
            works, self._works = self._works, []
            proofs, self._forks = list(self._forks.values()), {}
            await self._save(changes, works, entries)
            for proof in proofs:
                await self._write(forks.save, proof)
            for change, ours in changes:
                if ours:
                    self._on_persisted(change)
            written.set()

    async def _until_due(self) -> None:
        await self._due.wait()
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def drained(self) -> None:
        """Wait until everything planned so far is on disk, whatever comes meanwhile."""
        if not self._taken:
            self._due.set()
        await self._latest.wait()

    def _wake(self, *, urgent: bool) -> None:
        if self._taken:
            self._latest, self._taken = asyncio.Event(), False
        if urgent:
            self._due.set()
        elif self._timer is None:  # no task wakes for it: neighbours wait for the news behind it
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(OTHERS_DELAY_S, self._due.set)

    def _take(self) -> tuple[list[tuple[Change, bool]], Entries]:
        changes, self._changes, self._bytes = self._changes, [], 0
        for origin in self._collapsed:
            replica = self._replica_of(origin)
            if replica.header is not None:
                copy = Change(origin, replica.header, None, all_rows(replica.rows))
                changes.append((copy, False))
        self._collapsed.clear()
        entries, self._entries = self._entries, {}
        return changes, entries

    async def _save(
        self,
        changes: list[tuple[Change, bool]],
        works: list[tuple[Change, Work]],
        entries: Entries,
    ) -> None:
        try:
            await self._write(_all_of, changes, [work for _, work in works], *_parted(entries))
        except (OverflowError, ValueError, sqlite3.Error):
            await self._write(feeds.save, [], *_parted(entries))
            await self._save_apart(changes, works)

    async def _save_apart(
        self, changes: list[tuple[Change, bool]], works: list[tuple[Change, Work]]
    ) -> None:
        """Leave out the feeds that SQLite cannot hold: one peer must not stop everybody's disk."""
        for change, ours in changes:
            if change.origin in self._unstorable:
                continue
            belonging = [work for one, work in works if one is change]
            try:
                await self._write(_all_of, [(change, ours)], belonging, [], [])
            except (OverflowError, ValueError, sqlite3.Error) as error:
                if ours:
                    raise
                self._unstorable.add(change.origin)
                _log.error("cannot store the feed of %s: %s", change.origin[:12], error)

    async def _write(
        self,
        save: Callable[Concatenate[sqlite3.Connection, P], None],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        while True:
            try:
                await self._database.run(save, *args, **kwargs)
                if self._doubted:
                    await self._database.run(facts.remember, {PROBE_FACT: PROBE})
            except StorageError:
                await asyncio.sleep(RETRY_S)
            else:
                self._doubted = False
                self._alarms.clear(DISK)
                return

    def _doubt(self, trouble: StorageError) -> None:
        """Say that the disk fails, and find out when it no longer does, whoever has met it."""
        self._doubted = True
        self._alarms.sound(Alarm(DISK, trouble.message, trouble.hint, stops_writes=True))
        self._wake(urgent=True)


def _all_of(
    connection: sqlite3.Connection,
    changes: list[tuple[Change, bool]],
    works: Iterable[Work],
    entries: Iterable[Signed],
    dropped: Iterable[bytes],
) -> None:
    """Write all that waits, and do what belongs to it, in one transaction."""
    with transaction(connection):
        feeds.save(connection, [change for change, _ in changes], entries, dropped)
        for work in works:
            work(connection)


def _parted(entries: Entries) -> tuple[list[Signed], list[bytes]]:
    """Return what to write, and the ids of what to delete."""
    dropped = [entry_id for entry_id, entry in entries.items() if entry is None]
    return [entry for entry in entries.values() if entry is not None], dropped
