"""Secrets on disk: 32 bytes in base64, in a file that is the user's alone.

Invariant: a key file is never followed through a link, never readable by others, never shown.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from meshnode.core.errors import ConflictError, DamagedError, NotFoundError, NotPermittedError
from meshnode.core.keys import KEY_BYTES

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_MODE = 0o600
FILE_BYTES_MAX = 4096


def write_secret(path: Path, secret: bytes) -> None:
    """Write 32 bytes into a new file; raises ConflictError if there is one already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, PRIVATE_MODE)
    except FileExistsError:
        raise ConflictError(f"{path} exists already", "move it away first") from None
    except OSError as error:
        raise NotPermittedError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(b64encode(secret) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_secret(path: Path) -> bytes:
    """Read 32 bytes; raises a MeshError that says what is wrong with the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing") from None
    except OSError as error:
        raise NotPermittedError(
            f"cannot read {path}: {error.strerror}", "key files are plain files, never links"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise NotPermittedError(f"{path} is no plain file")
        if stat.S_IMODE(info.st_mode) & 0o077:
            raise NotPermittedError(f"{path} is open to other users", f"run: chmod 600 {path}")
        text = file.read(FILE_BYTES_MAX)
    try:
        secret = b64decode(text, validate=False)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise DamagedError(f"{path} holds no key", "restore it from a backup, or join again")
    return secret
