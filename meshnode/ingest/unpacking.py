"""A packed log, read as if it were not packed, in pieces that follow one another.

Invariant: what is asked for in ascending order is unpacked once; a step back of at most KEPT_BYTES
costs nothing, a longer one begins anew, and every answer is what the whole file says there.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from meshnode.ingest.reading import LINE_BYTES_MAX

if TYPE_CHECKING:
    from typing import BinaryIO

KEPT_BYTES = LINE_BYTES_MAX + (1 << 16)  # a line that was cut off, and what leads up to it
STEP_BYTES = 1 << 20  # unpacked at a time on the way to a place


class Unpacked:
    """Owns the packed file; raises what `gzip` raises for one that is broken."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._file = gzip.GzipFile(fileobj=raw)
        self._head: bytes | None = None  # the first line
        self._at = 0  # where the next read begins
        self._end = 0  # how far it is unpacked
        self._kept = b""  # what leads up to there

    def fileno(self) -> int:
        """Return the descriptor of the packed file."""
        return self._raw.fileno()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._raw.close()

    def seek(self, offset: int) -> None:
        """Go to a place of what is unpacked."""
        self._at = offset

    def readline(self, size: int) -> bytes:
        """Return the first line, or so many bytes of it, from wherever one is."""
        if self._head is None:
            self.seek(0)
            line, newline, _ = self.read(size).partition(b"\n")
            self._head = line + newline
        return self._head[:size]

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""
        if self._at < self._end - len(self._kept):
            self._file.rewind()
            self._end, self._kept = 0, b""
        while self._end < self._at:
            if not self._more(min(self._at - self._end, STEP_BYTES)):
                return b""
        behind = self._end - self._at
        known = self._kept[len(self._kept) - behind :][:size] if behind else b""
        found = known + self._more(size - len(known))
        self._at += len(found)
        return found

    def _more(self, size: int) -> bytes:
        found = self._file.read(size) if size > 0 else b""
        self._end += len(found)
        self._kept = (self._kept + found[-KEPT_BYTES:])[-KEPT_BYTES:] if found else self._kept
        return found
