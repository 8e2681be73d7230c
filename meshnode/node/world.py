"""The world as the cores of a node see it: links, timers, disk and log.

Invariant: calls into the mesh happen on the loop's thread, each with its effects before the next.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.app.mesh.driver import perform
from meshnode.core.control.entries import entry_id_of
from meshnode.core.errors import ConflictError, StorageError, UnreachableError
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.discovery.probes import accepts
from meshnode.discovery.seeds import is_address
from meshnode.node.audit.alarming import alarm_of, feed_alarm_id, sound_fault
from meshnode.node.audit.refusals import Refusals
from meshnode.rpc.links import Links

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from meshnode.app.audit.alarms import Alarm, Alarms
    from meshnode.app.commands.relaying import Relaying
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.app.ports import Clock
    from meshnode.core.effects import Announce, Effect
    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.heads import Head
    from meshnode.core.feeds.messages import Known, Message, Order, Reply
    from meshnode.core.feeds.rows import Place
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.links.liveness import MemberState
    from meshnode.node.homes.persistence import FeedWriter, Work
    from meshnode.rpc.tls import Identity
    from meshnode.wire.links import Introduction

DISK_S = 2.0  # for a write to be synced
SOON_S = 0.001  # a timer so near rings on the loop's next turn: its clock would make 2 ms of it
AGAIN_S = 1.0  # until a timer rings again that failed: an error that stays costs one try a second
ONCE = ("flush", "liveness", "fading", "haves", "grafts", "compare")  # timers not set all the time
TROUBLES_MAX = 64  # peers whose last failure is remembered; the oldest is forgotten
_log = logging.getLogger("session_mesh.mesh")


class NodeWorld:
    """Performs the effects of one mesh, and hands it what happens."""

    def __init__(
        self,
        mesh: Mesh,
        clock: Clock,
        identity: Identity,
        introduction: Introduction,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        alarms: Alarms,
    ) -> None:
        self.mesh = mesh
        self._alarms = alarms
        alarms.on_stopped = self._tell_waiting
        self.troubles: dict[str, tuple[str, float]] = {}
        self.writer: FeedWriter | None = None
        self.relaying: Relaying | None = None
        self.changes = 0  # how many times something was announced: what is kept may be made anew
        self.on_regained: Callable[[], None] | None = None  # sessions came back that our disk lost
        self.on_news: Callable[[Announce], None] = _nobody_waits
        self.on_change: list[Callable[[Change], None]] = []  # told of what feeds went through
        self.on_state: list[Callable[[NodeId, MemberState | None, MemberState], None]] = []
        self.on_entry: list[Callable[[Signed], None]] = []  # told of what is new in the control set
        self._regaining = False
        self._clock = clock
        self._identity = identity
        self.links = Links(mesh.self_id, mesh.genesis.mesh_id, introduction, self, spawn)
        self.links.refusal = mesh.revoked.refusal_of_called
        self.links.accepts = accepts
        self._published: dict[Place, list[asyncio.Future[None]]] = {}
        self._flushed: dict[Head, _Flushed] = {}  # ours, on their way to the disk
        self._states: dict[NodeId, MemberState] = {}
        self._refusals = Refusals()
        self._timers: set[asyncio.Handle] = set()
        self._again: set[str] = set()  # timers that ring again, for one has failed

    def start(self) -> None:
        """Let the mesh begin."""
        self.perform(self.mesh.start(self._clock.steady_s()))

    async def publish(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write a row into our feed; returns once it is on disk and on its way.

        Raises StorageError if the disk takes nothing: the row waits, and is published in its turn.
        """
        self.perform(self.mesh.write(table, key, value, self._clock.steady_s()))
        await self._on_disk(table, key)

    def write_together(self, table: str, values: Mapping[bytes, bytes | None]) -> None:
        """Write rows that leave in one flush, without waiting."""
        self.perform(self.mesh.write_together(table, values, self._clock.steady_s()))

    async def publish_together(
        self, table: str, values: Mapping[bytes, bytes | None], beside: Work
    ) -> bool:
        """Write rows that leave in one flush, and have something done in its transaction.

        Returns once both are on disk, however long that takes nothing; False, and nothing was done,
        if all of it is said already.
        """
        own = self.mesh.own
        self.write_together(table, values)
        place = next(((table, key) for key in values if own.is_pending(table, key)), None)
        if place is None or self.writer is None:
            return False
        self.writer.put_beside(place, beside)
        waits = True
        while waits:
            with suppress(StorageError):  # told of a disk that takes nothing: it takes this later
                await self._written(place)
                waits = False
        self.writer.drop_beside(place)  # another history was taken up meanwhile
        return True

    async def _on_disk(self, table: str, key: bytes) -> None:
        stop = self._alarms.stop()
        if stop is not None:
            raise _waits(stop)
        await self._written((table, key))

    def _written(self, place: Place) -> asyncio.Future[None]:
        written = asyncio.get_running_loop().create_future()
        if self.mesh.own.is_pending(*place):
            self._published.setdefault(place, []).append(written)
        else:
            self._await_disk(place, written)
        return written

    def write(self, table: str, key: bytes, value: bytes | None, *, patient: bool = False) -> None:
        """Write a row into our feed without waiting."""
        now_s = self._clock.steady_s()
        self.perform(self.mesh.write(table, key, value, now_s, patient=patient))

    def add_control(self, entry: Signed) -> None:
        """Put an entry of our own into the control set."""
        self.perform(self.mesh.add_control(entry, self._clock.steady_s()))

    async def submit_control(self, entry: Signed) -> None:
        """Take an entry that a user has signed; returns once it is on disk and on its way.

        Raises PeerError, ConflictError for one that has no place, RefusedError while writes are
        stopped, UnreachableError if the disk fills up meanwhile.
        """
        self._alarms.check_writable()
        self.add_control(entry)
        if self.mesh.control.get(entry_id_of(entry)) is None:
            raise ConflictError("it has expired, or a newer one of that name stands")
        if self.writer is not None:
            try:
                async with asyncio.timeout(DISK_S):
                    await self.writer.drained()
            except TimeoutError:
                raise UnreachableError(
                    "other nodes have it, but the disk of this one takes nothing",
                    "make room on it; until then a restart may forget it here",
                ) from None

    def hint(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Take a hint where a member may listen."""
        self.perform(self.mesh.learn(peer, addresses, self._clock.steady_s()))

    def trouble(self, peer: str, reason: str) -> None:
        """Remember why a peer is not linked, for whoever asks."""
        self.troubles.pop(peer, None)
        while len(self.troubles) >= TROUBLES_MAX:
            del self.troubles[next(iter(self.troubles))]
        self.troubles[peer] = (reason, self._clock.wall_s())

    def close(self) -> None:
        """End links and timers."""
        for timer in self._timers:
            timer.cancel()
        self.links.close()

    def perform(self, effects: Iterable[Effect]) -> None:
        """Perform what the mesh asks for; what fails of it costs nothing of the rest."""
        left = iter(effects)
        while True:
            try:
                perform(left, self)
            except Exception as error:  # noqa: BLE001 - whatever: no timer, no flush may be lost
                sound_fault(self._alarms, "effect", error)
            else:
                break
        # A later write may have taken back what somebody waits for: no flush will tell them.
        for place in [place for place in self._published if not self.mesh.own.is_pending(*place)]:
            for written in self._published.pop(place):
                self._await_disk(place, written)

    def _await_disk(self, place: Place, written: asyncio.Future[None]) -> None:
        """Resolve once the row as it is now is on disk: with the flush it is in, or at once."""
        for flushed in self._flushed.values():
            if place in flushed.change.rows:
                flushed.waiting.append(written)
                return
        _resolve(written)

    def _tell_waiting(self, stop: Alarm) -> None:
        """Let nobody wait for a disk that takes nothing: it may take hours."""
        for waiting in (*self._published.values(), *(f.waiting for f in self._flushed.values())):
            for written in waiting:
                if not written.done():
                    written.set_exception(_waits(stop))
            waiting.clear()

    # What the mesh asks for.

    def send(self, peer: NodeId, message: Message) -> None:
        """Hand a message to a link."""
        self.links.send(peer, message)

    def dial(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Try to open a link."""
        proper = tuple(address for address in addresses if is_address(address))
        self.links.dial(peer, proper, self._identity)

    def hang_up(self, peer: NodeId, reason: str, *, parting: bool) -> None:
        """End a link."""
        self.links.hang_up(peer, reason, parting=parting)

    def wake(self, at_s: float, name: str) -> None:
        """Set a timer."""
        loop = asyncio.get_running_loop()

        def ring() -> None:
            self._timers.discard(timer)
            self._ring(name)

        delay_s = at_s - self._clock.steady_s()
        timer = loop.call_soon(ring) if delay_s <= SOON_S else loop.call_later(delay_s, ring)
        self._timers.add(timer)

    def _ring(self, name: str) -> None:
        self._again.discard(name)
        try:
            effects = self.mesh.woken(name, self._clock.steady_s())
        except Exception as error:  # noqa: BLE001 - whatever: the mesh must not fall silent for it
            # The mesh takes for set whatever it had planned meanwhile, and would wait for ever.
            for one in {name, *ONCE} - self._again:
                self._again.add(one)
                self.wake(self._clock.steady_s() + AGAIN_S, one)
            sound_fault(self._alarms, name, error)
        else:
            self.perform(effects)

    def persist(self, change: Change, *, ours: bool) -> None:
        """Write a change to disk."""
        if ours:
            # Whoever publishes one of these rows from now on waits for a later flush.
            waiting = [one for place in change.rows for one in self._published.pop(place, ())]
            self._flushed[change.header.head] = _Flushed(change, waiting)
        else:
            self._alarms.clear(feed_alarm_id(change.origin))
        if self.writer is not None:
            self.writer.put(change, ours=ours)
        for told in self.on_change:  # last: whoever listens may fail, and the disk has it
            told(change)

    def persist_control(self, entry: Signed) -> None:
        """Write a control entry to disk."""
        if self.writer is not None:
            self.writer.put_entry(entry)
        for told in self.on_entry:
            told(entry)

    def persist_fork(self, proof: Proof) -> None:
        """Write to disk why an epoch is in quarantine."""
        if self.writer is not None:
            self.writer.put_fork(proof)

    def drop_control(self, entry_ids: tuple[bytes, ...]) -> None:
        """Delete control entries from disk."""
        if self.writer is not None:
            self.writer.drop_entries(entry_ids)

    def announce(self, news: Announce) -> None:
        """Pass news on; take back sessions that peers return; log how members' states changed."""
        self.changes += 1
        self.on_news(news)
        if self._regaining and SESSIONS in news.tables and self.on_regained is not None:
            self._regaining = self.mesh.own.waiting
            self.on_regained()
        for peer in sorted(news.members):
            if self.mesh.tables.is_forgotten(peer):
                self._alarms.clear(feed_alarm_id(peer))  # no feed of it will come to end it
            state = self.mesh.liveness.state(peer)
            before = self._states.get(peer)
            if before is not state and peer != self.mesh.self_id:
                self._states[peer] = state
                for told in self.on_state:
                    told(peer, before, state)
                record = self.mesh.tables.node(peer)
                name = record.name if record else peer[:12]
                fields = {"node": peer, "state": str(state)}
                _log.info("%s is %s", name, state, extra={"fields": fields})

    def report(self, event: str, peer: NodeId | None, detail: str) -> None:
        """Log what went wrong; of a peer that goes on and on, a little; raise alarms."""
        alarm = alarm_of(event, peer, detail)  # of a forgotten one's feed, it would not end
        if alarm is not None and (peer is None or not self.mesh.tables.is_forgotten(peer)):
            self._alarms.sound(alarm)
            return
        if event == "frame_refused" and peer is not None:
            verdict = self._refusals.note(peer, self._clock.steady_s())
            if verdict.is_too_much:
                asyncio.get_running_loop().call_soon(self.links.hang_up, peer, "it talks nonsense")
            if not verdict.logged:
                return
            detail += f" ({verdict.unlogged} more before)" if verdict.unlogged else ""
        fields = {"event": event, "peer": peer}
        _log.warning("%s: %s", event.replace("_", " "), detail, extra={"fields": fields})
        self._regaining |= event == "epoch_raised"

    def obey(self, order: Order, route: tuple[NodeId, ...]) -> None:
        """Judge what came sealed over links."""
        if self.relaying is not None:
            self.relaying.obey(order, route)

    def answered(self, reply: Reply) -> None:
        """Hand the answer to whoever sent the command."""
        if self.relaying is not None:
            self.relaying.answered(reply)

    # What links tell.

    def linked(self, peer: NodeId, *, dialled: bool) -> None:
        """Take a working link into use."""
        self.troubles.pop(peer, None)
        self.perform(self.mesh.linked(peer, self._clock.steady_s(), dialled=dialled))

    def unlinked(self, peer: NodeId, reason: str) -> None:
        """Let go of a link."""
        self.perform(self.mesh.unlinked(peer, reason, self._clock.steady_s()))

    def dial_failed(self, peer: NodeId, reason: str, *, stalled: bool) -> None:
        """Note that a member did not answer."""
        self.trouble(peer, reason)
        self.perform(self.mesh.dial_failed(peer, self._clock.steady_s(), stalled=stalled))

    def learned(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Note where a peer listens."""
        self.perform(self.mesh.learn(peer, addresses, self._clock.steady_s()))

    def holds(self, header: Header) -> bool:
        """Whether news with this header would tell nothing new."""
        return self.mesh.replication.holds(header)

    def received(self, peer: NodeId, message: Message | Known) -> None:
        """Take a message."""
        self.perform(self.mesh.received(peer, message, self._clock.steady_s()))

    def refused(self, peer: NodeId, reason: str) -> None:
        """Log a frame that broke the protocol."""
        self.report("frame_refused", peer, reason)

    def caught_up(self, peer: NodeId) -> None:
        """Repair what an overflowing outbox has dropped."""
        self.perform(self.mesh.caught_up(peer))

    def persisted(self, change: Change) -> None:
        """Tell the mesh, and whoever waits, that our flush is on disk."""
        flushed = self._flushed.pop(change.header.head, None)
        self.perform(self.mesh.persisted(change, self._clock.steady_s()))
        for written in flushed.waiting if flushed else ():
            _resolve(written)


class _Flushed(msgspec.Struct, frozen=True):
    """A flush of ours that is on its way to the disk, and who waits for it."""

    change: Change
    waiting: list[asyncio.Future[None]]


def _waits(stop: Alarm) -> StorageError:
    said = f"{stop.detail}; what was written waits, and is published once that has passed"
    return StorageError(said, stop.fix)


def _nobody_waits(news: Announce) -> None:
    del news


def _resolve(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)
