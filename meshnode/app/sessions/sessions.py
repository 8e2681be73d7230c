"""The sessions that this node owns: opened, followed, steered, ended.

Invariant: a session's row is written by this node only, in the order in which things happened to
it, and a session that ended stays as it ended, but for one that was lost and is found again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.app.sessions.done import ALREADY_ENDED, Done, are, counted, landed
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.opening import Opening, check_opening
from meshnode.app.sessions.untold import Untold
from meshnode.app.settling import Settling
from meshnode.core.commands.steers import instruction_of
from meshnode.core.errors import (
    ConflictError,
    ExhaustedError,
    MeshError,
    NotFoundError,
    RefusedError,
    StorageError,
    UnreachableError,
    UsageError,
)
from meshnode.core.ids import new_u64, session_id_of
from meshnode.core.sessions.sessions import (
    ORDERS_SHOWN,
    SESSIONS,
    WORKING,
    SessionRecord,
    State,
    found_again,
    is_of_journal,
    moved,
    new_session_epoch,
    session_to_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from pathlib import Path

    from meshnode.app.ports import Agents, Clock, Publish
    from meshnode.core.commands.steers import Instruction
    from meshnode.core.ids import Chance

SESSIONS_MAX = 1000  # of one node, not ended; more: RefusedError
ENDED_KEPT = 256  # older ended rows are deleted; so are those older than ENDED_KEPT_S, see Settling
ENDED_KEPT_S = 7 * 86400
GRACE_S = 5.0
GRACE_S_MAX = 60.0
LAST_WORD_WAIT_S = 2.0
CLOSING_MAX = 32  # sessions at once: each is given GRACE_S, and looked at all the time
FINDING_MAX = 32  # supervisors that are looked for at once: each may be silent for seconds
START_WAIT_S = 25.0  # for a supervisor to report, on the busiest machine


class OwnSessions:
    """All sessions of this node, ended ones that are still listed included."""

    def __init__(
        self,
        publish: Publish,
        agents: Agents,
        clock: Clock,
        chance: Chance,
        place_of: Callable[[str], tuple[Path, Path]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.publish = publish
        self.agents = agents
        self.clock = clock
        self._settling = Settling(clock)
        self._chance = chance
        self.place_of = place_of
        self._records: dict[str, SessionRecord] = {}
        self._ended_by: dict[str, str] = {}
        self._spawn = spawn
        self._changed = asyncio.Condition()
        self.untold = Untold(spawn, self._republish)
        self.self_id = ""  # the node's: its session ids prove that they are its own
        self.check_writable: Callable[[], None] = lambda: None  # raises RefusedError
        self.check_start: Callable[[SessionRecord], None] = lambda _: None  # raises RefusedError
        self.on_change: Callable[[SessionRecord | None, SessionRecord], None] = _nobody_told
        self.meant: Callable[[SessionRecord, Instruction], Instruction] = _as_said  # by a direction
        self.on_full: Callable[[], None] = lambda: None  # one was refused: there are too many
        self.on_found: Callable[[], None] = lambda: None  # an agent lived on without its node
        self.journal_generation = 0

    def restore(self, records: Iterable[SessionRecord]) -> None:
        """Take over what our feed says, at the start, and what peers return of a lost disk.

        A journal that was lost has forgotten what was carried out: what was signed for a session
        before is void from here on, since the session gets another epoch.
        """
        self._records = {record.session_id: record for record in records}
        for record in list(self._records.values()):
            if not is_of_journal(record, self.journal_generation):
                fresh = replace(
                    record,
                    session_epoch=new_session_epoch(self._chance, self.journal_generation),
                    start=record.start or record.session_epoch,
                )
                self._records[record.session_id] = fresh
                self._spawn(self._republish(record.session_id))

    async def reattach(self) -> None:
        """Find the agents again that lived on while this node was away."""
        await self.find(self.live())

    async def find(self, records: Iterable[SessionRecord]) -> None:
        """Find agents, some at a time: one that does not answer must not hold up the others."""
        turns = asyncio.Semaphore(FINDING_MAX)
        await asyncio.gather(*(self._find(record.session_id, turns) for record in records))

    async def _find(self, session_id: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            await self.agents.attach(session_id, *self.place_of(session_id))

    async def find_lost(self, session_id: str) -> bool:
        """Take a session up again that was told lost, if its supervisor answers; whether it lives.

        Who has told so may be a copy of this home, on a machine that sees no process of ours.
        """
        record = self.get(session_id)
        if record is None or not record.is_lost:
            return record is not None and not record.ended
        place = self.place_of(session_id)
        if not await self.agents.answers(session_id, *place):
            return False
        if record is self.get(session_id):  # else somebody else has found it meanwhile
            await self.keep(found_again(record))
            await self.agents.attach(session_id, *place)
        return True

    def get(self, session_id: str) -> SessionRecord | None:
        """Return a session of this node."""
        return self._records.get(session_id)

    def live(self) -> list[SessionRecord]:
        """Return the sessions that have not ended."""
        return [record for record in self._records.values() if not record.ended]

    async def open(self, opening: Opening) -> SessionRecord:
        """Record a session whose process the caller starts next.

        Raises UsageError, RefusedError, StorageError: what could not be written has failed.
        """
        check_opening(opening)
        self.check_writable()
        if len(self.live()) >= SESSIONS_MAX:
            self.on_full()
            raise RefusedError(f"this node has {SESSIONS_MAX} sessions", "end some of them first")
        now_s = self.clock.wall_s()
        start = new_u64(self._chance)
        session_id = session_id_of(self.self_id, start)
        place = self.place_of(session_id)  # before anybody hears of it: it may not be made
        record = SessionRecord(
            session_id=session_id,
            start=start,
            session_epoch=new_session_epoch(self._chance, self.journal_generation),
            agent_id=opening.agent_id or session_id,
            state=State.PENDING,
            created_at_s=now_s,
            last_activity_s=now_s,
            title=opening.title or None,
            specializations=opening.specializations,
            labels=opening.labels or {},
            owner=opening.owner or None,
            project=opening.cwd.rstrip("/").rpartition("/")[2] or None,
            cwd=opening.cwd or None,
            adapter=opening.adapter,
            can_steer=opening.can_steer,
        )
        self.check_start(record)
        try:
            await self._publish(record)
        except StorageError:
            await self.keep(_failed(record, "could not be written to disk"))
            raise
        except RefusedError:
            with suppress(StorageError, RefusedError):
                await self._publish(_failed(record, "could not be published"))
            self._records.pop(session_id, None)  # without a row: it must displace none that has
            raise
        self._spawn(self.agents.attach(session_id, *place))
        await self._sweep()
        return record

    async def begun(self, session_id: str) -> SessionRecord:
        """Wait until a session's agent runs or has ended; raises UnreachableError."""
        if session_id not in self._records:
            raise NotFoundError(f"no session {session_id[:60]} on this node")
        try:
            async with asyncio.timeout(START_WAIT_S), self._changed:
                await self._changed.wait_for(
                    lambda: (one := self.get(session_id)) is None or one.state is not State.PENDING
                )
        except TimeoutError:
            raise UnreachableError("the agent's supervisor did not report in time") from None
        if (record := self.get(session_id)) is None:
            raise NotFoundError(f"session {session_id} has ended, and is listed no more")
        return record

    async def started(self, session_id: str, pid: int, *, suspended: bool = False) -> None:
        """Note that an agent runs, or stands still; one that was ended before it began ends."""
        record = self._records.get(session_id)
        if record is None:
            return
        if record.ended:
            with suppress(MeshError):
                await self.agents.kill(session_id, "", GRACE_S, force=False)
            return
        now_s = self.clock.wall_s()
        if record.state is not State.PENDING:
            self.on_found()
        if record.state is State.PENDING or (record.state is State.SUSPENDED and not suspended):
            record = moved(record, State.RUNNING, now_s)
        if suspended and record.state is not State.SUSPENDED:
            record = moved(record, State.SUSPENDED, now_s)
        await self.keep(replace(record, pid=pid))

    async def held(self, session_id: str, *, suspended: bool) -> None:
        """Note whether an agent stands still by now; returns once its row says so."""
        record = self._records.get(session_id)
        if record is None or record.ended:
            return
        if suspended and record.state in WORKING:
            record = moved(record, State.SUSPENDED, self.clock.wall_s())
        elif not suspended and record.state is State.SUSPENDED:
            record = moved(record, State.RUNNING, self.clock.wall_s())
        await self.keep(record)

    async def active(self, session_id: str, at_s: float) -> None:
        """Note that an agent was at work."""
        record = self._records.get(session_id)
        if record is not None and not record.ended and at_s > record.last_activity_s:
            await self.keep(replace(record, last_activity_s=at_s))

    async def ended(self, session_id: str, ending: Ended) -> None:
        """Note that an agent has ended, and how."""
        record = self._records.get(session_id)
        if record is None or record.ended:
            return
        by = self._ended_by.pop(session_id, None)
        await self.keep(
            moved(
                record,
                ending.state,
                max(ending.at_s, record.created_at_s),
                exit_code=ending.exit_code,
                signal=ending.signal,
                end_reason=ending.why,
                ended_by=by if ending.by_order else None,
            )
        )

    async def steer(self, record: SessionRecord, command_id: str, args: dict[str, Any]) -> Done:
        """Hand one line to the agent."""
        steer = instruction_of(args)
        if record.ended:
            raise ConflictError(f"session {record.session_id} has ended ({record.state})")
        steer = self.meant(record, steer)
        try:
            steered = await self.agents.steer(record.session_id, command_id, steer)
        except RefusedError as error:
            return Done("refused", error.message)
        except UnreachableError as error:
            return Done("indeterminate", error.message)
        present = self.get(record.session_id)
        if present is None:  # it ended, and so many after it that it is listed no more
            return landed(steered, steer.mode)
        if not present.ended:
            now_s = self.clock.wall_s()
            count = present.message_count + 1
            counted = replace(present, message_count=count, last_activity_s=now_s)
            self.on_change(present, counted)
            self._records[record.session_id] = counted
            self.untold.tell_later(record.session_id)  # the receipt does not wait for it
        if present.state is State.SUSPENDED:
            return Done("queued", "the agent is suspended: it reads this once it is resumed")
        return landed(steered, steer.mode)

    async def kill(
        self, record: SessionRecord, command_id: str, args: dict[str, Any], by: str, whose: str = ""
    ) -> Done:
        """Stop the agent's whole process tree and verify that it is gone."""
        if record.ended and not await self.find_lost(record.session_id):
            return ALREADY_ENDED
        grace_s = grace_of(args)
        self.ending_by(record.session_id, by, whose)
        force = args.get("force") is True
        killing = await self.agents.kill(record.session_id, command_id, grace_s, force=force)
        processes = counted(killing)
        if killing.survivors:
            await self.held(record.session_id, suspended=False)  # a TERM is followed by a CONT
            return Done("failed", f"{len(killing.survivors)} processes are still there", processes)
        await self.told_of_end(record.session_id)
        return Done("applied", f"{are(killing.gone)} gone", processes)

    async def note_order(self, session_id: str, told: str) -> None:
        """Show with a session what became of a standing kill of it, or what a budget did."""
        record = self._records.get(session_id)
        if record is not None:
            await self.keep(replace(record, orders=(told, *record.orders)[:ORDERS_SHOWN]))

    def ending_by(self, session_id: str, by: str, whose: str = "") -> None:
        """Note who is to be named if the session ends now, `whose` in words if it is no key's."""
        self._ended_by[session_id] = by
        self.agents.ordered(session_id, whose or f"by order of key {by}")

    async def told_of_end(self, session_id: str, *, closed: bool = False) -> None:
        """Let the supervisor tell how the agent ended; record it ourselves if it does not."""
        try:
            async with asyncio.timeout(LAST_WORD_WAIT_S), self._changed:
                await self._changed.wait_for(
                    lambda: (one := self.get(session_id)) is None or one.ended
                )
        except TimeoutError:
            now_s = self.clock.wall_s()
            reason = "closed" if closed else "killed"
            ending = Ended(None, None, reason, killed=not closed, at_s=now_s, closed=closed)
            await self.ended(session_id, ending)

    async def close_all(self, by: str) -> int:
        """End every session of this node, some at a time; returns how many were ended."""
        live, turns = self.live(), asyncio.Semaphore(CLOSING_MAX)
        await asyncio.gather(*(self._close(record, by, turns) for record in live))
        return len(live) - len(self.live())

    async def _close(self, record: SessionRecord, by: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            with suppress(MeshError):  # what cannot be ended stays listed as it is
                await self.kill(record, "", {}, by, "with its node")

    async def _republish(self, session_id: str) -> None:
        if (record := self._records.get(session_id)) is not None:
            await self.keep(record)
        else:
            self.untold.has_room(session_id)

    async def keep(self, record: SessionRecord) -> None:
        """Record what has happened, whether or not it can be published now."""
        try:
            with suppress(StorageError):
                await self._publish(record)
        except ExhaustedError:
            self.untold.has_no_room(record.session_id)
        except RefusedError:
            pass  # another machine writes this feed
        else:
            self.untold.has_room(record.session_id)

    async def _publish(self, record: SessionRecord) -> None:
        self.on_change(self._records.get(record.session_id), record)
        self._records[record.session_id] = record
        self.untold.told(record.session_id)
        async with self._changed:
            self._changed.notify_all()
        await self.publish(SESSIONS, record.session_id.encode(), session_to_row(record))

    async def _sweep(self) -> None:
        old_s = self._settling.old_s(ENDED_KEPT_S)
        ended = [record for record in self._records.values() if record.ended]
        ended.sort(key=lambda record: record.ended_at_s or 0.0, reverse=True)
        for place, record in enumerate(ended):
            is_old = place >= ENDED_KEPT or (record.ended_at_s or 0.0) < old_s
            # Another `open` may have swept it while a deletion was being published.
            if is_old and self._records.pop(record.session_id, None) is not None:
                with suppress(StorageError, RefusedError):  # the deletion waits
                    await self.publish(SESSIONS, record.session_id.encode(), None)


def grace_of(args: dict[str, Any]) -> float:
    """Return the grace that an order gives; raises UsageError."""
    grace_s = args.get("grace_s", GRACE_S)
    if type(grace_s) not in {int, float} or not 0 <= grace_s <= GRACE_S_MAX:
        raise UsageError(f"a grace lasts 0 to {GRACE_S_MAX:g} s")
    return float(grace_s)


def _failed(record: SessionRecord, reason: str) -> SessionRecord:
    return moved(record, State.FAILED, record.created_at_s, end_reason=reason)


def _as_said(record: SessionRecord, steer: Instruction) -> Instruction:
    del record
    return steer


def _nobody_told(before: SessionRecord | None, after: SessionRecord) -> None:
    del before, after
