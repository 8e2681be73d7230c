"""Which log sessions the programs on this machine have, and which session of the mesh they are in.

Claude Code writes `sessions/PID.json` before its first request and removes it at its end; it names
its log session there, a new one after `/clear` or `/resume`. Codex holds a lock on
`thread-writer-locks/ID.lock` while it writes the log session ID.

Invariants: only what the kernel vouches for counts: a living process, by its pid and start time, or
the holder of a lock; and the mark in its environment. What processes of several sessions have, or
of none, is nobody's. Nothing of a log is read.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from meshnode.agents import tree
from meshnode.core.ledger.log_sessions import NAME_CHARS_MAX, LogSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

CLAUDE, CODEX = "claude", "codex"
FILES_MAX = 4096  # in one directory; those beyond are not looked at
FILE_BYTES_MAX = 64 << 10
STARTUP_S = 5.0  # what a process has said within it counts from its start
_SAID, _LOCK = re.compile(r"[0-9]+\.json"), re.compile(r".+\.lock", re.DOTALL)
_FLOCK, _OF_PID, _OF_FILE = b"FLOCK", 4, 5  # words in a line of /proc/locks

Key = tuple[str, str]
"""A source, and its name of a log session."""


class Had(NamedTuple):
    """By which process one is had, in which session of ours, if any, and since when.

    `began_s` is when the process began, `said_s` when it had said so at the latest.
    """

    session: str
    process: tree.Identity
    began_s: float
    said_s: float


class LogSessions:
    """Looks at the directories of both programs.

    `known`: what was had when somebody last looked, with since when.
    """

    def __init__(
        self,
        claude: Sequence[Path],
        codex: Sequence[Path],
        is_ours: Callable[[str], bool],
        known: Mapping[Key, tuple[str, float]],
    ) -> None:
        self._claude, self._codex = claude, codex
        self._is_ours = is_ours
        self._known = dict(known)
        self._seen: dict[tree.Identity, str] = {}  # their marks
        self._is_first = True

    def look(self, now_s: float) -> list[tuple[str, LogSession]]:
        """Return what has changed: sessions, each with what it has from now on, or had until now.

        What was had when nobody looked yet ends with that, as it is not known when it did: it was
        had for no time at all. Who has it now has it from when that was said.
        """
        before, had = self._seen, self._all_had(now_s)
        changed: list[tuple[str, LogSession]] = []
        for key, (session, since_s) in list(self._known.items()):
            them = had.get(key, [])
            if self._is_first or {one.session for one in them} != {session}:
                others_s = [one.began_s for one in them if one.session != session]
                until_s = since_s if self._is_first else max(since_s, min([now_s, *others_s]))
                changed.append((session, LogSession(*key, since_s, until_s)))
                del self._known[key]
        for key, them in had.items():
            sessions = {one.session for one in them}
            if key not in self._known and len(sessions) == 1 and "" not in sessions:
                since_s = max(self._since_s(one, before) for one in them)
                self._known[key] = them[0].session, since_s
                changed.append((them[0].session, LogSession(*key, since_s, math.inf)))
        self._is_first = False
        return changed

    def _since_s(self, had: Had, before: Collection[tree.Identity]) -> float:
        """Return since when: what comes later than a start may have been another's until then."""
        is_new = not self._is_first and had.process not in before
        if is_new and had.said_s <= had.began_s + STARTUP_S:
            return had.began_s
        return max(had.began_s, had.said_s)

    def _all_had(self, now_s: float) -> dict[Key, list[Had]]:
        """Return who has what, whether ours or not."""
        before = self._seen
        self._seen = {one: mark for one, mark in before.items() if tree.is_alive(one)}
        found: dict[Key, list[Had]] = {}
        for key, process, said_s in self._holders(now_s):
            mark = before[process] if process in before else tree.mark_of(process)
            session = mark if self._is_ours(mark) else ""
            if session:
                self._seen[process] = mark
            times = now_s - tree.age_s(process), min(said_s, now_s)
            found.setdefault(key, []).append(Had(session, process, *times))
        return found

    def _holders(self, now_s: float) -> Iterator[tuple[Key, tree.Identity, float]]:
        last: dict[tree.Identity, tuple[float, str]] = {}  # one each: it writes one at a time
        for directory in self._claude:
            for path in _files(directory, _SAID):
                if (found := _named(path)) is not None:
                    name, process, said_s = found
                    last[process] = max(last.get(process, (said_s, name)), (said_s, name))
        for process, (said_s, name) in last.items():
            yield (CLAUDE, name), process, said_s
        locks = [path for directory in self._codex for path in _files(directory, _LOCK)]
        pids = _lockers() if locks else {}
        for path in locks:
            name = path.rpartition("/")[2].removesuffix(".lock")
            locker = _locker(path, pids)
            if locker is not None and _is_name(name):
                yield (CODEX, name), locker, _taken_s(path, locker, now_s)


def _files(directory: Path, names: re.Pattern[str]) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            found = [entry.path for entry in entries if names.fullmatch(entry.name)]
    except OSError:
        return []
    return found[:FILES_MAX]


def _named(path: str) -> tuple[str, tree.Identity, float] | None:
    """Read what a running Claude Code says of itself, and when; None for one that has ended."""
    try:
        text, said_s = _read(path)
        said = json.loads(text)
        name, pid, ticks = said["sessionId"], said["pid"], said["procStart"]
        process = tree.Identity(int(pid), int(ticks))
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    is_its = path.rpartition("/")[2] == f"{process.pid}.json"  # or one could speak for thousands
    is_its = is_its and isinstance(name, str) and _is_name(name) and tree.is_alive(process)
    return (name, process, said_s) if is_its else None


def _read(path: str) -> tuple[bytes, float]:
    """Read a file, and when it was written or later; raises OSError, ValueError if it is none."""
    # To open a pipe or a terminal must neither wait for somebody nor become ours.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError(path)
        return os.read(fd, FILE_BYTES_MAX), os.fstat(fd).st_mtime
    finally:
        os.close(fd)


def _is_name(name: str) -> bool:
    """Whether it can be kept: a file may be named, and JSON may say, what is no text."""
    is_text = not any("\ud800" <= char <= "\udfff" for char in name)
    return is_text and 0 < len(name) <= NAME_CHARS_MAX


def _lockers() -> dict[int, int]:
    """Return who holds locks, by the inode; who else may mean a file of another device."""
    found: dict[int, int] = {}
    for line in tree.read("/proc/locks").splitlines():
        words = line.split()
        if len(words) > _OF_FILE and words[1] == _FLOCK:
            found[int(words[_OF_FILE].rpartition(b":")[2])] = int(words[_OF_PID])
    return found


def _locker(path: str, pids: Mapping[int, int]) -> tree.Identity | None:
    """Return the process that holds a lock for itself alone."""
    try:
        lock = os.stat(path)  # noqa: PTH116 - a name of a listing
        process = tree.identity_of(pids[lock.st_ino])
        if process is None or not _has_open(process.pid, path, lock):
            return None
    except (OSError, LookupError):
        return None
    words = tree.read(f"/proc/{process.pid}/cmdline").split(b"\0")
    # All terminals of a user share a daemon: whose a thread of its is, it does not say.
    is_shared = b"app-server" in words and any(one.startswith(b"--listen") for one in words)
    return None if is_shared else process


def _taken_s(path: str, locker: tree.Identity, now_s: float) -> float:
    """Return when a process had taken its lock at the latest: one may have been left to it."""
    began_s = now_s - tree.age_s(locker)
    try:
        made_s = os.stat(path).st_mtime  # noqa: PTH116 - a name of a listing
    except OSError:
        return now_s
    return made_s if abs(made_s - began_s) <= STARTUP_S else now_s


def _has_open(pid: int, path: str, lock: os.stat_result) -> bool:
    """Whether a process has that very file open, by whatever directory it has come to it."""
    name = path[path.rindex("/") :]
    with os.scandir(f"/proc/{pid}/fd") as fds:
        for fd in fds:
            with suppress(OSError):  # closed meanwhile
                # The name first: to ask a file of a lost network disk would take forever.
                is_named = os.readlink(fd.path).endswith(name)  # noqa: PTH115 - of many
                if is_named and os.path.samestat(fd.stat(), lock):
                    return True
    return False
