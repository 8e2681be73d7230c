"""What a node is told to be, once flags and configuration are merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.node.http_options import HttpOptions

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.app.directions import Direction
    from meshnode.core.settings import Budget
    from meshnode.ingest.reading import SourceConfig


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a node is told to be, flags and configuration merged."""

    listen: str
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    mdns: bool = True
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    on_exit: str = "keep"
    ingest: tuple[SourceConfig, ...] = ()
    prices: Path | None = None  # the user's; else prices.yaml in the home
    budgets: tuple[Budget, ...] = ()  # of this node alone, where the mesh has none of the name
    http: HttpOptions = field(default_factory=HttpOptions)
    directions: dict[str, Direction] = field(default_factory=dict)
