"""What a direction means at this node: a free word, mapped by its configuration.

Invariant: a word that is not configured reaches the agent as it was said. The owner of a session
maps it, by its own configuration; a message or a mode that the caller named is never replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.queries.listing import page_of
from meshnode.app.queries.views import Selection
from meshnode.core.errors import MeshError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import SessionView
    from meshnode.core.commands.steers import Instruction
    from meshnode.core.sessions.sessions import SessionRecord

HANDOFF = "hand your work over to {neighbour}"


class Direction(msgspec.Struct, frozen=True):
    """What an agent is told, and how (`mode`, of core/commands/steers.py; empty: not configured).

    In `template`, {direction}, {agent_id} and {neighbour} stand for these; `handoff` names its
    neighbour there: an agent, or node/agent.
    """

    template: str = ""
    handoff: str = ""
    mode: str = ""


class Directions:
    """The directions of one node."""

    def __init__(self, known: Mapping[str, Direction], queries: Queries) -> None:
        self._known = known
        self._queries = queries

    def meant(self, session: SessionRecord, steer: Instruction) -> Instruction:
        """Return what an agent is told, and how, for what a caller said.

        Raises RefusedError if the direction leads to an agent that is not alive.
        """
        direction = self._known.get(steer.direction)
        if direction is None:
            return steer
        message = steer.message or self._message(session, steer.direction, direction)
        return replace(steer, message=message, mode=steer.mode or direction.mode)

    def _message(self, session: SessionRecord, word: str, direction: Direction) -> str:
        text = direction.template or HANDOFF
        if direction.handoff:
            text = text.replace("{neighbour}", self._neighbour(word, direction.handoff))
        return text.replace("{direction}", word).replace("{agent_id}", session.agent_id)

    def _neighbour(self, word: str, name: str) -> str:
        found = self._alive(agent_id=name)
        node, _, agent = name.rpartition("/")
        if not found and node:
            found = self._alive(agent_id=agent, node=node)
        if not found:
            raise RefusedError(
                f"direction {word} leads to {name}, which is not alive",
                "start it, or change directions in the configuration of that node",
            )
        first = found[0]
        return f"{first.record.agent_id} on {first.node_name} (session {first.record.session_id})"

    def _alive(self, agent_id: str, node: str = "") -> list[SessionView]:
        chosen = Selection(filter="alive", agent_id=agent_id, node=node, limit=1)
        try:
            return page_of(self._queries, chosen)[0]
        except MeshError:  # no such node
            return []
