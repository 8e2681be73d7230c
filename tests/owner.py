"""A node's command desk with everything behind it but the network, and what its users sign."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from doubles import ManualClock, MemoryJournal, Published, ScriptedAgents, nowhere, unexpected

from meshnode.app.commands import CommandDesk
from meshnode.app.executing import Executor
from meshnode.app.mesh import Mesh, Self
from meshnode.app.registry import Registrar
from meshnode.app.sessions import OwnSessions
from meshnode.core.commands import Command, Court, Receipt, receipt_from_signed, sign_command
from meshnode.core.control import ControlSet
from meshnode.core.genesis import Genesis
from meshnode.core.grants import Grant, SessionKey, grant
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.sessions import SessionRecord, State

if TYPE_CHECKING:
    from meshnode.core.keys import Signed

chance = Random(13).randbytes
ROOT, NODE = Key.new(chance), Key.new(chance)
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
GENERATION = 5
UNTIL_S = int(ManualClock().now_s) + 25 * 86400  # a grant lives for 30 days at most
SESSION = SessionRecord(SessionId("s" * 26), 42, "agent", State.RUNNING, 1.0, 1.0)
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
    """A node's desk with everything behind it, and what its users sign."""

    def __init__(self, agents: ScriptedAgents | None = None) -> None:
        self.agents = agents or ScriptedAgents()
        self.clock = ManualClock()
        self.published = Published()
        self.journal = MemoryJournal()
        self.control = ControlSet(GENESIS)
        self.sessions = OwnSessions(
            self.published, self.agents, self.clock, chance, nowhere, unexpected
        )
        self.sessions.restore([SESSION])
        court = Court(GENESIS.mesh_id, NODE_ID, self.control, GENERATION)
        self.roster = Mesh(GENESIS, Self(NODE, 1, Random(1))).roster
        registrar = Registrar(self.roster, self.published)
        self.desk = CommandDesk(
            court, NODE, self.sessions, Executor(self.sessions, registrar), self.journal, self.clock
        )

    def order(
        self,
        action: str = "steer",
        command_id: bytes = b"",
        key: SessionKey = KEY,
        **args: object,
    ) -> Signed:
        now_s = int(self.clock.now_s)
        about_node = action in {"register", "unregister"}
        return sign_command(
            key,
            Command(
                mesh=GENESIS.mesh_id,
                command_id=command_id or chance(16),
                node=NODE_ID,
                session="" if about_node else SESSION.session_id,
                epoch=GENERATION if about_node else SESSION.session_epoch,
                action=action,
                issued_s=now_s,
                expires_s=now_s + 60,
                args=args or {"message": "hello"},
            ),
        )

    async def submit(self, signed: Signed) -> Receipt:
        return receipt_from_signed(await self.desk.submit(signed, ""), NODE.public)
