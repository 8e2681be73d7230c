"""Removing the directories of sessions that are no longer listed, and finding who yet lives there.

Invariant: none is removed whose session is listed, whose agent may live, that is a link, or whose
name is no session's. As many again as are listed stay for a while: a list that was lost with its
disk comes back from peers, and its logs shall still be there. What is kept of all that have ended,
listed or not, is no more than OUTPUT_BYTES_MAX.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from itertools import accumulate, islice
from typing import TYPE_CHECKING

import msgspec

from meshnode.agents import tree
from meshnode.agents.following import Following
from meshnode.agents.log import LOG, OLDER_LOG, OLDER_TIMES, TIMES
from meshnode.core.ids import is_session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

UNLISTED_KEPT = 256  # the newest; older ones go, and so do those older than UNLISTED_KEPT_S
UNLISTED_KEPT_S = 7 * 86400.0  # by a clock that has settled
OUTPUT_BYTES_MAX = 2 << 30  # of all that have ended: 64 of the longest logs; older output goes
PRUNED_MAX = 256  # in one go: each costs a look at all processes; who calls does so again
FILES_MAX = 1000  # of one directory, looked at for its age


class _Left(msgspec.Struct, frozen=True, order=True):
    """What is left of a session that has ended; the newest is the greatest."""

    touched_s: float
    name: str
    output_bytes: int


def prune(
    sessions: Path,
    live: Collection[str],
    ended: Collection[str],
    socket_of: Callable[[str], Path],
    old_s: float,
) -> int:
    """Remove what is left of sessions that nobody lists, and of output too old to have room.

    `live` and `ended` are the sessions that are listed; `old_s`: all else that was last touched
    before then goes, in seconds since 1970. Returns of how many sessions something went: if of
    any, there may be more.
    """
    left = sorted(_left(sessions, live), reverse=True)
    removed = 0
    going = dict.fromkeys([*_old(left, ended, old_s), *_without_room(left)])
    for name in islice(going, PRUNED_MAX):
        following = Following(name, sessions / name, socket_of(name))
        if not _may_live(following):
            removed += _forget_output(following) if name in ended else _remove(following)
    return removed


def _old(left: Sequence[_Left], ended: Collection[str], old_s: float) -> list[str]:
    """Return who is listed no more and has gone by number or by age, the oldest first."""
    unlisted = [one for one in left if one.name not in ended]
    old = [
        one.name
        for place, one in enumerate(unlisted)
        if place >= UNLISTED_KEPT or one.touched_s < old_s
    ]
    return old[::-1]


def _without_room(left: Sequence[_Left]) -> list[str]:
    """Return whose output has no room beside that of newer ones, the oldest first."""
    total_bytes = list(accumulate(one.output_bytes for one in left))
    beyond = [
        one.name
        for one, bytes_so_far in zip(left, total_bytes, strict=True)
        if one.output_bytes and bytes_so_far > OUTPUT_BYTES_MAX
    ]
    return beyond[::-1]


def living(sessions: Path) -> dict[str, int]:
    """Return the sessions that have a directory and a process: its supervisor's pid, if it lives.

    One look at all processes: what has neither its mark nor a supervisor is not found.
    """
    found: dict[str, int] = {}
    for name, process in tree.marked():
        if name not in found and is_session_id(name) and (sessions / name).is_dir():
            found[name] = process.pid
    return found


def _left(sessions: Path, live: Collection[str]) -> list[_Left]:
    found = []
    with suppress(OSError), os.scandir(sessions) as entries:
        for entry in entries:
            if is_session_id(entry.name) and entry.name not in live:
                with suppress(OSError):
                    found.append(_look(entry))
    return found


def _look(entry: os.DirEntry[str]) -> _Left:
    """Return when the session last wrote, and how much; raises OSError for what is not our own."""
    info = entry.stat(follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise NotADirectoryError
    with os.scandir(entry.path) as files:
        infos = {one.name: one.stat(follow_symlinks=False) for one in islice(files, FILES_MAX)}
    touched_s = max([info.st_mtime, *(one.st_mtime for one in infos.values())])
    output_bytes = sum(infos[name].st_size for name in (LOG, OLDER_LOG) if name in infos)
    return _Left(touched_s, entry.name, output_bytes)


def _may_live(following: Following) -> bool:
    state = following.state()
    if following.look_elsewhere():
        return True
    reach = tree.Reach(following.group(state))
    return bool(tree.members(following.session_id, following.roots(state), reach))


def _forget_output(following: Following) -> bool:
    """Remove the output of a session that stays listed: who asks is told that it is gone."""
    for name in (OLDER_LOG, OLDER_TIMES, LOG, TIMES):
        with suppress(OSError):
            (following.directory / name).unlink(missing_ok=True)
    return not any(os.path.lexists(following.directory / name) for name in (LOG, OLDER_LOG))


def _remove(following: Following) -> bool:
    if (group := following.group(following.state())) is not None:
        group.remove()
    with suppress(OSError):
        following.socket.unlink(missing_ok=True)
    from shutil import rmtree  # noqa: PLC0415 - loads what unpacks archives

    rmtree(following.directory, ignore_errors=True)  # it follows no links on its way
    return not following.directory.exists()
