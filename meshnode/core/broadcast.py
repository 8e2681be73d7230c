"""Spreading news: what is new here goes to every neighbour but the one it came from.

Invariant: an item is forwarded by a node at most once, when it was new to that node; so each link
carries it at most twice, and a connected mesh hears everything that a connected mesh can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.effects import Effect, Send

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.ids import NodeId
    from meshnode.core.messages import Message


def spread(message: Message, links: Iterable[NodeId], source: NodeId | None) -> list[Effect]:
    """Return the sends that pass news on; `source` is None for our own."""
    return [Send(peer, message) for peer in sorted(links) if peer != source]
