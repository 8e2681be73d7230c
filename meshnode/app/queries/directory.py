"""Who may have a specialization: an index from words to rows, kept as rows change.

Invariant: every readable row of a session or a registration is under its words. What an index names
is looked at again when asked, so a row that is hidden or gone by now is not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.sessions.registry import REGISTRY
from meshnode.core.sessions.sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meshnode.core.effects import Announce
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.registry import Registration
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.core.tables.tables import Tables

    Place = tuple[NodeId, bytes]  # whose row, under which key
    Words = frozenset[tuple[str, str]]  # AGENT, STARTED or REGISTERED, and the word

AGENT, STARTED, REGISTERED = "agent", "started", "registered"


class Directory:
    """Rows of all feeds by the words that they are asked for by."""

    def __init__(self, tables: Tables, replicas: Mapping[NodeId, Replica]) -> None:
        self._tables = tables
        self._replicas = replicas
        self._said: dict[NodeId, dict[tuple[str, bytes], Words]] = {}
        self._places: dict[tuple[str, str], dict[Place, None]] = {}

    def take(self, news: Announce) -> None:
        """Follow what the mesh announces."""
        origin = news.origin
        if origin not in self._said or origin is None:
            return  # read when somebody asks
        if news.replaced:
            for place in list(self._said[origin]):
                self._put(origin, place, frozenset())
            del self._said[origin]
            return
        for table, key in news.places:
            if table in (SESSIONS, REGISTRY):
                self._put(origin, (table, key), self._words(origin, table, key))

    def sessions_of(self, agent_id: str) -> Iterator[tuple[NodeId, SessionRecord]]:
        """Return the sessions of an agent, with their owners."""
        return self._sessions((AGENT, agent_id))

    def started_for(self, specialization: str) -> Iterator[tuple[NodeId, SessionRecord]]:
        """Return the sessions that were started with a specialization, with their owners."""
        return self._sessions((STARTED, specialization))

    def registered_for(self, specialization: str) -> Iterator[tuple[NodeId, Registration]]:
        """Return all registrations for a specialization, those being removed too."""
        for origin, key in self._found((REGISTERED, specialization)):
            registration = self._tables.registration(origin, key)
            if registration is not None:
                yield origin, registration

    def _sessions(self, word: tuple[str, str]) -> Iterator[tuple[NodeId, SessionRecord]]:
        for origin, key in self._found(word):
            record = self._tables.session_at(origin, key)
            if record is not None:
                yield origin, record

    def _found(self, word: tuple[str, str]) -> list[Place]:
        for origin in [one for one in self._replicas if one not in self._said]:
            self._read(origin)
        return sorted(self._places.get(word, ()))

    def _read(self, origin: NodeId) -> None:
        self._said[origin] = {}
        for table in (SESSIONS, REGISTRY):
            for key in self._replicas[origin].rows.tables.get(table, ()):
                self._put(origin, (table, key), self._words(origin, table, key))

    def _words(self, origin: NodeId, table: str, key: bytes) -> Words:
        if table == REGISTRY:
            registration = self._tables.registration(origin, key)
            if registration is None:
                return frozenset()
            return frozenset({(REGISTERED, registration.entry.specialization)})
        record = self._tables.session_at(origin, key)
        if record is None:
            return frozenset()
        return frozenset(
            {(AGENT, record.agent_id), *((STARTED, w) for w in record.specializations)}
        )

    def _put(self, origin: NodeId, place: tuple[str, bytes], words: Words) -> None:
        said, row = self._said[origin], (origin, place[1])
        before = said.get(place, frozenset())
        for word in before - words:
            del self._places[word][row]
            if not self._places[word]:
                del self._places[word]
        for word in words - before:
            self._places.setdefault(word, {})[row] = None
        if words:
            said[place] = words
        else:
            said.pop(place, None)
