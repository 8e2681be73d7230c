"""What SQLite says when a disk fails, as sentences that say what to do.

Invariant: a file is called damaged only when its content is; a disk that is full, read-only or
failing is called that, and nobody is told to move a sound database away.
"""

from __future__ import annotations

import os
import sqlite3
from shlex import quote
from typing import TYPE_CHECKING

from meshnode.core.errors import DamagedError, MeshError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

STOP = "session-mesh down --keep-sessions"
ROOM_BYTES_MIN = 64 << 10  # less free: an I/O error is taken for a full disk, as it usually is
_OF_THE_CALLER = (  # what was asked for was wrong, not the disk
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    sqlite3.NotSupportedError,
)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def is_of_the_disk(error: sqlite3.Error) -> bool:
    """Whether a statement failed for the disk's or the file's sake, not for its own."""
    return not isinstance(error, _OF_THE_CALLER)


def is_held(error: sqlite3.Error) -> bool:
    """Whether a statement failed because another process is at work on the file."""
    return _code(error) in _HELD


def storage_error(path: Path, error: sqlite3.Error) -> StorageError:
    """Say that a running node cannot use its database right now, and what helps."""
    code = _code(error)
    if code in _DAMAGED:
        return StorageError(f"the database {path} is damaged: {error}", _replace(path))
    if code == sqlite3.SQLITE_READONLY:
        fix = f"make {path.parent} writable again: mount -o remount,rw, or its permissions"
        return StorageError(f"{path} cannot be written: {error}", fix)
    if is_held(error):
        fix = "let it finish and try again, or end it"
        return StorageError(f"another process holds {path}: {error}", fix)
    return disk_error(path, str(error), full=code == sqlite3.SQLITE_FULL)


def opening_error(path: Path, error: sqlite3.Error) -> MeshError:
    """Say why a database cannot be opened: its content is damaged, or its disk fails."""
    code = _code(error)
    if code in _DAMAGED or code == sqlite3.SQLITE_ERROR:  # a table is missing that we once made
        return damaged(path, str(error))
    return storage_error(path, error)


def replaced(path: Path) -> StorageError:
    """Say that a file is not the one any more that a running node has open."""
    fix = f"move it back; or, to go on with what is there now: {STOP}, and start again"
    return StorageError(f"the database {path} was moved or replaced under a running node", fix)


def disk_error(path: Path, detail: str, *, full: bool = False) -> StorageError:
    """Say that a disk has no room, or fails; an error of a disk without room is told as that."""
    free = free_bytes(path)
    if full or (free is not None and free < ROOM_BYTES_MIN):
        fix = f"free some room where {path.parent} is: df -h {path.parent} shows it"
        return StorageError(f"the disk that holds {path} is full", fix)
    fix = f"look at the disk that holds {path.parent}: dmesg tells of errors"
    return StorageError(f"the database {path} fails: {detail}", fix)


def damaged(path: Path, detail: str) -> DamagedError:
    """Say that a database is of no use, and what to do."""
    return DamagedError(
        f"the database {path} is damaged: {detail.splitlines()[-1]}", _replace(path)
    )


def _replace(path: Path) -> str:
    # A node that runs writes on into what was moved, and what it wrote last is in the -wal.
    old, aside = quote(str(path)), quote(f"{path}.damaged")
    return (
        f"{STOP} where a node runs; then move it aside with its -wal and -shm "
        f"(mkdir {aside} && mv {old} {old}-* {aside}) and start again: peers return this node's "
        "rows, logs its ledger"
    )


def _code(error: sqlite3.Error) -> int:
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return extended & 0xFF


def free_bytes(path: Path) -> int | None:
    """Return what is free on the disk of a file; None where that is not told."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize if disk.f_blocks else None
