"""What a session's agent has written, read from its directory.

Invariant: only plain files of that directory are read, in bounded chunks.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from meshnode.core.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CHUNK_BYTES = 64 << 10


def read_log(directory: Path, tail_lines: int | None) -> Iterator[bytes]:
    """Yield an agent's output, oldest first, in chunks of at most 64 KiB, up to its size now.

    `tail_lines` bounds it to the last lines, found from the end; None means all that is kept.
    """
    with suppress(FileNotFoundError), _plain_file(directory / "output.log") as newest:
        parts = [newest]
        with suppress(FileNotFoundError):
            older = _plain_file(directory / "output.log.1")
            # Rotated between the two: the old one is the very file that we hold already.
            if os.path.sameopenfile(older.fileno(), newest.fileno()):
                older.close()
            else:
                parts.append(older)
        try:
            yield from _read_parts(parts, tail_lines)
        finally:
            for part in parts:
                part.close()


def _plain_file(path: Path) -> BinaryIO:
    """Open a log; what the agent may have put in its place is neither followed nor waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError:
        raise _not_a_log(path) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _not_a_log(path)
    return os.fdopen(fd, "rb")


def _not_a_log(path: Path) -> RefusedError:
    return RefusedError(f"the session's {path.name} is no plain file", "somebody has replaced it")


def _read_parts(newest_first: Sequence[BinaryIO], tail_lines: int | None) -> Iterator[bytes]:
    spans: list[tuple[BinaryIO, int, int]] = []
    lines, end_is_a_line = tail_lines, True
    for file in newest_first:
        size = os.fstat(file.fileno()).st_size
        start = 0
        if lines is not None:
            start, lines = _tail(file, size, lines, ends_a_line=end_is_a_line)
            end_is_a_line = end_is_a_line and size == 0
        spans.append((file, start, size))
        if start > 0 or lines == 0:
            break
    for file, start, size in reversed(spans):
        file.seek(start)
        left = size - start
        while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def _tail(file: BinaryIO, size: int, lines: int, *, ends_a_line: bool) -> tuple[int, int]:
    """Return where the last lines begin, and how many are still to be found in an older file."""
    if lines <= 0:
        return size, 0
    end = size
    while end > 0:
        start = max(end - CHUNK_BYTES, 0)
        file.seek(start)
        block = file.read(end - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at == size - 1 and ends_a_line:
                continue  # the last line's own end begins no other line
            lines -= 1
            if lines == 0:
                return start + at + 1, 0
        end = start
    return 0, lines
