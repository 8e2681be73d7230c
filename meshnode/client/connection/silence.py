"""Telling a node that does not answer from one that does not run.

Invariant: nothing is changed, no lock is taken: that would keep a node from starting just then.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.holding import node_of, words_of

if TYPE_CHECKING:
    from meshnode.client.home import Home
    from meshnode.core.errors import MeshError

CONNECT_S = 0.5  # a socket of this machine; longer: its queue is full, and nobody takes from it
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


def is_listening(home: Home) -> bool:
    """Whether a process listens on the socket: the kernel connects even to one that is stopped."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(home.socket))
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False
    return True
