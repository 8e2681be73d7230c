"""Registering agents for what they are good at, and taking that back.

Invariant: what is refused has changed nothing; what is answered as applied is on this node's disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.app.sessions.done import Done
from meshnode.core.errors import RefusedError
from meshnode.core.sessions.registry import place_of, specialist

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.app.ports import Publish
    from meshnode.core.tables.roster import Roster, Write


class Registrar:
    """Changes the registry through the feed of this node."""

    def __init__(self, roster: Roster, publish: Publish) -> None:
        self._roster = roster
        self._publish = publish

    async def register(self, args: dict[str, Any]) -> Done:
        """Enter an agent, or give its entry other attributes; raises UsageError, RefusedError."""
        attributes = args.get("attributes", {})
        if not isinstance(attributes, dict):
            raise RefusedError("attributes are no map")
        told = {str(key): str(text) for key, text in attributes.items()}
        entry = specialist(*_names(args), told)
        await self._on_disk(self._roster.add(entry))
        return Done("applied", f"{entry.agent_id} is registered for {entry.specialization}")

    async def unregister(self, args: dict[str, Any]) -> Done:
        """Take out an entry, whoever wrote it; raises UsageError, RefusedError."""
        place = place_of(*_names(args))
        writes = self._roster.remove(place)
        if not writes:
            return Done("unknown", f"{place.agent_id} is not registered for {place.specialization}")
        await self._on_disk(writes)
        return Done(
            "applied", f"{place.agent_id} is no longer registered for {place.specialization}"
        )

    async def _on_disk(self, writes: Iterable[Write]) -> None:
        for write in writes:  # all are written already: this waits for the flush that holds them
            await self._publish(*write)


def _names(args: dict[str, Any]) -> tuple[str, str]:
    return str(args.get("agent_id", "")), str(args.get("specialization", ""))
