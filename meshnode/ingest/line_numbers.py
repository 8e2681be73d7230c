"""Which lines of a log are meant by offsets: readers know bytes, and people look for lines."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from meshnode.ingest.lenient import file_named
from meshnode.ingest.rotated import PACKED

if TYPE_CHECKING:
    from collections.abc import Iterable

READ_BYTES_MAX = 256 << 20  # of one file, for all its lines: some 0.1 s; what is behind has no line
PIECE_BYTES = 1 << 20


def line_numbers(file: str, offsets: Iterable[int]) -> dict[int, int]:
    """Return the numbers, from 1 on, of the lines that begin at some offsets of a file.

    `file` as `file_text` writes it. Without those that cannot be read any more, or are too far in.
    """
    path, found = Path(file_named(file)), dict[int, int]()
    with suppress(OSError, EOFError, zlib.error):
        if not path.is_file():  # opening a pipe would wait for a writer
            return found
        with (gzip.open if path.suffix == PACKED else open)(path, "rb") as opened:
            number, at = 1, 0
            for offset in sorted(set(offsets)):
                while at < offset <= READ_BYTES_MAX:
                    piece = opened.read(min(offset - at, PIECE_BYTES))
                    if not piece:
                        return found
                    number, at = number + piece.count(b"\n"), at + len(piece)
                if at == offset:
                    found[offset] = number
    return found
