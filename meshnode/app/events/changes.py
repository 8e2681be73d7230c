"""What can be seen from this node, item by item, and how it changes.

Invariant: `shown` is exactly what the changes given out so far add up to; after `settle` it is what
the queries would answer now. A change is given out only where something visible differs, and costs
what it touches: nobody reads the whole mesh for one row.

Sessions and states of members are judged at once. What follows from them (who is linked to whom,
how many sessions a member has, which agents are to be found) waits for `settle`, a moment later.
Nothing takes long: of very many AT_ONCE are judged, of one member's a piece; `busy` says so.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.cost.cost import CostGroup
from meshnode.app.cost.spending import Spending
from meshnode.app.events.things import Change, Kind, Op, View, changed, cost_changed, names_of
from meshnode.app.pieces import chunks
from meshnode.app.queries.awaited import Awaited
from meshnode.app.queries.queries import Queries, with_spent
from meshnode.app.queries.registered import Registered
from meshnode.app.queries.specialists import Specialists
from meshnode.app.queries.sweeps import Sweeps
from meshnode.app.sets import Sets
from meshnode.core.commands.audit import AUDIT
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.links.linkgraph import mark_of
from meshnode.core.links.liveness import MemberState
from meshnode.core.membership.members import LINKS, NODE
from meshnode.core.sessions.sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

    from meshnode.app.cost.tally import Prices
    from meshnode.app.mesh.mesh import Mesh
    from meshnode.app.ports import Clock
    from meshnode.app.queries.views import AgentView, BudgetView, NodeView, SessionView
    from meshnode.core.effects import Announce
    from meshnode.core.ids import NodeId

    SessionKey = tuple[NodeId, str]
    AgentKey = tuple[str, str, NodeId]  # agent, specialization, node

AT_ONCE = 64  # members with their sessions, or agents: when half a mesh is lost


class Changes:
    """What one node sees, and what of it has changed."""

    def __init__(self, mesh: Mesh, prices: Prices, clock: Clock) -> None:
        self._mesh = mesh
        self._states: Mapping[NodeId, MemberState] | None = None  # said instead of what is so
        self._unheld: MemberState | None = None  # said of others then; None: what is so
        self._queries = Queries(mesh, prices, clock, self._state_of)
        self._specialists = Specialists(self._queries)
        self.budgets: Callable[[], Iterable[BudgetView]] = tuple
        replicas, name_of = mesh.replication.replicas, self._queries.name_of
        self.spending = Spending(mesh.tables, replicas, prices, name_of)
        self._doubted: dict[SessionKey, None] = {}  # of those shown, told of while nobody followed
        self._sessions: dict[SessionKey, SessionView] = {}
        self._nodes: dict[NodeId, NodeView] = {}
        self._agents: dict[AgentKey, AgentView] = {}
        self._of_owner: Sets[NodeId, str] = Sets()
        self._of_agent: Sets[str, SessionKey] = Sets()
        self._owners: Sets[str, NodeId] = Sets()  # of a session id; more than one is odd
        self._live: dict[NodeId, int] = {}  # sessions not ended
        self._of_specialist: Sets[str, AgentKey] = Sets()  # by agent id
        self._registered = Registered(mesh.roster)
        self._awaited = Awaited()
        self._sweeps = Sweeps(self._things_of)
        self._stale_members: dict[NodeId, None] = {}
        self._stale_nodes: set[NodeId] = set()
        self._stale_agents: set[str] = set()
        self._stale_registry = True

    @property
    def busy(self) -> bool:
        """Whether more waits than is judged at once."""
        most = max(len(self._stale_nodes), len(self._stale_agents))
        return bool(self._stale_members) or most > AT_ONCE or self.spending.busy

    @property
    def waiting(self) -> bool:
        """Whether something but costs waits for `settle`."""
        stale = self._stale_members or self._stale_nodes or self._stale_agents
        return bool(stale or self._sweeps) or self._stale_registry

    def begin(self, states: Mapping[NodeId, MemberState] | None = None) -> list[Change]:
        """Look at everything anew; return what differs from what was shown.

        With `states`, members are in these: as they were when this node stopped.
        """
        self._states, self._unheld = states, MemberState.DEAD
        changes = self.look(self._mesh.tables.origins())
        while self.waiting:
            changes += self.settle()
        self._states = self._unheld = None
        return changes

    def look(self, origins: Iterable[NodeId]) -> list[Change]:
        """Look at all that these members have written; return what differs from what was shown."""
        changes: list[Change] = []
        for origin in origins:
            changes += self._judge_node(origin)
            changes += self._judge_things(origin)
        self._stale_registry = True
        return changes

    def take(self, news: Announce) -> list[Change]:
        """Take what the mesh announces."""
        changes: list[Change] = []
        if news.origin is not None:
            changes += self._take_rows(news.origin, news)
        self._stale_members.update(dict.fromkeys(sorted(news.members)))
        return changes + self.judge_some()

    def judge_some(self) -> list[Change]:
        """Judge members whose states changed, AT_ONCE of them."""
        changes: list[Change] = []
        for peer in list(self._stale_members)[:AT_ONCE]:
            del self._stale_members[peer]
            changes += self._judge_owner(peer)
        return changes

    def overhear(self, news: Announce) -> None:
        """Note, before everything is looked at anew, what would not be noticed then."""
        if news.origin is not None:
            for table, key in news.places:
                if table == LEDGER:
                    self.spending.touch(news.origin, key)

    def settle(self, *, costs: bool = False) -> list[Change]:
        """Work out what waits; with `costs` also what was spent."""
        if self._stale_registry:
            self._stale_registry = False
            self._stale_agents |= self._registered.read()
        changes = self.judge_some()
        if self._sweeps:
            owner, things = self._sweeps.take()
            changes += self._judge_each(owner, things)
        if costs and self.spending.followed:
            changes += self._settle_costs(Op.ADDED)
        for peer in nsmallest(AT_ONCE, self._stale_nodes):
            self._stale_nodes.discard(peer)
            changes += self._judge_owner(peer)  # it may have moved: news of that come later
        for agent_id in nsmallest(AT_ONCE, self._stale_agents):
            self._stale_agents.discard(agent_id)
            changes += self._judge_agent(agent_id)
        return changes

    def shown(self, kinds: Collection[Kind]) -> Iterator[View]:
        """Yield everything shown; costs only while spending is followed."""
        held: dict[Kind, Iterable[View]] = {
            Kind.NODE: self._nodes.values(),
            Kind.SESSION: self._sessions.values(),
            Kind.AGENT: self._agents.values(),
            Kind.COST: self.spending.shown.values(),
            Kind.BUDGET: self.budgets(),
        }
        for kind, views in held.items():
            if kind in kinds:
                yield from views

    def follow_spending(
        self, give: Callable[[list[Change]], None], *, stay: bool = True
    ) -> Generator[None, None, None]:
        """Begin to work out costs: somebody watches. Give out what has changed since nobody did.

        Unless they `stay`, nothing else is worked out, and nothing followed. There may be a pause
        at each yield; who does not go on from there follows nothing.
        """
        keys = list(self._sessions if stay else self._doubted)
        try:
            yield from self.spending.read(None if stay else {session for _, session in keys})
            while self.spending.busy:
                give(self._settle_costs(Op.CHANGED))
                yield
            for some in chunks(keys):
                give([change for key in some for change in self._judge_spent(key)])
                yield
            while stay and self._doubted:  # meanwhile
                give(self._judge_spent(next(iter(self._doubted))))
                yield
            self.spending.followed = stay
        finally:
            if not self.spending.followed:
                self.spending.stop()

    def names_of(self, view: View) -> tuple[str, ...]:
        """Return the ids and names that a thing goes by, and those of what it belongs to."""
        agents: set[str] = set()
        if isinstance(view, CostGroup):
            session_id = view.key["session"]
            owners = self._owners.of(session_id)
            agents = {self._sessions[owner, session_id].record.agent_id for owner in owners}
        return names_of(view, agents)

    def states(self) -> dict[NodeId, MemberState]:
        """Return the states that members are shown in."""
        return {peer: view.state for peer, view in self._nodes.items()}

    def hold_states(self, said: Mapping[NodeId, MemberState] | None = None) -> None:
        """Show members as `said`, or as they are now, whatever becomes of them; new ones as is."""
        held = {peer: self._state_of(peer) for peer in self._mesh.tables.origins()}
        self._states = held | dict(said or {})

    # rows

    def _take_rows(self, origin: NodeId, news: Announce) -> list[Change]:
        if news.replaced:
            self.spending.touch_all(origin)
            return self.look([origin])
        changes: list[Change] = []
        for table, key in news.places:
            if table == NODE:
                changes += self._judge_owner(origin)
            elif table == LINKS:
                self._stale_nodes.add(origin)
            elif table == SESSIONS:
                changes += self._judge_session(origin, key.decode(errors="replace"))
            elif table == LEDGER:
                self.spending.touch(origin, key)
            else:  # the registry, and whatever may hide or reveal its entries
                self._stale_registry |= table != AUDIT
        self._stale_registry |= self._registered.hides(origin)
        shown = self._nodes.get(origin)
        if shown is not None and shown.epoch != self._mesh.replication.replicas[origin].head.epoch:
            self._stale_nodes.add(origin)
        return changes

    # members

    def _judge_owner(self, peer: NodeId) -> list[Change]:
        before = self._nodes.get(peer)
        changes = self._judge_node(peer)
        after = self._nodes.get(peer)
        if _standing(before) == _standing(after):
            return changes
        changes += self._judge_things(peer)
        is_renamed = (before and before.name) != (after and after.name)
        if is_renamed and (self.spending.held or (before and after)):
            self.spending.touch_all(peer)  # its name stands beside its costs
        return changes

    def _judge_node(self, peer: NodeId) -> list[Change]:
        before = self._nodes.get(peer)
        after = self._queries.node(peer, self._live.get(peer, 0))
        if after is None:
            self._nodes.pop(peer, None)
            self._awaited.expect(peer, ())
        else:
            self._nodes[peer] = after
            self._awaited.expect(peer, self._unknown_to(peer))
        if before is None and after is not None:
            self._stale_nodes |= self._awaited.come(mark_of(peer)) - {peer}
        quiet = _standing(before) == _standing(after)
        return changed(Kind.NODE, before, after, quiet=quiet)

    def _unknown_to(self, peer: NodeId) -> Iterator[bytes]:
        """Yield the short ids that a member lists and no member has."""
        links, graph = self._mesh.tables.links(peer), self._mesh.liveness.graph
        for mark in links.peers if links else ():
            other = graph.named(mark)
            if other is None or graph.standing(other) is None:
                yield mark

    # sessions

    def _judge_things(self, owner: NodeId) -> list[Change]:
        """Judge all that is shown with a member, or have it judged soon if that is much."""
        shown = self._of_owner.of(owner), self._registered.agents_of(owner)
        if max(map(len, (self._session_keys(owner), *shown))) <= AT_ONCE:
            return self._judge_each(owner, self._things_of(owner))
        self._sweeps.enter(owner)
        return []

    def _things_of(self, owner: NodeId) -> list[tuple[Kind, str]]:
        """Name the sessions of a member, those that are gone too, and the agents it registered."""
        keys = self._session_keys(owner)
        sessions = {key.decode(errors="replace") for key in keys} | self._of_owner.of(owner)
        things = [(Kind.SESSION, one) for one in sorted(sessions)]
        return things + [(Kind.AGENT, one) for one in sorted(self._registered.agents_of(owner))]

    def _session_keys(self, owner: NodeId) -> Collection[bytes]:
        replica = self._mesh.replication.replicas.get(owner)
        return () if replica is None else replica.rows.tables.get(SESSIONS, {}).keys()

    def _judge_each(self, owner: NodeId, things: Iterable[tuple[Kind, str]]) -> list[Change]:
        changes: list[Change] = []
        for kind, name in things:
            if kind is Kind.AGENT:
                self._stale_agents.add(name)
            else:
                changes += self._judge_session(owner, name)
        return changes

    def _judge_session(self, owner: NodeId, session_id: str) -> list[Change]:
        record = self._mesh.tables.session(owner, session_id)
        key = (owner, session_id)
        before = self._sessions.get(key)
        if record is None:
            return self._show_session(key, None)
        after = self._queries.session(owner, record)
        if before is not None:  # what it spends is told of by itself, and less often
            usage, nusd, model = before.usage, before.cost_nusd, before.model
            after = replace(after, usage=usage, cost_nusd=nusd, model=model)
        elif self.spending.followed:
            after = with_spent(after, self.spending.of_session(session_id))
        return self._show_session(key, after)

    def _show_session(
        self, key: SessionKey, after: SessionView | None, *, quiet: bool = False
    ) -> list[Change]:
        before = self._sessions.pop(key, None) if after is None else self._sessions.get(key)
        if after is not None:
            self._sessions[key] = after
        changes = changed(Kind.SESSION, before, after, quiet=quiet)
        if changes and not quiet:
            self._index(key, before, after)
            if after is None:
                self._doubted.pop(key, None)
            elif not self.spending.followed:
                self._doubted[key] = None
        return changes

    def _index(
        self, key: SessionKey, before: SessionView | None, after: SessionView | None
    ) -> None:
        owner, session_id = key
        for view, sign in ((before, -1), (after, 1)):
            if view is None:
                continue
            self._stale_agents.add(view.record.agent_id)
            self._of_owner.put(owner, session_id, there=sign > 0)
            self._owners.put(session_id, owner, there=sign > 0)
            self._of_agent.put(view.record.agent_id, key, there=sign > 0)
            if not view.record.ended:
                self._live[owner] = self._live.get(owner, 0) + sign
                self._stale_nodes.add(owner)

    # agents

    def _judge_agent(self, agent_id: str) -> list[Change]:
        known = [self._sessions[key] for key in sorted(self._of_agent.of(agent_id))]
        registered = self._registered.of_agent(agent_id)
        specs = {spec for view in known if view.alive for spec in view.record.specializations}
        after: dict[AgentKey, AgentView] = {
            (agent_id, spec, agent.node_id): agent
            for spec in specs | registered.keys()
            for agent in self._specialists.of_agent(
                agent_id, spec, registered.get(spec, {}), known or None
            )
        }
        changes: list[Change] = []
        for key in sorted(after.keys() | self._of_specialist.of(agent_id)):
            before = self._agents.pop(key, None)
            if key in after:
                self._agents[key] = after[key]
            self._of_specialist.put(agent_id, key, there=key in after)
            changes += changed(Kind.AGENT, before, after.get(key))
        return changes

    # costs

    def _settle_costs(self, fresh: Op) -> list[Change]:
        sessions, changed = self.spending.settle()
        changes = [one for pair in changed for one in cost_changed(*pair, fresh)]
        for session_id in sorted(sessions):
            spent = self.spending.of_session(session_id)
            for owner in sorted(self._owners.of(session_id)):
                key = (owner, session_id)
                after = with_spent(self._sessions[key], spent)
                changes += self._show_session(key, after, quiet=True)
        return changes

    def _judge_spent(self, key: SessionKey) -> list[Change]:
        """Show what a session has spent; that is no news, unless it was told of without."""
        doubted, view = key in self._doubted, self._sessions.get(key)
        self._doubted.pop(key, None)
        if view is None:
            return []
        after = with_spent(view, self.spending.of_session(key[1]))
        if doubted:
            return self._show_session(key, after, quiet=True)
        self._sessions[key] = after  # as it was when last somebody watched
        return []

    def _state_of(self, peer: NodeId) -> MemberState:
        held = None if self._states is None else self._states.get(peer, self._unheld)
        return held or self._mesh.liveness.state(peer)


def _standing(view: NodeView | None) -> tuple[str, str] | None:
    """Return of a member what is seen on its sessions too."""
    return None if view is None else (view.name, view.state)
