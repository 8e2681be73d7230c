"""Standing kills: which of them this node is to carry out, on which of its sessions, and when.

Invariants. An order is carried out only while its signer may kill, it has not expired, and nobody
who may has taken it back. One that names a session names its start, so it never meets another one.
One that names an agent, a specialization or a node is for what ran when it was issued: whoever
starts an agent later means it to run. What is due is a function of the control set, our own
sessions and the time.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import msgspec

from meshnode.core.control.entries import Cancel, Entry, StandingKill
from meshnode.core.control.roles import ACTIONS_OF_ROLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from meshnode.core.control.control import ControlSet
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.sessions import SessionRecord

SETTLE_S = 1.0  # after an entry came: its cancel may be right behind it, in the same repair
SETTLE_S_MAX = 10.0  # entries that keep coming hold up none for longer
SKEW_S = 120  # one issued further in our future waits, unless it names a session's start
REVOKED = "its signer may no longer kill"
CANCELLED = "it was cancelled"
EXPIRED = "it has expired"


class Fate(StrEnum):
    """What is to be thought of an order, by whoever holds the same control set."""

    STANDS = "standing"
    CANCELLED = "cancelled"
    VOID = "void"  # its signer may not kill any more


class Standing(msgspec.Struct, frozen=True):
    """An order in the control set. Times are seconds since 1970, by the issuer's clock."""

    order_id: bytes
    issuer: bytes
    issued_s: int
    expires_s: int
    kill: StandingKill


class Due(msgspec.Struct, frozen=True):
    """An order that meets a session of ours."""

    standing: Standing
    session: SessionRecord

    @property
    def key(self) -> tuple[bytes, str]:
        """What is done once: this order to this session."""
        return self.standing.order_id, self.session.session_id


def standing_kills(control: ControlSet) -> Iterator[Standing]:
    """Yield every order that is held."""
    for order_id, entry in control.held(StandingKill).items():
        if isinstance(entry.body, StandingKill):
            yield Standing(order_id, entry.issuer, entry.issued_s, entry.expires_s, entry.body)


def may_kill(control: ControlSet, key: bytes) -> bool:
    """Whether a key has a role that may leave orders."""
    return "kill" in ACTIONS_OF_ROLE.get(control.role_of(key), ())


def may_cancel(control: ControlSet, key: bytes, issuer: bytes) -> bool:
    """Whether a key may take back the orders of an issuer: its own, or any as an admin."""
    return control.role_of(key) == "admin" or (key == issuer and may_kill(control, key))


def cancelled(control: ControlSet) -> dict[bytes, list[Entry]]:
    """Return all that speaks against orders, by the order's id, whether or not it counts."""
    found: dict[bytes, list[Entry]] = {}
    for entry in control.held(Cancel).values():
        if isinstance(entry.body, Cancel):
            found.setdefault(entry.body.order, []).append(entry)
    return found


def fate_of(control: ControlSet, standing: Standing, cancels: dict[bytes, list[Entry]]) -> Fate:
    """Say whether an order stands. One that was taken back by its signer stays so for good."""
    for cancel in cancels.get(standing.order_id, ()):
        if may_cancel(control, cancel.issuer, standing.issuer):
            return Fate.CANCELLED
    return Fate.STANDS if may_kill(control, standing.issuer) else Fate.VOID


def fits(standing: Standing, session: SessionRecord, node: NodeId) -> bool:
    """Whether an order means a session of this node."""
    kill = standing.kill
    if kill.node not in {"", node} or kill.agent not in {"", session.agent_id}:
        return False
    if kill.specialization and kill.specialization not in session.specializations:
        return False
    if kill.session:
        # Its first epoch means the same start: another one follows when a journal was lost.
        is_start = kill.epoch in {session.session_epoch, session.start}
        return kill.session == session.session_id and is_start
    return int(session.created_at_s) <= standing.issued_s


def due(
    control: ControlSet,
    node: NodeId,
    sessions: Iterable[SessionRecord],
    done: AbstractSet[tuple[bytes, str]],
    now_s: float,
    held_up: AbstractSet[tuple[bytes, str]] = frozenset(),
) -> list[Due]:
    """Return what is to be carried out now: of several kills of a session the first.

    `done` names what was answered before, `held_up` what could not be begun and comes after the
    others; `now_s` is seconds since 1970.
    """
    by_name = _by_name(control, node, Fate.STANDS, now_s)
    found = []
    for session in sessions if by_name else ():
        if session.ended:
            continue
        met = [Due(one, session) for one in _meant(by_name, session, node)]
        open_ = [one for one in met if one.key not in done]
        if open_:
            found.append(min(open_, key=lambda one: (one.key in held_up, *_age(one.standing))))
    return found


def void(
    control: ControlSet,
    node: NodeId,
    sessions: Iterable[SessionRecord],
    told: AbstractSet[bytes],
    now_s: float,
) -> list[Standing]:
    """Return each order that means a session of ours, and whose signer may not kill any more.

    Once each, however many sessions it means; `told` has the ids of those told of before.
    """
    by_name = _by_name(control, node, Fate.VOID, now_s, told)
    found: dict[bytes, Standing] = {}
    for session in sessions if by_name else ():
        for one in () if session.ended else _meant(by_name, session, node):
            found[one.order_id] = one
    return sorted(found.values(), key=_age)


def _by_name(
    control: ControlSet,
    node: NodeId,
    fate: Fate,
    now_s: float,
    but: AbstractSet[bytes] = frozenset(),
) -> dict[tuple[str, str], list[Standing]]:
    """Return what has this fate by now, and may mean a session of this node."""
    cancels = cancelled(control)
    found: dict[tuple[str, str], list[Standing]] = {}
    for one in standing_kills(control):
        is_ours = one.kill.node in {"", node} and one.order_id not in but
        if is_ours and _is_time(one, now_s) and fate_of(control, one, cancels) is fate:
            found.setdefault(_name_in(one.kill), []).append(one)
    return found


def _meant(
    by_name: dict[tuple[str, str], list[Standing]], session: SessionRecord, node: NodeId
) -> Iterator[Standing]:
    for name in _names_of(session):
        for one in by_name.get(name, ()):
            if fits(one, session, node):
                yield one


def _age(standing: Standing) -> tuple[int, bytes]:
    return standing.issued_s, standing.order_id


def _name_in(kill: StandingKill) -> tuple[str, str]:
    """Return the narrowest name in an order, so that few orders are compared with a session."""
    if kill.session:
        return "session", kill.session
    if kill.agent:
        return "agent", kill.agent
    return ("spec", kill.specialization) if kill.specialization else ("node", "")


def _names_of(session: SessionRecord) -> list[tuple[str, str]]:
    specs = [("spec", name) for name in set(session.specializations)]
    return [("session", session.session_id), ("agent", session.agent_id), *specs, ("node", "")]


def objection(control: ControlSet, standing: Standing, now_s: float) -> str:
    """Say why an order is not to be carried out at this moment; empty if it is."""
    if standing.expires_s <= now_s or control.get(standing.order_id) is None:
        return EXPIRED
    match fate_of(control, standing, cancelled(control)):
        case Fate.CANCELLED:
            return CANCELLED
        case Fate.VOID:
            return REVOKED
        case Fate.STANDS:
            return ""
        case _ as never:
            assert_never(never)


def _is_time(standing: Standing, now_s: float) -> bool:
    if standing.expires_s <= now_s:
        return False
    return bool(standing.kill.session) or standing.issued_s <= now_s + SKEW_S


class Patience:
    """How long to hold back: cancels must have had their chance to be seen first.

    After a start, and after every entry, until our control set has held all that a neighbour's did
    since then (`abreast`), or for `unheard_s` if there is nobody to be heard; and for a moment
    besides. Times are of a steady clock, in seconds.
    """

    def __init__(self, started_at_s: float, unheard_s: float) -> None:
        self._unheard_s = unheard_s
        self._doubted_at_s = started_at_s
        self._first_s = self._last_s = -math.inf
        self._settled = True

    def note(self, now_s: float) -> None:
        """Note that an entry has come."""
        if self._settled:
            self._doubted_at_s = self._first_s = now_s
            self._settled = False
        self._last_s = now_s

    def looked(self) -> None:
        """Note that what has come was looked at."""
        self._settled = True

    def ready_at_s(self, *, abreast: bool) -> float:
        """Return from when on orders may be carried out, as things are."""
        begun_s = -math.inf if abreast else self._doubted_at_s + self._unheard_s
        settled_s = min(self._last_s + SETTLE_S, self._first_s + SETTLE_S_MAX)
        return max(begun_s, settled_s)
