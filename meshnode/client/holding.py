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

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshnode.client.home import Home

LOCKS = "/proc/locks"  # see proc_locks(5)
LOCKS_MAX = 65_536  # lines of it that are read
NODE = "up"  # the verb that is a node
WORDS_BYTES_MAX = 32


def holder_of(home: Home) -> int | None:
    """Return the process that has locked a home: its node, or a verb that makes it a member."""
    return next(_holders(_places(home)), None)


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


def _places(home: Home) -> set[str]:
    """Return how the kernel names the home and the lock in it: device and inode."""
    return {place for path in (home.path, home.lock) if (place := _place(path))}


def _place(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    device = found.st_dev
    return f"{os.major(device):02x}:{os.minor(device):02x}:{found.st_ino}"


def _holders(places: set[str]) -> Iterator[int]:
    try:
        with open(LOCKS, encoding="ascii") as locks:  # noqa: PTH123 - no file of ours
            for line in islice(locks, LOCKS_MAX):
                words = line.split()
                if len(words) > 5 and words[1] == "FLOCK" and words[5] in places:  # noqa: PLR2004 - of eight
                    yield int(words[4])
    except (OSError, ValueError):
        return
