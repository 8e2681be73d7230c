"""Secrets on disk, each in a file that is the user's alone: 32 bytes in base64, unless encrypted.

Invariant: a key file is never followed through a link, never readable by others, never shown; what
could not be written whole is not there.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    MeshError,
    NotFoundError,
    NotPermittedError,
    StorageError,
)
from meshnode.core.keys import KEY_BYTES

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o644
FILE_BYTES_MAX = 4096


def write_secret(path: Path, secret: bytes) -> None:
    """Write 32 bytes into a new file; raises ConflictError if there is one already."""
    write_private(path, b64encode(secret) + b"\n")


def write_private(path: Path, content: bytes) -> None:
    """Write a new file for the user alone; raises ConflictError if there is one already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, PRIVATE_MODE)
    except FileExistsError:
        raise ConflictError(f"{path} exists already", "move it away first") from None
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        _write(descriptor, content)
    except OSError as error:
        path.unlink()  # an empty key would be in the way of every later attempt
        raise _unwritten(path, error) from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is no secret, all of it or nothing; raises a MeshError."""
    draft = path.with_name(path.name + ".new")
    try:
        _write(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PUBLIC_MODE), content)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _unwritten(path, error) from None


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _unwritten(path: Path, error: OSError) -> MeshError:
    said = f"cannot write {path}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(said, f"free some room: df -h {path.parent} shows it")
    return NotPermittedError(said)


def read_private(path: Path) -> bytes:
    """Read a file of the user's alone; raises a MeshError that says what is wrong with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing") from None
    except OSError as error:
        raise NotPermittedError(
            f"cannot read {path}: {error.strerror}", "key files are plain files, never links"
        ) from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):  # Python opens no file on one
        os.close(descriptor)
        raise NotPermittedError(f"{path} is no plain file")
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise NotPermittedError(f"{path} is no plain file")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise NotPermittedError(f"{path} is open to other users", f"run: chmod 600 {path}")
        return file.read(FILE_BYTES_MAX)


def read_secret(path: Path) -> bytes:
    """Read 32 bytes; raises a MeshError that says what is wrong with the file."""
    try:
        secret = b64decode(read_private(path), validate=False)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise DamagedError(f"{path} holds no key", "restore it from a backup, or join again")
    return secret
