"""What comes to a node's desks, whatever it says: commands, invites, applications, sessions."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from doubles import (
    Killed,
    ManualClock,
    MemoryInvites,
    MemoryJournal,
    Published,
    ScriptedAgents,
    nowhere,
)
from fuzz.meshes import resigned
from fuzz.values import (
    ADMIN_ROLE,
    ADMITTER,
    CHAIN,
    COMMAND_OF_USER,
    GENESIS,
    INVITE,
    KEY,
    NODE,
    NODE_ID,
    NODE_ROLE,
    RECORD,
    ROOT,
    USER,
    WORD,
)
from msgspec.structs import replace

from meshnode.app.commands.commands import CommandDesk
from meshnode.app.commands.executing import Executor
from meshnode.app.membership.admission import AdmissionDesk, Admitter
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.ports import OutstandingInvite
from meshnode.app.sessions.opening import Opening
from meshnode.app.sessions.registry import Registrar
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.core.commands.commands import COMMAND, Court, receipt_from_signed, sign_command
from meshnode.core.control.control import ControlSet
from meshnode.core.control.roles import INVITE as INVITED
from meshnode.core.errors import PeerError
from meshnode.core.membership.certificates import leads_to_root
from meshnode.core.membership.enrolment import JOIN, join_proof
from meshnode.core.packing import typed, unpack_map
from meshnode.core.sessions.sessions import session_to_row

if TYPE_CHECKING:
    from collections.abc import Coroutine

NOW_S = 1.5  # when the commands of `fuzz.values` are in time
STUBBORN = Killed(1, 0, (7,))  # so that nobody waits for it to have ended
ORDERS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("steer", "s", {"message": "hello", "direction": "left", "mode": "soft"}),
    ("kill", "s", {"grace_s": 1, "force": True}),
    ("register", "", {"agent_id": "a", "specialization": "b", "attributes": {"load": "0.5"}}),
    ("unregister", "", {"agent_id": "a", "specialization": "b"}),
)
COMMANDS = tuple(
    sign_command(KEY, replace(COMMAND_OF_USER, action=action, session=session, args=args)).payload
    for action, session, args in ORDERS
)


def _control() -> ControlSet:
    held = ControlSet(GENESIS)
    held.add_all([ADMIN_ROLE, NODE_ROLE], NOW_S)
    return held


def _rested(work: Coroutine[object, object, None]) -> None:
    work.close()


def _sessions(clock: ManualClock) -> OwnSessions:
    chance = Random(1).randbytes
    sessions = OwnSessions(
        Published(), ScriptedAgents(killed=STUBBORN), clock, chance, nowhere, _rested
    )
    sessions.restore([RECORD])
    return sessions


def command(payload: bytes) -> str:
    """Judge, execute and answer a command; its receipt must be one."""
    clock = ManualClock(NOW_S)
    sessions = _sessions(clock)
    roster = Mesh(GENESIS, Self(NODE, 1, Random(1))).roster
    court = Court(GENESIS.mesh_id, NODE_ID, _control(), 1)
    registrar = Registrar(roster, sessions.publish)
    desk = CommandDesk(court, NODE, sessions, Executor(sessions, registrar), MemoryJournal(), clock)
    signed = resigned(COMMAND, payload, USER)
    receipt = receipt_from_signed(asyncio.run(desk.submit(signed, NODE_ID)), NODE.public)
    return f"{receipt.outcome} {receipt.detail[:60]}"


def _admission(control: ControlSet) -> tuple[AdmissionDesk, MemoryInvites]:
    book = MemoryInvites()
    admitter = Admitter(NODE, GENESIS, control, lambda: ADMITTER)
    return AdmissionDesk(admitter, book, ManualClock(NOW_S), Random(1).randbytes), book


def invite(payload: bytes) -> str:
    """Keep an invite that an admin has signed."""
    control = ControlSet(GENESIS)
    control.add(ADMIN_ROLE, NOW_S)
    desk, _ = _admission(control)
    asyncio.run(desk.invite(resigned(INVITED, payload, ROOT), bytes(16), {}, b""))
    return "kept"


def application(payload: bytes) -> str:
    """Let a device join that knows the secret of an invite."""
    desk, book = _admission(_control())
    proof = join_proof(INVITE.secret, NODE_ID, payload)

    async def join() -> tuple[bytes, ...]:
        kept = OutstandingInvite(INVITE.invite_id, INVITE.secret, WORD, "", 1, 9, {}, b"")
        await book.add(kept, NOW_S, 0.0)
        signed = resigned(JOIN, payload, NODE)
        return (await desk.join(signed, INVITE.invite_id, proof)).certificates

    leads_to_root(asyncio.run(join()), NODE_ID, GENESIS.root_keys)
    return f"admitted, with {len(CHAIN)} certificates"


def opening(raw: bytes) -> str:
    """Open a session: MessagePack of what the request says, texts and lists of texts."""
    said = unpack_map(raw)
    try:
        texts = {k: typed(said.get(k, ""), str) for k in ("agent_id", "title", "owner", "cwd")}
        specs = tuple(typed(one, str) for one in said.get("specializations", ()))
        labels = {typed(k, str): typed(v, str) for k, v in said.get("labels", {}).items()}
    except (TypeError, AttributeError) as error:
        raise PeerError("protobuf lets nobody send that") from error
    wanted = Opening(**texts, specializations=specs, labels=labels)
    record = asyncio.run(_sessions(ManualClock(NOW_S)).open(wanted))
    session_to_row(record)
    return "opened"
