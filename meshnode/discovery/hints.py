"""What discovery exchanges with the rest of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId


class Announcement(msgspec.Struct, frozen=True):
    """What this node says about itself."""

    node_id: NodeId
    mesh_id: str
    addresses: tuple[str, ...]  # IPv4, without port; none: this node listens only
    port: int
    loopback_only: bool


class Hint(msgspec.Struct, frozen=True):
    """Somebody said that a node listens there."""

    node_id: NodeId
    mesh_id: str
    addresses: tuple[str, ...]  # host:port
    name: str = ""  # by which its announcement is taken back
