"""Short ids in `links` rows that no member has yet, and who lists them: looked at once one has it.

Invariant: a member waits for what its row names now, for MARKS_MAX of that at most, and for nothing
once it is gone: a row costs its writer some bytes, and may name others each time.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING

from meshnode.app.sets import Sets

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from meshnode.core.ids import NodeId

MARKS_MAX = 64  # of a row that lists more unknown ones, those beyond are not waited for


class Awaited:
    """Who waits for which short ids."""

    def __init__(self) -> None:
        self._by_mark: Sets[bytes, NodeId] = Sets()
        self._of: dict[NodeId, list[bytes]] = {}

    def __len__(self) -> int:
        """Count the short ids that are waited for."""
        return len(self._by_mark)

    def expect(self, peer: NodeId, marks: Iterable[bytes]) -> None:
        """Let a member wait for these, and for nothing else."""
        for mark in self._of.pop(peer, ()):
            self._by_mark.put(mark, peer, there=False)
        wanted = nsmallest(MARKS_MAX, marks)
        if wanted:
            self._of[peer] = wanted
        for mark in wanted:
            self._by_mark.put(mark, peer, there=True)

    def come(self, mark: bytes) -> AbstractSet[NodeId]:
        """Return who has waited for a member with this short id; they wait for it no longer."""
        return self._by_mark.pop(mark)
