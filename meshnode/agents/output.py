"""What a session's agent has written, read from its directory: as it is, or as it grows.

Invariant: only plain files of that directory are read, in bounded chunks; a reading in which
nothing is new yields an empty piece, so that nobody waits in a thread.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from meshnode.agents.log import LOG, LOG_BYTES_MAX, OLDER_LOG, OLDER_TIMES, TIMES
from meshnode.agents.times import HEAD_BYTES, INDEX_BYTES_MAX, index_of
from meshnode.core.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from meshnode.agents.times import Index

CHUNK_BYTES = 64 << 10
LOOKS_MAX = 8  # at logs that are being rotated; the last one counts


class Begin(msgspec.Struct, frozen=True):
    """Where a reading begins: the latest of those that are said; without any, with all there is.

    `position` counts bytes of the session's whole output, `since_s` seconds since 1970.
    """

    tail_lines: int | None = None
    since_s: float | None = None
    position: int | None = None


def read_log(directory: Path, begin: Begin) -> Iterator[bytes]:
    """Yield an agent's output, oldest first, in chunks of at most 64 KiB, up to its size now.

    Raises RefusedError for `since_s` where no times were noted.
    """
    with _opened(directory, timed=begin.since_s is not None) as parts:
        start = _tail_start(parts, begin.tail_lines)
        if begin.since_s is not None:
            start = max(start, _since(parts, begin.since_s) - _origin(parts))
        yield from _bytes_from(parts, start)


def follow_log(
    directory: Path, begin: Begin, *, ended: Callable[[], bool], enough: Callable[[], bool]
) -> Iterator[bytes]:
    """Yield a head, then an agent's output as it grows; an empty piece: there is none for now.

    The head is a line of JSON: `position` of what follows, how many bytes before it are `lost` of
    those that were asked for, and whether the session had `ended`: then all that follows is there.
    Otherwise it goes on until it is `enough`. Raises RefusedError where no positions are known.
    """
    has_ended = ended()  # before we look: what is written later belongs to no ended session
    with _opened(directory, timed=begin.since_s is not None) as parts:
        origin = _origin(parts)
        start = _tail_start(parts, begin.tail_lines)
        if begin.since_s is not None:
            start = max(start, _since(parts, begin.since_s) - origin)
        wanted = begin.position if begin.position is not None else origin + start
        position = max(wanted, origin + start)
        if position > origin + _size(parts) + LOG_BYTES_MAX:  # more than somebody may have cut off
            position = origin + _size(parts)
        lost = max(0, position - wanted)
        yield json.dumps({"position": position, "lost": lost, "ended": has_ended}).encode() + b"\n"
        for chunk in _bytes_from(parts, position - origin):
            position += len(chunk)
            yield chunk
    seen = None
    while not has_ended and not enough():
        yield b""
        if (now := _mark(directory)) == seen:
            continue
        seen = now
        with _opened(directory) as parts:
            origin = _origin(parts)
            if position < origin:
                return  # what was between is gone: the head of the next reading says so
            for chunk in _bytes_from(parts, position - origin):
                position += len(chunk)
                yield chunk


def is_kept(directory: Path) -> bool:
    """Whether there is output of a session, even if it is empty."""
    # In this order: a log that is being rotated becomes the older one.
    return any(os.path.lexists(directory / name) for name in (LOG, OLDER_LOG))


def written_at_s(directory: Path) -> float | None:
    """Return when output was written last, in seconds since 1970; None if there is none."""
    with suppress(OSError):
        info = (directory / LOG).stat(follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_size:
            return info.st_mtime
    return None


class _Part(msgspec.Struct, frozen=True):
    """A log that is open, as long as it is now, and its index if there is one."""

    file: BinaryIO
    size: int
    index: Index | None


@contextmanager
def _opened(directory: Path, *, timed: bool = False) -> Iterator[Sequence[_Part]]:
    """Open the logs, the older one first.

    Their indexes tell of times only if they are `timed`: who waits for more looks often.
    """
    for left in reversed(range(LOOKS_MAX)):
        with ExitStack() as opened:
            parts = _look(opened, directory, INDEX_BYTES_MAX if timed else HEAD_BYTES)
            if left and parts and _was_rotated(directory, parts[-1]):
                continue  # more than once, perhaps: then what we hold are no neighbours
            yield parts
            return


def _look(opened: ExitStack, directory: Path, index_bytes_max: int) -> Sequence[_Part]:
    files: list[BinaryIO] = []
    for name in (LOG, OLDER_LOG):
        with suppress(FileNotFoundError):
            file = opened.enter_context(_plain_file(directory / name))
            # Rotated between the two: the old one is the very file that we hold already.
            if not any(os.path.sameopenfile(file.fileno(), one.fileno()) for one in files):
                files.append(file)
    # In this order: a log that was cut begins later, and then grows.
    infos = [os.fstat(file.fileno()) for file in files]
    found = (_index_at(path, index_bytes_max) for path in _index_paths(directory))
    indexes = {one.inode: one for one in found if one}
    parts = [
        _Part(file, info.st_size, indexes.get(info.st_ino))
        for file, info in zip(files, infos, strict=True)
    ]
    return parts[::-1]


def _was_rotated(directory: Path, newest: _Part) -> bool:
    with suppress(OSError):
        return not os.path.samestat((directory / LOG).lstat(), os.fstat(newest.file.fileno()))
    return False


def _index_paths(directory: Path) -> tuple[Path, ...]:
    # Renamed away between two looks: the older one is looked at on both sides of the newest.
    return (directory / OLDER_TIMES, directory / TIMES, directory / OLDER_TIMES)


def _index_at(path: Path, bytes_max: int) -> Index | None:
    with suppress(FileNotFoundError), _plain_file(path) as file:
        return index_of(file.read(bytes_max))
    return None


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


def _mark(directory: Path) -> tuple[int, int] | None:
    """Return what changes whenever output is written."""
    with suppress(OSError):
        info = (directory / LOG).stat(follow_symlinks=False)
        return info.st_ino, info.st_size
    return None


def _size(parts: Sequence[_Part]) -> int:
    return sum(part.size for part in parts)


def _origin(parts: Sequence[_Part]) -> int:
    """Return the position of the first byte that is there; raises RefusedError."""
    if not parts:
        return 0
    newest = parts[-1]
    if newest.index is None:
        raise RefusedError(
            "this session was started by an older version, which noted no times of its output",
            "session-mesh logs without --follow and --since prints what there is",
        )
    return max(0, newest.index.base - _size(parts[:-1]))


def _since(parts: Sequence[_Part], at_s: float) -> int:
    """Return the position of what was written from then on, to a second; raises RefusedError."""
    end = _origin(parts) + _size(parts)
    found = (part.index.since(at_s) for part in parts if part.index)
    return next((position for position in found if position is not None), end)


def _bytes_from(parts: Sequence[_Part], start: int) -> Iterator[bytes]:
    """Yield what the parts hold from this byte of them on."""
    for part in parts:
        at = min(start, part.size)
        start -= at
        part.file.seek(at)
        left = part.size - at
        while left > 0 and (chunk := part.file.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk


def _tail_start(parts: Sequence[_Part], lines: int | None) -> int:
    """Return at which byte of the parts the last lines begin, found from the end."""
    if lines is None:
        return 0
    begins, end_is_a_line = _size(parts), True
    for part in reversed(parts):
        begins -= part.size
        start, lines = _tail(part.file, part.size, lines, ends_a_line=end_is_a_line)
        if start > 0 or lines == 0:
            return begins + start
        end_is_a_line = end_is_a_line and part.size == 0
    return 0


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
