"""Watching: how things are, then every change once, for as many as may watch at a time.

Invariant: nobody who watches slowly makes anybody else wait or holds memory of its own: all read
one log, each from its own place, and whoever falls behind what is kept is told so and begins anew.
A snapshot and the events after it neither overlap nor leave a gap: both are cut at one seq.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from meshnode.app.events.events import KEPT_S, Event, concerns
from meshnode.app.events.things import KINDS, Kind, Op
from meshnode.app.pieces import in_pieces
from meshnode.app.settling import Settling
from meshnode.core.errors import ExhaustedError, UsageError
from meshnode.core.ids import PREFIX_CHARS_MIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from meshnode.app.events.changes import Changes
    from meshnode.app.events.events import EventLog
    from meshnode.app.events.things import Change
    from meshnode.app.ports import Clock
    from meshnode.core.effects import Announce
    from meshnode.core.ids import NodeId
    from meshnode.core.links.liveness import MemberState

WATCHERS_MAX = 64  # more: ExhaustedError
LOOKED_AT_ONCE = 32  # members, with their sessions
BATCH = 100  # events looked at before others get a turn
COSTS_S = 1.0  # between two looks at what was spent
POSITION_CHARS_MAX = 64
ABOUT_CHARS_MAX = 512


class Watching(msgspec.Struct, frozen=True):
    """What somebody wants to be told; empty is everything."""

    position: str = ""
    kinds: tuple[str, ...] = ()
    about: str = ""

    def checked(self) -> Watching:
        """Return it as it is; raises UsageError."""
        for kind in self.kinds:
            if kind not in KINDS:
                hint = f"one of {', '.join(KINDS)}"
                raise UsageError(f"there are no events of kind {kind[:40]!r}", hint)
        if len(self.about) > ABOUT_CHARS_MAX or len(self.position) > POSITION_CHARS_MAX:
            raise UsageError("nothing in the mesh has a name that long")
        return self

    @property
    def wants_costs(self) -> bool:
        """Whether anything is to be told that shows what was spent."""
        return not self.kinds or not {Kind.SESSION, Kind.COST}.isdisjoint(self.kinds)

    def wants(self, kind: Kind, names: tuple[str, ...]) -> bool:
        """Whether this is to be told."""
        chosen = not self.kinds or kind in self.kinds
        return chosen and (not self.about or concerns(names, self.about, PREFIX_CHARS_MIN))


class Told(msgspec.Struct, frozen=True):
    """An event and where to resume from after it; within a snapshot that is nowhere."""

    position: str
    event: Event


class WatchDesk:
    """Gives out what changes: into the log, and from there to whoever watches."""

    def __init__(self, changes: Changes, log: EventLog, clock: Clock) -> None:
        self.log = log
        self.on_events: Callable[[Iterable[Event]], None] = _kept_nowhere
        self.before_answers: Callable[[], None] = lambda: None  # hands over the news that wait
        self.settling = Settling(clock)
        self._changes = changes
        self._clock = clock
        self._begun = asyncio.Event()
        self._closed = False
        self._looking = False
        self._remembers = False
        self._telling = True
        self._wakes: set[asyncio.Event] = set()  # one for each who watches
        self._costs_due_s = 0.0
        self._turn = asyncio.Lock()  # to have costs worked out

    @property
    def waiting(self) -> bool:
        """Whether `settle` has something to do, now or soon."""
        spending = self._changes.spending.waiting
        return self._begun.is_set() and (self._changes.waiting or spending)

    @property
    def busy(self) -> bool:
        """Whether `settle` should be called again at once."""
        return self._begun.is_set() and self._changes.busy

    def remember(self, states: Mapping[NodeId, MemberState]) -> None:
        """Take up what was shown when this node stopped: all from its disk, members in `states`."""
        self._remembers = True
        self._changes.begin(states)

    async def begin(self, origins: Sequence[NodeId], *, resumed: bool) -> None:
        """Give out what differs from what is remembered; without a memory, begin to look.

        Others get a turn between: there may be thousands of members to look at.
        """
        if self._begun.is_set():  # this node has gone before it had looked around
            return
        self._looking, self._telling = True, resumed
        for first in range(0, len(origins), LOOKED_AT_ONCE):
            self._give_out(self._changes.look(origins[first : first + LOOKED_AT_ONCE]))
            await asyncio.sleep(0)
        while self._changes.waiting:
            self._give_out(self._changes.settle())
            await asyncio.sleep(0)
        self._telling = True
        self._begun.set()

    def take(self, news: Announce) -> None:
        """Take what the mesh announces."""
        if self._looking:
            self._give_out(self._changes.take(news))
        else:
            self._changes.overhear(news)

    def settle(self) -> None:
        """Give out what could wait; costs at most once in COSTS_S."""
        if not self._begun.is_set():
            return
        now_s = self._clock.steady_s()
        spending = self._changes.spending
        costs = spending.waiting and (spending.busy or now_s >= self._costs_due_s)
        if costs:
            self._costs_due_s = now_s + COSTS_S
        self._give_out(self._changes.settle(costs=costs))

    def hold_states(self, origins: Iterable[NodeId]) -> None:
        """Tell no more of who falls away: this node is going itself. Rows are told as ever.

        One that has not looked around yet does so now: who was not seen yet is as remembered.
        """
        if self._begun.is_set():
            self._changes.hold_states()
            return
        self._changes.hold_states(self._changes.states())
        self._looking, self._telling = True, self._remembers
        self._give_out(self._changes.look(origins))
        self._settle_all()
        self._telling = True
        self._begun.set()

    def tell(self, change: Change) -> None:
        """Give out what somebody else has noticed: of budgets."""
        self._give_out([change])

    def close(self) -> None:
        """Let go of everybody who watches, at the end of what they were to be told."""
        if self._begun.is_set():
            self._settle_all()
        self._closed = True
        self._begun.set()
        for wake in self._wakes:
            wake.set()

    def _settle_all(self) -> None:
        while self._changes.waiting:
            self._give_out(self._changes.settle())

    async def watch(self, watching: Watching) -> AsyncIterator[Told]:
        """Yield how things are, or what followed a position, then what changes, until closed.

        Raises UsageError, and ExhaustedError when too many watch.
        """
        wanted = watching.checked()
        if len(self._wakes) >= WATCHERS_MAX:
            raise ExhaustedError(
                f"{WATCHERS_MAX} watch this node already", "end one of them, or watch another node"
            )
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            await self._begun.wait()
            await self._follow_spending(wanted, stay=True)
            self.before_answers()
            async for told in self._all(wanted, wake):
                yield told
        finally:
            self._wakes.discard(wake)
            self._rest()

    async def history(self, watching: Watching, since_s: float) -> AsyncIterator[Told]:
        """Yield what is kept from a time on, then a word with the position to watch from."""
        wanted = watching.checked()
        await self._begun.wait()
        await self._follow_spending(wanted, stay=False)
        self.before_answers()
        seq, last = 0, self.log.last
        while seq < last:
            events, seq = self.log.after(seq, BATCH)
            for event in events:
                if event.at_s >= since_s and wanted.wants(event.kind, event.names):
                    yield self._told(event)
            await asyncio.sleep(0)
        yield self._word(Op.COMPLETE, max(seq, last))

    async def _all(self, wanted: Watching, wake: asyncio.Event) -> AsyncIterator[Told]:
        seq = self.log.seq_at(wanted.position)
        if seq is not None:
            yield self._word(Op.RESUMED, seq)
        elif wanted.position:
            yield self._word(Op.RESET)
        while not self._closed:
            if seq is None:
                seq = self.log.last
                async for told in self._snapshot(wanted, seq):
                    yield told
            async for told in self._follow(wanted, seq, wake):
                yield told
            if not self._closed:
                yield self._word(Op.LAGGED)
            seq = None

    async def _snapshot(self, wanted: Watching, seq: int) -> AsyncIterator[Told]:
        now_s = self._clock.wall_s()
        kinds = [kind for kind in KINDS if not wanted.kinds or kind in wanted.kinds]
        cut = [(kind, list(self._changes.shown([kind]))) for kind in kinds]
        for kind, views in cut:
            for place, view in enumerate(views):
                names = self._changes.names_of(view)
                if wanted.wants(kind, names):
                    yield Told("", Event(0, now_s, kind, Op.SNAPSHOT, names, view))
                if place % BATCH == 0:
                    await asyncio.sleep(0)
        yield self._word(Op.COMPLETE, seq)

    async def _follow(self, wanted: Watching, seq: int, wake: asyncio.Event) -> AsyncIterator[Told]:
        """Yield what comes after a seq, until closed or until that is no longer held."""
        while seq >= self.log.floor:
            wake.clear()
            events, seq = self.log.after(seq, BATCH)
            for event in events:
                if wanted.wants(event.kind, event.names):
                    yield self._told(event)
            if seq >= self.log.last:
                if self._closed:
                    return
                await wake.wait()

    def _told(self, event: Event) -> Told:
        return Told(self.log.position(event.seq), event)

    def _word(self, op: Op, seq: int | None = None) -> Told:
        """Say something about the stream itself."""
        position = "" if seq is None else self.log.position(seq)
        return Told(position, Event(0, self._clock.wall_s(), Kind.WATCH, op))

    async def _follow_spending(self, wanted: Watching, *, stay: bool) -> None:
        """Have costs worked out, if they are wanted; one works them out for all who watch."""
        self.before_answers()
        if not wanted.wants_costs:
            return
        async with self._turn:
            spending = self._changes.spending
            if not spending.followed and (stay or spending.in_doubt):
                await in_pieces(self._changes.follow_spending(self._give_out, stay=stay))

    def _rest(self) -> None:
        if not self._wakes and self._changes.spending.followed:
            self._changes.spending.stop()

    def _give_out(self, changes: Iterable[Change]) -> None:
        now_s = self._clock.wall_s()
        names_of = self._changes.names_of
        if not self._telling:
            return
        events = [self.log.append(one, names_of(one.view), now_s) for one in changes]
        if not events:
            return
        self.log.trim(self.settling.old_s(KEPT_S))
        self.on_events(events)
        for wake in self._wakes:
            wake.set()


def _kept_nowhere(events: Iterable[Event]) -> None:
    del events
