"""Which entries are read of all feeds, what removals name, and how far they ask feeds to be held.

Invariant: it says what the rows say, as far as they are read: of one origin the READ_MAX entries,
and the READ_MAX removals, whose keys come first, so that all who hold the same feed read the same.
A change costs what it writes, and a feed that was never taken up, or changed unseen, is read as a
whole once.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from meshnode.core.sessions.registry import REGISTRY, registry_key
from meshnode.core.tables.removals import AFTER_KEYS, REMOVAL_KEYS, REMOVALS, After, Removal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshnode.core.feeds.feed import Change, Replica
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.rows import Row
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.registry import Place
    from meshnode.core.tables.tables import Tables

READ_MAX = 1000  # of one origin, as many as an honest one writes; more are not in force


class Named:
    """An index over the tables `registry` and `removals` of all feeds."""

    def __init__(self, tables: Tables, replicas: Mapping[NodeId, Replica]) -> None:
        self._tables = tables
        self._replicas = replicas
        self._seen: dict[NodeId, Header | None] = {}  # up to where each feed was read
        self._entries: dict[NodeId, list[bytes]] = {}  # keys, in order
        self._keys: dict[NodeId, list[bytes]] = {}  # of removals, in order
        self._removals: dict[Place, dict[NodeId, Removal]] = {}  # those read, by who wrote them
        self._places: dict[NodeId, dict[bytes, Place]] = {}  # of those, by the keys of their rows
        self._afters: dict[NodeId, dict[NodeId, After]] = {}  # by whose feed it is, and by writer
        self._afters_of: dict[NodeId, dict[bytes, NodeId]] = {}  # by writer and key

    def take(self, change: Change) -> set[Place]:
        """Take a change that was applied; returns the places of which other adds are named."""
        origin, header = change.origin, change.header
        seen = self._seen.get(origin)
        if seen is not None and seen.epoch == header.epoch and change.flush is not None:
            if seen.last_seq >= header.last_seq:
                return set()  # read with what came after it
            if seen.last_seq + 1 == header.first_seq:
                self._seen[origin] = header
                rows = change.rows.items()
                puts = [self._put(origin, place, row) for place, row in rows]
                return set().union(*puts)
        return self._read_all(origin)

    def catch_up(self) -> None:
        """Read what has changed without being taken: feeds from a disk."""
        for origin, replica in self._replicas.items():
            if self._seen.get(origin) is not replica.header:
                self._read_all(origin)

    def entries_of(self, origin: NodeId) -> list[bytes]:
        """Return the keys of a node's entries that are read."""
        return self._entries.get(origin, [])[:READ_MAX]

    def is_read(self, origin: NodeId, place: Place) -> bool:
        """Whether an entry of a node is one of those that are read."""
        keys = self._entries.get(origin, ())
        return len(keys) <= READ_MAX or registry_key(place) <= keys[READ_MAX - 1]

    def at(self, place: Place) -> Iterator[tuple[NodeId, Removal]]:
        """Yield the removals of one entry, with who wrote them; none of a feed in quarantine."""
        for origin, removal in self._removals.get(place, {}).items():
            if self._tables.is_believed(origin):
                yield origin, removal

    def places(self) -> set[Place]:
        """Return the entries that anybody removes."""
        return set(self._removals)

    def places_of(self, origin: NodeId) -> set[Place]:
        """Return the entries that a node removes."""
        return set(self._places.get(origin, {}).values())

    def afters(self) -> Iterator[After]:
        """Yield what is asked of the feeds that are held at all."""
        for origin in self._afters.keys() & self._replicas.keys():
            for writer, after in self._afters[origin].items():
                if self._tables.is_believed(writer):
                    yield after

    def _read_all(self, origin: NodeId) -> set[Place]:
        touched = set(self._places.get(origin, {}).values())
        for key in list(self._places.get(origin, ())):
            self._leave(origin, key)
        for key in list(self._afters_of.get(origin, ())):
            self._put_after(origin, key, None)
        replica = self._replicas[origin]
        self._seen[origin] = replica.header
        self._entries[origin] = sorted(replica.rows.tables.get(REGISTRY, ()))
        rows = replica.rows.tables.get(REMOVALS, {})
        keys = self._keys[origin] = sorted(key for key in rows if key.startswith(REMOVAL_KEYS))
        for key in keys[:READ_MAX]:
            touched |= self._enter(origin, key, rows[key])
        for key, row in list(rows.items()):
            if key.startswith(AFTER_KEYS):
                self._put_after(origin, key, row)
        return touched

    def _put(self, origin: NodeId, at: tuple[str, bytes], row: Row | None) -> set[Place]:
        table, key = at
        if table == REGISTRY:
            _put_key(self._entries.setdefault(origin, []), key, there=row is not None)
        elif table != REMOVALS:
            return set()
        elif key.startswith(REMOVAL_KEYS):
            return self._put_removal(origin, key, row)
        elif key.startswith(AFTER_KEYS):
            self._put_after(origin, key, row)
        return set()

    def _put_removal(self, origin: NodeId, key: bytes, row: Row | None) -> set[Place]:
        keys = self._keys.setdefault(origin, [])
        at, is_held = _put_key(keys, key, there=row is not None)
        if at >= READ_MAX:
            return set()
        touched = self._leave(origin, key)
        if row is not None:
            touched |= self._enter(origin, key, row)
            if not is_held and len(keys) > READ_MAX:
                touched |= self._leave(origin, keys[READ_MAX])
        elif is_held and len(keys) >= READ_MAX:
            last = keys[READ_MAX - 1]
            touched |= self._enter(origin, last, self._replicas[origin].rows.get(REMOVALS, last))
        return touched

    def _enter(self, origin: NodeId, key: bytes, row: Row | None) -> set[Place]:
        removal = None if row is None else self._tables.removal_in(key, row)
        if not isinstance(removal, Removal):
            return set()
        self._removals.setdefault(removal.place, {})[origin] = removal
        self._places.setdefault(origin, {})[key] = removal.place
        return {removal.place}

    def _leave(self, origin: NodeId, key: bytes) -> set[Place]:
        place = self._places.get(origin, {}).pop(key, None)
        if place is None:
            return set()
        del self._removals[place][origin]
        if not self._removals[place]:
            del self._removals[place]
        return {place}

    def _put_after(self, writer: NodeId, key: bytes, row: Row | None) -> None:
        before = self._afters_of.setdefault(writer, {}).pop(key, None)
        if before is not None:
            del self._afters[before][writer]
            if not self._afters[before]:
                del self._afters[before]
        after = None if row is None else self._tables.removal_in(key, row)
        if isinstance(after, After):
            self._afters.setdefault(after.origin, {})[writer] = after
            self._afters_of[writer][key] = after.origin


def _put_key(keys: list[bytes], key: bytes, *, there: bool) -> tuple[int, bool]:
    """Enter a key in order, or take it out; returns its place, and whether it was there."""
    at = bisect_left(keys, key)
    is_held = keys[at : at + 1] == [key]
    if is_held and not there:
        del keys[at]
    elif there and not is_held:
        keys.insert(at, key)
    return at, is_held
