"""Finding the files of a tree, however deep it is and whatever lies in it.

Invariant: no recursion follows what is on disk, and no link to a directory leads on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEPTH_MAX = 16  # below where one begins; deeper directories are not looked into


def entries(directory: str | Path, failures: list[OSError]) -> list[os.DirEntry[str]]:
    """List a directory; what keeps it from being listed is added to the failures."""
    try:
        with os.scandir(directory) as found:
            return list(found)
    except OSError as error:
        failures.append(error)
        return []


def leads_on(entry: os.DirEntry[str]) -> bool:
    """Whether something is a directory, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def files_below(directory: str | Path, failures: list[OSError]) -> Iterator[os.DirEntry[str]]:
    """Find all that is no directory. What cannot be listed is added to the failures."""
    waiting = [(str(directory), 0)]
    while waiting:
        path, depth = waiting.pop()
        for entry in entries(path, failures):
            if not entry.is_dir(follow_symlinks=False):
                yield entry
            elif depth < DEPTH_MAX:
                waiting.append((entry.path, depth + 1))


def first_below(root: Path, path: Path, name: str) -> int:
    """Return where in a path's parts the first directory of a name below a root is; 0 for none.

    Of a file that was named itself it is the last one above it.
    """
    parts = path.parts[:-1]
    if root == path:
        found = [place for place, part in enumerate(parts) if part == name]
        return found[-1] if found else 0
    begin = len(root.parts)
    return parts.index(name, begin) if name in parts[begin:] else 0


def tell(failures: list[OSError]) -> None:
    """Raise the first failure that is more than something gone."""
    for failure in failures:
        if not isinstance(failure, FileNotFoundError):
            raise failure
