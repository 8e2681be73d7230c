"""Reading a database that nobody is writing, as far as is known; whoever does makes us read again.

Invariant: an answer is of a file that stayed as it was while it was read. SQLite reads such a file
without locks, and of one that changes it makes half of each state, or calls it damaged.
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from meshnode.core.errors import ConflictError
from meshnode.store.database import Database, has_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TRIES = 3  # each reads all that is asked for; then ConflictError
COUNTER_BYTES = (24, 4)  # where SQLite counts changes, and how long (sqlite.org/fileformat2, 1.3.7)

Result = TypeVar("Result")


class _Stamp(NamedTuple):
    """What shows that a file was written, or is about to be."""

    file: int
    size_bytes: int
    changed_ns: int
    counter: bytes
    has_log: bool


def read_frozen(
    reading: Callable[[Database], Result], opened: Callable[[], Database], path: Path
) -> Result:
    """Open a database as `frozen`, read and close it: again if it was written meanwhile.

    Raises what `opened` and `reading` raise, and ConflictError for a file that keeps changing.
    """
    for _ in range(TRIES):
        before = _stamp(path)
        try:
            with closing(opened()) as database:
                found = reading(database)
                if not database.is_immutable:
                    return found  # with locks: SQLite has kept its state for us
        except Exception:  # also what nobody raises of a sound file
            if _stamp(path) == before:
                raise
        else:
            if _stamp(path) == before:
                return found
    said = f"somebody writes into {path} again and again while it is read"
    raise ConflictError(said, "try again")


def read_home(path: Path, reading: Callable[[Database], Result], *, checked: bool) -> Result:
    """Do so with a home's database; `checked` looks through all of it before."""
    return read_frozen(reading, lambda: Database(path, checked=checked, frozen=True), path)


def _stamp(path: Path) -> _Stamp | None:
    try:
        with open(path, "rb", opener=lambda name, how: os.open(name, how | os.O_NONBLOCK)) as file:
            start, count = COUNTER_BYTES
            file.seek(start)
            counter = file.read(count)
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns, counter, has_log(path))
