"""Views over all feeds: every table, decoded, with the node that wrote each row.

Invariant: a row that cannot be decoded is counted and passed over; it never hides another row. What
a forgotten node had written until then is hidden, but for the tables in KEPT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from meshnode.core.commands.audit import AUDIT, AuditHead, head_from_row
from meshnode.core.errors import PeerError
from meshnode.core.feeds.forks import Forks
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.ledger.ledger import LEDGER, DiagnosticsKey
from meshnode.core.ledger.ledger_rows import diagnostics_from_row, key_from_row, slot_from_row
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_from_row,
    node_from_row,
)
from meshnode.core.sessions.registry import REGISTRY, Registration, registration_from_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, session_from_row
from meshnode.core.tables.removals import REMOVALS, RemovalsRow, removals_from_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.core.feeds.feed import Replica
    from meshnode.core.feeds.rows import Row
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.core.ledger.ledger import LedgerRow

Decoded = TypeVar("Decoded")
KEPT = frozenset({LEDGER, REMOVALS})  # of forgotten nodes too: what is spent, or gone, stays so
ID_CHARS = 12  # of a node id, where its name is not known
NOTHING_FORGOTTEN: Mapping[NodeId, Head] = {}
UNREADABLE = object()  # what a row means that cannot be decoded, or is of a newer version


class Tables:
    """Read access to what all feeds say. What a row means is kept with it."""

    def __init__(
        self,
        replicas: Mapping[NodeId, Replica],
        forks: Forks | None = None,
        forgotten: Mapping[NodeId, Head] = NOTHING_FORGOTTEN,
    ) -> None:
        self._replicas = replicas
        self._forks = Forks() if forks is None else forks
        self._forgotten = forgotten  # up to which write their rows are hidden
        self.unreadable = 0

    def origins(self) -> list[NodeId]:
        """Return every node that has written anything."""
        return [origin for origin, replica in self._replicas.items() if replica.header]

    def node(self, origin: NodeId, *, forgotten: bool = False) -> NodeRecord | None:
        """Return a member record; with `forgotten` also the last one of a forgotten node."""
        return self._one(
            origin, NODE, ONLY_ROW, lambda _key, row: node_from_row(row), forgotten=forgotten
        )

    def name_of(self, origin: NodeId) -> str:
        """Return what a node calls itself, forgotten or not; the start of its id if not known."""
        record = self.node(origin, forgotten=True)
        return record.name if record else origin[:ID_CHARS]

    def hides(self, origin: NodeId, table: str, row: Row) -> bool:
        """Whether a row is one of those that a forgotten node is not to be shown by."""
        head = self._forgotten.get(origin, NOTHING)
        return Head(row.epoch, row.seq) <= head and table not in KEPT

    def is_forgotten(self, origin: NodeId) -> bool:
        """Whether a node was forgotten, and has said nothing since."""
        return origin in self._forgotten and self.node(origin) is None

    def is_believed(self, origin: NodeId) -> bool:
        """Whether what a node has written is shown: its feed is not in quarantine."""
        return not self._forks.has(origin)

    def links(self, origin: NodeId) -> LinksRecord | None:
        """Return whom a member says to be linked to."""
        return self._one(origin, LINKS, ONLY_ROW, lambda _key, row: links_from_row(row))

    def audit_head(self, origin: NodeId) -> tuple[AuditHead, Signed] | None:
        """Return where a node says that its audit log is, and the same as it has signed it."""
        return self._one(origin, AUDIT, ONLY_ROW, lambda _key, row: head_from_row(row, origin))

    def sessions(self, *, forgotten: bool = False) -> Iterator[tuple[NodeId, SessionRecord]]:
        """Return all sessions with their owners; with `forgotten` those of forgotten nodes too."""
        return self._all(SESSIONS, lambda _key, row: session_from_row(row), forgotten=forgotten)

    def sessions_of(self, origin: NodeId) -> list[SessionRecord]:
        """Return all sessions of one owner, which are asked for whenever anything changes."""
        replica = self._replicas.get(origin)
        if replica is None or self._is_hidden(origin, SESSIONS):
            return []
        rows = replica.rows.tables.get(SESSIONS, {})
        if origin in self._forgotten or any(row.meaning is None for row in rows.values()):
            return list(self._of(origin, SESSIONS, lambda _key, row: session_from_row(row)))
        found = [row.meaning for row in rows.values() if row.meaning is not UNREADABLE]
        return cast("list[SessionRecord]", found)

    def session(self, origin: NodeId, session_id: str) -> SessionRecord | None:
        """Return one session of one owner."""
        return self.session_at(origin, session_id.encode())

    def session_at(self, origin: NodeId, key: bytes) -> SessionRecord | None:
        """Return one session of one owner, by the key of its row."""
        return self._one(origin, SESSIONS, key, lambda _key, row: session_from_row(row))

    def registration(self, origin: NodeId, key: bytes) -> Registration | None:
        """Return one registration."""
        return self._one(origin, REGISTRY, key, registration_from_row)

    def removal(self, origin: NodeId, key: bytes) -> RemovalsRow | None:
        """Return one row of what a node says about removed entries."""
        row = self._one(origin, REMOVALS, key, removals_from_row)
        return cast("RemovalsRow | None", row)

    def removal_in(self, key: bytes, row: Row) -> RemovalsRow | None:
        """Return what a row says about removed entries, hidden or not."""
        value = self._meaning(key, row, removals_from_row)
        return None if value is UNREADABLE else cast("RemovalsRow", value)

    def ledger(self) -> Iterator[tuple[NodeId, LedgerRow]]:
        """Return all ledger rows of all owners: slots, and what was read but not counted."""
        return self._all(LEDGER, _ledger_from_row)

    def shows_ledger(self, origin: NodeId) -> bool:
        """Whether the ledger of an origin counts: not while its feed is in quarantine."""
        return not self._is_hidden(origin, LEDGER)

    def ledger_keys(self, origin: NodeId) -> list[bytes]:
        """Return the keys of all ledger rows of one owner."""
        replica = self._replicas.get(origin)
        return [] if replica is None else list(replica.rows.tables.get(LEDGER, ()))

    def ledger_row(self, origin: NodeId, key: bytes) -> LedgerRow | None:
        """Return one ledger row of one owner."""
        return self._one(origin, LEDGER, key, _ledger_from_row)  # type: ignore[return-value] # pairs of one kind

    def _all(
        self,
        table: str,
        decode: Callable[[bytes, bytes], Decoded | None],
        *,
        forgotten: bool = False,
    ) -> Iterator[tuple[NodeId, Decoded]]:
        for origin in list(self._replicas):
            for value in self._of(origin, table, decode, forgotten=forgotten):
                yield origin, value

    def _of(
        self,
        origin: NodeId,
        table: str,
        decode: Callable[[bytes, bytes], Decoded | None],
        *,
        forgotten: bool = False,
    ) -> Iterator[Decoded]:
        replica = self._replicas.get(origin)
        if replica is None or self._is_hidden(origin, table):
            return
        head = NOTHING if forgotten or table in KEPT else self._forgotten.get(origin, NOTHING)
        for key, row in list(replica.rows.tables.get(table, {}).items()):
            if head is not NOTHING and Head(row.epoch, row.seq) <= head:
                continue
            value = row.meaning  # asked here: there may be a hundred thousand rows
            if value is None:
                value = self._meaning(key, row, decode)
            if value is not UNREADABLE:
                yield value  # type: ignore[misc] # one decoder a table

    def _one(
        self,
        origin: NodeId,
        table: str,
        key: bytes,
        decode: Callable[[bytes, bytes], Decoded | None],
        *,
        forgotten: bool = False,
    ) -> Decoded | None:
        replica = self._replicas.get(origin)
        shut = replica is None or self._is_hidden(origin, table)
        row = None if replica is None or shut else replica.rows.get(table, key)
        if row is None or (not forgotten and self.hides(origin, table, row)):
            return None
        value = self._meaning(key, row, decode)
        return None if value is UNREADABLE else value  # type: ignore[return-value] # one decoder a table

    def _meaning(
        self, key: bytes, row: Row, decode: Callable[[bytes, bytes], Decoded | None]
    ) -> object:
        return row.decoded(lambda value: self._decode(key, value, decode))

    def _is_hidden(self, origin: NodeId, table: str) -> bool:
        """Of a feed in quarantine only the member record shows, as the same for everybody."""
        return table != NODE and self._forks.has(origin)

    def _decode(
        self, key: bytes, value: bytes, decode: Callable[[bytes, bytes], Decoded | None]
    ) -> object:
        try:
            decoded = decode(key, value)
        except (PeerError, ValueError, TypeError, RecursionError, OverflowError):
            self.unreadable += 1  # whatever a peer has signed: one bad row stays one bad row
            return UNREADABLE
        return UNREADABLE if decoded is None else decoded


def _ledger_from_row(key: bytes, row: bytes) -> LedgerRow | None:
    counter = key_from_row(key)
    if counter is None:
        return None  # a kind of a newer version
    if isinstance(counter, DiagnosticsKey):
        return counter, diagnostics_from_row(row)
    return counter, slot_from_row(row)
