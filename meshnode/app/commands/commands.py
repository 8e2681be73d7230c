"""The life of a command at its owner: judged, journalled, executed at most once, answered.

Invariant: the journal holds a command, synced, before anything is done about it; whoever sends the
same command again, at once or after a restart, gets the same receipt and starts nothing. What a
crash interrupted is finished or told as indeterminate by the next start, never begun twice, but for
what may be done twice (`STOPS`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from meshnode.app.commands.executing import Task
from meshnode.app.commands.lanes import Lane, UnderWay
from meshnode.app.commands.quotas import OF_PEER, OF_SIGNER, Quota
from meshnode.app.ports import JournalEntry
from meshnode.app.sessions.done import Done
from meshnode.core.commands.commands import (
    READ_ACTIONS,
    STOPS,
    Command,
    Court,
    Receipt,
    command_from_signed,
    sign_receipt,
)
from meshnode.core.control.grants import KeyTimeError
from meshnode.core.errors import (
    ClockError,
    ConflictError,
    ExpiredError,
    MeshError,
    NoAnswerError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
    UnreachableError,
    UsageError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.keys import Signed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from meshnode.app.commands.executing import Executor
    from meshnode.app.ports import Clock, Journal, Undone
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.keys import Key
    from meshnode.core.sessions.sessions import SessionRecord

REFUSALS = (
    UsageError,
    NotAuthenticatedError,
    NotPermittedError,
    ConflictError,
    StaleError,
    RefusedError,
)
ENDS = STOPS | {"close"}
INTERRUPTED = "this node stopped while it executed this command"
SIGNER_BYTES = 16
_log = logging.getLogger("session_mesh.commands")


class CommandDesk:
    """Takes signed commands for what this node owns; `spawn` runs what ends with the node."""

    def __init__(
        self,
        court: Court,
        key: Key,
        sessions: OwnSessions,
        executor: Executor,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self._court = court
        self._key = key
        self._sessions = sessions
        self._executor = executor
        self._journal = journal
        self._clock = clock
        self._began_s = clock.wall_s()
        self._under_way: dict[bytes, UnderWay] = {}
        self._lane = Lane()
        # What hangs must not keep anybody from a kill, nor who is given two minutes to end others.
        self._lanes = {action: Lane() for action in ENDS}
        self.of_peer = Quota(OF_PEER, "this peer")
        self.of_signer = Quota(OF_SIGNER, "this signer")
        self.spawn: Callable[[Coroutine[Any, Any, None]], object] = _Loose()
        self.check_sole: Callable[[], None] = lambda: None  # raises RefusedError
        self.on_accepted: Callable[[Command, SessionRecord | None, str], None] = _nobody_hears
        self.on_outcome: Callable[[Command, SessionRecord | None, Done], None] = _nobody_told

    async def submit(self, signed: Signed, via: str, *, until_accepted: bool = False) -> Signed:
        """Execute a command at most once; returns its receipt, raises a MeshError if refused.

        `until_accepted` returns as soon as it is journalled, with a receipt that says no more: the
        same command sent again gets the final one.
        """
        self.of_peer.take(via, self._clock.steady_s())
        under_way = await self._taken(signed, via, promised=until_accepted)
        if isinstance(under_way, Signed):
            return under_way
        return await (under_way.accepted() if until_accepted else under_way.done())

    def judge_reading(self, signed: Signed, via: str) -> Command:
        """Allow or refuse a reading: of output, of rounds, of the audit log; raises a MeshError."""
        self.of_peer.take(via, self._clock.steady_s())
        command, _session = self._judge(signed, via)
        if command.action not in READ_ACTIONS:
            raise RefusedError("this call reads, and does nothing else")
        self.of_signer.take(_signer(command), self._clock.steady_s())
        return command

    def recheck_reading(self, command: Command, via: str) -> None:
        """Allow or refuse the next piece of what was judged; raises a MeshError."""
        self.of_peer.take(via, self._clock.steady_s())
        self.check_revocations(command)

    def check_revocations(self, command: Command) -> None:
        """Raise NotAuthenticatedError if what a judged command stands on was revoked since."""
        self._court.check_revocations(command)

    def resume(self, undone: Iterable[Undone], ready: asyncio.Event) -> None:
        """Go on with what the last run left, once its agents are found again.

        Call it before commands come in: their duplicates wait for what becomes of the first.
        """
        for one in undone:
            try:
                command = command_from_signed(one.command)
            except PeerError as error:  # of an older version, or damaged: it stays unanswered
                _log.warning("a command in the journal is no more understood: %s", error.message)
                continue
            if one.has_begun and command.action in ENDS:  # by now its agent may have ended of it
                self._sessions.ending_by(command.session, Task(command, None).by)
            work = partial(self._go_on, one, command, ready)
            self._start(one.command, command, work)

    async def tick(self) -> None:
        """Note what time it is, so that a clock which is set back later is noticed."""
        now_s = self._clock.wall_s()
        self._court.floor.raise_to(now_s)
        await self._journal.raise_floor(now_s)

    async def _taken(self, signed: Signed, via: str, *, promised: bool) -> UnderWay | Signed:
        """Return a command that is under way by now, or its receipt if it was answered before."""
        try:
            command, session = self._judge(signed, via)
        except (ExpiredError, ClockError, KeyTimeError):
            # What became of it can be told for as long as it is known, whatever our clock says.
            # The times come before the signature: other content proves nothing, so it is unknown.
            with suppress(ConflictError):
                if (known := await self._known(signed)) is not None:
                    return known
            raise
        if command.action in READ_ACTIONS:
            raise RefusedError("what is kept is read by a call of its own")
        if under_way := self._same(signed, command):
            return under_way
        self._check_room(command)
        note = partial(self.on_accepted, command, session, via)
        once = partial(self._once, signed, command, note, promised=promised)
        return self._start(signed, command, once)

    def _judge(self, signed: Signed, via: str) -> tuple[Command, SessionRecord | None]:
        session = self._sessions.get(command_from_signed(signed).session)
        return self._court.judge(signed, session, via, self._now_s()), session

    def _now_s(self) -> float:
        now_s = self._clock.wall_s()
        self._court.floor.raise_to(now_s)
        return now_s

    async def _known(self, signed: Signed) -> UnderWay | Signed | None:
        command = command_from_signed(signed)
        entry = _entry(signed, command)
        return self._same(signed, command) or await self._journal.answered(entry)

    def _same(self, signed: Signed, command: Command) -> UnderWay | None:
        under_way = self._under_way.get(command.command_id)
        if under_way is not None and under_way.hash != signed.hash:
            raise ConflictError("another command was sent with the same id")
        return under_way

    def _check_room(self, command: Command) -> None:
        self._lane_of(command).check_room(command.session)
        self.of_signer.take(_signer(command), self._clock.steady_s())

    def _start(
        self,
        signed: Signed,
        command: Command,
        work: Callable[[UnderWay], Coroutine[Any, Any, Signed]],
    ) -> UnderWay:
        under_way = UnderWay(signed.hash)
        self._under_way[command.command_id] = under_way
        self._lane_of(command).enter(command.session)
        self.spawn(self._answer(under_way, command, work))
        return under_way

    async def _answer(
        self,
        under_way: UnderWay,
        command: Command,
        work: Callable[[UnderWay], Coroutine[Any, Any, Signed]],
    ) -> None:
        try:
            under_way.finish(await work(under_way))
        except MeshError as error:
            under_way.fail(error)
        except BaseException:
            under_way.fail(NoAnswerError("the node ended, or failed, before it could tell"))
            raise
        finally:
            del self._under_way[command.command_id]
            self._lane_of(command).leave(command.session)

    async def _once(
        self,
        signed: Signed,
        command: Command,
        note: Callable[[], None],
        under_way: UnderWay,
        *,
        promised: bool,
    ) -> Signed:
        if (known := await self._known_before(signed, command)) is not None:
            return known
        self.check_sole()
        note()  # it is written with the command, or before it
        # One write instead of two for what has its turn now, unless somebody shall be told that it
        # is accepted: that promises an execution, also after a crash. So does every kill.
        lane = self._lane_of(command)
        has_turn = command.action not in STOPS and lane.has_turn(command.session)
        begins = has_turn and not promised
        known = await self._journal.begin(_entry(signed, command, begins=begins), self._now_s())
        if known is not None:
            return known
        under_way.accept(lambda: self._receipt(signed, command, Done("accepted", "journalled")))
        return await self._carry_out(signed, command, marked=begins)

    async def _known_before(self, signed: Signed, command: Command) -> Signed | None:
        """Return the receipt of a command that an earlier run has answered: it is no new one."""
        if command.issued_s > self._began_s + SKEW_S:  # no earlier run has had it
            return None
        return await self._journal.answered(_entry(signed, command))

    async def _go_on(
        self, undone: Undone, command: Command, ready: asyncio.Event, under_way: UnderWay
    ) -> Signed:
        signed = undone.command
        under_way.accept(lambda: self._receipt(signed, command, Done("accepted", "journalled")))
        await ready.wait()
        if undone.has_begun and command.action not in STOPS:
            return await self._settle(signed, command, Done("indeterminate", INTERRUPTED))
        return await self._carry_out(signed, command, interrupted=undone.has_begun)

    async def _carry_out(
        self, signed: Signed, command: Command, *, marked: bool = False, interrupted: bool = False
    ) -> Signed:
        """Execute what is journalled: `marked` as begun, or `interrupted` by a crash."""
        async with self._lane_of(command).turn(command.session):
            try:
                if not marked:
                    await self._mark(command)
                session = self._permitted(command)
            except MeshError as error:
                done = _not_done(error)
                if interrupted:
                    detail = f"{INTERRUPTED}, and it is not run again: {error.message}"
                    done = Done("indeterminate", detail)
            else:
                done = await self._executed(Task(command, session))
        return await self._settle(signed, command, done)

    async def _mark(self, command: Command) -> None:
        """Mark a command as begun; raises RefusedError."""
        try:
            await self._journal.execute(command.command_id)
        except RefusedError:
            if command.action not in STOPS:  # after a crash it would be begun again
                raise

    def _permitted(self, command: Command) -> SessionRecord | None:
        """Look once more whether a command may be executed; raises a MeshError."""
        self.check_sole()
        session = self._sessions.get(command.session)
        self._court.recheck(command, session, self._now_s())
        return session

    async def _executed(self, task: Task) -> Done:
        try:
            return await self._executor.execute(task)
        except MeshError as error:
            return _not_done(error)
        except Exception:  # noqa: BLE001 - whoever waits is told, whatever it was
            _log.exception("command %s failed", task.command_id)
            return Done("indeterminate", "internal error in the node; its log says more")

    async def _settle(self, signed: Signed, command: Command, done: Done) -> Signed:
        """Sign and keep what became of a command: each one that was journalled comes by here."""
        self.on_outcome(command, self._sessions.get(command.session), done)  # written with it
        receipt = self._receipt(signed, command, done)
        await self._journal.finish(command.command_id, receipt)
        return receipt

    def _receipt(self, signed: Signed, command: Command, done: Done) -> Signed:
        return sign_receipt(
            self._key,
            Receipt(
                mesh=command.mesh,
                command_id=command.command_id,
                command_hash=signed.hash,
                node=command.node,
                session=command.session,
                outcome=done.outcome,
                at_s=self._clock.wall_s(),
                detail=done.detail,
                processes=done.processes,
            ),
        )

    def _lane_of(self, command: Command) -> Lane:
        return self._lanes.get(command.action, self._lane)


def _nobody_told(command: Command, session: SessionRecord | None, done: Done) -> None:
    del command, session, done


def _nobody_hears(command: Command, session: SessionRecord | None, via: str) -> None:
    del command, session, via


class _Loose:
    """Runs tasks that nothing ends, where there is no node: it keeps them from being collected."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _entry(signed: Signed, command: Command, *, begins: bool = False) -> JournalEntry:
    return JournalEntry(
        command.command_id,
        signed.hash,
        # It is taken until one skew after its end, and the clock may go back by another unnoticed.
        command.expires_s + 2 * SKEW_S,
        _signer(command),
        command.action in STOPS,
        signed,
        begins,
    )


def _signer(command: Command) -> bytes:
    """Return what a command counts for: the first grant of its chain.

    Whoever holds it can make keys beneath it at will, and no other such grant; so the thief of a
    session key uses up that key's share, and not what its operator needs to stop him.
    """
    return command.chain[0].hash[:SIGNER_BYTES]


def _not_done(error: MeshError) -> Done:
    """Say what an error makes of a command that was journalled."""
    match error:
        case ExpiredError():
            return Done("expired", error.message)
        case NotFoundError():
            return Done("unknown", error.message)
        case UnreachableError():
            return Done("indeterminate", error.message)
        case _:
            outcome = "refused" if isinstance(error, REFUSALS) else "failed"
            return Done(outcome, error.message)
