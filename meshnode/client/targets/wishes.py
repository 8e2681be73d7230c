"""What a caller wishes for one session, checked, and as the order that its owner gets.

Invariant: front ends that speak to a node, and the one inside it, order with the same words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.targets.targets import Order, check_lengths, has_ended
from meshnode.core.errors import ConflictError, UsageError

if TYPE_CHECKING:
    Plain = dict[str, Any]

GRACE_S = 5
GRACE_S_MAX = 60
MESSAGE_BYTES_MAX = 32 << 10  # a command has room for 64 KiB


class EndedError(ConflictError):
    """The session is over: nothing can be said to it any more. Nothing changed."""


def steer_args(message: str, direction: str, mode: str) -> Plain:
    """Say what an agent is told; raises UsageError."""
    check_lengths({"direction": direction})
    if len(message.encode()) > MESSAGE_BYTES_MAX:
        raise UsageError(
            f"a message has at most {MESSAGE_BYTES_MAX} bytes", "put it in a file, and name that"
        )
    return {"direction": direction, "message": message, "mode": mode}


def kill_args(grace_s: int, *, force: bool) -> Plain:
    """Say how a session is ended; raises UsageError."""
    return {"force": force, "grace_s": 0 if force else checked_grace(grace_s)}


def checked_grace(grace_s: int) -> int:
    """Return a grace in seconds as it is; raises UsageError."""
    if not 0 <= grace_s <= GRACE_S_MAX:
        raise UsageError(f"a grace lasts 0 to {GRACE_S_MAX} s, not {grace_s} s")
    return grace_s


def order_to(session: Plain, action: str, args: Plain) -> Order:
    """Address an order to the owner of a listed session, for its present start."""
    return Order(session["node_id"], session["session_epoch"], action, session["session_id"], args)


def check_lives(session: Plain) -> None:
    """Raise EndedError for a session that is over."""
    if has_ended(session):
        raise EndedError(
            f"session {session['session_id']} of {session['agent_id']} has ended"
            f" ({session['state']})",
            "session-mesh list shows which are alive",
        )


def already_ended(session: Plain) -> Plain:
    """Return the outcome of ending what has ended: there is nothing to sign."""
    return {
        "command_id": None,
        "session_id": session["session_id"],
        "node_id": session["node_id"],
        "outcome": "applied",
        "at": session["ended_at"],
        "detail": "already ended",
        "receipt": None,
        "receipt_verified": False,
        "processes": {"found": 0, "gone": 0, "survivors": []},
    }
