"""What `up` is told, and the text it travels in to the process that will be the node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from meshnode.client.home import Home


class HttpFlags(msgspec.Struct, frozen=True):
    """The flags of `up` for HTTP: on, off or an address; files of a certificate and its key."""

    listen: str | None = None
    tls: bool | None = None
    certificate: str = ""
    key: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    metrics: str | None = None


class UpOptions(msgspec.Struct, frozen=True):
    """The flags of `up`; what is None is left to the configuration and the defaults."""

    listen: str | None = None
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    mdns: bool | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    name: str | None = None
    config: Path | None = None
    json_ready: bool = False
    http: HttpFlags = msgspec.field(default_factory=HttpFlags)


def told_of(home: Home, options: UpOptions) -> str:
    """Write what a node is told as a text, for the process that it will be."""
    config = None if options.config is None else str(options.config.absolute())
    told = asdict(options) | {"http": asdict(options.http)}
    return json.dumps(told | {"home": str(home.path), "config": config})


def told_from(text: str) -> tuple[Home, UpOptions]:
    """Read what a node is told."""
    told: dict[str, Any] = json.loads(text)
    home, config = Home(Path(told.pop("home"))), told.pop("config")
    told["seeds"] = tuple(told["seeds"])
    http: dict[str, Any] = told.pop("http")
    for name in ("hosts", "origins"):
        http[name] = tuple(http[name])
    told["http"] = HttpFlags(**http)
    return home, UpOptions(**told, config=None if config is None else Path(config))
