"""Watching the audit logs of others: what their heads say, and when they contradict each other.

Invariant: of two heads of a node that contradict each other the first stays what is believed, both
are kept as proof, and the contradiction is told once. News that is older than what was seen, as a
relay may bring it after a restart, accuses nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.core.commands.audit import contradiction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshnode.core.commands.audit import AuditHead, Wrong
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed

KEPT_EVERY_S = 60.0  # of one node, unless it contradicts itself
ACCUSED_MAX = 4  # times that one node is, until we start again: more would prove no more


class Seen(msgspec.Struct, frozen=True):
    """A head, when it was seen here, and which write of its node's feed said so."""

    head: AuditHead
    signed: Signed
    seen_s: float
    place: Head
    trouble: str = ""  # what it proves together with another one of the same words


class Witness:
    """What one node has seen of the others' logs: the newest head of each, and what to keep."""

    def __init__(
        self, newest: Mapping[NodeId, Seen], on_trouble: Callable[[NodeId, Wrong], None]
    ) -> None:
        self._newest = dict(newest)
        self._kept_s = {node: seen.seen_s for node, seen in newest.items()}
        self._on_trouble = on_trouble
        self._accused: dict[NodeId, int] = {}
        self._to_keep: dict[tuple[NodeId, str, int], Seen] = {}

    def see(self, seen: Seen) -> None:
        """Take a head that a node has published."""
        node = seen.head.node
        last = self._newest.get(node)
        if last is not None:
            wrong = contradiction(last.head, seen.head)
            newer = seen.place > last.place
            if wrong is not None and (newer or seen.head.seq == last.head.seq):
                self._accuse(last, seen, wrong)
            if not newer:
                return
            if seen.place.epoch != last.place.epoch:
                self._keep(last)  # whoever had another disk in between may have had another log
        self._newest[node] = seen
        if last is None or not 0 <= seen.seen_s - self._kept_s[node] < KEPT_EVERY_S:
            self._keep(seen)  # also after a clock that was ahead: its time may be years away

    def take(self, *, last: bool = False) -> list[Seen]:
        """Return what is to be kept since this was last asked; with `last` the newest of all."""
        if last:
            for node, seen in self._newest.items():
                if seen.seen_s != self._kept_s[node]:
                    self._keep(seen)
        taken, self._to_keep = list(self._to_keep.values()), {}
        return taken

    def forget(self, node: NodeId) -> None:
        """Begin anew with a node."""
        self._newest.pop(node, None)
        self._kept_s.pop(node, None)
        self._accused.pop(node, None)
        self._to_keep = {place: one for place, one in self._to_keep.items() if place[0] != node}

    def _keep(self, seen: Seen) -> None:
        self._kept_s[seen.head.node] = seen.seen_s
        self._to_keep[seen.head.node, seen.trouble, seen.head.seq] = seen

    def _accuse(self, last: Seen, seen: Seen, wrong: Wrong) -> None:
        times = self._accused[last.head.node] = self._accused.get(last.head.node, 0) + 1
        if times > ACCUSED_MAX:
            return
        for number, one in enumerate((last, seen)):
            place = (one.head.node, wrong.what, number)
            self._to_keep.setdefault(place, replace(one, trouble=wrong.what))
        self._on_trouble(seen.head.node, wrong)
