"""What the mesh looks like from this node: sessions, members, cost, each with coverage.

Invariant: an answer is computed from what this node holds and never waits for another; what it
could not hear is named in its coverage, and rows of members that cannot be heard stay, marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.spending import Spent
from meshnode.app.cost.tally import Rated
from meshnode.app.membership.introduced import Introduced
from meshnode.app.pieces import finished
from meshnode.app.queries.views import (
    Coverage,
    Missing,
    NodeView,
    SessionView,
)
from meshnode.core.errors import NotFoundError
from meshnode.core.ids import NodeId, fits_several, nodes_meant
from meshnode.core.ledger.ledger import DiagnosticsKey, Slot
from meshnode.core.ledger.marks import FOLDED, session_in
from meshnode.core.links.liveness import MemberState
from meshnode.core.sessions.sessions import SessionRecord, State

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from meshnode.app.cost.cost import CostAnswer
    from meshnode.app.cost.cutting import CostQuery
    from meshnode.app.cost.tally import Prices
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.app.ports import Clock
    from meshnode.app.queries.indexes import Indexes

MISSING_MAX = 20
OLDER = (
    f"a node with very many sessions tells what is old without them, as {FOLDED}: a session may"
    " have used more"
)
HEARD = frozenset({MemberState.ALIVE, MemberState.LEFT, MemberState.REVOKED})  # or not waited for


class Queries:
    """Answers from one node's replicas."""

    def __init__(
        self,
        mesh: Mesh,
        prices: Prices,
        clock: Clock,
        state_of: Callable[[NodeId], MemberState] | None = None,
        indexes: Indexes | None = None,
        heard_before: Mapping[NodeId, float] | None = None,
    ) -> None:
        self.mesh = mesh
        self._rated = Rated(prices) if indexes is None else indexes.rated
        self._clock = clock
        self.state_of = state_of or mesh.liveness.state
        self._heard_before = heard_before or {}  # our start, in seconds since 1970
        self.introduced = Introduced(mesh, {})
        self.indexes = indexes  # without them every row is read each time
        self.unsaid: Callable[[], Iterable[str]] = tuple  # why rows of our own are in no answer

    def coverage(self) -> Coverage:
        """Say how much of the mesh can be heard now."""
        missing = []
        members = self._members()
        for peer in members:
            state = self.state_of(peer)
            if state not in HEARD:
                missing.append(Missing(self.name_of(peer), state, self._observed_at_s(peer)))
        awaited = self.introduced.awaited().values()
        missing += [Missing(name, MemberState.UNREACHABLE, None) for name in awaited]
        now_s = self.now_s()
        ages = [now_s - m.observed_at_s for m in missing if m.observed_at_s is not None]
        return Coverage(
            nodes_known=len(members) + len(awaited),
            nodes_heard=len(members) + len(awaited) - len(missing),
            oldest_s=max(0.0, *ages) if ages else None,
            missing=tuple(missing[:MISSING_MAX]),
            missing_more=max(0, len(missing) - MISSING_MAX),
        )

    def now_s(self) -> float:
        """Return the time of this node's clock, seconds since 1970."""
        return self._clock.wall_s()

    def own(self, record: SessionRecord) -> SessionView:
        """Return a session of this node as its owner has it now, ahead of the feed."""
        me = self.mesh.self_id
        return SessionView(record, me, self.name_of(me), record.state, self.now_s())

    def nodes(self, labels: dict[str, str]) -> list[NodeView]:
        """Return all members, this node first; those awaited since our join without a row."""
        live: dict[NodeId, int] = {}
        for owner, record in self.mesh.tables.sessions():
            if not record.ended:
                live[owner] = live.get(owner, 0) + 1
        members = [self.node(peer, live.get(peer, 0)) for peer in self._members()]
        where = self.introduced.addresses
        members += [
            _awaited(peer, name, where.get(peer, ()))
            for peer, name in self.introduced.awaited().items()
        ]
        views = [view for view in members if view and labels.items() <= view.labels.items()]
        return sorted(views, key=lambda view: (not view.is_self, view.name, view.node_id))

    def cost(self, query: CostQuery) -> CostAnswer:
        """Sum the ledgers of all owners, those that cannot be heard included."""
        return finished(self.cost_steps(query))

    def cost_steps(self, query: CostQuery) -> Generator[None, None, CostAnswer]:
        """Do the same, with a pause at each yield, so that nobody else has to wait."""
        cells = self.indexes.cells if self.indexes else None
        replicas = self.mesh.replication.replicas
        adding = yield from steps_of(self.mesh.tables, replicas, cells, (query, self._rated))
        answer = yield from adding.answer({origin: self.name_of(origin) for origin in replicas})
        by_session = query.session not in ("", FOLDED) or "session" in query.by
        is_folded = by_session and cells is not None and cells.parts_of(hash(FOLDED))
        notes = (*answer.notes, *([OLDER] if is_folded else ()), *self.unsaid())
        return replace(answer, notes=notes)

    def node_named(self, name: str) -> NodeId:
        """Find a member, as `nodes_meant` does; raises NotFoundError or ConflictError."""
        names: dict[str, str] = {peer: self.name_of(peer) for peer in self._members()}
        meant = nodes_meant(name, names)
        if not meant:
            raise NotFoundError(f"no node is called {name[:60]}", "session-mesh nodes lists them")
        if len(meant) > 1:
            raise fits_several(name, meant, names)
        return NodeId(meant[0])

    def described(self, peer: NodeId) -> str:
        """Name a member in a sentence, with its state unless it is alive."""
        state = self.state_of(peer)
        return (
            self.name_of(peer) if state is MemberState.ALIVE else f"{self.name_of(peer)} ({state})"
        )

    def others(self) -> int:
        """Count the other members that have not left."""
        others = (peer for peer in self._members() if peer != self.mesh.self_id)
        known = sum(self.state_of(peer) is not MemberState.LEFT for peer in others)
        return known + len(self.introduced.awaited())

    def _members(self) -> list[NodeId]:
        return [peer for peer in self.mesh.liveness.members() if self.mesh.tables.node(peer)]

    def member_name(self, peer: NodeId) -> str | None:
        """Return what a node calls itself that is a member, or was one; None for a stranger."""
        known = peer in self._members() or peer in self.mesh.control.forgotten
        return self.name_of(peer) if known else None

    def is_heard(self, peer: NodeId) -> bool:
        """Whether a member is known and alive."""
        known = self.mesh.tables.node(peer) is not None
        return known and self.state_of(peer) is MemberState.ALIVE

    def name_of(self, peer: NodeId) -> str:
        """Return what a member calls itself, or the beginning of its id."""
        return self.mesh.tables.name_of(peer)

    def _observed_at_s(self, peer: NodeId) -> float | None:
        if self.state_of(peer) is MemberState.ALIVE:
            return self.now_s()
        heard_s = self.mesh.liveness.heard_at_s(peer)
        if heard_s is not None:
            return self.now_s() - (self._clock.steady_s() - heard_s)
        header = self.mesh.replication.replicas[peer].header  # from before our own start
        known = (None if header is None else header.at_s, self._heard_before.get(peer))
        return max((at_s for at_s in known if at_s is not None), default=None)

    def views(self) -> Iterable[SessionView]:
        """Return every session of the mesh as it looks from here."""
        for owner, record in self.mesh.tables.sessions():
            yield self.session(owner, record)

    def spent(self, sessions: Mapping[str, NodeId]) -> dict[str, Spent]:
        """Return what sessions have spent, by their ids; `sessions` with one owner each."""
        if self.indexes:
            return self.indexes.totals.spent(sessions)
        spent: dict[str, Spent] = {}
        for _, (key, slot) in self.mesh.tables.ledger():
            if isinstance(key, DiagnosticsKey) or not isinstance(slot, Slot):
                continue
            session = session_in(key.session, key.tier)
            if session in sessions:
                spent.setdefault(session, Spent()).add(key, slot, self._rated.prices)
        return spent

    def settle(self) -> Generator[None, None, None]:
        """Add up and price, piece by piece, what `spent` would otherwise have to do at once."""
        if self.indexes:
            yield from self.indexes.totals.settle()

    def with_spent(
        self, views: Iterable[SessionView], spent: dict[str, Spent] | None = None
    ) -> list[SessionView]:
        """Return sessions with what they have spent, if that is not worked out already."""
        views = list(views)
        if spent is None:
            spent = self.spent({view.record.session_id: view.node_id for view in views})
        return [with_spent(view, spent.get(view.record.session_id)) for view in views]

    def session(self, owner: NodeId, record: SessionRecord) -> SessionView:
        """Return a session as seen from here, without what it has spent."""
        heard = self.is_heard(owner)
        state = record.state if heard or record.ended else State.UNREACHABLE
        now_s = self.now_s()
        observed_s = now_s if heard else self._observed_at_s(owner) or record.last_activity_s
        return SessionView(record, owner, self.name_of(owner), state, observed_s)

    def node(self, peer: NodeId, sessions: int) -> NodeView | None:
        """Return a member with that many sessions; None for whoever is not known as one."""
        mesh = self.mesh
        record, links = mesh.tables.node(peer), mesh.tables.links(peer)
        if record is None or mesh.liveness.graph.standing(peer) is None:
            return None
        replica = mesh.replication.replicas[peer]
        graph = mesh.liveness.graph
        named = map(graph.named, links.peers if links else ())
        linked = [other for other in named if other and graph.standing(other) is not None]
        is_self = peer == mesh.self_id
        return NodeView(
            node_id=peer,
            name=record.name,
            state=self.state_of(peer),
            addresses=record.addresses,
            epoch=replica.head.epoch,
            version=record.version,
            labels=record.labels,
            sessions=sessions,
            since_s=record.started_at_s,
            last_heard_s=self._observed_at_s(peer),
            links=tuple(sorted(linked)),
            is_self=is_self,
            journal_generation=record.journal_generation,
        )


def _awaited(peer: NodeId, name: str, addresses: tuple[str, ...]) -> NodeView:
    """Return a member of which nothing is here but what our admitter told."""
    so_far = peer, name, MemberState.UNREACHABLE, addresses
    return NodeView(*so_far, 0, "", {}, 0, 0.0, None, (), is_self=False, journal_generation=0)


def with_spent(view: SessionView, spent: Spent | None) -> SessionView:
    """Return a session with what it has spent."""
    if spent is None:
        return view
    return replace(view, usage=spent.usage, cost_nusd=spent.nusd, model=spent.model)
