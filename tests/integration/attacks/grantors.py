"""A node's desk with two sessions, and everybody who may, or may not, command there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from doubles import (
    InBackground,
    ManualClock,
    MemoryInvites,
    MemoryJournal,
    Published,
    ScriptedAgents,
    nowhere,
)

from meshnode.app.commands.commands import CommandDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.membership.admission import AdmissionDesk, Admitted, Admitter
from meshnode.app.mesh.mesh import Mesh, Self
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
from meshnode.core.control.entries import Body, role_entry, sign_entry
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.control.roles import Authorization, Role, authorization_from_signed, authorize
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.certificates import issue_admitter
from meshnode.core.membership.enrolment import Invite, apply_with, join_proof
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.rpc.commands import CommandServicer
from meshnode.rpc.control import add_control
from meshnode.v1 import local_service_pb2 as pb
from meshnode.wire.signed import signed_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from meshnode.core.errors import MeshError

chance = Random(95).randbytes
NAMES = ("root", "ada", "bob", "carl", "dora", "eve", "thief", "node", "admitter", "gateway")
KEYS = dict(zip(NAMES, (Key.new(chance) for _ in NAMES), strict=True))
GENESIS = Genesis((KEYS["root"].public,), 1, "test", bytes(16))
NODE_ID, GATEWAY_ID = (node_id_of(KEYS[name].public) for name in ("node", "gateway"))
NOW_S = int(ManualClock().now_s)
DAY_S = 86400
GENERATION = 5
DOCS, CODE = (
    SessionRecord(
        SessionId(spec * 6), 42, f"agent-{spec}", State.RUNNING, 1.0, 1.0, specializations=(spec,)
    )
    for spec in ("docs", "code")
)


def key(name: str) -> bytes:
    return KEYS[name].public


def role(giver: str, subject: str, name: str, via: Signed | None = None) -> Signed:
    value = Role(key(subject), name, subject, key(giver), NOW_S, via)
    return role_entry(KEYS[giver], GENESIS.mesh_id, value, chance)


def word(admin: str, role_name: str = "operator") -> Signed:
    """Sign an admin's word that the admitter may let somebody in."""
    value = Authorization(
        GENESIS.mesh_id,
        chance(16),
        node_id_of(key("admitter")),
        role_name,
        1,
        NOW_S,
        NOW_S + 900,
        b"",
    )
    return authorize(KEYS[admin], value)


def said(issuer: str, body: Body, issued_s: int = NOW_S, life_s: int | None = None) -> Signed:
    expires_s = None if life_s is None else issued_s + life_s
    return sign_entry(
        KEYS[issuer], GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s
    )


ROLES = [
    role("root", "ada", "admin"),
    role("root", "bob", "admin"),
    role("ada", "carl", "operator"),
    role("ada", "dora", "observer"),
    role("admitter", "eve", "operator", word("ada")),
]


@dataclass(frozen=True)
class Chain:
    """A key and its grants, and what may be made of them."""

    key: Key
    links: tuple[Signed, ...] = ()

    def child(self, **limits: object) -> Chain:
        """Grant another key; `limits` may be as wrong as an attacker likes."""
        subject = Key.new(chance)
        said: dict[str, object] = {
            "mesh": GENESIS.mesh_id,
            "issuer": self.key.public,
            "subject": subject.public,
            "actions": ("steer", "kill", "register", "read_messages"),
            "not_before_s": NOW_S - 10,
            "expires_s": NOW_S + 3600,
            "grant_id": chance(16),
            "depth": len(self.links),
            "parent": self.links[-1].hash if self.links else b"",
        }
        link = grant(self.key, Grant(**(said | limits)))  # type: ignore[arg-type] # the limits' own
        return Chain(subject, (*self.links, link))

    def with_links(self, *links: Signed) -> Chain:
        """Return the same key with other grants."""
        return replace(self, links=links)


def of(name: str) -> Chain:
    """Return a grantor without grants: an operator, or a thief."""
    return Chain(KEYS[name])


class Desk:
    """What an attacker faces, and a look at whether anything has changed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.agents = ScriptedAgents()
        self.journal = MemoryJournal()
        self.published = Published()
        self.control = ControlSet(GENESIS)
        assert self.control.add_all(ROLES, NOW_S) == []
        sessions = OwnSessions(
            self.published, self.agents, self.clock, chance, nowhere, InBackground()
        )
        sessions.restore([DOCS, CODE])
        court = Court(GENESIS.mesh_id, NODE_ID, self.control, GENERATION)
        roster = Mesh(GENESIS, Self(KEYS["node"], 1, Random(1))).roster
        executor = Executor(sessions, Registrar(roster, self.published))
        self.desk = CommandDesk(court, KEYS["node"], sessions, executor, self.journal, self.clock)

    def hear(self, *entries: Signed) -> None:
        """Take entries of the control set."""
        assert self.control.add_all(entries, self.clock.now_s) == []

    def order(
        self,
        chain: Chain,
        action: str = "steer",
        session: SessionRecord | None = DOCS,
        **args: object,
    ) -> Signed:
        """Sign a command."""
        now_s = int(self.clock.now_s)
        command = Command(
            mesh=GENESIS.mesh_id,
            command_id=chance(16),
            node=NODE_ID,
            session=session.session_id if session else "",
            epoch=session.session_epoch if session else GENERATION,
            action=action,
            issued_s=now_s,
            expires_s=now_s + 60,
            args=args or {"message": "hello"},
        )
        return sign_command(SessionKey(chain.key, chain.links), command)

    async def outcome(self, signed: Signed) -> Receipt:
        """Submit a command; returns the receipt."""
        return receipt_from_signed(await self.desk.submit(signed, ""), key("node"))

    def read(self, signed: Signed) -> AsyncIterator[bytes]:
        """Read an output of two pieces."""
        pieces = iter([b"one", b"two"])
        return CommandServicer(self.desk, lambda _command: pieces).read(signed, "")

    async def submit_control(self, entry: Signed) -> None:
        """Take an entry as from this node's own user."""

        async def submit(one: Signed) -> None:
            self.control.add(one, self.clock.now_s, ours=True)

        await add_control(submit, pb.AddControlRequest(entry=signed_to_wire(entry)))

    async def refuses(
        self, kind: type[MeshError], chain: Chain, action: str = "steer", **of_order: object
    ) -> str:
        """Assert that a command is refused as that kind, and that nothing has changed."""
        via = str(of_order.pop("via", ""))
        signed = self.order(chain, action, **of_order)  # type: ignore[arg-type] # the order's own
        with self.unchanged(), pytest.raises(kind) as refused:
            await self.desk.submit(signed, via)
        assert type(refused.value) is kind
        return refused.value.message

    async def obeys(
        self, chain: Chain, action: str = "steer", session: SessionRecord = DOCS, via: str = ""
    ) -> None:
        """Assert that a command is carried out: what is refused is not refused for nothing."""
        before = len(self.agents.steered) + len(self.agents.kills)
        await self.desk.submit(self.order(chain, action, session), via)
        assert len(self.agents.steered) + len(self.agents.kills) == before + 1

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that what happens within changes nothing."""
        before = self._seen()
        yield
        assert self._seen() == before

    def _seen(self) -> tuple[object, ...]:
        return (
            len(self.agents.steered),
            len(self.agents.kills),
            sum(self.journal.begun.values()),
            dict(self.published.rows),
            self.control.root(),
        )


SECRET = b"s" * 16


class Door:
    """An admitter with its invites."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.book = MemoryInvites()
        admitter_id = node_id_of(key("admitter"))
        certificate = issue_admitter(KEYS["root"], GENESIS.mesh_id, admitter_id, NOW_S, chance)
        admitter = Admitter(KEYS["admitter"], GENESIS, self.desk.control, lambda: certificate)
        self.admission = AdmissionDesk(admitter, self.book, self.desk.clock, chance)
        self.invite_id = b""

    async def invite(self, admin: str) -> None:
        """Make an invite on an admin's word."""
        signed = word(admin)
        await self.admission.invite(signed, SECRET)
        self.invite_id = authorization_from_signed(signed).invite_id

    async def join(self, signed: Signed, secret: bytes = SECRET) -> Admitted:
        """Apply with the invite made last."""
        proof = join_proof(secret, node_id_of(key("admitter")), signed.payload)
        return await self.admission.join(signed, self.invite_id, proof)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that no invite is made or used, and that nobody gets a role."""
        with self.desk.unchanged():
            before = dict(self.book._kept)
            yield
            assert self.book._kept == before


def application() -> Signed:
    """Apply with keys that nobody knows."""
    place = Invite(
        key("root"),
        GENESIS.mesh_id,
        node_id_of(key("admitter")),
        bytes(16),
        SECRET,
        0,
        (),
        commands=True,
    )
    return apply_with(Key.new(chance), Key.new(chance), place, "laptop", chance(8))
