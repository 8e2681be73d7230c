"""Forgotten nodes: up to which write of each its rows are hidden, on whose word.

Invariant: what is hidden follows from the forgets that are held and from who may say so now,
whatever their order. An entry is looked at when it comes, when it goes, and when its issuer's role
becomes one that may forget, or ceases to: never because somebody else was revoked.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from meshnode.core.feeds.heads import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.control.entries import Forget
    from meshnode.core.control.rolebook import RoleBook
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId

MAY_FORGET = frozenset({"operator", "admin"})


class Hidden:
    """What is hidden of which nodes."""

    def __init__(self, roles: RoleBook) -> None:
        self._roles = roles
        self._said: dict[bytes, dict[bytes, Forget]] = {}  # by issuer and entry
        self._believed: set[bytes] = set()  # those of the issuers who may say so
        self._counting: dict[NodeId, list[tuple[Head, bytes]]] = {}  # what they say, highest last
        self._moved: set[NodeId] = set()
        self.heads: dict[NodeId, Head] = {}  # the highest that counts of each

    def add(self, entry_id: bytes, issuer: bytes, forget: Forget) -> None:
        """Take an entry that is stored."""
        said = self._said.setdefault(issuer, {})
        if not said and self._may(issuer):
            self._believed.add(issuer)
        said[entry_id] = forget
        if issuer in self._believed:
            self._count(entry_id, forget)

    def drop(self, entry_id: bytes, issuer: bytes, forget: Forget) -> None:
        """Leave out one that made room."""
        if issuer in self._believed:
            self._discount(entry_id, forget)
        del self._said[issuer][entry_id]
        if not self._said[issuer]:
            del self._said[issuer]
            self._believed.discard(issuer)

    def reconsider(self, keys: Iterable[bytes]) -> None:
        """Look at the roles of these keys again, those that have forgotten anybody."""
        for issuer in self._said.keys() & keys:
            if self._may(issuer) == (issuer in self._believed):
                continue
            self._believed ^= {issuer}
            step = self._count if issuer in self._believed else self._discount
            for entry_id, forget in self._said[issuer].items():
                step(entry_id, forget)

    def reconsider_all(self) -> None:
        """Do that for all, since there are other roots."""
        self.reconsider(list(self._said))

    @property
    def has_moved(self) -> bool:
        """Whether `take_moved` would return anybody."""
        return bool(self._moved)

    def take_moved(self) -> set[NodeId]:
        """Return the nodes of which more, or less, is hidden since this was last asked."""
        moved, self._moved = self._moved, set()
        return moved

    def _may(self, issuer: bytes) -> bool:
        return self._roles.now(issuer) in MAY_FORGET

    def _count(self, entry_id: bytes, forget: Forget) -> None:
        insort(self._counting.setdefault(forget.node, []), (forget.head, entry_id))
        self._note(forget.node)

    def _discount(self, entry_id: bytes, forget: Forget) -> None:
        counting = self._counting[forget.node]
        del counting[bisect_left(counting, (forget.head, entry_id))]
        if not counting:
            del self._counting[forget.node]
        self._note(forget.node)

    def _note(self, node: NodeId) -> None:
        counting = self._counting.get(node)
        head = counting[-1][0] if counting else NOTHING
        if head == self.heads.get(node, NOTHING):
            return
        self._moved.add(node)
        if head == NOTHING:
            del self.heads[node]
        else:
            self.heads[node] = head
