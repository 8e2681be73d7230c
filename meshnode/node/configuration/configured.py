"""What a configuration says, apart from what reads it: a node without one loads no YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.node.configuration.http_options import HttpOptions

if TYPE_CHECKING:
    from meshnode.app.sessions.directions import Direction
    from meshnode.core.control.settings import Budget
    from meshnode.ingest.reading import SourceConfig


class Config(msgspec.Struct, frozen=True):
    """What a node is told to be; None leaves it to the flags and the defaults."""

    node: str | None = None
    listen: str | None = None
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    on_exit: str = "keep"
    mdns: bool | None = None
    ingest: tuple[SourceConfig, ...] = ()
    prices: str | None = None  # a file, from where the configuration is
    budgets: tuple[Budget, ...] = ()
    http: HttpOptions = msgspec.field(default_factory=HttpOptions)
    directions: dict[str, Direction] = msgspec.field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # sentences for the log: known, but not by this version
