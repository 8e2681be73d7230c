"""Members of whose many sessions and agents all are to be looked at again, a piece at a time.

Invariant: each is looked at after the member was last entered; a member that is entered again and
again, each time by a few bytes, has everybody look at no more than one piece a turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.ids import NodeId

PIECE = 256  # things of one member, of all that are swept in turn
Item = TypeVar("Item")


class Sweeps(Generic[Item]):
    """What is left to look at; `things_of` says, when a sweep begins, what there is."""

    def __init__(self, things_of: Callable[[NodeId], list[Item]]) -> None:
        self._things_of = things_of
        self._left: dict[NodeId, list[Item]] = {}  # of those that have not begun nothing yet
        self._again: set[NodeId] = set()  # once the sweep that goes on has ended

    def __bool__(self) -> bool:
        """Whether there is anything left."""
        return bool(self._left)

    def enter(self, owner: NodeId) -> None:
        """Have all things of a member looked at, from now on."""
        if self._left.setdefault(owner, []):
            self._again.add(owner)

    def take(self) -> tuple[NodeId, list[Item]]:
        """Return some things of the member whose turn it is; only while there is any."""
        owner = next(iter(self._left))
        left = self._left.pop(owner) or self._things_of(owner)
        some, left = left[:PIECE], left[PIECE:]
        if left or owner in self._again:
            self._left[owner] = left
        if not left:
            self._again.discard(owner)
        return owner, some
