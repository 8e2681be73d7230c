"""Answering about cost from the rows of all ledgers: app/cost/shortcut.py says the same sooner.

Invariant: a row says whose it is; where it does not, its session does, if the session's id proves
that it is of the node that tells of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.cost.cutting import OF_WHOSE, Span, Texts
from meshnode.app.cost.shelves import Whose
from meshnode.app.cost.tally import Combination
from meshnode.app.pieces import chunks
from meshnode.core.errors import PeerError
from meshnode.core.ledger.counts import MONTHS, SLOTS, counter_of, weight_of
from meshnode.core.ledger.ledger import LEDGER, SLOT_S, Diagnostics, DiagnosticsKey
from meshnode.core.ledger.ledger_rows import diagnostics_from_row, key_from_row
from meshnode.core.periods import DAY_S, month_start_s
from meshnode.core.sessions.sessions import is_proved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.app.cost.cost import Adding
    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Counter, Weight
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.core.tables.tables import Tables

    Steps = Iterator[None]


NOBODY = Whose("", "", "")


class Costing:
    """One query on its way to an answer, from all rows."""

    def __init__(self, tables: Tables, replicas: Mapping[NodeId, Replica], adding: Adding) -> None:
        self.adding = adding
        self._tables = tables
        self._replicas = replicas
        self._cutting = adding.cutting
        self._known: dict[str, tuple[NodeId, SessionRecord]] = {}  # sessions, and who tells of them
        self._proved: dict[str, Whose] = {}  # those that were asked for; of one unproved, nothing

    def steps(self) -> Steps:
        """Add everything up."""
        yield from self._learn_sessions()
        yield from self._all_rows(self._origins())

    def _origins(self) -> list[NodeId]:
        node_id = self._cutting.query.node_id
        asked = list(self._replicas) if node_id is None else [node_id]
        return [origin for origin in asked if self._tables.shows_ledger(origin)]

    def _all_rows(self, origins: Iterable[NodeId]) -> Steps:
        for origin in origins:
            replica = self._replicas.get(origin)
            # All of one moment: a roll-up moves counts from row to row in the pauses.
            rows = list(replica.rows.tables.get(LEDGER, {}).items()) if replica else []
            yield
            for some in chunks(rows):
                for key, row in some:
                    self._take_row(origin, key, row.value)
                yield

    def _take_row(self, origin: NodeId, key: bytes, value: bytes) -> None:
        counter, weight = counter_of(key), weight_of(value)
        if counter is None:
            self._diagnose(_diagnostics(key, value))
        elif weight is not None:
            self._add(origin, counter, weight)

    def _add(self, origin: NodeId, counter: Counter, weight: Weight) -> None:
        what = Combination(counter.model, weight.provider, counter.tier)
        texts = Texts(origin, counter.session, weight.agent, weight.owner, weight.project)
        self.adding.row(what, span_of(counter), self._filled(texts), weight.counts)

    def _filled(self, texts: Texts) -> Texts:
        """Fill in whose a row is, where the log does not say and the mesh knows the session."""
        session = texts.session
        if session not in self._known or (texts.agent and texts.owner and texts.project):
            return texts
        known = self._proved.get(session)
        if known is None:  # proved when a row needs it: a mesh has very many sessions
            told = self._known[session]
            known = self._proved[session] = whose_of(told[1]) if is_proved(*told) else NOBODY
        return texts._replace(
            agent=texts.agent or known.agent,
            owner=texts.owner or known.owner,
            project=texts.project or known.project,
        )

    def _learn_sessions(self) -> Steps:
        if not OF_WHOSE.intersection(self._cutting.by):
            return
        sessions = self._tables.sessions(forgotten=True)
        for some in chunks(sessions):
            for origin, one in some:
                if one.session_id not in self._known or is_proved(origin, one):
                    self._known[one.session_id] = origin, one
            yield

    def _diagnose(self, found: Iterable[Diagnostics]) -> None:
        self.adding.diagnostics = sum(found, self.adding.diagnostics)


def whose_of(record: SessionRecord) -> Whose:
    """Return for whom a session works."""
    return Whose(record.agent_id, record.owner or "", record.project or "")


def span_of(counter: Counter) -> Span:
    """Return the time of a row."""
    if counter.kind == SLOTS:
        return Span(SLOTS, counter.number * SLOT_S, (counter.number + 1) * SLOT_S)
    if counter.kind == MONTHS:
        return Span(MONTHS, month_start_s(counter.number), month_start_s(counter.number + 1))
    return Span(counter.kind, counter.number * DAY_S, (counter.number + 1) * DAY_S)


def _diagnostics(key: bytes, value: bytes) -> list[Diagnostics]:
    try:
        found = isinstance(key_from_row(key), DiagnosticsKey)
        return [diagnostics_from_row(value)] if found else []
    except PeerError:
        return []
