"""A node's command desk with everything behind it but the network, and what its users sign."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from doubles import InBackground, ManualClock, MemoryJournal, Published, ScriptedAgents, nowhere

from meshnode.app.commands.commands import CommandDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.commands import (
    Command,
    Court,
    Receipt,
    receipt_from_signed,
    sign_command,
)
from meshnode.core.control.control import ControlSet
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.floor import ClockFloor
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.node.homes.books import StoredJournal
from meshnode.store import journal as stored
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from meshnode.app.ports import Journal, Undone

chance = Random(13).randbytes
ROOT, NODE, STRANGER = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
GENERATION = 5
SESSION = SessionRecord(SessionId("s" * 26), 42, "agent", State.RUNNING, 1.0, 1.0)
UNTIL_S = int(ManualClock().now_s) + 25 * 86400  # a key stands for 30 days at most
ALL = ("steer", "kill", "suspend", "register", "read_messages")


def key_for(subject: Key = ROOT, **limits: object) -> SessionKey:
    """Grant a key everything for weeks, but for its limits."""
    said: dict[str, object] = {
        "mesh": GENESIS.mesh_id,
        "issuer": ROOT.public,
        "subject": subject.public,
        "actions": ALL,
        "not_before_s": 0,
        "expires_s": UNTIL_S,
        "grant_id": bytes(16),
    }
    link = grant(ROOT, Grant(**(said | limits)))  # type: ignore[arg-type] # the limits' own
    return SessionKey(subject, (link,))


KEY = key_for()


class Owner:
    """One run of a node's desk; a later run takes its agents, its clock and its journal over."""

    def __init__(
        self,
        agents: ScriptedAgents | None = None,
        journal: Journal | None = None,
        clock: ManualClock | None = None,
        *,
        generation: int = GENERATION,
        floor_s: float = 0.0,
        sessions: Iterable[SessionRecord] = (SESSION,),
    ) -> None:
        self.agents = agents or ScriptedAgents()
        self.clock = clock or ManualClock()
        self.published = Published()
        self.memory = MemoryJournal()
        self.journal = journal or self.memory
        self.control = ControlSet(GENESIS)
        self.generation = generation
        self.spawn = InBackground()
        self.sessions = OwnSessions(
            self.published, self.agents, self.clock, chance, nowhere, self.spawn
        )
        self.sessions.journal_generation = generation
        self.sessions.restore(sessions)
        self.agents.on_killed = self._ended
        self.court = Court(GENESIS.mesh_id, NODE_ID, self.control, generation, ClockFloor(floor_s))
        self.roster = Mesh(GENESIS, Self(NODE, 1, Random(1))).roster
        registrar = Registrar(self.roster, self.published)
        executor = Executor(self.sessions, registrar)
        self.desk = CommandDesk(self.court, NODE, self.sessions, executor, self.journal, self.clock)
        self.desk.spawn = self.spawn

    @property
    def epoch(self) -> int:
        """Of the session."""
        record = self.sessions.get(SESSION.session_id)
        return SESSION.session_epoch if record is None else record.session_epoch

    def command(self, action: str = "steer", **changes: object) -> Command:
        """Say what a user orders now; `args` and the like may be something else."""
        now_s = int(self.clock.now_s)
        about_node = action in {"register", "unregister"}
        said: dict[str, object] = {
            "mesh": GENESIS.mesh_id,
            "command_id": chance(16),
            "node": NODE_ID,
            "session": "" if about_node else SESSION.session_id,
            "epoch": self.generation if about_node else self.epoch,
            "action": action,
            "issued_s": now_s,
            "expires_s": now_s + 60,
            "args": {"message": "hello"} if action == "steer" else {},
        }
        return Command(**(said | changes))  # type: ignore[arg-type] # the changes' own

    def order(
        self,
        action: str = "steer",
        command_id: bytes = b"",
        key: SessionKey = KEY,
        **args: object,
    ) -> Signed:
        """Sign an order."""
        changes: dict[str, object] = {"command_id": command_id} if command_id else {}
        if args:
            changes["args"] = args
        return sign_command(key, self.command(action, **changes))

    async def submit(self, signed: Signed, via: str = "", **how: bool) -> Receipt:
        """Bring a command, and verify its receipt."""
        return receipt_from_signed(await self.desk.submit(signed, via, **how), NODE.public)

    async def _ended(self, session_id: str) -> None:
        if not self.agents.killed.survivors:
            ending = Ended(None, "SIGKILL", None, killed=True, at_s=self.clock.now_s)
            await self.sessions.ended(session_id, ending)

    async def crash(self) -> None:
        """End the desk's tasks wherever they are, as the end of its process does."""
        tasks = list(self.spawn.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def resume(self, undone: Iterable[Undone], ready: asyncio.Event | None = None) -> None:
        """Go on with what an earlier run has left; its agents are there, or will be once ready."""
        if ready is None:
            ready = asyncio.Event()
            ready.set()
        self.desk.resume(undone, ready)


class Disk:
    """A journal in a real database, which can be closed, opened again and wiped.

    Agents live on whatever becomes of it, and so does what peers hold of their sessions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)
        self.owner: Owner | None = None

    def start(
        self, agents: ScriptedAgents, clock: ManualClock, ready: asyncio.Event | None = None
    ) -> Owner:
        """Start a desk on it as a node does, and let it go on with what was left."""
        said = None if self.owner is None else self.owner.sessions.get(SESSION.session_id)
        self.owner = Owner(
            agents,
            StoredJournal(self.database),
            clock,
            generation=self.database.run_now(stored.generation, int.from_bytes(chance(8), "big")),
            floor_s=self.database.run_now(stored.floor),
            sessions=[said or SESSION],
        )
        self.owner.resume(self.database.run_now(stored.undone), ready)
        return self.owner

    def reopen(self) -> None:
        """Close the file and open it again."""
        self.database.close()
        self.database = Database(self.path)

    def wipe(self) -> None:
        """Lose it."""
        self.database.close()
        for path in self.path.parent.glob(self.path.name + "*"):
            path.unlink()
        self.database = Database(self.path)
