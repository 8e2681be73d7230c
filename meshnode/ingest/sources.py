"""The sources that usage is read from: how each is read, and where it is when nobody says.

Invariant: this is the only list of them; whoever adds one adds it here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.core.errors import UsageError
from meshnode.ingest import higress
from meshnode.ingest.reading import LineParser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from meshnode.ingest.reading import Parser, Reader


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of log or transcript.

    `reader` takes a path and, or None, the one session that is counted; `parser` reads a single
    file line by line; `standard` names the paths where this user's own may be, whether they exist
    or not, from the environment and the user's directory.
    """

    reader: Callable[[str, str | None], Reader]
    parser: Callable[[Path], Parser]
    standard: Callable[[Mapping[str, str], Path], list[str]]


SOURCES: Mapping[str, Source] = {
    higress.SOURCE: Source(
        reader=higress.HigressReader,
        parser=lambda path: LineParser(higress.parse_line, str(path)),
        standard=lambda _environment, _directory: list(higress.STANDARD_PATHS),
    ),
}


def source_named(name: str) -> Source:
    """Return a source; raises UsageError for one that nobody can read."""
    if name not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise UsageError(f"cannot read {name[:60]!r} logs", f"use one of {known}")
    return SOURCES[name]
