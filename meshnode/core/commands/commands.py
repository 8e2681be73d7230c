"""Signed commands and the receipts that answer them.

Invariant: nothing in a command is believed about its target; the owner compares it with its own
record, in the order below, and refuses at the first step that fails, having changed nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.commands.chains import Chains
from meshnode.core.control.grants import (
    Grant,
    Request,
    SessionKey,
    check_permission,
    check_time,
)
from meshnode.core.control.roles import ACTIONS_OF_ROLE
from meshnode.core.errors import (
    ClockError,
    ExpiredError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
)
from meshnode.core.floor import SKEW_S, ClockFloor
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import typed, unpack_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.core.control.control import ControlSet
    from meshnode.core.sessions.sessions import SessionRecord

COMMAND = "command"
RECEIPT = "receipt"
COMMAND_BYTES_MAX = 64 << 10
COMMAND_ID_BYTES = 16
HASH_BYTES = 32
STEER_LIFE_S = 300
KILL_LIFE_S = 86400
SESSION_ACTIONS = frozenset({"steer", "kill", "close", "suspend", "resume", "read_messages"})
NODE_ACTIONS = frozenset({"register", "unregister", "read_audit", "read_rounds"})
ABOUT_AN_AGENT = frozenset({"register", "unregister"})  # the one that their args name
STOPS = frozenset({"kill"})  # may be done twice: run again after a crash, taken when all is full
READ_ACTIONS = frozenset({"read_messages", "read_audit", "read_rounds"})  # not by `submit`
GRANTED_AS = {
    "unregister": "register",  # whoever may enter an agent may take it out again
    "close": "kill",  # who may end one may also ask it to end
    "resume": "suspend",  # who may suspend one may let it run on
    "read_audit": "read_messages",  # of a key that is not narrowed to some sessions
    "read_rounds": "read_messages",  # the same: of sessions that only logs know
}
OUTCOMES = frozenset(
    {
        "accepted",
        "delivered",
        "applied",
        "queued",
        "refused",
        "failed",
        "expired",
        "indeterminate",
        "unknown",
    }
)


class Command(msgspec.Struct, frozen=True):
    """An order to one node, about one of its sessions or about itself. Times are whole seconds."""

    mesh: str
    command_id: bytes
    node: str
    session: str  # empty: about the node itself
    epoch: int  # of the session's start, or of the node's journal
    action: str
    issued_s: int
    expires_s: int
    signer: bytes = b""
    chain: tuple[Signed, ...] = ()
    args: dict[str, Any] = msgspec.field(default_factory=dict)


class Receipt(msgspec.Struct, frozen=True):
    """What became of a command, in the words of the node that owned the target."""

    mesh: str
    command_id: bytes
    command_hash: bytes
    node: str
    session: str
    outcome: str
    at_s: float
    detail: str = ""
    processes: dict[str, Any] | None = None  # kill: found, gone, survivors


def sign_command(key: SessionKey, command: Command) -> Signed:
    """Sign a command with a session key, its chain enclosed."""
    return key.key.sign(
        COMMAND,
        {
            "mesh": command.mesh,
            "id": command.command_id,
            "node": command.node,
            "session": command.session,
            "epoch": command.epoch,
            "action": command.action,
            "args": command.args,
            "issued": command.issued_s,
            "expires": command.expires_s,
            "signer": key.key.public,
            "chain": [link.to_list() for link in key.chain],
        },
    )


_COMMAND_FIELDS: dict[str, type] = {
    "mesh": str,
    "id": bytes,
    "node": str,
    "session": str,
    "epoch": int,
    "action": str,
    "args": dict,
    "issued": int,
    "expires": int,
    "signer": bytes,
    "chain": list,
}
_LARGEST_AT_S = 1 << 37  # beyond, a time has no year of four digits
_LARGEST = {"epoch": (1 << 64) - 1, "issued": 1 << 53, "expires": 1 << 53}


def command_from_signed(signed: Signed) -> Command:
    """Decode a command (steps 1 and 2); raises PeerError. Nothing is verified yet.

    Its version is in the prefix that is signed, and in its fields: one more or one less is another.
    """
    if signed.type != COMMAND:
        raise PeerError(f"expected a signed {COMMAND}, got a {signed.type[:40]!r}")
    if len(signed.payload) > COMMAND_BYTES_MAX:
        raise PeerError(f"a command is larger than {COMMAND_BYTES_MAX} bytes")
    value = _fields(signed.payload)
    try:
        chain = tuple(
            Signed("grant", typed(body, bytes), typed(mark, bytes)) for body, mark in value["chain"]
        )
    except (TypeError, ValueError) as error:
        raise PeerError("a command whose grant chain is malformed") from error
    return Command(
        mesh=value["mesh"],
        command_id=value["id"],
        node=value["node"],
        session=value["session"],
        epoch=value["epoch"],
        action=value["action"],
        args=value["args"],
        issued_s=value["issued"],
        expires_s=value["expires"],
        signer=value["signer"],
        chain=chain,
    )


def _fields(payload: bytes) -> dict[str, Any]:
    value = unpack_map(payload)
    if set(value) != set(_COMMAND_FIELDS):
        raise PeerError("a command with fields that this node does not know, or without some")
    for name, kind in _COMMAND_FIELDS.items():
        if type(value[name]) is not kind:
            raise PeerError(f"command field {name} is a {type(value[name]).__name__}")
    for name in ("epoch", "issued", "expires"):
        if not 0 <= value[name] <= _LARGEST[name]:
            raise PeerError(f"command field {name} is out of range")
    return value


class Court(msgspec.Struct, frozen=True):
    """Where commands are judged: one node's own knowledge."""

    mesh: str
    node: str
    control: ControlSet
    journal_generation: int
    floor: ClockFloor = msgspec.field(default_factory=ClockFloor)
    chains: Chains = msgspec.field(default_factory=Chains)

    def judge(
        self, signed: Signed, session: SessionRecord | None, via: str, now_s: float
    ) -> Command:
        """Return the command if it may be executed now (steps 2 to 8); raises a MeshError."""
        command = command_from_signed(signed)
        self._check_audience(command)
        check_command_time(command, now_s, self.floor.behind_s(now_s))
        grants = self.chains.verified(command.chain, self.mesh)
        self._check_grant_time(command, grants, now_s)
        self._check_signer(signed, command, grants)
        role = self.control.role_behind(grants)
        self._check_exists(command, session)
        self._check_role(command, role)
        check_permission(grants, self._request(command, session, via))
        self._check_epoch(command, session)
        return command

    def _check_audience(self, command: Command) -> None:
        if command.mesh != self.mesh:
            raise NotAuthenticatedError("this command is for another mesh")
        if command.node != self.node:
            raise PeerError("this command is for another node")
        if command.action not in SESSION_ACTIONS | NODE_ACTIONS:
            raise RefusedError(f"this node does not know the action {command.action[:40]!r}")
        if (command.action in SESSION_ACTIONS) != bool(command.session):
            raise PeerError(f"{command.action} does not fit its target")

    def _check_grant_time(self, command: Command, grants: Sequence[Grant], now_s: float) -> None:
        if command.action in STOPS and self.floor.behind_s(now_s):
            # Our clock is known to be wrong: all that it proves is what has expired by now.
            now_s = max(self.floor.at_s, *(link.not_before_s for link in grants))
        check_time(grants, now_s, SKEW_S)

    def _check_signer(self, signed: Signed, command: Command, grants: Sequence[Grant]) -> None:
        if command.signer != grants[-1].subject:
            raise NotAuthenticatedError(
                "this command is signed by another key than its grant names"
            )
        try:
            verify(signed, COMMAND, command.signer)
        except PeerError as error:
            raise NotAuthenticatedError(error.message) from error

    def recheck(self, command: Command, session: SessionRecord | None, now_s: float) -> None:
        """Step 10: at the moment of execution all that may have changed still stands."""
        check_command_time(command, now_s, self.floor.behind_s(now_s))
        grants = self.chains.verified(command.chain, self.mesh)
        self._check_grant_time(command, grants, now_s)
        self._check_role(command, self.control.role_behind(grants))
        self._check_exists(command, session)
        self._check_epoch(command, session)

    def check_revocations(self, command: Command) -> None:
        """Raise a MeshError if what a judged command stands on was revoked since, or weakened."""
        grants = self.chains.verified(command.chain, self.mesh)
        self._check_role(command, self.control.role_behind(grants))

    @staticmethod
    def _check_exists(command: Command, session: SessionRecord | None) -> None:
        if command.session and session is None:
            raise NotFoundError(f"no session {command.session[:60]} on this node")

    @staticmethod
    def _check_role(command: Command, role: str) -> None:
        if GRANTED_AS.get(command.action, command.action) not in ACTIONS_OF_ROLE[role]:
            raise NotPermittedError(f"the role {role} does not allow {command.action}")

    def _request(self, command: Command, session: SessionRecord | None, via: str) -> Request:
        action = GRANTED_AS.get(command.action, command.action)
        if session is not None:
            return Request(
                action,
                self.node,
                session.session_id,
                session.agent_id,
                session.specializations,
                via,
            )
        if command.action not in ABOUT_AN_AGENT:  # who reads a whole node names no agent of his
            return Request(action, self.node, via=via)
        agent = str(command.args.get("agent_id", ""))
        wanted = (str(command.args.get("specialization", "")),)
        return Request(action, self.node, "", agent, wanted, via)

    def _check_epoch(self, command: Command, session: SessionRecord | None) -> None:
        expected = self.journal_generation if session is None else session.session_epoch
        if command.epoch != expected:
            raise StaleError(
                "this command was signed for an earlier start of its target",
                "run the command again: it reads the present one and signs anew",
            )


def check_command_time(command: Command, now_s: float, behind_s: float = 0.0) -> None:
    """Step 4, and again at the moment of execution (step 10); raises a MeshError.

    `behind_s` is by how much this node's clock is behind what it showed before. Then it can tell
    nothing but what has expired: steers are refused, and a kill is bound by its epoch alone.
    """
    life_s = KILL_LIFE_S if command.action in STOPS else STEER_LIFE_S
    hint = "compare the clocks of the two machines: session-mesh status shows this one's"
    if len(command.command_id) != COMMAND_ID_BYTES:
        raise RefusedError(f"a command id has {COMMAND_ID_BYTES} bytes")
    if not 0 <= command.expires_s - command.issued_s <= life_s:
        raise RefusedError(f"a {command.action} may live {life_s} s at most")
    if command.action not in STOPS:
        _check_clock(behind_s)
    late_s = now_s + behind_s - command.expires_s
    if late_s > SKEW_S:
        raise ExpiredError(*_expired(late_s, now_s, behind_s, hint))
    if behind_s:
        return
    if command.expires_s > now_s + life_s + SKEW_S:
        raise RefusedError("the command expires too far in this node's future", hint)
    if command.action not in STOPS and command.issued_s > now_s + SKEW_S:
        ahead_s = round(command.issued_s - now_s)
        raise RefusedError(f"the command was issued {ahead_s} s in this node's future", hint)


def _expired(late_s: float, now_s: float, behind_s: float, hint: str) -> tuple[str, str]:
    """Say what is wrong, and what helps."""
    if not behind_s:
        said = f"the command expired {round(late_s)} s ago by this node's clock"
        return f"{said}: it is not carried out", hint
    at = datetime.fromtimestamp(now_s + behind_s, UTC).isoformat(timespec="seconds")
    said = f"this node's clock has shown {at} before, and the command expires before that"
    helps = "an order about a session asks that clock nothing: session-mesh kill ID --standing"
    return f"{said}: it is not carried out", helps


def _check_clock(behind_s: float) -> None:
    if behind_s:
        raise ClockError(
            f"this node's clock is {round(behind_s)} s behind what it has shown before: until"
            " then it takes nothing but kills that last longer, and standing ones of a session",
            "set that machine's clock; docs/protocol/commands.md says what to do if it was ahead",
        )


def sign_receipt(key: Key, receipt: Receipt) -> Signed:
    """Sign a receipt with the node's key."""
    return key.sign(
        RECEIPT,
        {
            "mesh": receipt.mesh,
            "command_id": receipt.command_id,
            "command_hash": receipt.command_hash,
            "node": receipt.node,
            "session": receipt.session,
            "outcome": receipt.outcome,
            "at": receipt.at_s,
            "detail": receipt.detail,
            "processes": receipt.processes,
        },
    )


def receipt_from_signed(signed: Signed, node_key: bytes) -> Receipt:
    """Verify that this node signed it, and decode; raises PeerError."""
    verify(signed, RECEIPT, node_key)
    value = unpack_map(signed.payload)
    try:
        receipt = Receipt(
            mesh=typed(value["mesh"], str),
            command_id=typed(value["command_id"], bytes),
            command_hash=typed(value["command_hash"], bytes),
            node=typed(value["node"], str),
            session=typed(value["session"], str),
            outcome=typed(value["outcome"], str),
            at_s=float(value["at"]),
            detail=typed(value["detail"], str),
            processes=_processes(value["processes"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PeerError(f"not a receipt: {error}") from error
    if len(receipt.command_id) != COMMAND_ID_BYTES or len(receipt.command_hash) != HASH_BYTES:
        raise PeerError("not a receipt: it names no command")
    if not (isfinite(receipt.at_s) and 0 <= receipt.at_s <= _LARGEST_AT_S):
        raise PeerError("not a receipt: its time is none")
    return receipt


def _processes(value: object) -> dict[str, Any] | None:
    """Return what a kill found, as far as it is numbers and lists of numbers; raises TypeError."""
    if value is None:
        return None
    for name, said in typed(value, dict).items():
        typed(name, str)
        for number in said if isinstance(said, list) else [said]:
            typed(number, int)
    return dict(typed(value, dict))
