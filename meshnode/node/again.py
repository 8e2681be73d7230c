"""What a running node was started with, and the line that starts it again with more flags.

Invariant: it serves a hint alone. What cannot be kept, or read, is not in the line.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.client.home import home_at
from meshnode.node.options import UpOptions, told_from, told_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshnode.client.home import Home

    Flags = list[tuple[str, object]]  # each with its value, which says nothing if it is empty

CHARS_MAX = 1 << 20  # more than arguments can have


def keep(home: Home, options: UpOptions) -> None:
    """Note what the node of this home was started with."""
    with suppress(OSError):
        _kept_at(home).write_text(told_of(home, options))


def hint(home: Home, options: UpOptions) -> str:
    """Return how the node that runs on this home gets the flags of another `up`; "" for no flag."""
    if not list(_words(_flags(options))):
        return ""
    words = list(_words([*_flags(_kept(home)), *_flags(options)]))
    given = [] if home.path == home_at(None).path else ["--home", str(home.path)]
    down = shlex.join(["session-mesh", *given, "down", "--keep-sessions"])
    up = shlex.join(["session-mesh", *given, "up", "--detach", *words])
    return f"to start it anew with that, its agents live on: {down} && {up}"


def _kept(home: Home) -> UpOptions:
    try:
        with _kept_at(home).open() as file:
            return told_from(file.read(CHARS_MAX))[1]
    except (OSError, ValueError, TypeError, LookupError, AttributeError):  # of another version
        return UpOptions()


def _kept_at(home: Home) -> Path:
    return home.run / "up.json"


def _flags(options: UpOptions) -> Flags:
    http = options.http
    return [
        ("--name", options.name),
        ("--listen", options.listen),
        ("--advertise", options.advertise),
        *(("--seed", one) for one in options.seeds),
        ("--mdns", options.mdns),
        *(("--label", f"{key}={value}") for key, value in options.labels.items()),
        ("--config", options.config and options.config.absolute()),
        ("--http", http.listen),
        ("--http-tls", http.tls),
        ("--http-tls-cert", http.certificate),
        ("--http-tls-key", http.key),
        *(("--http-host", one) for one in http.hosts),
        *(("--http-origin", one) for one in http.origins),
        ("--metrics", http.metrics),
    ]


def _words(flags: Flags) -> Iterator[str]:
    """Write flags as they are typed: of each the last, or one for each thing that it names."""
    told = {_about(flag, value): (flag, value) for flag, value in flags if value not in {None, ""}}
    for flag, value in told.values():
        match value:
            case True:
                yield flag
            case False:
                yield flag.replace("--", "--no-", 1)
            case _:
                yield from (flag, str(value))


def _about(flag: str, value: object) -> str:
    if flag == "--label":
        return f"{flag} {str(value).partition('=')[0]}"
    return f"{flag} {value}" if flag in {"--seed", "--http-host", "--http-origin"} else flag
