"""The sessions and agents that a node owns: where they live, and what is noted when they change.

Invariant: whatever an agent's supervisor reports reaches the session's row through one task of the
node; losing our disk loses no agent, since peers return the row.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from meshnode.agents.output import written_at_s
from meshnode.agents.processes import ProcessAgents
from meshnode.agents.pruning import UNLISTED_KEPT_S, prune
from meshnode.app.audit.alarms import Alarm
from meshnode.app.sessions.activity import Activity
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.sessions import OwnSessions
from meshnode.app.settling import SETTLED_S, Settling
from meshnode.client.home import make_private
from meshnode.core.ids import new_u64
from meshnode.core.sessions.sessions import SESSIONS, tells_arguments
from meshnode.node.clock import chance
from meshnode.node.sessions.attributing import Attributing
from meshnode.node.sessions.unlisted import NAMED_MAX, Unlisted
from meshnode.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from meshnode.agents.following import Ending
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.ground import Ground

PRUNE_FIRST_S = SETTLED_S  # not at once: peers may have to return our list, and the clock settles
PRUNE_S = 3600.0
PRUNE_ON_S = 1.0  # while there is something to remove, since one go removes so many
FULL = "sessions"  # the alarm: our feed has no room for what became of some
FULL_FIX = "let other nodes run some of the agents, and take back what nobody needs to find here"
ELSEWHERE = "agents_elsewhere"  # the alarm: of whom no order reaches
ELSEWHERE_FIX = (
    "end them where they were started (outside of this container, say), or run the node there:"
    " session-mesh down --keep-sessions, then session-mesh up --detach"
)
SOCKET_NAME_CHARS = 13  # of a session id: 65 random bits name its socket

_log = logging.getLogger("session_mesh.sessions")


class Hosting:
    """What a node runs for its user."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._home = ground.home
        self._settling = Settling(ground.clock)
        self._mesh = ground.world.mesh
        self._spawn, self._keep = ground.spawn, ground.keep
        self.agents = ProcessAgents(
            self._on_started,
            self._on_ended,
            self._on_held,
            tasks=ground.tasks,
            clock=ground.clock.wall_s,
        )
        self.sessions = OwnSessions(
            ground.world.publish, self.agents, ground.clock, chance, self._place_of, ground.spawn
        )
        self.agents.on_elsewhere = self._tell_elsewhere
        self.sessions.self_id = ground.world.mesh.self_id
        self.sessions.untold.on_full = self._tell_full
        self.sessions.check_writable = ground.alarms.check_writable
        self.journal_generation = ground.database.run_now(journal.generation, new_u64(chance))
        self.sessions.journal_generation = self.journal_generation
        self.activity = Activity(
            self.sessions, lambda one: written_at_s(self.directory_of(one)), ground.clock
        )
        self.unlisted = Unlisted(
            self._home.sessions, ground.alarms, self._is_listed, self.sessions.find_lost
        )
        self.agents_found = asyncio.Event()
        ground.world.on_regained = lambda: ground.spawn(self._take_back())

    def _tell_full(self, count: int) -> None:
        if not count:
            self._ground.alarms.clear(FULL)
            return
        said = f"this node's feed has no room for what became of sessions ({count} of them)"
        self._ground.alarms.sound(Alarm(FULL, said, FULL_FIX))

    def _tell_elsewhere(self, session_ids: list[str]) -> None:
        if not session_ids:
            self._ground.alarms.clear(ELSEWHERE)
            return
        more = f" and {len(session_ids) - NAMED_MAX} more" if len(session_ids) > NAMED_MAX else ""
        named = f"{', '.join(session_ids[:NAMED_MAX])}{more}"
        said = f"agents run in another PID namespace than this node: {named}"
        self._ground.alarms.sound(Alarm(ELSEWHERE, said, ELSEWHERE_FIX))

    def worked(self, session_id: str) -> None:
        """Note that a session has just shown us, and nobody else, that it is at work."""
        self.activity.note(session_id)
        self._spawn(self._tell_work(session_id))

    async def _tell_work(self, session_id: str) -> None:
        await self.agents_found.wait()  # after a restart its supervisor may yet have to be found
        self.agents.worked(session_id)

    async def reattach(self) -> None:
        """Find the agents again that lived on while this node was away."""
        try:
            await self.sessions.reattach()
        finally:
            self.agents_found.set()  # one that is not found is stopped without its supervisor

    def restore(self) -> None:
        """Take over what our feed says; after its first flush, at the start."""
        self.sessions.restore(self._published())
        self._withhold_arguments()
        self._expect(self.sessions.live())
        self._keep(self._prune())
        self._keep(self.activity.watch())
        self._spawn(self.unlisted.watch())

    def _withhold_arguments(self) -> None:
        """Write anew what an older version has said: the arguments may hold a key of some tool."""
        for key, row in self._mesh.own.values(SESSIONS).items():
            session_id = key.decode(errors="replace")
            if self.sessions.get(session_id) is not None and tells_arguments(row):
                self.sessions.untold.tell_later(session_id)

    async def attribute(self, sources: Iterable[SourceConfig]) -> None:
        """Learn which usage logs our agents write into, before any is counted, and from now on."""
        attributing = Attributing(self._ground, self.sessions.get, sources)
        await attributing.look()
        self._keep(attributing.run())

    async def _prune(self) -> None:
        """Do so now and then."""
        pause_s = PRUNE_FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = PRUNE_S
            try:
                count = await self.prune()
            except OSError as error:  # somebody has changed its rights, say: tried again
                _log.warning("what is left of ended sessions stays: %s", error)
                continue
            if count:
                pause_s = PRUNE_ON_S
                _log.info("removed what was left of %d sessions that had ended", count)

    async def prune(self) -> int:
        """Remove what is left of sessions that are listed no more, and return of how many.

        And output of those that have ended, where there is too much of it.
        """
        # Who opens a session meanwhile makes the newest directory, which stays.
        listed = {record.session_id: record.ended for record in self._published()}
        listed |= {record.session_id: False for record in self.sessions.live()}
        ended = {session_id for session_id, has_ended in listed.items() if has_ended}
        old_s = self._settling.old_s(UNLISTED_KEPT_S)
        where, live = self._home.sessions, listed.keys() - ended
        return await asyncio.to_thread(prune, where, live, ended, self._socket_of, old_s)

    def directory_of(self, session_id: str) -> Path:
        """Return where a session's output is; nothing makes it here."""
        return self._home.sessions / session_id

    def _published(self) -> list[SessionRecord]:
        sessions = self._mesh.tables.sessions()
        return [record for owner, record in sessions if owner == self._mesh.self_id]

    def _is_listed(self, session_id: str) -> bool:
        """Whether a session is listed as one that has not ended."""
        if (record := self.sessions.get(session_id)) is not None:
            return not record.ended
        mine = self._published()
        return any(record.session_id == session_id and not record.ended for record in mine)

    async def _take_back(self) -> None:
        """Find the agents again whose sessions our disk had lost, once peers have returned them."""
        mine = self._published()
        self._tell_of_living(mine)
        lost = [record for record in mine if self.sessions.get(record.session_id) is None]
        known = [self.sessions.get(record.session_id) or record for record in mine]
        self.sessions.restore([*known, *self.sessions.live()])
        found = [record for record in lost if not record.ended]
        self._expect(found)
        await self.sessions.find(found)

    def _tell_of_living(self, mine: Iterable[SessionRecord]) -> None:
        """Write anew of our agents that live what a copy of this home has told ended."""
        for record in mine:
            known = self.sessions.get(record.session_id)
            if record.ended and known is not None and not known.ended:
                self.sessions.untold.tell_later(record.session_id)

    def _expect(self, records: Iterable[SessionRecord]) -> None:
        """Let orders wait for agents that are not found yet."""
        for record in records:
            one = record.session_id
            self.agents.expect(one, self.directory_of(one), self._socket_of(one))

    def _place_of(self, session_id: str) -> tuple[Path, Path]:
        directory = self._home.sessions / session_id
        make_private(directory)
        return directory, self._socket_of(session_id)

    def _socket_of(self, session_id: str) -> Path:
        return self._home.run / f"{session_id[:SOCKET_NAME_CHARS]}.sock"

    def _on_started(self, session_id: str, pid: int, suspended: bool) -> None:  # noqa: FBT001 - as agents say it
        self._spawn(self.sessions.started(session_id, pid, suspended=suspended))

    def _on_held(self, session_id: str, suspended: bool) -> None:  # noqa: FBT001 - as agents say it
        self._spawn(self.sessions.held(session_id, suspended=suspended))

    def _on_ended(self, session_id: str, ending: Ending) -> None:
        ended = Ended(
            ending.exit_code,
            ending.signal,
            ending.reason,
            killed=ending.killed_by_command is not None,
            at_s=ending.at_s,
            closed=ending.closed_by_command is not None,
            timed_out=ending.timed_out,
        )
        self._spawn(self.sessions.ended(session_id, ended))
