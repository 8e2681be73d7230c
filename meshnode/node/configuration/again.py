"""What a running node was started with, and the line that starts it again with more flags.

Invariant: it serves a hint alone. What cannot be kept, or read, is not in the line; and no line is
offered that would stop a node and not start it.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.client.home import home_at, read_plain
from meshnode.core.errors import MeshError
from meshnode.node.configuration.options import HttpFlags, UpOptions, told_from, told_of
from meshnode.node.configuration.told import config_of, merged
from meshnode.node.names import checked_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meshnode.client.home import Home

    Flags = list[tuple[str, object]]  # each with its value, which says nothing if it is empty

# Of what another version kept, or a disk has spoilt.
SHAPES = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
CHARS_MAX = 1 << 20  # more than arguments can have


def keep(home: Home, options: UpOptions) -> None:
    """Note what the node of this home was started with."""
    with suppress(OSError):
        _kept_at(home).write_text(told_of(home, options))


def hint(home: Home, options: UpOptions) -> str:
    """Return how the node that runs on this home gets the flags of another `up`; "" for no flag."""
    if not list(_words(options)):
        return ""
    try:
        words = list(_words(_together(_kept(home), options, home)))
    except MeshError:
        return ""
    except SHAPES:
        words = list(_words(options))
    given = [] if home.path == home_at(None).path else ["--home", str(home.path)]
    down = shlex.join(["session-mesh", *given, "down", "--keep-sessions"])
    up = shlex.join(["session-mesh", *given, "up", "--detach", *words])
    return f"to start it anew with that, its agents live on: {down} && {up}"


def _together(before: UpOptions, now: UpOptions, home: Home) -> UpOptions:
    """Put new flags over those of before; what names more adds up.

    Raises a MeshError if no node starts with them, and what is in SHAPES if those of before are
    none.
    """
    together = UpOptions(
        listen=now.listen or before.listen,
        advertise=now.advertise or before.advertise,
        seeds=_each(before.seeds, now.seeds),
        mdns=before.mdns if now.mdns is None else now.mdns,
        labels=before.labels | now.labels,
        name=now.name or before.name,
        config=now.config or before.config,
        http=_http_together(before.http, now.http),
    )
    if together.name:
        checked_name(together.name)
    merged(home, config_of(home, together), together).http.check_files()
    return together


def _http_together(before: HttpFlags, now: HttpFlags) -> HttpFlags:
    if now.tls is not None or now.certificate or now.key:  # one way to a certificate ends the other
        before = replace(before, tls=None)
    if now.tls is not None:
        before = replace(before, certificate="", key="")
    return HttpFlags(
        listen=before.listen if now.listen is None else now.listen,
        tls=before.tls if now.tls is None else now.tls,
        certificate=now.certificate or before.certificate,
        key=now.key or before.key,
        hosts=_each(before.hosts, now.hosts),
        origins=_each(before.origins, now.origins),
        metrics=before.metrics if now.metrics is None else now.metrics,
    )


def _each(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*before, *now]))


def _kept(home: Home) -> UpOptions:
    try:
        return told_from(read_plain(_kept_at(home), CHARS_MAX).decode())[1]
    except (OSError, UnicodeDecodeError):
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


def _words(options: UpOptions) -> Iterator[str]:
    """Write flags as they are typed."""
    for flag, value in _flags(options):
        match value:
            case None | "":
                pass
            case True:
                yield flag
            case False:
                yield flag.replace("--", "--no-", 1)
            case _:
                yield from (flag, str(value))
