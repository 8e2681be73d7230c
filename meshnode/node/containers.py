"""A node in another PID namespace than who asks: in a container whose home the host shares, say.

Invariant: what a process is called on one side is never looked up, or told, on the other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.agents.namespaces import is_another, listener_of, pid_namespace
from meshnode.core.errors import RefusedError

if TYPE_CHECKING:
    from meshnode.client.home import Home

THERE = "in another PID namespace (of a container, say)"
APART = f"the node runs {THERE}"
HOW = (
    "call it where the node runs (docker exec CONTAINER session-mesh ...), or give this side a"
    " home and a node of its own: --home DIR"
)


def runs_elsewhere(home: Home) -> bool:
    """Whether the node of a home is there, and in another PID namespace than this process."""
    with suppress(BlockingIOError):  # it takes no calls: nothing can be said
        pid = listener_of(home.socket)
        return pid == 0 or (pid is not None and is_another(pid_namespace(pid)))
    return False


def check_here(home: Home) -> None:
    """Raise RefusedError for what needs processes that both the node and we can see."""
    if runs_elsewhere(home):
        raise RefusedError(f"{APART}, and neither side sees the other's processes", HOW)
