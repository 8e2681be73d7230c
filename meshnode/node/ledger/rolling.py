"""Rolling up a node's ledger, a little at a time, and holding it against what its feed has said.

Invariant: the ledger and the feed change in one transaction, and the feed in one flush, so nobody
counts anything twice or not at all, whenever the node is killed. The feed is held against the
ledger once an epoch, and the disk knows which: a count that was corrected since is no lost one.
In an epoch that is not held yet no counter is said: it would replace what peers have returned, or
count it twice. Whoever counts is inside `counting`, and says the rows in the step that leaves, so
no row is said that was rolled up meanwhile. What the feed has no room for is told without its
session, once it is old (`folding`); what has none even so is on disk, and an alarm stands until it
is said.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.app.pieces import chunks, in_pieces
from meshnode.core.errors import ExhaustedError, MeshError, StorageError
from meshnode.core.feeds.feed import KEY_BYTES_MAX
from meshnode.core.ledger.folding import is_folded, with_folded
from meshnode.core.ledger.ledger import LEDGER, Diagnostics, DiagnosticsKey, Slot
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row, value_to_row
from meshnode.core.ledger.marks import FOLDED
from meshnode.core.ledger.regained import by_month, counters_of
from meshnode.core.ledger.rollups import is_nothing, ways_of
from meshnode.core.periods import DAY_S
from meshnode.node.ledger.beside import HELD_AT_ONCE, Beside
from meshnode.node.ledger.folding import Folding
from meshnode.store import facts, ledger, rollups, usage_log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence

    from meshnode.core.ledger.ledger import CounterKey, LedgerKey, LedgerRow
    from meshnode.node.ground import Ground

CHECK_S = 1.0  # while others count
PAUSE_S = 0.05  # between two pieces, for whoever else needs the database
READERS_MAX = 256  # of logs, whose counts are said; those of more are on this node's disk alone
FULL = "ledger"  # the alarm: our feed has no room for all of it
FULL_FIX = (
    "nothing is lost: it is published once it is two days old, sessions left away; until then let"
    " other nodes run some of the agents, or let fewer and longer sessions do the work"
)
READER_KEYS = b"\x93\x01"  # how the keys of readers' rows begin: three elements, the first a 1
_log = logging.getLogger("session_mesh.ledger")


class Rolling:
    """Looks after how one ledger is rolled up, and says what is in it."""

    def __init__(self, ground: Ground) -> None:
        self._lock = asyncio.Lock()
        self._database = ground.database
        self._world = ground.world
        self._clock = ground.clock
        self._alarms = ground.alarms
        self._spawn = ground.spawn
        self.all_said = True  # whether nothing was left out since all was last said
        self._left_out = 0  # of our feed, by itself
        self._beside = Beside(ground)
        self._epoch = 0  # of our feed, when it was last held against the ledger
        self._last = b""  # row that was said when it was
        self._done_on = -1  # the UTC day on which all was last rolled up
        limits = ground.world.mesh.genesis.limits
        self._room_bytes = limits.flush_bytes_max // 2
        self.folding = Folding(ground, self._room_bytes)

    def take_up(self) -> None:
        """Learn whether the feed that was taken from our disk was held against the ledger.

        Both are of one file: at an epoch that was held the feed says nothing that the ledger lacks.
        """
        mesh = self._world.mesh
        known = self._database.run_now(facts.recall, rollups.HELD)
        if known == rollups.held_at(mesh.genesis.mesh_id, mesh.own.epoch):
            self._epoch = mesh.own.epoch
        elif known:  # an epoch that was lost again may come back with more
            with suppress(StorageError):
                self._database.run_now(facts.remember, {rollups.HELD: b""})

    @property
    def is_held(self) -> bool:
        """Whether what peers have returned of our feed is in the ledger, too.

        And what is to be left out of it is known.
        """
        return self._epoch == self._world.mesh.own.epoch and self._beside.is_settled

    @asynccontextmanager
    async def counting(self, check: Callable[[], None] | None = None) -> AsyncIterator[None]:
        """Count in the ledger, and say so in the step that leaves: nothing is rolled up meanwhile.

        What peers have returned is held before: what is corrected then was no loss of theirs.
        Others may be inside for as long as a disk takes nothing: what `check` raises ends the wait.
        """
        is_ours = False
        while not is_ours:
            if check is not None:
                check()
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    is_ours = await self._lock.acquire()
        try:
            await self._hold()
            self._look_left_out()
            yield
        finally:
            self._lock.release()

    def _look_left_out(self) -> None:
        """Tell what our feed has left out by itself since this was last asked; it is said anew."""
        own = self._world.mesh.own
        more, self._left_out = own.left_out - self._left_out, own.left_out
        if more:
            self._tell(f"{more} rows have no room in this node's feed")

    def _tell(self, said: str) -> None:
        self.all_said = False
        if self.folding.may_help:
            self.folding.call()
            return
        said += ": other nodes do not see all that was used here"
        self._alarms.sound(Alarm(FULL, said, FULL_FIX))

    def unsaid(self) -> list[str]:
        """Return what the alarm says while our feed has no room for all of it."""
        return [alarm.detail for alarm in self._alarms.standing() if alarm.id == FULL]

    async def look(self) -> None:
        """Roll up what is old, once a day: what comes late goes where it belongs by itself.

        It is old when things were used long after it: by a clock that is ahead, what budgets count
        by the hour would become a day's, and count for none.
        """
        now_s = self._clock.wall_s()
        today = int(now_s // DAY_S)
        if self._done_on == today:
            return
        used_s = min(now_s, await self._database.run(usage_log.newest_s))
        after: bytes | None = b""
        rows = 0
        if self.folding.is_wanted:  # first: what becomes a month is told by months then
            async with self.counting():
                await self.publish_all(await self._database.run(ledger.published))
        while after is not None and self._done_on != today:
            async with self.counting():
                piece = await self._database.run(rollups.plan, used_s, after, self._room_bytes)
                if not self.is_held:
                    return
                if piece.moved:
                    await self._roll_up(piece)
            rows += len(piece.moved)
            after = piece.after
            await asyncio.sleep(PAUSE_S)
        self._done_on = today
        if rows:
            _log.info("%d rows of the ledger were rolled up", rows)

    async def _roll_up(self, piece: rollups.Piece) -> None:
        work = partial(rollups.apply, moved=piece.moved)
        latest = self._world.mesh.own.latest
        said = _packed(
            {
                key: slot
                for key, slot in piece.said.items()
                if not (self._is_said_by_others(key, slot) or self.folding.has_in(key))
            }
        )
        held = {key: latest(LEDGER, key) or b"" for key in said}
        new = {key for key, value in held.items() if not value}
        growing = {key for key, value in held.items() if len(said[key] or b"") > len(value)}
        # It makes room, so it must not wait for room: what was never said may stay unsaid.
        for later in (set[bytes](), new, new | growing):
            some = {key: value for key, value in said.items() if key not in later}
            with suppress(ExhaustedError):
                if not await self._world.publish_together(LEDGER, some, work):
                    await self._database.run(work)
                break
        if self.is_held:
            self._write((key, said[key]) for key in later)
        else:
            self.all_said = False

    async def publish_all(self, rows: Iterable[LedgerRow]) -> None:
        """Say all that is in the ledger, and end the alarm if it fits; from inside `counting`.

        Where it does not fit, sessions are left away. Of readers, those are said that have counted
        most; there is one for each path ever named.
        """
        self.all_said, began_s = True, self._clock.steady_s()
        rows = list(rows)
        readers = [row for row in rows if isinstance(row[1], Diagnostics)]
        readers.sort(key=_records, reverse=True)
        beyond = {key for key, _ in readers[READERS_MAX:]}
        packed = map(key_to_row, beyond)
        self._write([(one, None) for one in packed if not self._is_new(one)])
        if self.is_held:
            counters = dict(row for row in rows if isinstance(row[1], Slot))
            self.folding.may_help = False  # more than this
            rows = [*(await self._folded(counters, readers)).items(), *readers]
        await in_pieces(self._saying(row for row in rows if row[0] not in beyond))
        self.folding.may_help = self.folding.has_room and self.all_said
        self.folding.rest(began_s)
        if self.all_said:
            self._alarms.clear(FULL)

    async def _folded(
        self, counters: Mapping[CounterKey, Slot], readers: Sequence[LedgerRow]
    ) -> Mapping[CounterKey, Slot]:
        """Return the rows that tell of counters; those without a session are said already.

        A node that was killed between a roll-up and its flush has left rows that are in others.
        """
        rows = await self.folding.fold(counters, min(len(readers), READERS_MAX))
        if not self.is_held:
            return {}
        feed = self._world.mesh.own.values(LEDGER)
        out = await asyncio.to_thread(counters_of, feed.items())
        stays = self.folding.horizon  # what is to leave and had no room for that
        gone = [key for key in out if key not in rows and not is_folded(key, stays)]
        said: dict[CounterKey, Slot | None] = dict.fromkeys(gone)
        said |= {into: rows[into] for key in gone for into in ways_of(key) if into in rows}
        folded = {key: slot for key, slot in rows.items() if key.session == FOLDED}
        said |= {k: slot for k, slot in folded.items() if out.get(k) != slot}
        if said:
            self._say(said)
        return {key: slot for key, slot in rows.items() if key not in folded}

    def _saying(self, rows: Iterable[LedgerRow]) -> Generator[None, None, None]:
        for some in chunks(rows):
            self.publish(some)
            yield

    def publish(self, rows: Iterable[LedgerRow]) -> None:
        """Say what is in the ledger, as read inside `counting`, where nobody has been since.

        What has no room is left out, and all of it where the epoch is not held yet; so are names
        that an earlier version has counted though no feed takes them. Raises RefusedError if
        nothing is written any more.
        """
        if not self.is_held:
            self.all_said = False
            return
        room: int | None = None
        for key, value in rows:
            packed = key_to_row(key)
            if len(packed) > KEY_BYTES_MAX:
                continue
            if self._is_said_by_others(key, value) or self.folding.has_in(key):
                continue
            if isinstance(key, DiagnosticsKey) and self._is_new(packed):
                room = self._room_for_readers() if room is None else room
                room -= 1
                if room < 0:
                    continue
            self._write([(packed, value_to_row(value))])
        self.folding.look()

    def _is_said_by_others(self, key: LedgerKey, value: Slot | Diagnostics | None) -> bool:
        if not isinstance(value, Slot) or not is_nothing(value):
            return False
        return self._is_new(key_to_row(key)) and self._beside.is_net

    def _is_new(self, packed: bytes) -> bool:
        return self._world.mesh.own.latest(LEDGER, packed) is None

    def _room_for_readers(self) -> int:
        said = self._world.mesh.own.keys(LEDGER)
        return READERS_MAX - sum(key.startswith(READER_KEYS) for key in said)

    def _write(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in rows:
            try:
                self._world.write(LEDGER, key, value)
            except ExhaustedError as error:
                self._tell(error.message)

    async def _hold(self) -> None:
        """Hold the ledger against our own feed, and those of the nodes whose places ours takes.

        What our feed leaves out already must be known before; what it said whole is held before.
        """
        own = self._world.mesh.own
        while not self.is_held:
            epoch, nodes = own.epoch, await self._beside.look()
            if nodes is None:
                return
            is_net, was_held = self._beside.is_net, self._epoch == epoch
            take = partial(self._beside.take, was_held=was_held)
            gone = await take(nodes) if is_net and nodes else []
            await self._hold_own(is_net=is_net)
            if nodes and not is_net:
                gone = await take(nodes)
            if own.epoch == epoch:
                try:
                    self._beside.settle()
                except ExhaustedError as error:
                    self._tell(error.message)
                if was_held or not is_net:  # else it has just been said what is to be said instead
                    self._write([(key, None) for key in gone if not self._is_new(key)])
                self.all_said = self.all_said and not nodes and (was_held or not is_net)
            await self.folding.learn()

    async def _hold_own(self, *, is_net: bool) -> None:
        """Keep what our own feed says beyond this disk, if it has left a history.

        Logs that were deleted since are in it alone; those still there are read again, and of each
        count the larger is published, so that nothing is counted twice.
        """
        own, hold = self._world.mesh.own, partial(rollups.hold, is_net=is_net)
        while self._epoch != own.epoch:
            epoch = own.epoch
            feed = await asyncio.to_thread(_months, own.values(LEDGER), self._clock.wall_s())
            for piece in feed:
                said = await self._database.run(hold, piece)
                if own.epoch != epoch:
                    break
                if said:
                    self._last = self._say(said) or self._last
                    self._done_on = -1
            else:
                self._epoch = epoch
                if self._last:
                    self._spawn(self._remember(epoch, self._last))
                else:
                    await self._remember(epoch, b"")

    async def _remember(self, epoch: int, last: bytes) -> None:
        """Keep that an epoch was held, once what was said then is on disk: up to a `last` row.

        If that fails, or the node is killed before, it is held once more at the next start.
        """
        mesh = self._world.mesh
        with suppress(MeshError):
            if last:
                await self._world.publish(LEDGER, last, mesh.own.latest(LEDGER, last))
            if mesh.own.epoch == epoch:
                held = rollups.held_at(mesh.genesis.mesh_id, epoch)
                await self._database.run(facts.remember, {rollups.HELD: held})

    def _say(self, said: Mapping[CounterKey, Slot | None]) -> bytes:
        """Write in one flush what fits one; else what goes first, so that none counts it twice.

        Returns the key of the last row that had room; nothing if none had.
        """
        rows = _packed(said)
        if sum(len(key) + len(value or b"") + 64 for key, value in rows.items()) < self._room_bytes:
            with suppress(ExhaustedError):
                self._world.write_together(LEDGER, rows)
                return next(reversed(rows), b"")
        in_order = sorted(rows.items(), key=lambda row: row[1] is not None)
        self._write(in_order)
        latest = self._world.mesh.own.latest
        return next((k for k, value in reversed(in_order) if latest(LEDGER, k) == value), b"")


def _records(row: LedgerRow) -> int:
    return row[1].records


def _months(rows: Mapping[bytes, bytes], now_s: float) -> list[dict[CounterKey, Slot]]:
    return list(by_month(with_folded(counters_of(rows.items()), now_s), HELD_AT_ONCE))


def _packed(said: Mapping[CounterKey, Slot | None]) -> dict[bytes, bytes | None]:
    rows = (
        (key_to_row(k), None if slot is None else slot_to_row(slot)) for k, slot in said.items()
    )
    return {key: value for key, value in rows if len(key) <= KEY_BYTES_MAX}
