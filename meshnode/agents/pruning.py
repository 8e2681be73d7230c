"""Removing the directories of sessions that are no longer listed, and finding who yet lives there.

Invariant: none is removed whose session is listed, whose agent may live, that is a link, or whose
name is no session's. As many again as are listed stay for a while: a list that was lost with its
disk comes back from peers, and its logs shall still be there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from meshnode.agents import tree
from meshnode.agents.following import Following
from meshnode.core.ids import is_session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

UNLISTED_KEPT = 256  # the newest; older ones go, and so do those older than UNLISTED_KEPT_S
UNLISTED_KEPT_S = 7 * 86400.0  # by a clock that has settled
PRUNED_MAX = 256  # in one go: each costs a look at all processes; the rest goes an hour later
FILES_MAX = 1000  # of one directory, looked at for its age


def prune(
    sessions: Path, listed: Collection[str], socket_of: Callable[[str], Path], old_s: float
) -> int:
    """Remove what is left of sessions that nobody lists; returns how many there were.

    `old_s`: all that was last touched before then goes, in seconds since 1970.
    """
    aged = sorted(_unlisted(sessions, listed), reverse=True)
    old = [
        name
        for place, (touched_s, name) in enumerate(aged)
        if place >= UNLISTED_KEPT or touched_s < old_s
    ]
    removed = 0
    for name in old[-PRUNED_MAX:]:
        following = Following(name, sessions / name, socket_of(name))
        if not _may_live(following):
            removed += _remove(following)
    return removed


def living(sessions: Path) -> dict[str, int]:
    """Return the sessions that have a directory and a process: its supervisor's pid, if it lives.

    One look at all processes: what has neither its mark nor a supervisor is not found.
    """
    found: dict[str, int] = {}
    for name, process in tree.marked():
        if name not in found and is_session_id(name) and (sessions / name).is_dir():
            found[name] = process.pid
    return found


def _unlisted(sessions: Path, listed: Collection[str]) -> list[tuple[float, str]]:
    found = []
    with suppress(OSError), os.scandir(sessions) as entries:
        for entry in entries:
            if is_session_id(entry.name) and entry.name not in listed:
                with suppress(OSError):
                    found.append((_touched_s(entry), entry.name))
    return found


def _touched_s(entry: os.DirEntry[str]) -> float:
    """Return when the session last wrote; raises OSError for what is no directory of ours."""
    info = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise NotADirectoryError
    with os.scandir(entry.path) as files:
        times = [file.stat(follow_symlinks=False).st_mtime for file in islice(files, FILES_MAX)]
    return max([info.st_mtime, *times])


def _may_live(following: Following) -> bool:
    state = following.state()
    if following.look_elsewhere():
        return True
    reach = tree.Reach(following.group(state))
    return bool(tree.members(following.session_id, following.roots(state), reach))


def _remove(following: Following) -> bool:
    if (group := following.group(following.state())) is not None:
        group.remove()
    with suppress(OSError):
        following.socket.unlink(missing_ok=True)
    from shutil import rmtree  # noqa: PLC0415 - loads what unpacks archives

    rmtree(following.directory, ignore_errors=True)  # it follows no links on its way
    return not following.directory.exists()
