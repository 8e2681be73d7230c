"""An audit log on a disk that a test may spoil, and a command desk that writes into one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from doubles import (
    InBackground,
    ManualClock,
    MemoryJournal,
    Published,
    ScriptedAgents,
    nowhere,
)

from meshnode.app.audit.auditing import AuditedCourt, AuditedDesk, Auditor, Happening
from meshnode.app.commands.executing import Executor
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.audit import AuditHead, Kept, Wrong, head_from_signed, sign_head, walked
from meshnode.core.commands.commands import Command, sign_command
from meshnode.core.control.control import ControlSet
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.store import audit
from meshnode.store.database import Database

if TYPE_CHECKING:
    from pathlib import Path

chance = Random(31).randbytes
ROOT, NODE, OTHER = Key.new(chance), Key.new(chance), Key.new(chance)
GENESIS = Genesis((ROOT.public,), 1, "audited", bytes(16))
NODE_ID = node_id_of(NODE.public)
GENERATION = 9
SESSION = SessionRecord(
    SessionId("s" * 26),
    42,
    "builder",
    State.RUNNING,
    1.0,
    1.0,
    owner="olga",
    specializations=("x",),
)
NOW_S = 1_790_000_000  # as `ManualClock` begins
AT_MS = NOW_S * 1000
KINDS = [f"thing_{number}" for number in range(1, 11)]


@dataclass
class Log:
    """One node's audit log in a file of its own."""

    path: Path
    key: Key = NODE
    number: int = 7
    database: Database = field(init=False)
    rider: audit.AuditRider = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.database = Database(self.path)
        tail = self.database.run_now(audit.begin, self.key.public, self.number)
        self.rider = audit.AuditRider(tail)
        self.database.carry(self.rider)

    def close(self) -> None:
        self.database.close()

    def note(self, *kinds: str, at_ms: int = AT_MS, steady_s: float = 0.0, **texts: str) -> None:
        """Record things that happened, in one transaction."""
        for kind in kinds:
            self.rider.put(audit.Noted(at_ms, {"kind": kind, **texts}, steady_s))
        self.database.run_now(audit.write_waiting)

    def head(self) -> Signed:
        """Sign where the log is, as the node publishes it."""
        tail = self.rider.tail
        said = AuditHead(node_id_of(self.key.public), tail.log, tail.seq, tail.hash, AT_MS)
        return sign_head(self.key, said)

    def edit(self, *statements: str) -> None:
        """Change the file behind the node's back, with the node stopped."""
        self.close()
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        self.open()

    def kept(self) -> list[Kept]:
        return self.database.run_now(audit.page, 0, audit.KEPT_MAX)

    def verdict(self, *heads: Signed) -> Wrong | None:
        """Say what is wrong, as far as the file and heads tell; looking changes nothing."""
        before = self.kept()
        node = node_id_of(self.key.public)
        _, wrong = walked(node, self.rider.tail.log, before, map(head_from_signed, heads))
        assert self.kept() == before
        return wrong


class Desk:
    """A node's audited desk, and what its users sign."""

    def __init__(self, journal: MemoryJournal | None = None) -> None:
        self.agents, self.clock = ScriptedAgents(), ManualClock()
        self.records: list[Happening] = []
        self.lines: list[Happening] = []
        self.auditor = Auditor(self.clock, self.records.append, self.lines.append)
        self.journal, published = journal or MemoryJournal(), Published()
        sessions = OwnSessions(published, self.agents, self.clock, chance, nowhere, InBackground())
        sessions.on_change = self.auditor.session
        sessions.restore([SESSION])
        control = ControlSet(GENESIS)
        court = AuditedCourt(GENESIS.mesh_id, NODE_ID, control, GENERATION, auditor=self.auditor)
        roster = Mesh(GENESIS, Self(NODE, 1, Random(1))).roster
        executor = Executor(sessions, Registrar(roster, published))
        desk = AuditedDesk(court, NODE, sessions, executor, self.journal, self.clock)
        self.desk = desk.audited_by(self.auditor)
        self.court = court

    def order(self, action: str = "steer", key: SessionKey | None = None, **fields) -> Signed:
        now_s = int(self.clock.now_s)
        about_node = action in {"register", "unregister", "read_audit", "read_rounds"}
        values = {
            "mesh": GENESIS.mesh_id,
            "command_id": chance(16),
            "node": NODE_ID,
            "session": "" if about_node else SESSION.session_id,
            "epoch": GENERATION if about_node else SESSION.session_epoch,
            "action": action,
            "issued_s": now_s,
            "expires_s": now_s + 60,
            "args": {"message": "the words of a user"},
        }
        return sign_command(key or granted(), Command(**values | fields))

    def kinds(self) -> list[str]:
        return [one.kind for one in self.records]


def granted(issuer: Key = ROOT, **fields) -> SessionKey:
    """Make a session key that this key has granted to itself."""
    actions = ("steer", "kill", "register", "read_messages")
    values = {
        "mesh": GENESIS.mesh_id,
        "issuer": issuer.public,
        "subject": issuer.public,
        "actions": actions,
        "not_before_s": NOW_S - 60,
        "expires_s": NOW_S + 86400,
        "grant_id": bytes(16),
    }
    return SessionKey(issuer, (grant(issuer, Grant(**values | fields)),))
