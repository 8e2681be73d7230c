"""Where logs of this machine's agents are: as the user says, or the environment, or as usual."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.client.home import expanded
from meshnode.core.errors import NotFoundError, UsageError
from meshnode.ingest.reading import SourceConfig
from meshnode.ingest.sources import (
    NOWHERE,
    SOURCES,
    check_kind,
    no_messages,
    source_named,
    standard_paths,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def sources_at(
    names: Sequence[str], paths: Sequence[str]
) -> tuple[list[SourceConfig], dict[str, NotFoundError]]:
    """Find what to read: the paths given, or what exists of the standard places.

    What the environment names is read, or its absence told, whether it exists or not. Of `names`
    those that are nowhere come second, with what is to be said of them. Raises UsageError for
    unknown sources, for paths of an unsaid source and for what is no log's kind, NotFoundError for
    a path that does not exist.
    """
    for name in names:
        source_named(name)
    if paths:
        if len(names) != 1:
            raise UsageError(
                "a path needs to know what it holds", f"add --source {'|'.join(sorted(SOURCES))}"
            )
        places = list(map(expanded, paths))
        for path, place in zip(paths, places, strict=True):
            if not place.exists():
                raise NotFoundError(f"there is no {path}", "name a file or a directory that exists")
            check_kind(names[0], place)
        return [SourceConfig(names[0], str(place.absolute())) for place in places], {}
    found: list[SourceConfig] = []
    missing: dict[str, NotFoundError] = {}
    for name in names or sorted(SOURCES):
        is_named = bool(os.environ.get(SOURCES[name].variable, "").strip())
        standard = standard_paths(SOURCES[name], os.environ)
        here = [path for path in standard if Path(path).exists()]
        if names and not here:
            missing[name] = _nowhere(name, standard)
        found += [SourceConfig(name, path) for path in (standard if is_named else here)]
    return found, missing


def _nowhere(name: str, standard: Sequence[str]) -> NotFoundError:
    if all(Path(path).is_relative_to(NOWHERE) for path in standard):
        said = f"no {name} logs here: this user has no home directory that is known"
        return NotFoundError(said, "set HOME, or name them with --path")
    told = f"no {name} logs here: looked for {', '.join(standard)}"
    return NotFoundError(told, "name them with --path")


def all_names(configs: Iterable[SourceConfig]) -> tuple[str, ...]:
    """Return where sources are, also by the names that links in their paths lead to."""
    paths = [config.path for config in configs]
    return tuple(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))


def with_messages(configs: Iterable[SourceConfig], names: Sequence[str]) -> list[SourceConfig]:
    """Let sources bring what was said; raises UsageError for one of `names` that does not hold it.

    Of those that nobody has named, the ones that can do so.
    """
    for name in names:
        if SOURCES[name].telling is None:
            raise UsageError(*no_messages(name))
    return [replace(one, messages=SOURCES[one.source].telling is not None) for one in configs]
