"""Who holds a home: which process has locked it, as the kernel tells.

Invariant: no lock is taken to find out, which would keep a node from starting just then. Where the
kernel does not say (another PID namespace, a file system whose devices it names otherwise), nobody
does. What the lock's file says is believed of who holds a lock, and of nobody else.
"""

from __future__ import annotations

import os
from itertools import islice
from typing import TYPE_CHECKING

from meshnode.client.home import read_plain
from meshnode.core.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshnode.client.home import Home

LOCKS = "/proc/locks"  # see proc_locks(5)
LOCKS_MAX = 65_536  # lines of it that are read
CONNECT_S = 0.5  # a socket of this machine; longer: its queue is full, and nobody takes from it
NODE = "up"  # the verb that is a node
WORDS_BYTES_MAX = 32


def holder_of(home: Home) -> int | None:
    """Return the process that has locked a home: its node, or a verb that makes it a member.

    The home before the file in it: who finds the home held has locked a file that is new meanwhile.
    """
    held = dict(_holders())
    return held.get(_place(home.path), held.get(_place(home.lock)))


def node_of(home: Home) -> int | None:
    """Return the node that has locked a home, whether or not its socket is there."""
    pid, (said, verb) = holder_of(home), words_of(home)
    is_other_verb = said == str(pid) and verb not in {"", NODE}
    return None if is_other_verb else pid


def words_of(home: Home) -> tuple[str, str]:
    """Return pid and verb as the file of the lock has them; empty where it has none."""
    try:
        said = read_plain(home.lock).decode(errors="replace")[:WORDS_BYTES_MAX]
    except OSError:
        return "", ""
    pid, _, verb = said.partition(" ")
    return pid.strip(), verb.strip()


def is_listening(home: Home) -> bool:
    """Whether a process listens on the socket: the kernel connects even to one that is stopped."""
    import socket  # noqa: PLC0415 - `usage`, which rarely asks, starts sooner without it

    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(home.socket))
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False
    return True


def check_steps(home: Home) -> None:
    """Raise ConflictError while a node runs that a step of the schema would lock out for good.

    It is called before a file of an older version is changed by who does not hold the home.
    """
    if holder_of(home) is not None or is_listening(home):
        raise ConflictError(
            f"a node of an older version runs on {home.path}, and could not read what this one"
            " writes",
            "restart it with this version: session-mesh down --keep-sessions, then"
            " session-mesh up --detach",
        )


def _place(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    device = found.st_dev
    return f"{os.major(device):02x}:{os.minor(device):02x}:{found.st_ino}"


def _holders() -> Iterator[tuple[str, int]]:
    """Yield device and inode of what is locked, as the kernel names them, and by whom."""
    try:
        with open(LOCKS, encoding="ascii") as locks:  # noqa: PTH123 - no file of ours
            for line in islice(locks, LOCKS_MAX):
                words = line.split()
                if len(words) > 5 and words[1] == "FLOCK":  # noqa: PLR2004 - of eight
                    yield words[5], int(words[4])
    except (OSError, ValueError):
        return
