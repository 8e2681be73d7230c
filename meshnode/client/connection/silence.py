"""Telling a node that does not answer from one that does not run.

Invariant: nothing is changed, no lock is taken: that would keep a node from starting just then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.holding import is_listening, node_of, words_of

if TYPE_CHECKING:
    from meshnode.client.home import Home
    from meshnode.core.errors import MeshError

PID_CHARS_MAX = 20


def explained(error: MeshError, home: Home) -> MeshError:
    """Return the error, naming the home; SilentNodeError when a process does hold the socket.

    A NoNodeError names the node that runs without one that answers.
    """
    if not isinstance(error, NoNodeError):
        return error
    if is_listening(home):
        return SilentNodeError(pid_of(home))
    return NoNodeError(home, node_of(home))


def pid_of(home: Home) -> str:
    """Return the process that the lock of a home names, or "unknown"."""
    return words_of(home)[0][:PID_CHARS_MAX] or "unknown"
