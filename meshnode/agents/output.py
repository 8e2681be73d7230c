"""What an agent has written, read back from its session's directory.

Invariant: what is read is bounded by the size that the files had when reading began.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CHUNK_BYTES = 64 << 10


def read_log(directory: Path, tail_lines: int | None) -> Iterator[bytes]:
    """Yield an agent's output, oldest first, in chunks of at most 64 KiB, up to its size now.

    `tail_lines` bounds it to the last lines, found from the end; None means all that is kept.
    """
    with suppress(FileNotFoundError), (directory / "output.log").open("rb") as newest:
        parts = [newest]
        with suppress(FileNotFoundError):
            older = (directory / "output.log.1").open("rb")
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
