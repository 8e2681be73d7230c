"""When a session's output was written: an index beside each log, of one span a second.

Invariant: an index names its log by inode, and says at which byte of the session's whole output
that log begins, so that a position means the same through every rotation. Whoever reads one takes
it for a claim: the agent runs as the same user and may have written it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from struct import Struct, iter_unpack
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAGIC = b"smtimes1"
SPAN_S = 1.0  # output of one second is told apart no further
SPANS_MAX = 16384  # of one log, 384 KiB; then pairs of the older half become one each
POSITION_MAX = 1 << 62
_HEAD = Struct("<8sQQ")  # magic, inode of the log, where it begins
_SPAN = Struct("<ddQ")  # from, until (seconds since 1970), where its output begins
HEAD_BYTES = _HEAD.size
INDEX_BYTES_MAX = HEAD_BYTES + SPANS_MAX * _SPAN.size


class Times:
    """The index of one log, as its supervisor writes it; `clock` returns seconds since 1970."""

    def __init__(self, path: Path, inode: int, base: int, clock: Callable[[], float]) -> None:
        """Begin an index; raises OSError."""
        path.unlink(missing_ok=True)  # ours, or put there by the agent: never written through
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(path, flags, mode=0o600)
        self._inode = inode
        self._clock = clock
        self._count = 0
        self._from_s = 0.0
        try:
            self.begin_at(base)
        except OSError:
            os.close(self._fd)
            raise

    def begin_at(self, base: int) -> None:
        """Note at which byte of the whole output the log begins; raises OSError."""
        os.pwrite(self._fd, _HEAD.pack(MAGIC, self._inode, base), 0)

    def note(self, position: int) -> None:
        """Note that output is written at a position now; a full disk loses the note alone."""
        now_s = self._clock()
        if 0 <= now_s - self._from_s < SPAN_S:
            return
        with suppress(OSError):
            if self._count >= SPANS_MAX:
                self._thin()
            os.pwrite(self._fd, _SPAN.pack(now_s, now_s + SPAN_S, position), self._end)
            self._count += 1
            self._from_s = now_s

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    @property
    def _end(self) -> int:
        return _HEAD.size + self._count * _SPAN.size

    def _thin(self) -> None:
        """Make one span of every two in the older half: what is old is told less finely."""
        spans = list(iter_unpack(_SPAN.format, os.pread(self._fd, self._end, _HEAD.size)))
        half = len(spans) // 4 * 2
        merged = [(a[0], b[1], a[2]) for a, b in zip(spans[:half:2], spans[1:half:2], strict=True)]
        kept = merged + spans[half:]
        os.pwrite(self._fd, b"".join(_SPAN.pack(*span) for span in kept), _HEAD.size)
        self._count = len(kept)
        os.ftruncate(self._fd, self._end)


class Index(msgspec.Struct, frozen=True):
    """What an index claims: the log that it is of, where that begins, and its spans."""

    inode: int
    base: int
    spans: bytes

    def since(self, at_s: float) -> int | None:
        """Return where the output begins that was written from then on; None if there is none."""
        for _, until_s, begin in iter_unpack(_SPAN.format, self.spans):
            if until_s >= at_s:
                return min(int(begin), POSITION_MAX)
        return None


def index_of(raw: bytes) -> Index | None:
    """Read an index; None for what is none."""
    if len(raw) < _HEAD.size:
        return None
    magic, inode, base = _HEAD.unpack_from(raw)
    if magic != MAGIC or base > POSITION_MAX:
        return None
    whole = (len(raw) - _HEAD.size) // _SPAN.size * _SPAN.size
    return Index(inode, base, raw[_HEAD.size : _HEAD.size + whole])
