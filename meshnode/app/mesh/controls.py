"""What follows from the control set as entries come and go: the disk, the news, who is out.

Invariant: a forgotten node is no member, is not dialled and does not count, from the moment that
the entry arrives and after every restart, until it writes a newer member record. A node that hears
that it was forgotten itself says again what still holds, so nobody can silence one that runs. With
a revoked node links end when the revocation comes; it stays listed, and is nobody's neighbour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.mesh.revoking import REVOKED, RevokedNodes
from meshnode.core.effects import DropControl, Effect, HangUp, PersistControl, Report
from meshnode.core.errors import PeerError
from meshnode.core.feeds.rows import all_rows
from meshnode.core.links.broadcast import spread
from meshnode.core.links.linkgraph import NOBODY, standing_of
from meshnode.core.sessions.sessions import SESSIONS, session_from_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.control.control import ControlSet
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.links.liveness import Liveness
    from meshnode.core.links.overlay import Overlay
    from meshnode.core.tables.tables import Tables


class Controls:
    """The control set of one node, and what hangs on it."""

    def __init__(self, control: ControlSet, own: OwnFeed, tables: Tables, overlay: Overlay) -> None:
        self.revoked = RevokedNodes(control, tables)
        self._control = control
        self._own = own
        self._tables = tables
        self._overlay = overlay

    def stirred(self) -> bool:
        """Whether something follows from the control set that was not drawn yet."""
        return self._control.stirred() or self.revoked.stale

    def taken(self, entries: Iterable[Signed], source: NodeId | None) -> list[Effect]:
        """Store and pass on what is new here; `source` has it already.

        So is what has waited for one of them since our disk was read.
        """
        effects: list[Effect] = []
        for some, told in ((entries, source), (self._control.take_returned(), None)):
            for entry in some:
                effects.append(PersistControl(entry))
                effects += spread(entry, self._overlay.links, told)
        return effects + self._dropped()

    def expire(self, wall_s: float) -> list[Effect]:
        """Drop what has expired by now, in seconds since 1970."""
        self._control.expire(wall_s)
        return self._dropped()

    def say_again(self) -> None:
        """Write anew those of our own rows that are hidden and still hold."""
        if self._own.origin not in self._control.forgotten:
            return
        for (table, key), row in all_rows(self._own.rows).items():
            if row is None or not self._tables.hides(self._own.origin, table, row):
                continue
            if table != SESSIONS or not _has_ended(row.value):
                self._own.repeat(table, key)

    def dismiss(self, peer: NodeId, liveness: Liveness) -> None:
        """Let a node without a member record be no member, if it is forgotten."""
        if peer in self._control.forgotten and peer != self._own.origin:
            liveness.forget(peer)
            self._overlay.retire(peer)
            self._overlay.seen({peer})

    def shun(self) -> tuple[set[NodeId], list[Effect]]:
        """Part from whoever is revoked now and was not; return whose standing is another."""
        moved = self.revoked.renew()
        effects: list[Effect] = []
        for peer in sorted(filter(self.revoked.has, moved)):
            self._overlay.retire(peer)
            if peer == self._own.origin:
                effects.append(Report(REVOKED, None, "this node was revoked by the mesh"))
            elif peer in self._overlay.links:  # parting tells it the revocation too
                effects.append(HangUp(peer, REVOKED, parting=True))
        return moved, effects

    def disown(self, peer: NodeId, liveness: Liveness) -> None:
        """Let a revoked node be listed as that, and its links count for nothing."""
        self._overlay.retire(peer)
        liveness.hear(peer, standing_of(REVOKED, NOBODY, NOBODY))

    def _dropped(self) -> list[Effect]:
        dropped = self._control.take_dropped()
        return [DropControl(dropped)] if dropped else []


def _has_ended(session: bytes) -> bool:
    try:
        return session_from_row(session).ended
    except PeerError:
        return False  # of a later version of this node
