"""What a command does once it may: one handler an action.

Invariant: nothing here judges who may command, or whether a command has been here before; that is
`app/commands/commands.py`, which calls this once for a command that is journalled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.app.sessions.holding import Holding
from meshnode.core.control.grants import grant_from_signed
from meshnode.core.errors import RefusedError
from meshnode.core.ids import b32
from meshnode.core.keys import key_id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshnode.app.sessions.done import Done
    from meshnode.app.sessions.registry import Registrar
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.commands.commands import Command
    from meshnode.core.sessions.sessions import SessionRecord

    Handler = Callable[["Task"], Awaitable["Done"]]


class Task(msgspec.Struct, frozen=True):
    """A command that may be executed, and its session when it is about one."""

    command: Command
    session: SessionRecord | None

    @property
    def command_id(self) -> str:
        """As users, agents and logs name it."""
        return b32(self.command.command_id)

    @property
    def by(self) -> str:
        """Who ordered it: a person, not a passing key."""
        return key_id_of(grant_from_signed(self.command.chain[0]).issuer)

    def target(self) -> SessionRecord:
        """Return the session; raises RefusedError for a command that names none."""
        if self.session is None:
            raise RefusedError(f"{self.command.action} needs a session")
        return self.session


class Executor:
    """Carries commands out on what this node owns."""

    def __init__(self, sessions: OwnSessions, registrar: Registrar) -> None:
        self._sessions = sessions
        holding = Holding(sessions)
        self._handlers: dict[str, Handler] = {
            "register": lambda task: registrar.register(task.command.args),
            "unregister": lambda task: registrar.unregister(task.command.args),
            "steer": self._steer,
            "kill": self._kill,
            "close": lambda task: holding.close(
                task.target(), task.command_id, task.command.args, task.by
            ),
            "suspend": lambda task: holding.suspend(task.target()),
            "resume": lambda task: holding.resume(task.target()),
        }

    async def execute(self, task: Task) -> Done:
        """Do what a command says; raises a MeshError if it cannot be done."""
        handler = self._handlers.get(task.command.action)
        if handler is None:
            raise RefusedError(f"{task.command.action} is asked for by a call of its own")
        return await handler(task)

    async def _steer(self, task: Task) -> Done:
        return await self._sessions.steer(task.target(), task.command_id, task.command.args)

    async def _kill(self, task: Task) -> Done:
        return await self._sessions.kill(task.target(), task.command_id, task.command.args, task.by)
