"""The life of a command at its owner: judged, journalled, executed at most once, answered.

Invariant: the journal holds a command, synced, before anything is done about it; whoever sends the
same command again, at once or after a restart, gets the same receipt and starts nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.app.executing import Task
from meshnode.app.ports import JournalEntry
from meshnode.app.sessions import Done
from meshnode.core.commands import (
    SKEW_S,
    Command,
    Court,
    Receipt,
    command_from_signed,
    sign_receipt,
)
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    RefusedError,
)
from meshnode.core.packing import unpack_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.executing import Executor
    from meshnode.app.ports import Clock, Journal
    from meshnode.app.sessions import OwnSessions
    from meshnode.core.keys import Key, Signed
    from meshnode.core.sessions import SessionRecord

EXECUTING_MAX = 64  # at once; more: RefusedError


class CommandDesk:
    """Takes signed commands for what this node owns."""

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
        self._executing: dict[bytes, asyncio.Future[Signed]] = {}
        self.on_outcome: Callable[[Command, SessionRecord | None, Done], None] = _nobody_told

    async def submit(self, signed: Signed, via: str) -> Signed:
        """Execute a command at most once; returns its receipt, raises a MeshError if refused."""
        command, session = self._judge(signed, via)
        if command.action == "read_messages":
            raise RefusedError("output is read by a call of its own")
        running = self._executing.get(command.command_id)
        if running is not None:
            return self._same(await asyncio.shield(running), signed)
        if len(self._executing) >= EXECUTING_MAX:
            raise RefusedError(f"{EXECUTING_MAX} commands are being executed", "try again")
        answer: asyncio.Future[Signed] = asyncio.get_running_loop().create_future()
        self._executing[command.command_id] = answer
        try:
            receipt = await self._once(signed, command, session)
        except BaseException as error:
            if not isinstance(error, MeshError):
                answer.cancel()
            else:
                answer.set_exception(error)
                answer.exception()  # read here, so that nobody waiting is no warning
            raise
        else:
            answer.set_result(receipt)
            return receipt
        finally:
            del self._executing[command.command_id]

    def judge_reading(self, signed: Signed, via: str) -> tuple[Command, SessionRecord]:
        """Allow or refuse the reading of a session's output; raises a MeshError."""
        command, session = self._judge(signed, via)
        if command.action != "read_messages" or session is None:
            raise RefusedError("only output can be read by this call")
        return command, session

    def check_revocations(self, command: Command) -> None:
        """Raise NotAuthenticatedError if what a judged command stands on was revoked since."""
        self._court.check_revocations(command)

    def _judge(self, signed: Signed, via: str) -> tuple[Command, SessionRecord | None]:
        session = self._sessions.get(command_from_signed(signed).session)
        return self._court.judge(signed, session, via, self._clock.wall_s()), session

    async def _once(
        self, signed: Signed, command: Command, session: SessionRecord | None
    ) -> Signed:
        now_s = self._clock.wall_s()
        entry = JournalEntry(command.command_id, signed.hash, command.expires_s + 2 * SKEW_S)
        known = await self._journal.begin(entry, now_s)
        if known is not None:
            return known
        try:
            self._court.recheck(command, self._clock.wall_s())
            done = await self._executor.execute(Task(command, session))
        except (ConflictError, NotAuthenticatedError, RefusedError) as error:
            done = Done("refused", error.message)
        except MeshError as error:
            done = Done("failed", error.message)
        self.on_outcome(command, self._sessions.get(command.session), done)  # written with it
        receipt = sign_receipt(self._key, self._receipt(signed, command, done))
        await self._journal.finish(command.command_id, receipt)
        return receipt

    def _receipt(self, signed: Signed, command: Command, done: Done) -> Receipt:
        return Receipt(
            mesh=command.mesh,
            command_id=command.command_id,
            command_hash=signed.hash,
            node=command.node,
            session=command.session,
            outcome=done.outcome,
            at_s=self._clock.wall_s(),
            detail=done.detail,
            processes=done.processes,
        )

    @staticmethod
    def _same(receipt: Signed, signed: Signed) -> Signed:
        if unpack_map(receipt.payload)["command_hash"] != signed.hash:
            raise ConflictError("another command was sent with the same id")
        return receipt


def _nobody_told(command: Command, session: SessionRecord | None, done: Done) -> None:
    del command, session, done
