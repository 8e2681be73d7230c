"""What of a node's life enters its audit log, in which words, and how often.

Invariant: what strangers and members can cause at will is written one by one only up to a share a
window, and counted beyond, so that nobody can push the rest out of a bounded log. No record and no
line of the log carries what was said to an agent.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, assert_never

import msgspec
from msgspec.structs import replace

from meshnode.app.commands.commands import CommandDesk
from meshnode.core.commands.commands import Court, command_from_signed
from meshnode.core.control.entries import Cancel, Forget, Revoke, StandingKill, entry_from_signed
from meshnode.core.control.grants import grant_from_signed
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    StaleError,
)
from meshnode.core.ids import b32, node_id_of
from meshnode.core.keys import key_id_of
from meshnode.core.ledger.budgets import amount_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.audit.alarms import Alarm
    from meshnode.app.ports import Clock
    from meshnode.app.sessions.done import Done
    from meshnode.core.commands.commands import Command
    from meshnode.core.control.entries import Body
    from meshnode.core.keys import Signed
    from meshnode.core.sessions.sessions import SessionRecord

WINDOW_S = 600.0
GATES_MAX = 256  # kinds and actors counted apart; beyond, all others share the gate of their kind
SHARES = {  # how many of a kind, of one actor, are written one by one within a window
    "command_refused": 20,
    "standing_kill": 20,  # whose signer may not kill any more; what met a session is no flood
    "join_refused": 1,
    "messages_read": 20,
    "audit_read": 20,
    "clock_jumped": 20,
    "alarm_raised": 50,
    "alarm_over": 50,
    "budget_warned": 200,
    "budget_exceeded": 200,
    "budget_lifted": 200,
}
STRANGERS_SHARE = 1  # of refused commands whose signer was not proved: one gate for them all
ENTRIES_SHARE = 200  # of entries of the control set, by issuer
ACCEPTED_MAX = 20_000  # ids of commands remembered, so that one sent again is not written again
READINGS = {
    "read_messages": "messages_read",
    "read_rounds": "messages_read",
    "read_audit": "audit_read",
}
FOLLOWED_S = 3600.0  # who goes on following output, asked for every minute, is recorded as often
FOLLOWERS_MAX = 1024  # remembered; one that is not is recorded again
PASSING_S = 420  # keys that live no longer are made for a request: those of one issuer are alike
JUMP_S = 5.0  # of the wall clock against the steady one, between two looks
ENTRY_KINDS = {
    "role": "role_given",
    "revoke": "revoked",
    "order": "kill_ordered",
    "cancel": "order_cancelled",
    "policy": "policy_set",
    "budget": "budget_set",
    "forget": "node_forgotten",
}
AUTHENTIC = (NotFoundError, NotPermittedError, StaleError, ConflictError)
"""Refusals that `Court` comes to only after the signature and the role have stood."""


class Happening(msgspec.Struct, frozen=True):
    """One thing that happened, before it has its place in a log. Texts may be empty."""

    kind: str
    session: str = ""
    agent: str = ""
    owner: str = ""
    command: str = ""
    actor: str = ""
    action: str = ""
    outcome: str = ""
    detail: str = ""
    duration_s: float | None = None  # for the log of the node alone


class _Gate(msgspec.Struct):
    began_at_s: float
    count: int = 0
    held: int = 0  # counted, not written


class Gates:
    """Lets through a share of each kind and actor a window, and counts the rest."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str], _Gate] = {}

    def lets(self, kind: str, actor: str, share: int, now_s: float) -> bool:
        """Count one more; whether it is to be written by itself."""
        place = (kind, actor)
        if place not in self._gates and len(self._gates) >= GATES_MAX:
            place = (kind, "")
        gate = self._gates.setdefault(place, _Gate(now_s))
        gate.count += 1
        if gate.count <= share:
            return True
        gate.held += 1
        return False

    def take_due(self, now_s: float, *, all_of_them: bool = False) -> list[Happening]:
        """End the windows that are over; return what says how many each has held back."""
        over = [
            place
            for place, gate in self._gates.items()
            if all_of_them or now_s - gate.began_at_s >= WINDOW_S
        ]
        ended = [(place, self._gates.pop(place)) for place in over]
        return [
            Happening(kind, actor=actor, outcome="counted", detail=f"{gate.held} more like it")
            for (kind, actor), gate in ended
            if gate.held
        ]


class Auditor:
    """Words what happens, and hands it on: `record` to the audit log, `log` to the node's log."""

    def __init__(
        self,
        clock: Clock,
        record: Callable[[Happening], None],
        log: Callable[[Happening], None],
    ) -> None:
        self._clock = clock
        self._record = record
        self._log = log
        self._gates = Gates()
        self._offset_s = clock.wall_s() - clock.steady_s()
        self._accepted: dict[str, float] = {}  # when, by command id
        self._followers: dict[tuple[str, ...], float] = {}  # when they were recorded
        self.on_command: Callable[[str, str, float | None], None] = _nobody_counts

    def note(self, happening: Happening) -> None:
        """Take what nobody outside of this machine can cause at will."""
        self._record(happening)
        self._log(happening)

    def note_some(self, happening: Happening, share: int | None = None) -> bool:
        """Take what others cause, a share of it one by one; tell whether this one was."""
        allowed = SHARES[happening.kind] if share is None else share
        lets = self._gates.lets(happening.kind, happening.actor, allowed, self._clock.steady_s())
        if lets:
            self.note(happening)
        return lets

    def tick(self) -> None:
        """Look at the clock, and end windows."""
        offset_s = self._clock.wall_s() - self._clock.steady_s()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(jump_s) >= JUMP_S:
            self.note_some(Happening("clock_jumped", detail=f"by {jump_s:+.0f} s, or it slept"))
        for happening in self._gates.take_due(self._clock.steady_s()):
            self.note(happening)

    def close(self) -> None:
        """Say what was only counted so far."""
        for happening in self._gates.take_due(self._clock.steady_s(), all_of_them=True):
            self.note(happening)

    # Sessions.

    def session(self, before: SessionRecord | None, after: SessionRecord) -> None:
        """Take how a session of this node has changed."""
        about = Happening(
            "session_created",
            after.session_id,
            after.agent_id,
            after.owner or "",
            outcome=str(after.state),
        )
        if before is None:
            self.note(about)
        elif after.ended and not before.ended:
            lasted_s = (after.ended_at_s or after.created_at_s) - after.created_at_s
            kind, detail = f"session_{after.state}", after.end_reason or ""
            actor = after.ended_by or ""
            self.note(
                replace(about, kind=kind, actor=actor, detail=detail, duration_s=max(lasted_s, 0))
            )
        elif after.message_count > before.message_count:
            self._log(replace(about, kind="session_prompt"))  # the command is in the audit log

    # Commands.

    def accepted(self, command: Command, session: SessionRecord | None, via: str) -> None:
        """Take a command that may be executed: it is on disk before it is."""
        detail = f"signed with {key_id_of(command.signer)}, through {via[:12] or 'this node'}"
        about = replace(_about(command, session), kind="command_accepted", detail=detail)
        if command.action in READINGS:
            self._read(replace(about, kind=READINGS[command.action]), command, via)
            return
        if about.command in self._accepted:
            return
        self._accepted[about.command] = self._clock.steady_s()
        while len(self._accepted) > ACCEPTED_MAX:
            del self._accepted[next(iter(self._accepted))]
        self.note(about)

    def _read(self, reading: Happening, command: Command, via: str) -> None:
        """Take a reading, unless it goes on with output and its reader was recorded lately."""
        args, now_s = command.args, self._clock.steady_s()
        follows = command.action == "read_messages" and "what" not in args and args.get("follow")
        follower = (_reader(command), command.session, via)
        is_known = now_s - self._followers.get(follower, -inf) < FOLLOWED_S
        if follows and is_known and args.get("position") is not None:
            return
        if self.note_some(reading) and follows:
            self._followers.pop(follower, None)
            self._followers[follower] = now_s
            while len(self._followers) > FOLLOWERS_MAX:
                del self._followers[next(iter(self._followers))]

    def executed(self, command: Command, session: SessionRecord | None, done: Done) -> None:
        """Take what became of a command; it is on disk before, or with, its receipt."""
        about = _about(command, session)
        began_s = self._accepted.get(about.command)
        lasted_s = None if began_s is None else self._clock.steady_s() - began_s
        self.on_command(command.action, done.outcome, lasted_s)
        self.note(
            replace(
                about,
                kind="command_executed",
                outcome=done.outcome,
                detail=done.detail,
                duration_s=lasted_s,
            )
        )

    def refused(self, signed: Signed, via: str, error: MeshError) -> None:
        """Take a refusal: with its signer's key if that has been proved, else as one of many."""
        if not isinstance(error, AUTHENTIC):
            detail = f"{error.message}, through {via[:12] or 'this node'}"
            self.on_command("", error.code, None)
            stranger = Happening("command_refused", outcome=error.code, detail=detail)
            self.note_some(stranger, STRANGERS_SHARE)
            return
        about = _about(command_from_signed(signed), None)
        self.on_command(about.action, error.code, None)
        self.note_some(
            replace(about, kind="command_refused", outcome=error.code, detail=error.message)
        )

    # Members, entries of the control set, alarms.

    def admission(self, kind: str, actor: bytes, detail: str) -> None:
        """Take an invite made, a member admitted, or a joiner refused."""
        happening = Happening(kind, actor=key_id_of(actor) if actor else "", detail=detail)
        if kind in SHARES:
            self.note_some(happening)
        else:
            self.note(happening)

    def entry(self, signed: Signed, mesh_id: str) -> None:
        """Take an entry that is new in the control set here."""
        try:
            entry = entry_from_signed(signed, mesh_id)
        except PeerError:  # it was verified before it was stored
            return
        kind = ENTRY_KINDS.get(entry.kind, "entry_taken")
        actor = key_id_of(entry.issuer)
        happening = Happening(kind, actor=actor, action=entry.kind, detail=_said(entry.body))
        self.note_some(happening, ENTRIES_SHARE)

    def alarm(self, alarm: Alarm, raised: bool) -> None:  # noqa: FBT001 - as `Alarms` tells it
        """Take an alarm, or its end."""
        kind = "alarm_raised" if raised else "alarm_over"
        self.note_some(Happening(kind, action=alarm.id, detail=alarm.detail))


class AuditedCourt(Court, frozen=True, kw_only=True):
    """Tells of each reading that is allowed; the desk tells of what it has room to execute."""

    auditor: Auditor

    def judge(
        self, signed: Signed, session: SessionRecord | None, via: str, now_s: float
    ) -> Command:
        """Judge as every court does; raises a MeshError."""
        command = Court.judge(self, signed, session, via, now_s)
        if command.action in READINGS:
            self.auditor.accepted(command, session, via)
        return command


class AuditedDesk(CommandDesk):
    """Tells of each command that it refuses, that it takes, and of what became of those."""

    def audited_by(self, auditor: Auditor) -> AuditedDesk:
        """Name who is told; returns the desk."""
        self._auditor = auditor
        self.on_accepted, self.on_outcome = auditor.accepted, auditor.executed
        return self

    async def submit(
        self,
        signed: Signed,
        via: str,
        **how: Any,  # noqa: ANN401 - as every desk takes it
    ) -> Signed:
        """Execute as every desk does; raises a MeshError if refused."""
        try:
            return await CommandDesk.submit(self, signed, via, **how)
        except MeshError as error:
            self._auditor.refused(signed, via, error)
            raise

    def judge_reading(self, signed: Signed, via: str) -> Command:
        """Allow or refuse as every desk does; raises a MeshError."""
        try:
            return CommandDesk.judge_reading(self, signed, via)
        except MeshError as error:
            self._auditor.refused(signed, via, error)
            raise


def _nobody_counts(action: str, outcome: str, lasted_s: float | None) -> None:
    del action, outcome, lasted_s


def _about(command: Command, session: SessionRecord | None) -> Happening:
    return Happening(
        "",
        session=command.session,
        agent=session.agent_id if session else str(command.args.get("agent_id", "")),
        owner=(session.owner or "") if session else "",
        command=b32(command.command_id),
        actor=key_id_of(grant_from_signed(command.chain[0]).issuer),
        action=command.action,
    )


def _reader(command: Command) -> str:
    """Name the key that reads; of one that is made for a request, whose word it is."""
    first = grant_from_signed(command.chain[0])
    passes = len(command.chain) == 1 and first.expires_s - first.not_before_s <= PASSING_S
    return key_id_of(first.issuer if passes else command.signer)


def _said(body: Body | None) -> str:  # noqa: C901, PLR0911, PLR0912 - one case a kind
    """Say in words what an entry of the control set says."""
    match body:
        case Role():
            return f"{body.role} for key {key_id_of(body.subject)} {body.name}".rstrip()
        case Revoke():
            named = body.name.hex() if body.what == "grant" else key_id_of(body.name)
            return f"{body.what} {named}, {len(body.survivors)} survivors"
        case StandingKill():
            words = (body.session, body.agent, body.specialization, body.node)
            return f"kill {' '.join(filter(None, words))}"
        case Cancel():
            return f"order {body.order.hex()}"
        case Policy():
            return body.name
        case Budget():
            return f"{body.name}{_terms(body.terms)}"
        case Forget():
            return f"node {body.node}"
        case RootKeys():
            return f"{len(body.keys)} roots from version {body.version} on"
        case Admits():
            return f"node {node_id_of(body.node)}"
        case None:
            return "of a newer version"
        case _:
            assert_never(body)


def _terms(terms: Terms | None) -> str:
    if terms is None:
        return " removed"
    whose = (terms.owner, terms.agent, terms.specialization, terms.project)
    limit = amount_text(terms.limit, terms.unit)
    return " ".join(filter(None, (f": {limit} per {terms.per}, then {terms.then}", *whose)))
