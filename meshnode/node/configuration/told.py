"""What a node is told to be, once flags and configuration are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.client.home import expanded
from meshnode.core.membership.members import check_labels
from meshnode.discovery.seeds import check_advertised, check_seed, parse_address
from meshnode.node.configuration.configured import Config
from meshnode.node.configuration.http_options import HttpOptions, http_of
from meshnode.node.configuration.pricing import named_in
from meshnode.node.presence.addresses import DEFAULT_LISTEN

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.app.sessions.directions import Direction
    from meshnode.client.home import Home
    from meshnode.core.control.settings import Budget
    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.configuration.options import UpOptions

# What an invite told, by the names under which the disk keeps it:
LABELS_FACT = "labels"
RETURNED_FACT = "returned"  # the leaving that this home has joined after


class NodeOptions(msgspec.Struct, frozen=True):
    """What a node is told to be, flags and configuration merged."""

    listen: str
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    mdns: bool = True
    name: str | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    on_exit: str = "keep"
    ingest: tuple[SourceConfig, ...] = ()
    prices: Path | None = None  # the user's; else prices.yaml in the home
    budgets: tuple[Budget, ...] = ()  # of this node alone, where the mesh has none of the name
    http: HttpOptions = msgspec.field(default_factory=HttpOptions)
    directions: dict[str, Direction] = msgspec.field(default_factory=dict)


def config_of(home: Home, options: UpOptions) -> Config:
    """Read what configures a node: the file that is named, else its home's, if it has one."""
    path = options.config or home.config
    if options.config is None and not path.exists():
        return Config()
    from meshnode.node.configuration.config import load_config  # noqa: PLC0415 - YAML, and the readers of logs

    return load_config(path)


def _located(source: SourceConfig, config: Path) -> SourceConfig:
    """Name a log from where the configuration lies: a detached node is somewhere else."""
    return replace(source, path=str(config.absolute().parent / expanded(source.path)))


def merged(home: Home, config: Config, options: UpOptions) -> NodeOptions:
    """Put flags over configuration, and that over defaults; raises UsageError."""
    mdns = options.mdns if options.mdns is not None else config.mdns
    if options.listen is not None:
        parse_address(options.listen)
    if options.advertise is not None:
        check_advertised(options.advertise)
    for seed in options.seeds:
        check_seed(seed)
    labels = config.labels | options.labels
    check_labels(labels)
    listen = options.listen or config.listen or DEFAULT_LISTEN
    http = http_of(options.http, config.http.located(options.config or home.config))
    http.check_beside(listen)
    return NodeOptions(
        listen=listen,
        advertise=options.advertise or config.advertise,
        seeds=options.seeds or config.seeds,
        mdns=True if mdns is None else mdns,
        name=options.name or config.node,
        labels=labels,
        on_exit=config.on_exit,
        ingest=tuple(_located(one, options.config or home.config) for one in config.ingest),
        prices=named_in(options.config or home.config, config.prices),
        budgets=config.budgets,
        http=http,
        directions=config.directions,
    )
