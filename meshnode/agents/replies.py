"""What a supervisor answers to an order, as its node takes it.

Invariant: whatever it writes becomes a value or a MeshError.
"""

from __future__ import annotations

from typing import Any

from meshnode.agents.tree import Killing
from meshnode.app.ports import Steered
from meshnode.core.errors import MeshError, RefusedError, UnreachableError


def steered(reply: dict[str, Any]) -> Steered:
    """Say where a steer has come that was taken."""
    behind = reply.get("behind")
    return Steered(
        on_stdin=reply.get("stdin", True) is True,
        followed=reply.get("followed") is True,
        interrupted=str(reply.get("interrupted") or ""),
        behind=behind if isinstance(behind, int) else 0,
    )


def not_steered(reply: dict[str, Any]) -> MeshError:
    """Return why one was not: RefusedError: it is nowhere; UnreachableError: nobody knows.

    MeshError: it is nowhere, and yet the agent was interrupted.
    """
    error, sent = str(reply.get("error")), reply.get("interrupted")
    if reply.get("indeterminate"):
        return UnreachableError(f"it was sent {sent}; {error}" if sent else error)
    if sent:
        return MeshError(f"it was sent {sent}, and not the message: {error}")
    return RefusedError(error)


def killing(reply: dict[str, Any]) -> Killing:
    """Say what became of a tree; raises UnreachableError for nonsense."""
    try:
        counts = int(reply["found"]), int(reply["gone"]), tuple(map(int, reply["survivors"]))
    except (KeyError, TypeError, ValueError):
        raise UnreachableError("the session's supervisor answers nothing we know") from None
    needed = str(reply.get("needed"))
    needed = needed if needed in {"TERM", "KILL"} else ""
    return Killing(*counts, needed, suspended=reply.get("suspended") is True)


def found(reply: dict[str, Any]) -> int:
    """Return how many processes there were; raises UnreachableError for nonsense."""
    count = reply.get("found")
    if not isinstance(count, int):
        raise UnreachableError("the session's supervisor answers nothing we know")
    return count
