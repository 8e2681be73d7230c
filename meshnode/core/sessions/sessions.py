"""A session: one agent at work, as its owner node records it.

Invariant: only its owner writes a session, and in a terminal state it never changes state again,
but for one that was told `LOST` and whose supervisor answers after all.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.core.errors import ConflictError, PeerError
from meshnode.core.ids import session_id_of
from meshnode.core.packing import pack, unpack_map

if TYPE_CHECKING:
    from meshnode.core.ids import Chance, NodeId, SessionId


class State(StrEnum):
    """Where a session stands; `unreachable` is derived by readers and never stored."""

    PENDING = "pending"
    RUNNING = "running"
    IDLE = "idle"
    WAITING_PERMISSION = "waiting_permission"
    SUSPENDED = "suspended"
    UNREACHABLE = "unreachable"
    CLOSED = "closed"
    EXPIRED = "expired"
    FAILED = "failed"
    KILLED = "killed"


SESSIONS = "sessions"  # the table
LOST = "its supervisor was lost"  # how a reason to have failed begins
ORDERS_SHOWN = 8  # with a session, the newest; of a row that tells more, no others are read
TERMINAL = frozenset({State.CLOSED, State.EXPIRED, State.FAILED, State.KILLED})
WORKING = frozenset({State.RUNNING, State.IDLE, State.WAITING_PERMISSION})
NEXT: dict[State, frozenset[State]] = {
    State.PENDING: WORKING | TERMINAL,
    State.RUNNING: WORKING | {State.SUSPENDED} | TERMINAL,
    State.IDLE: WORKING | {State.SUSPENDED} | TERMINAL,
    State.WAITING_PERMISSION: WORKING | {State.SUSPENDED} | TERMINAL,
    State.SUSPENDED: WORKING | TERMINAL,
}
PHASE = {
    State.PENDING: "INIT",
    State.RUNNING: "ACTIVE",
    State.IDLE: "ACTIVE",
    State.WAITING_PERMISSION: "ACTIVE",
    State.SUSPENDED: "SUSPENDED",
    State.UNREACHABLE: "RECONNECT",
    State.CLOSED: "CLOSED",
    State.EXPIRED: "CLOSED",
    State.FAILED: "CLOSED",
    State.KILLED: "CLOSED",
}


_LOW_BITS = 32  # of an epoch: random; those above are the journal generation's


def new_session_epoch(chance: Chance, generation: int) -> int:
    """Make what commands to this start of a session name, for as long as this journal lives.

    A journal that was lost cannot tell what was carried out before. Its successor has another
    generation, which shows in an epoch, so the owner knows which sessions need a new one.
    """
    return (generation >> _LOW_BITS << _LOW_BITS) | int.from_bytes(chance(4), "big") or 1


def is_of_journal(record: SessionRecord, generation: int) -> bool:
    """Whether commands that name this session's epoch are in the journal of this generation."""
    return record.session_epoch >> _LOW_BITS == generation >> _LOW_BITS


class SessionRecord(msgspec.Struct, frozen=True):
    """What the owner publishes about a session. Times are seconds since 1970, UTC."""

    session_id: SessionId
    session_epoch: int  # of this start and this journal: commands name it, so none outlives both
    agent_id: str
    state: State
    created_at_s: float
    last_activity_s: float
    adapter: str = "process"
    title: str | None = None
    waiting_for: str | None = None
    specializations: tuple[str, ...] = ()
    owner: str | None = None
    project: str | None = None
    cwd: str | None = None
    pid: int | None = None
    ended_at_s: float | None = None
    end_reason: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    ended_by: str | None = None
    message_count: int = 0
    tool_calls: int = 0
    model: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    can_steer: str = "queue"
    can_kill: str = "tree"
    start: int | None = None  # what its id is made of; None: its epoch
    orders: tuple[str, ...] = ()  # of standing kills and budgets: id, outcome, why; newest first

    @property
    def ended(self) -> bool:
        """Whether the session is over for good."""
        return self.state in TERMINAL

    @property
    def is_lost(self) -> bool:
        """Whether it has ended only as far as who could not find its supervisor could tell."""
        return self.state is State.FAILED and (self.end_reason or "").startswith(LOST)


def is_proved(origin: NodeId, record: SessionRecord) -> bool:
    """Whether a row's id is that of a session of the node that tells of it, and no copy of one."""
    return record.session_id == session_id_of(origin, record.start or record.session_epoch)


def moved(record: SessionRecord, state: State, now_s: float, **changes: Any) -> SessionRecord:  # noqa: ANN401 - fields by name
    """Return the record in another state; raises ConflictError if there is no such way."""
    if state not in NEXT.get(record.state, frozenset()):
        raise ConflictError(f"session {record.session_id} is {record.state}: it cannot be {state}")
    ended_at_s = now_s if state in TERMINAL else None
    changes = {"last_activity_s": now_s, "ended_at_s": ended_at_s, **changes}
    return replace(record, state=state, **changes)


def found_again(record: SessionRecord) -> SessionRecord:
    """Return a lost session as one that runs; what else is true of it its supervisor tells."""
    fresh = replace(record, state=State.RUNNING, ended_at_s=None, end_reason=None)
    return replace(fresh, exit_code=None, signal=None, ended_by=None)


def session_to_row(record: SessionRecord) -> bytes:
    """Encode for the `sessions` table; absent fields are left out."""
    values = {name: getattr(record, name) for name in _TYPES}
    return pack({name: value for name, value in values.items() if value not in (None, ())})


def session_from_row(row: bytes) -> SessionRecord:
    """Decode a row of the `sessions` table; raises PeerError. Unknown fields are passed over."""
    values = unpack_map(row)
    known = {name: values[name] for name in _TYPES if name in values}
    for name, value in known.items():
        if type(value) not in _TYPES[name]:
            raise PeerError(f"session field {name} is a {type(value).__name__}")
        if isinstance(value, int | float) and not _fits(name, value):
            raise PeerError(f"session field {name} is out of range")
    try:
        known["state"] = State(known["state"])
        known["specializations"] = _texts(known.get("specializations", ()))
        known["orders"] = _texts(known.get("orders", ())[:ORDERS_SHOWN])
        known["labels"] = {str(key): str(value) for key, value in known.get("labels", {}).items()}
        return SessionRecord(**known)
    except (KeyError, ValueError, TypeError) as error:
        raise PeerError(f"not a session row: {error}") from error


def tells_arguments(row: bytes) -> bool:
    """Whether a row that can be read says what its agent was started with, as of older versions."""
    return "command" in unpack_map(row)


def _fits(name: str, value: float) -> bool:
    """Whether readers can show a number: what one owner writes must not break others' lists."""
    if isinstance(value, float):
        return isfinite(value)
    if name == "exit_code":
        return -(1 << 31) <= value < 1 << 31
    return 0 <= value < 1 << (64 if name in {"session_epoch", "start"} else 63)


def _texts(values: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise PeerError("a list of texts holds something else")
    return tuple(values)


_BY_ANNOTATION: dict[str, tuple[type, ...]] = {
    "SessionId": (str,),
    "State": (str,),
    "str": (str,),
    "str | None": (str,),
    "int": (int,),
    "int | None": (int,),
    "float": (int, float),
    "float | None": (int, float),
    "tuple[str, ...]": (list, tuple),
    "dict[str, str]": (dict,),
}
_TYPES = {name: _BY_ANNOTATION[said] for name, said in SessionRecord.__annotations__.items()}
