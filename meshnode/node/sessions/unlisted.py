"""Agents that live although no row says so: told of, since nobody can see or stop them.

A home whose database is lost or was moved aside has forgotten them; peers, if there are any,
return the rows within seconds, so only what two looks have found is told of. Of a row that calls an
agent lost which is here, a copy of this home has written it: that is put right. Invariant: nobody
is signalled here, and nothing is looked at once none are left.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from meshnode.agents.pruning import living
from meshnode.app.audit.alarms import Alarm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from meshnode.app.audit.alarms import Alarms

UNLISTED = "unlisted_agents"
LOOK_AGAIN_S = 10.0  # while there are some
NAMED_MAX = 8  # in the alarm; of more the number is told


class Unlisted:
    """What lives in a home's `sessions` and is not listed so; looked for at the start."""

    def __init__(
        self,
        sessions: Path,
        alarms: Alarms,
        is_listed: Callable[[str], bool],
        find_lost: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._sessions = sessions
        self._alarms = alarms
        self._is_listed = is_listed
        self._find_lost = find_lost
        self.count = 0
        self._found: set[str] = set()  # at the last look

    async def watch(self) -> None:
        """Look, and again as long as there are some."""
        while True:
            if not await self.look():
                return
            await asyncio.sleep(LOOK_AGAIN_S)

    async def look(self) -> int:
        """Raise the alarm, or end it; returns how many sessions were found."""
        found = await asyncio.to_thread(living, self._sessions)
        # Asked afterwards: who opens a session meanwhile lists it before its agent starts.
        unlisted = [one for one in found if not self._is_listed(one)]
        pids = {one: found[one] for one in unlisted if not await self._find_lost(one)}
        self.count = len(pids)
        if lasting := {one: pids[one] for one in self._found & pids.keys()}:
            self._alarms.sound(_alarm(lasting))
        else:
            self._alarms.clear(UNLISTED)
        self._found = set(pids)
        return self.count


def _alarm(pids: Mapping[str, int]) -> Alarm:
    named = sorted(pids.items())[:NAMED_MAX]
    said = ", ".join(f"{session_id} (pid {pid})" for session_id, pid in named)
    more = f" and {len(pids) - len(named)} more" if len(pids) > len(named) else ""
    return Alarm(
        UNLISTED,
        f"agents live whose sessions have ended, or that this node does not know: {said}{more}",
        "peers that run return their sessions by themselves; if there are none, end them: "
        f"kill {' '.join(str(pid) for _, pid in named)}",
    )
