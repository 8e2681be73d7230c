"""The sources that usage is read from: how each is read, and where it is when nobody says.

Invariant: this is the only list of them; whoever adds one adds it here and nowhere else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import UsageError
from meshnode.ingest import claude, codex, gemini, higress, places, rotated
from meshnode.ingest.reading import LineParser
from meshnode.ingest.tree import TreeReader, files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from meshnode.ingest.reading import Parser, Reader, SourceConfig
    from meshnode.ingest.tree import Format

NOWHERE = Path(os.devnull)  # nothing is below it


class Source(msgspec.Struct, frozen=True):
    """One kind of log or transcript.

    `reader` takes a path and, or None, the one session that is counted; `parser` reads a single
    file of what is read at a path, line by line; `standard` names the paths where this user's own
    may be, whether they exist or not, from the environment and the user's directory; `owns` makes
    what tells whether a file belongs to what is read at any of some paths, and is asked of every
    file ever read; `files` lists those of a path, and `is_whole` which are one document.
    `telling` makes a reader that also brings what was said, None if such logs do not hold it.
    """

    reader: Callable[[str, str | None], Reader]
    parser: Callable[[Path, str], Parser]
    standard: Callable[[Mapping[str, str], Path], list[str]]
    owns: Callable[[Sequence[str]], Callable[[str], bool]]
    files: Callable[[str], Iterable[Path]]
    is_whole: Callable[[Path], bool]
    is_tree: bool = True  # of many files: found where it usually is, and worth being watched
    variable: str = ""  # of the environment: the user's word for where it is
    telling: Callable[[str, str | None], Reader] | None = None


def transcripts(
    found: Format,
    marks: Sequence[bytes],
    standard: Callable[[Mapping[str, str], Path], list[str]],
    variable: str = "",
) -> Source:
    """Describe a source that is a tree of files, whose lines of usage bear one of these marks."""
    return Source(
        reader=lambda root, session: TreeReader(found, root, session, marks),
        parser=lambda file, root: found.begin(file, b"", Path(root)),
        standard=standard,
        owns=_below,
        files=lambda root: map(Path, files_of(found, Path(root))),
        is_whole=found.is_whole,
        variable=variable,
    )


def _below(roots: Sequence[str]) -> Callable[[str], bool]:
    """Make what tells whether a file is one of these roots, or below one."""
    themselves = frozenset(roots)
    begins = tuple(os.path.join(root, "") for root in roots)  # noqa: PTH118 - as texts, whatever they are
    return lambda file: file.startswith(begins) or file in themselves


SOURCES: Mapping[str, Source] = {
    claude.SOURCE: transcripts(
        claude.Transcripts(), claude.MARKS, places.of_claude, places.CLAUDE_VARIABLE
    ),
    codex.SOURCE: transcripts(
        codex.Rollouts(), codex.MARKS, places.of_codex, places.CODEX_VARIABLE
    ),
    gemini.SOURCE: transcripts(
        gemini.Chats(), gemini.MARKS, places.of_gemini, places.GEMINI_VARIABLE
    ),
    higress.SOURCE: Source(
        reader=higress.HigressReader,
        parser=lambda file, _path: LineParser(higress.parse_line, str(file)),
        standard=lambda _environment, _directory: list(higress.STANDARD_PATHS),
        owns=rotated.owns,
        files=rotated.files,
        is_whole=lambda _path: False,
        is_tree=False,
        telling=lambda path, session: higress.HigressReader(path, session, with_rounds=True),
    ),
}


def standard_paths(source: Source, environment: Mapping[str, str]) -> list[str]:
    """Name where this user's logs may be: what is in a home that nobody knows, below NOWHERE.

    Raises UsageError for a place that is said to be in that.
    """
    try:
        home = Path("~").expanduser()
    except RuntimeError:
        if environment.get(source.variable, "").lstrip().startswith("~"):
            said = f"whose home directory {source.variable} means is not known"
            raise UsageError(said, "set HOME, or write it out") from None
        home = NOWHERE
    return source.standard(environment, home)


def source_named(name: str) -> Source:
    """Return a source; raises UsageError for one that nobody can read."""
    if name not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise UsageError(f"cannot read {name[:60]!r} logs", f"use one of {known}")
    return SOURCES[name]


def check_kind(name: str, path: Path) -> None:
    """Raise UsageError for what exists and is nothing that a source can be read from."""
    if not path.exists():
        return
    if path.is_file():
        unread = rotated.OTHER_PACKED
        if path.suffix in ((*unread, rotated.PACKED) if SOURCES[name].is_tree else unread):
            raise UsageError(f"{path} is packed", "unpack it, and name what comes out")
        return
    if not SOURCES[name].is_tree:
        kind = "a directory" if path.is_dir() else "neither a file nor a directory"
        raise UsageError(f"{path} is {kind}: {name} logs are files", "name the log itself")
    if not path.is_dir():
        raise UsageError(f"{path} is neither a file nor a directory", "name one that is")


def reader_of(config: SourceConfig) -> Reader:
    """Make the reader of a log; raises UsageError for a source that nobody can read so."""
    found = source_named(config.source)
    if not config.messages:
        return found.reader(config.path, config.session_key)
    if found.telling is None:
        raise UsageError(*no_messages(config.source))
    return found.telling(config.path, config.session_key)


def no_messages(name: str) -> tuple[str, str]:
    """Say that no messages are kept of a source, and of which they are."""
    able = ", ".join(sorted(one for one, source in SOURCES.items() if source.telling))
    return f"messages are not kept of {name}", f"they are of: {able}"
