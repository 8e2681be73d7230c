"""Secrets on disk, each in a file that is the user's alone: 32 bytes in base64, unless encrypted.

Invariant: a secret is read only from a plain file of this user that nobody else may open, in a
place where nobody else could have put it; never followed through a link, never waited for, never
shown. What could not be written whole and synced is not there.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.client.home import check_surroundings, unwritten
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    NotFoundError,
    NotPermittedError,
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
    """Write a new file for the user alone; raises ConflictError if there is one already.

    A crash leaves all of it or nothing under its name.
    """
    draft = _draft(path)
    try:
        if os.path.lexists(path):  # asked at every start: a full disk must not be written to then
            raise FileExistsError
        _write(draft, content, PRIVATE_MODE)
        take_name(draft, path)
        _sync(path.parent)
    except FileExistsError:
        raise ConflictError(f"{path} exists already", "move it away first") from None
    except OSError as error:
        raise unwritten(path, error) from None
    finally:
        _discard(draft)


def write_whole(path: Path, content: bytes, mode: int = PUBLIC_MODE) -> None:
    """Write a file, in the place of what is there, all of it or nothing; raises a MeshError."""
    draft = _draft(path)
    try:
        _write(draft, content, mode)
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise unwritten(path, error) from None
    finally:
        _discard(draft)


def remove_whole(path: Path) -> None:
    """Remove a file for good, also if the power fails at once; raises a MeshError."""
    try:
        path.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise unwritten(path, error) from None


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.new")


def _discard(draft: Path) -> None:
    with suppress(OSError):  # a read-only disk refuses this too, and has been told of by then
        draft.unlink(missing_ok=True)


def _write(draft: Path, content: bytes, mode: int) -> None:
    draft.unlink(missing_ok=True)  # of a process with our id that did not come to its end
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def take_name(draft: Path, path: Path) -> None:
    """Give a draft its name unless it is taken; raises FileExistsError."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise
    except OSError:  # a stick's file system has no links: another process could come between
        if os.path.lexists(path):
            raise FileExistsError from None
        draft.rename(path)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)  # or the name may be lost with the power
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without synced directories
            raise
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> bytes:
    """Read 32 bytes; raises a MeshError that says what is wrong with the file."""
    try:
        secret = b64decode(read_private(path), validate=False)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise DamagedError(f"{path} holds no key", "restore it from a backup, or join again")
    return secret


def read_private(path: Path) -> bytes:
    """Read a file of the user's alone; raises a MeshError that says what is wrong with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing") from None
    except OSError as error:
        raise NotPermittedError(
            f"cannot read {path}: {error.strerror}", "key files are plain files, never links"
        ) from None
    try:
        check_alone(path, os.fstat(descriptor))
        check_surroundings(path.parent)
        return os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def check_alone(path: Path, info: os.stat_result) -> None:
    """Raise NotPermittedError unless it is a plain file that this user alone may open."""
    if not stat.S_ISREG(info.st_mode):
        raise NotPermittedError(f"{path} is no plain file", "move it away, restore a backup")
    if info.st_uid != os.getuid():
        raise NotPermittedError(
            f"{path} belongs to another user",
            f"if it is yours, as root: chown {os.getuid()} {path}",
        )
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise NotPermittedError(f"{path} is open to other users", f"run: chmod 600 {path}")


def tighten(path: Path) -> None:
    """Close a file of ours, if it is there, to others; raises NotPermittedError if it is not ours.

    For what older versions left readable: a log, a database.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise NotPermittedError(
            f"cannot open {path}: {error.strerror}", "it has to be a plain file, never a link"
        ) from None
    try:
        info = os.fstat(descriptor)
        if stat.S_ISREG(info.st_mode) and info.st_uid == os.getuid():
            os.fchmod(descriptor, PRIVATE_MODE)
        check_alone(path, os.fstat(descriptor))
    finally:
        os.close(descriptor)
