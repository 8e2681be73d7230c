"""What an agent registers of itself, from inside its session.

Invariant: the agent id is the session's, never one that the agent says; one agent registers
ENTRIES_OF_ONE_MAX specializations this way, so that it does not fill its node's share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.sessions.done import Done
    from meshnode.app.sessions.registry import Registrar
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.registry import Registration

ENTRIES_OF_ONE_MAX = 32  # through this node; more: ExhaustedError


class OwnEntries:
    """The registry as an agent inside a session may change it."""

    def __init__(
        self,
        registrar: Registrar,
        entries: Callable[[], list[tuple[NodeId, Registration]]],
        self_id: NodeId,
    ) -> None:
        self._registrar = registrar
        self._entries = entries
        self._self_id = self_id

    async def register(
        self, agent_id: str, specialization: str, attributes: dict[str, str]
    ) -> Done:
        """Enter the agent, or give its entry other attributes; raises UsageError, RefusedError."""
        known = {
            registration.entry.specialization
            for origin, registration in self._entries()
            if origin == self._self_id and registration.entry.agent_id == agent_id
        }
        if specialization not in known and len(known) >= ENTRIES_OF_ONE_MAX:
            raise ExhaustedError(
                f"{agent_id} is registered for {ENTRIES_OF_ONE_MAX} specializations",
                "unregister one first",
            )
        return await self._registrar.register(
            {"agent_id": agent_id, "specialization": specialization, "attributes": attributes}
        )

    async def unregister(self, agent_id: str, specialization: str) -> Done:
        """Take out an entry of the agent; raises UsageError, RefusedError."""
        return await self._registrar.unregister(
            {"agent_id": agent_id, "specialization": specialization}
        )
