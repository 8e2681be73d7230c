"""What is shown of too many things of many nodes: of each node as many as of any other.

Invariant: no member takes the places of others by telling of more, nor makes an answer too large.
"""

from __future__ import annotations

from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.ids import NodeId

Item = TypeVar("Item")


def some_of_each(found: Iterable[tuple[NodeId, Item]], most: int) -> list[tuple[NodeId, Item]]:
    """Return at most so many, all if there are no more, in turn of each node that has any left."""
    of_node: dict[NodeId, list[tuple[NodeId, Item]]] = {}
    for one in found:
        of_node.setdefault(one[0], []).append(one)
    turns = chain.from_iterable(zip_longest(*of_node.values()))
    return list(islice((one for one in turns if one is not None), most))
