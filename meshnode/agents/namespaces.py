"""Processes of another PID namespace, as a container has one: their numbers mean nothing here.

Invariant: who is elsewhere is what the kernel says of a socket's listener, never a file alone,
which an agent may have written. Where /proc tells no namespaces, nobody is elsewhere.

No kernel tells of another machine. That a file was written on one, in a home that was copied or
moved, is a reason to wait, and for no more.
"""

from __future__ import annotations

import os
import socket
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.agents.clients import peer_of
from meshnode.agents.tree import read

if TYPE_CHECKING:
    from pathlib import Path

MACHINE_ID = "/etc/machine-id"


def pid_namespace(pid: int | str = "self") -> str:
    """Return the kernel's name of a process's PID namespace; empty where the kernel does not say.

    No two that are there at once have the same; once all of one has ended, another may get its.
    """
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - it leads to no file
    except OSError:
        return ""


def machine_id() -> str:
    """Return a name of this machine that outlives its boots; empty where it has none.

    It is not what machine-id(5) says, which nobody shall tell on, but made of it.
    """
    said = read(MACHINE_ID).strip()
    return sha256(b"session-mesh machine\0" + said).hexdigest()[:16] if said else ""


def is_another_machine(machine: object) -> bool:
    """Whether this names a machine, and not ours."""
    return isinstance(machine, str) and machine != "" and machine_id() not in {"", machine}


def is_another(namespace: object) -> bool:
    """Whether this names a namespace, and not ours."""
    own = pid_namespace()
    return isinstance(namespace, str) and "" not in {namespace, own} and namespace != own


def listener_of(path: Path) -> int | None:
    """Return the pid of who listens on a Unix socket, 0 for one that has no number here.

    None: nobody of this user does. Raises BlockingIOError if its queue is full, or we have no
    descriptor left to ask with.
    """
    try:
        probe = socket.socket(socket.AF_UNIX)
    except OSError as error:
        raise BlockingIOError(*error.args) from error
    with probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            raise
        except OSError:
            return None
        pid, uid = peer_of(probe)
    return pid if uid == os.getuid() else None
