"""Who can do something, best first: live agents that were started for it or registered for it.

Invariant: an agent that has gone is not found, and its entry is kept: it is found again once it is
back. What the registry says authorises nothing, so whoever calls an agent is still judged by it.

An agent that lives on several nodes is found once on each, in its newest session there. It is
ranked by what it can do now, then by its load, then by how near it is; what is left of equality is
settled by names, so that all nodes that see the same say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.queries.views import AgentView
from meshnode.core.errors import UsageError
from meshnode.core.links.liveness import MemberState
from meshnode.core.sessions.sessions import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import SessionView
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.registry import Registration

    Claims = dict[str, dict[NodeId, dict[str, str]]]  # agent -> who says so -> attributes

UNKNOWN_LOAD = 0.5  # of an agent that tells none: neither the first nor the last to be asked
ABLE = frozenset({State.RUNNING, State.IDLE})
NEARER = ("region", "site")  # labels of nodes: alike in both, in one, in none
READY, UNSURE, HELD_UP = range(3)


class Specialists:
    """Answers who is alive with a specialization."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._mesh = queries.mesh

    def find(self, specialization: str) -> list[AgentView]:
        """Return live agents with a specialization, the best first; raises UsageError."""
        if not specialization:
            raise UsageError("name a specialization")
        claims, sessions = self._found(specialization)
        ranked = [
            (self._rank(agent, state), agent)
            for agent_id, said in claims.items()
            for agent, state in self._living(agent_id, said, sessions.get(agent_id))
        ]
        ranked.sort(key=lambda pair: pair[0])
        return [replace(agent, specialization=specialization) for _, agent in ranked]

    def entries(self, specialization: str = "", agent_id: str = "") -> list[AgentView]:
        """Return live agents of a specialization, all that one is good at, both, or everything."""
        if specialization:
            found = self.find(specialization)
            return [one for one in found if agent_id in {"", one.agent_id}]
        views = [one for one in self._queries.views() if agent_id in {"", one.record.agent_id}]
        said: dict[tuple[str, str], dict[NodeId, dict[str, str]]] = {}
        for view in views:
            for name in view.record.specializations if view.alive else ():
                said.setdefault((view.record.agent_id, name), {})
        for origin, registration in self._mesh.roster.entries():
            entry = registration.entry
            if agent_id in {"", entry.agent_id}:
                place = (entry.agent_id, entry.specialization)
                said.setdefault(place, {})[origin] = entry.attributes
        known = _by_agent(views)
        return [
            agent
            for one, name in sorted(said)
            for agent in self.of_agent(one, name, said[one, name], known.get(one))
        ]

    def of_agent(
        self,
        agent_id: str,
        specialization: str,
        said: dict[NodeId, dict[str, str]],
        known: Sequence[SessionView] | None,
    ) -> list[AgentView]:
        """Return where an agent lives with a specialization that somebody says it has.

        `said`: who says so, and its attributes; `known`: its sessions, None if it never had one.
        """
        living = self._living(agent_id, said, known)
        return [replace(agent, specialization=specialization) for agent, _ in living]

    def _found(self, specialization: str) -> tuple[Claims, Mapping[str, list[SessionView]]]:
        """Return who says to have it: started with it, or registered for it by anybody.

        Beside it the sessions of at least those agents.
        """
        index = self._queries.indexes
        if index is None:
            views = list(self._queries.views())
            entries = self._mesh.roster.entries()
            return _claims(specialization, views, entries), _by_agent(views)
        started = [
            self._queries.session(*one) for one in index.directory.started_for(specialization)
        ]
        entries = self._mesh.roster.in_force(index.directory.registered_for(specialization))
        claims = _claims(specialization, started, entries)
        known = [
            self._queries.session(*one)
            for agent_id in claims
            for one in index.directory.sessions_of(agent_id)
        ]
        return claims, _by_agent(known)

    def _living(
        self, agent_id: str, said: dict[NodeId, dict[str, str]], known: Sequence[SessionView] | None
    ) -> list[tuple[AgentView, State | None]]:
        """Return where an agent lives, and in which state; nothing if it has gone."""
        if known is None:  # without a session it is as alive as a node that speaks for it
            alive = sorted(origin for origin in said if self._is_alive(origin))
            return [(self._agent(agent_id, origin, said), None) for origin in alive[-1:]]
        newest: dict[NodeId, SessionView] = {}
        for view in sorted(known, key=_started):
            if view.alive:
                newest[view.node_id] = view
        return [
            (self._agent(agent_id, node, said, view.record.session_id), view.state)
            for node, view in newest.items()
        ]

    def _agent(
        self,
        agent_id: str,
        node: NodeId,
        said: dict[NodeId, dict[str, str]],
        session_id: str | None = None,
    ) -> AgentView:
        """Make a view with what its own node says of it, else with what the last by name does."""
        attributes = said.get(node) or (said[max(said)] if said else {})
        name = self._queries.name_of(node)
        return AgentView(agent_id, session_id, node, name, attributes=attributes)

    def _rank(self, agent: AgentView, state: State | None) -> tuple[object, ...]:
        load = UNKNOWN_LOAD if agent.load is None else agent.load
        readiness = UNSURE if state is None else READY if state in ABLE else HELD_UP
        return (readiness, load, self._distance(agent.node_id), agent.agent_id, agent.node_id)

    def _distance(self, node: NodeId) -> int:
        if node == self._mesh.self_id:
            return 0
        here, there = self._labels(self._mesh.self_id), self._labels(node)
        alike = sum(name in here and here[name] == there.get(name) for name in NEARER)
        return 1 + len(NEARER) - alike

    def _labels(self, node: NodeId) -> Mapping[str, str]:
        record = self._mesh.tables.node(node)
        return record.labels if record else {}

    def _is_alive(self, node: NodeId) -> bool:
        return self._queries.state_of(node) is MemberState.ALIVE


def _claims(
    specialization: str,
    views: Iterable[SessionView],
    entries: Iterable[tuple[NodeId, Registration]],
) -> Claims:
    claims: Claims = {}
    for view in views:
        if view.alive and _started_for(view, specialization):
            claims[view.record.agent_id] = {}
    for origin, registration in entries:
        entry = registration.entry
        if entry.specialization == specialization:
            claims.setdefault(entry.agent_id, {})[origin] = entry.attributes
    return claims


def _by_agent(views: Iterable[SessionView]) -> dict[str, list[SessionView]]:
    sessions: dict[str, list[SessionView]] = {}
    for view in views:
        sessions.setdefault(view.record.agent_id, []).append(view)
    return sessions


def _started_for(view: SessionView, specialization: str) -> bool:
    return specialization in view.record.specializations


def _started(view: SessionView) -> tuple[float, str]:
    return view.record.created_at_s, view.record.session_id
