"""Events of one node: noticed as the mesh announces them, kept on disk in the background.

Invariant: nothing waits for it: news are looked at once they have gone on to others, in their order
and before anybody who asks is answered; feeds are written first, in pieces of STORED_AT_ONCE
between them, and a disk that takes nothing costs only the history. A node that was stopped in order
goes on where it stopped, and tells only what has really changed meanwhile; for that it looks around
first, for LOOK_AROUND_S at most, since right after a start nobody else is linked yet. If it is
stopped before it has, it tells of rows alone, and leaves the states of others as it found them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.app.events.changes import Changes
from meshnode.app.events.events import (
    EVENTS_MAX,
    KEPT_S,
    LOG_CHARS,
    SEQ_MAX,
    STARTS_MAX,
    WORD_CHARS,
    EventLog,
)
from meshnode.app.events.watching import WatchDesk
from meshnode.core.errors import StorageError
from meshnode.core.ids import NodeId, b32
from meshnode.core.links.liveness import MemberState
from meshnode.core.packing import typed
from meshnode.rpc.events import EventServicer, packed_event
from meshnode.store import events

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from meshnode.app.cost.spending import Counter
    from meshnode.app.cost.tally import Prices
    from meshnode.app.events.events import Event
    from meshnode.app.events.things import Change
    from meshnode.app.ports import Clock
    from meshnode.app.queries.views import BudgetView
    from meshnode.core.effects import Announce
    from meshnode.core.ids import Chance
    from meshnode.node.world import NodeWorld
    from meshnode.store.database import Database

LOOK_AROUND_S = 6.0
STEADY_S = 0.5  # all have to be seen for so long: rows from before our end say who is seen first
HEARD_S = 0.05  # from news to a look at them: neighbours wait for what this node passes on
HEARD_MAX = 64  # news that wait for it; with so many, all are looked at
SETTLE_S = 0.2  # from a change to what follows from it
STORE_S = 2.0  # more events come together: each write is synced, while all may wait for news
STORED_AT_ONCE = 128
RETRY_S = 5.0
_log = logging.getLogger("session_mesh.events")


class Left(msgspec.Struct, frozen=True):
    """What a node leaves when it is stopped in order: how everything was that it had told."""

    last: int  # the seq of the newest event
    states: dict[NodeId, MemberState]
    pending: tuple[Counter, ...]  # totals that had not been given out
    starts: dict[str, int]  # words of starts, and up to which seq the positions of each are known
    floor: int = 0  # positions below were unknown


class Eventing:
    """The event log of one node, from its start to its end."""

    def __init__(self, world: NodeWorld, clock: Clock, database: Database, prices: Prices) -> None:
        self._world = world
        self._mesh = world.mesh
        self._clock = clock
        self._database = database
        self._changes = Changes(world.mesh, prices, clock)
        self._heard: deque[Announce] = deque()  # news that were not looked at yet
        self._unstored: deque[Event] = deque(maxlen=EVENTS_MAX)  # beyond, the disk lacks the oldest
        self._complete = True  # whether the disk got everything
        self._filled = asyncio.Event()
        self._stale = asyncio.Event()
        self._all_seen = asyncio.Event()
        self._ended = False
        self._expected: set[NodeId] = set()
        self._resumed = False
        self._desk: WatchDesk

    def open(self, chance: Chance) -> EventServicer:
        """Take up the log from the disk, once the mesh is restored from there."""
        self._world.perform(self._mesh.recall(self._clock.steady_s()))
        fresh_id = b32(chance(5))[:LOG_CHARS]
        held = self._database.run_now(events.begin, fresh_id)
        left = left_from(held.stopped)
        if left is None and held.stopped is not None:  # spoilt: as if it had not been stopped
            held = self._database.run_now(events.begin, fresh_id)
        log = EventLog(held.log_id, held.run, b32(chance(5))[:WORD_CHARS], held.events)
        self._desk = WatchDesk(self._changes, log, self._clock)
        last, starts, floor = (left.last, left.starts, left.floor) if left else (log.last, None, 0)
        log.begin_run(last, starts, max(floor, min(held.spoilt, last)))
        if left is not None:
            self._changes.spending.restore(left.pending)
            self._desk.remember(left.states)
            alive = (peer for peer, said in left.states.items() if said is MemberState.ALIVE)
            self._expected = set(alive)
            self._resumed = True
        else:
            records = {peer: self._mesh.tables.node(peer) for peer in self._mesh.tables.origins()}
            up = {peer for peer, record in records.items() if record and record.standing == "up"}
            self._expected = up | {self._mesh.self_id}
        self._desk.on_events = self._to_store
        self._desk.before_answers = self._take_heard
        others = self._world.on_news

        def heard(news: Announce) -> None:
            others(news)
            self._hear(news)

        self._world.on_news = heard
        return EventServicer(self._desk)

    def start(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Begin to look, in the background."""
        self._look()
        spawn(self._run())
        spawn(self._store())

    def follow(self, budgets: Callable[[], Iterable[BudgetView]]) -> Callable[[Change], None]:
        """Show budgets to whoever watches; returns who is to be told of what changes of them."""
        self._changes.budgets = budgets
        return self._desk.tell

    def hold_states(self) -> None:
        """Before this node says that it goes: that others fall away from now on is its own going.

        Neighbours part as soon as they hear it, which may be long before it has ended.
        """
        self._take_heard()
        self._desk.hold_states(self._mesh.tables.origins())

    def end_watching(self) -> None:
        """Let those who watch go: nothing more will change."""
        self._take_heard()
        self._ended = True
        self._desk.close()

    async def close(self) -> None:
        """Write what is left, and that it is all; the feeds must be on disk by now."""
        self._take_heard()
        pending = self._changes.spending.pending()
        try:
            await self._store_all()
            if self._complete and pending is not None:  # with too many nobody can resume
                left = {
                    "last": self._desk.log.last,
                    "floor": self._desk.log.floor,
                    "states": self._changes.states(),
                    "pending": pending,
                    "starts": self._desk.log.starts(),
                }
                await self._database.run(events.stop, json.dumps(left).encode())
        except (sqlite3.Error, StorageError) as error:
            _log.warning("cannot write the last events: %s", error)

    def _hear(self, news: Announce) -> None:
        self._look()
        self._heard.append(news)
        if len(self._heard) == 1:
            asyncio.get_running_loop().call_later(HEARD_S, self._take_heard)
        elif len(self._heard) >= HEARD_MAX:
            self._take_heard()

    def _take_heard(self) -> None:
        while self._heard:
            self._desk.take(self._heard.popleft())
        if self._desk.waiting:
            self._stale.set()

    def _look(self) -> None:
        if self._expected <= self._mesh.liveness.alive:
            self._all_seen.set()

    async def _see_all(self) -> None:
        """Wait until everybody who was there is seen; steadily, if who is not is told of."""
        while True:
            await self._all_seen.wait()
            if not self._resumed or self._expected <= {self._mesh.self_id}:
                return
            await asyncio.sleep(STEADY_S)
            if self._expected <= self._mesh.liveness.alive:
                return
            self._all_seen.clear()

    async def _run(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AROUND_S):
                await self._see_all()
        await self._desk.begin(self._mesh.tables.origins(), resumed=self._resumed)
        if self._desk.waiting:
            self._stale.set()
        while True:
            await self._stale.wait()
            await asyncio.sleep(0 if self._desk.busy else SETTLE_S)
            if self._ended:
                return
            self._stale.clear()
            self._desk.settle()
            if self._desk.waiting:  # costs, that are looked at less often
                self._stale.set()

    def _to_store(self, given: Iterable[Event]) -> None:
        for event in given:
            self._complete &= len(self._unstored) < EVENTS_MAX
            self._unstored.append(event)
        self._filled.set()

    async def _store(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(STORE_S)
            self._filled.clear()
            try:
                await self._store_all()
            except (sqlite3.Error, StorageError) as error:
                _log.warning("cannot write events: %s; they are kept in memory", error)
                await asyncio.sleep(RETRY_S)
                self._filled.set()

    async def _store_all(self) -> None:
        log = self._desk.log
        while self._unstored:
            some = [self._unstored[at] for at in range(min(STORED_AT_ONCE, len(self._unstored)))]
            for event in some:
                if event.view is not None and log.get(event.seq) is event:
                    log.pack(event, packed_event(event, log.position(event.seq)))
            up_to = log.trim(self._desk.settling.old_s(KEPT_S))
            kept = [held for event in some if (held := log.get(event.seq)) is not None]
            await self._database.run(events.save, kept, log.take_let_go(), up_to)
            for event in some:  # only now: a disk that fails gets them again
                if self._unstored and self._unstored[0] is event:
                    self._unstored.popleft()


def left_from(stopped: bytes | None) -> Left | None:
    """Decode what a node left when it was stopped; None if that is nothing, or makes no sense."""
    try:
        said = json.loads(stopped or b"null")
        last, floor = typed(said["last"], int), typed(said.get("floor", 0), int)
        states = {NodeId(peer): MemberState(state) for peer, state in said["states"].items()}
        pending = [
            (NodeId(typed(origin, str)), typed(session, str), typed(model, str))
            for origin, session, model in said["pending"]
        ]
        # An older version left none: whoever holds a position of it begins anew.
        starts = {word: typed(seq, int) for word, seq in said.get("starts", {}).items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    ahead = any(seq > last for seq in starts.values())
    if ahead or not 0 <= floor <= last <= SEQ_MAX or len(starts) > STARTS_MAX:
        return None
    return Left(last, states, tuple(pending), starts, floor)
