"""A control group of its own for one session's agent (Linux, cgroup v2).

Where the kernel keeps the list, no fork, setsid, exec or new parent takes a process off it, and one
write kills them all.

Invariant: a group is only ever used under the name of its session, and is only killed whole when
nothing else was seen inside. Where the kernel or the rights are missing, there is no group, and the
tree walk stands alone. A process of the same user may move itself out on purpose; the walk then
still finds it as a descendant or by its mark.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

import msgspec

PREFIX = "session-mesh-"
NAME_CHARS_MAX = 128
GROUPS_MAX = 256  # below one session's; what lies in others is found by the tree walk only
FILE_BYTES_MAX = 4 << 20
_FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Cgroup(msgspec.Struct, frozen=True):
    """The directory of one session's group."""

    path: Path

    def enter(self) -> bool:
        """Move the calling process in, also between fork and exec; whether it could be."""
        return _write(self.path / "cgroup.procs", b"0")

    def pids(self) -> set[int]:
        """Return who is inside, groups below included; zombies are not."""
        found: set[int] = set()
        for directory in self._below():
            words = _read(directory / "cgroup.procs").split()
            found.update(int(word) for word in words if word.isdigit())
        return found

    def kill(self) -> bool:
        """KILL everybody inside at once, those just being forked too; False if that is not to be.

        Needs Linux 5.14.
        """
        return _write(self.path / "cgroup.kill", b"1")

    def remove(self) -> None:
        """Remove the group if nobody is left in it."""
        for directory in reversed(self._below()):
            with suppress(OSError):
                directory.rmdir()

    def _below(self) -> list[Path]:
        """Return this directory and those below, parents first."""
        found, next_one = [self.path], 0
        while next_one < len(found) < GROUPS_MAX:
            with suppress(OSError), os.scandir(found[next_one]) as entries:
                inner = (entry for entry in entries if entry.is_dir(follow_symlinks=False))
                found += [Path(entry.path) for entry in inner]
            next_one += 1
        return found[:GROUPS_MAX]


def create(session_id: str, *, apart: bool) -> Cgroup | None:
    """Make a session's group; None where the machine does not allow it.

    `apart`: a session that was started from inside another is no part of it, so the caller and the
    group leave the other's.
    """
    own = _own_directory()
    if own is None or not _fits(session_id):
        return None
    base = _outside_sessions(own) if apart else own
    if not os.access(base / "cgroup.procs", os.W_OK):  # who moves a process must write here too
        return None
    group = Cgroup(base / f"{PREFIX}{session_id}")
    try:
        group.path.mkdir(exist_ok=True)
    except OSError:
        return None
    if base != own and not Cgroup(base).enter():
        group.remove()
        return None
    return group


def recorded(path: object, session_id: str) -> Cgroup | None:
    """Return the group that a state file names, if it is one, is the session's, and is not ours."""
    if not isinstance(path, str) or not _fits(session_id):
        return None
    mount, own = _mount(), _own_directory()
    named = PurePosixPath(path)
    if mount is None or named.name != f"{PREFIX}{session_id}" or ".." in named.parts:
        return None
    directory = Path(path)
    if not directory.is_relative_to(mount.point) or not (directory / "cgroup.procs").is_file():
        return None
    if own is not None and own.is_relative_to(directory):
        return None
    return Cgroup(directory)


def why_none() -> str:
    """Say why sessions started from here get no group; empty if they do. Makes one to know."""
    own = _own_directory()
    if own is None:
        return "no cgroup v2 is mounted"
    probe = create(f"probe-{os.getpid()}", apart=False)
    if probe is None:
        return f"{own} may not be written by this user"
    can_kill = (probe.path / "cgroup.kill").exists()
    probe.remove()
    return "" if can_kill else "this kernel has no cgroup.kill (Linux 5.14)"


def _fits(session_id: str) -> bool:
    return len(session_id) <= NAME_CHARS_MAX and _FIT.fullmatch(session_id) is not None


def _outside_sessions(own: Path) -> Path:
    for place, part in enumerate(own.parts):
        if part.startswith(PREFIX):
            return Path(*own.parts[:place])
    return own


def _own_directory() -> Path | None:
    mount = _mount()
    for line in _read(Path("/proc/self/cgroup")).decode(errors="replace").splitlines():
        hierarchy, _, rest = line.partition(":")
        named = PurePosixPath(rest.partition(":")[2])
        if mount is None or hierarchy != "0" or ".." in named.parts:
            continue
        if named.is_relative_to(mount.root):
            own = mount.point / named.relative_to(mount.root)
            return own if own.is_dir() else None
    return None


class _Mount(msgspec.Struct, frozen=True):
    """Where which part of the hierarchy is mounted."""

    point: Path
    root: PurePosixPath


def _mount() -> _Mount | None:
    for line in _read(Path("/proc/self/mountinfo")).decode(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == "cgroup2":
            root, point = (_plain(field) for field in before.split()[3:5])
            return _Mount(Path(point), PurePosixPath(root))
    return None


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda one: chr(int(one[1], 8)), field)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError:
        return b""


def _write(path: Path, content: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True
