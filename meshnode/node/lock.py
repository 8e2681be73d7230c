"""One process at a time that makes or changes a home: a lock that dies with its process.

A node holds it, and so do the verbs that make a home a member: `init` and `join`. Its file names
the process, and the verb. Invariant: the socket is only ever replaced by whoever holds the lock.
The home itself is locked beside the file in it: who removes the file lets no second one in.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from meshnode.client.errors import socket_hint
from meshnode.client.holding import NODE, holder_of, is_listening, words_of
from meshnode.client.home import (
    DISKS_FAULT,
    check_private,
    link_run,
    make_run,
    unlink_run,
    unwritten,
)
from meshnode.client.keys.keyfiles import check_alone
from meshnode.core.errors import ConflictError, NotPermittedError
from meshnode.node.containers import HOW, THERE, runs_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshnode.client.home import Home


class HomeLock:
    """Held while a node runs on a home, or while a verb changes a stopped one."""

    def __init__(self, home: Home, verb: str = NODE, hint: Callable[[], str] = str) -> None:
        """`hint`: what to do where a node runs already; empty: what anybody may."""
        self._home, self._verb, self._hint = home, verb, hint
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Take the lock; raises ConflictError that says which verb has it, StorageError."""
        home = self._home
        check_private(home.path)
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        with ExitStack() as held:
            directory = _opened(home.path, os.O_RDONLY | os.O_DIRECTORY | flags)
            held.callback(os.close, directory)
            is_free = _lock(directory)
            if is_free:
                unlink_run(home)
            if is_free or not home.run.exists():  # else of a node whose home was moved meanwhile
                make_run(home)
            file = _opened(home.lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | flags)
            held.callback(os.close, file)
            check_alone(home.lock, os.fstat(file))
            if not (_lock(file) and is_free):
                raise _taken(home, self._hint)
            _write(file, home.lock, f"{os.getpid()} {self._verb}\n".encode())
            _clear_socket(home.socket)
            link_run(home)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self._held.close()


def lock_again(home: Home) -> int:
    """Put the lock's file back in a home that this process has locked; returns its descriptor.

    Raises a MeshError, also while somebody looks whether the home is free.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as held:
        file = _opened(home.lock, flags)
        held.callback(os.close, file)
        check_alone(home.lock, os.fstat(file))
        if not _lock(file):
            raise ConflictError(f"{home.lock} is locked by another process")
        _write(file, home.lock, f"{os.getpid()} {NODE}\n".encode())
        held.pop_all()
    return file


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in DISKS_FAULT:  # not of what is there
            raise unwritten(path, error) from None
        raise NotPermittedError(
            f"cannot lock {path}: {(error.strerror or str(error)).lower()}", "move it away"
        ) from None


def _write(file: int, path: Path, content: bytes) -> None:
    try:
        os.pwrite(file, content, 0)  # over what is there: that takes no room on a full disk
        os.ftruncate(file, len(content))
    except OSError as error:
        raise unwritten(path, error) from None


def _taken(home: Home, hint: Callable[[], str]) -> ConflictError:
    if runs_elsewhere(home):
        return ConflictError(f"a node already runs on {home.path}, {THERE}", HOW)
    (said, verb), holder = words_of(home), holder_of(home)
    who = f"{home.path} (pid {said or holder or 'unknown'})"
    if verb not in {"", NODE}:
        return ConflictError(
            f"session-mesh {verb} is at work on {who}", "wait for its end, or end it"
        )
    if holder is not None and not is_listening(home):
        return ConflictError(
            f"a node already runs on {who}, and has no socket that answers", socket_hint(holder)
        )
    shown = "session-mesh status shows it, session-mesh down stops it"
    return ConflictError(f"a node already runs on {who}", hint() or shown)


def _lock(descriptor: int) -> bool:
    """Take a lock; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a network's file system may lock files only
    return True


def _clear_socket(path: Path) -> None:
    """Remove what an ended node left; whatever else is there is not ours to remove."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConflictError(f"{path} is in the way: it is no socket", "move it away")
    path.unlink()
