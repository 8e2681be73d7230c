"""What a log was rotated into: which files, in which order, and which of them are not read.

Invariant: whoever reads a log and whoever asks which files are its own get the same answer.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PACKED = ".gz"
OTHER_PACKED = (".bz2", ".xz", ".zst")  # told of, and not read
FILES_MAX = 512  # looked at, the newest; older ones are told, and not read


def owns(paths: Sequence[str]) -> Callable[[str], bool]:
    """Make what tells whether a file is the log of one of these paths, or was rotated from it."""
    logs = list(map(Path, paths))

    def is_owned(file: str) -> bool:
        at = Path(file)
        return any(
            at == log or (at.parent == log.parent and _rotated_name(log).fullmatch(at.name))
            for log in logs
        )

    return is_owned


def files(path: str) -> list[Path]:
    """List what there is of a log now that can be read, what was rotated first."""
    log = Path(path)
    return [*rotated(beside(log)), *([log] if log.exists() and is_readable(log) else [])]


def is_readable(path: Path) -> bool:
    """Tell whether a file is packed in no way but the one that is read."""
    return path.suffix not in OTHER_PACKED


def left_out(path: Path, found: list[Path]) -> str:
    """Say what beside a log, and of itself, is not read, and what to do; "" if all is."""
    unread = [one for one in (*found, path) if not is_readable(one)]
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        hint = "unpack it, or let logrotate use gzip"
        return f"not read since it was packed: {unread[-1]}{more}: {hint}"
    count = sum(map(is_readable, found)) - FILES_MAX
    if count <= 0:
        return ""
    older = f"{count} older files that {path} was rotated into"
    return f"{older} are not looked at: name them with --path"


def rotated(found: list[Path]) -> list[Path]:
    """Return what is read of those beside a log, the oldest first."""
    return [path for path in found if is_readable(path)][-FILES_MAX:]


def beside(path: Path) -> list[Path]:
    """List what a log was rotated into, the oldest first."""
    named = _rotated_name(path).fullmatch
    aged: list[tuple[int, Path]] = []
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if named(entry.name) and entry.name != path.name:
                with suppress(FileNotFoundError):
                    aged.append((entry.stat().st_mtime_ns, Path(entry.path)))
    return [found for _, found in sorted(aged)]


@lru_cache(64)
def _rotated_name(path: Path) -> re.Pattern[str]:
    """Match what a name is rotated into: NAME.1, NAME-DATE, STEM-DATE.EXT, each also packed.

    By logrotate, or by programs themselves: Go's lumberjack has STEM-2026-11-20T09-30-15.123.EXT.
    """
    date = r"[.-]\d[\dTZ_.:-]*"
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    packed = "|".join(map(re.escape, (PACKED, *OTHER_PACKED)))
    aged = rf"{stem}{suffix}{date}|{stem}-\d{{4}}-?\d\d-?\d\d[\dTZ_.:-]*{suffix}"
    return re.compile(rf"(?:{aged})(?:{packed})?")
