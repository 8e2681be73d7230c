"""What of the registry is in force here, found by agent and by the node that has registered it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId
    from meshnode.core.tables.roster import Roster

    Claims = dict[str, dict[NodeId, dict[str, str]]]
    """Attributes by specialization and node."""


class Registered:
    """The registry as it was last read."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._by_agent: dict[str, Claims] = {}
        self._by_node: dict[NodeId, set[str]] = {}
        self._hidden: set[NodeId] = set()

    def read(self) -> set[str]:
        """Read it afresh, as what hides an entry may stand in any feed.

        Returns the agents of which there are other entries now.
        """
        before, self._by_agent = self._by_agent, {}
        self._by_node = {}
        self._hidden = self._roster.hidden()
        for origin, registration in self._roster.entries():
            entry = registration.entry
            claims = self._by_agent.setdefault(entry.agent_id, {})
            claims.setdefault(entry.specialization, {})[origin] = entry.attributes
            self._by_node.setdefault(origin, set()).add(entry.agent_id)
        agents = before.keys() | self._by_agent.keys()
        return {one for one in agents if before.get(one) != self._by_agent.get(one)}

    def of_agent(self, agent_id: str) -> Claims:
        """Return what an agent is registered for, by which nodes."""
        return self._by_agent.get(agent_id, {})

    def agents_of(self, origin: NodeId) -> set[str]:
        """Return the agents that a node has registered."""
        return self._by_node.get(origin, set())

    def hides(self, origin: NodeId) -> bool:
        """Whether the entries of a node wait for more of its feed."""
        return origin in self._hidden
