"""Keeping what a node's feed says of its ledger within its room, however many sessions there are.

Invariant: what is told without its session from now on leaves in the flush that adds it to the row
in which it is told, so no reader ever counts it twice or not at all; and nothing of that waits for
room. All of it happens inside `Rolling.counting`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError, StorageError
from meshnode.core.ledger.folding import (
    NOWHERE,
    Plan,
    Room,
    covered,
    is_folded,
    planned,
    row_of,
    told,
)
from meshnode.core.ledger.ledger import LEDGER, DiagnosticsKey, Slot, grown
from meshnode.core.ledger.ledger_rows import (
    key_to_row,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.ledger.regained import counters_of
from meshnode.core.ledger.rollups import is_nothing, less
from meshnode.store import counters, folds
from meshnode.store.rollups import ROW_BYTES
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from sqlite3 import Connection

    from meshnode.core.ledger.folding import Horizon
    from meshnode.core.ledger.ledger import CounterKey, LedgerKey
    from meshnode.node.ground import Ground

AGAIN_S = 5.0  # before all is added up once more because something old has changed
AGAIN_S_MAX = 600.0  # also where most of it was waiting for the disk
SHARE = 3  # times as long as that took, at least; so a quarter of the time at most is spent on it
FULL_OF_16 = 15  # parts of the room that are taken: sessions are left away at once
MOVED_AT_ONCE = 500

Moving = tuple[bytes, "CounterKey", Slot]
"""A row that is out, and the row that tells what it says from now on."""


class Folding:
    """Decides what of one ledger is told without its session, and brings it there."""

    def __init__(self, ground: Ground, room_bytes: int) -> None:
        self._database = ground.database
        self._world = ground.world
        self._clock = ground.clock
        self._room_bytes = room_bytes  # of one flush
        self._due = asyncio.Event()
        self._is_stale = False  # whether something has changed that is told without its session
        self._is_new = False  # whether peers have returned something since all was added up
        self._next_s = 0.0  # on the steady clock
        self.horizon = NOWHERE
        self.has_room = True  # for all that was added up last, and some more
        self.may_help = True  # whether more sessions may be left away, as far as is known

    async def learn(self) -> None:
        """Learn how far sessions are left away, before anything is said in an epoch."""
        self.horizon = await self._database.run(folds.horizon)
        self._is_new = True
        if self.horizon != NOWHERE:
            self._due.set()

    def has_in(self, key: LedgerKey) -> bool:
        """Whether a counter is told in a row without its session, which is to be added up anew."""
        if isinstance(key, DiagnosticsKey) or not is_folded(key, self.horizon):
            return False
        self._is_stale = True
        return True

    def look(self) -> None:
        """Have sessions left away before the room is all taken."""
        if self.may_help and self._is_crowded:
            self._due.set()

    def call(self) -> None:
        """Have sessions left away now."""
        self._due.set()

    @property
    def _is_crowded(self) -> bool:
        share = self._world.mesh.own.share(LEDGER)
        parts = (share.rows, share.rows_max), (share.bytes, share.bytes_max)
        return any(16 * taken > FULL_OF_16 * most for taken, most in parts)

    @property
    def is_wanted(self) -> bool:
        """Whether a new day may change what is told without its session."""
        return self._is_crowded or self.horizon != NOWHERE

    @property
    def is_due(self) -> bool:
        """Whether all is to be added up anew."""
        return self._due.is_set() or (self._is_stale and self._clock.steady_s() >= self._next_s)

    async def until_due(self, most_s: float) -> None:
        """Wait until sessions are to be left away, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._due.wait()

    async def fold(self, known: Mapping[CounterKey, Slot], others: int) -> dict[CounterKey, Slot]:
        """Return the rows that tell of all counters; what is out and not among them has left.

        `others`: how many rows of the ledger are none of counters.
        """
        self._due.clear()
        self._is_stale, is_new, self._is_new = False, self._is_new, False
        run, now_s = self._database.run, self._clock.wall_s()
        since, beside = await run(folds.horizon), await run(folds.beside)
        share = self._world.mesh.own.share(LEDGER)
        room = Room(max(0, share.rows_max - others), share.bytes_max)
        plan = await asyncio.to_thread(planned, known, beside, since, now_s, room)
        try:
            is_news = is_new or plan.horizon != since  # maybe peers' rows alone tell so
            if is_news and plan.horizon != NOWHERE:
                await run(folds.remember, plan.horizon, plan.returned)
            if is_new and (gone := await asyncio.to_thread(covered, known, beside, plan.horizon)):
                await run(_drop, gone)
        except StorageError:  # what is not kept is not begun
            rows = await asyncio.to_thread(told, known.items(), beside, since)
            plan = Plan(since, rows, has_room=False)
            self._is_new = is_new
        self.horizon, self.has_room = plan.horizon, plan.has_room
        rows = dict(plan.rows)
        for key, slot in (await self._move()).items():
            rest = less(rows.pop(key), slot) if key in rows else None
            if rest is not None and not is_nothing(rest):
                rows[key] = rest
        return rows

    def rest(self, began_s: float) -> None:
        """Let others have most of the time until all is added up anew, which began at a time."""
        took_s = self._clock.steady_s() - began_s
        self._next_s = began_s + took_s + min(max(AGAIN_S, SHARE * took_s), AGAIN_S_MAX)

    async def _move(self) -> dict[CounterKey, Slot]:
        """Let rows that are out leave into those without a session, some in each flush.

        Returns what could not, by these rows: where the last byte is taken, longer names have none.
        """
        own = self._world.mesh.own
        left: dict[CounterKey, Slot] = {}
        epoch = own.epoch
        rows = await asyncio.to_thread(moving, own.values(LEDGER), self.horizon)
        for some in cut(rows, self._room_bytes):
            try:
                await self._world.publish_together(LEDGER, moved(some, own.latest), _nothing)
            except ExhaustedError:
                for _, into, slot in some:
                    left[into] = grown(left.get(into), slot)
            if own.epoch != epoch:
                self._due.set()
                break
        return left


def moving(said: Mapping[bytes, bytes], horizon: Horizon) -> list[Moving]:
    """Return which rows of a feed leave into which, those for one row together."""
    found = [
        (key_to_row(key), row_of(key, slot, horizon), slot)
        for key, slot in counters_of(said.items()).items()
        if is_folded(key, horizon)
    ]
    return sorted(found, key=lambda one: (one[1].start_s, one[1].model, one[1].tier))


def cut(some: Iterable[Moving], room_bytes: int) -> Iterator[list[Moving]]:
    """Cut into what fits one flush each."""
    part: list[Moving] = []
    room = room_bytes
    for one in some:
        takes = 2 * len(one[0]) + ROW_BYTES
        if part and (takes > room or len(part) == MOVED_AT_ONCE):
            yield part
            part, room = [], room_bytes
        part.append(one)
        room -= takes
    if part:
        yield part


def moved(
    some: Iterable[Moving], latest: Callable[[str, bytes], bytes | None]
) -> dict[bytes, bytes | None]:
    """Return what a feed says once rows have left; `latest` tells what it says of a key now."""
    values: dict[bytes, bytes | None] = {}
    for into, rows in groupby(some, lambda one: one[1]):
        packed = key_to_row(into)
        held = latest(LEDGER, packed)
        total = None if held is None else slot_from_row(held)
        for key, _, slot in rows:
            values[key] = None
            total = total if is_nothing(slot) else grown(total, slot)
        if total is not None:
            values[packed] = slot_to_row(total)
    return values


def _drop(connection: Connection, keys: Iterable[CounterKey]) -> None:
    with transaction(connection):
        counters.delete(connection, keys)


def _nothing(connection: Connection) -> None:
    del connection
