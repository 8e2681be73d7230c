"""Noting which usage logs the agents of this node's sessions write into, while they do.

Invariant: it is on disk before the logs are counted that were written since, as far as programs say
what they write into before they do: who counts asks the same database (store/log_sessions.py).
Nothing that programs leave behind keeps a node down: at worst a log is nobody's.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.agents.directories import Directories
from meshnode.agents.log_sessions import CLAUDE, CODEX, LogSessions
from meshnode.client.home import expanded
from meshnode.core.errors import StorageError, UsageError
from meshnode.core.ledger.log_sessions import Whose
from meshnode.ingest import places
from meshnode.store import log_sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from meshnode.core.ledger.log_sessions import LogSession
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.ground import Ground

_log = logging.getLogger(__name__)

LOOK_S = 60.0  # unasked: a program that was killed leaves what it said of itself
SETTLE_S = 0.5  # after a change: a lock is made before it is held
TOGETHER_S = 0.02  # changes in this time are looked at once
UNKEPT_MAX = 1024  # while the disk takes nothing; then all is looked at anew, as at a start
SAID_IN = {
    CLAUDE: (places.of_claude, "projects", "sessions"),
    CODEX: (places.of_codex, "sessions", "thread-writer-locks"),
}
"""Of each source where it usually is, the directory of its logs, and that of who writes them."""


class Attributing:
    """Looks for one node."""

    def __init__(
        self,
        ground: Ground,
        session: Callable[[str], SessionRecord | None],
        sources: Iterable[SourceConfig],
    ) -> None:
        self._database, self._clock = ground.database, ground.clock
        self._session = session
        self._places = {source: _places(source, sources) for source in SAID_IN}
        self._unkept: list[tuple[Whose, LogSession]] = []
        self._looking: LogSessions | None = None
        self._trouble = ""

    async def look(self, watch: Directories | None = None) -> None:
        """Look, and keep what has changed; a disk that fails is tried again at the next look."""
        try:
            if watch:
                await asyncio.to_thread(watch.arm)  # a home may lie on another machine
            with suppress(StorageError):
                await self._look()
        except Exception as error:  # noqa: BLE001 - whatever: the node is there without it
            if str(error) != self._trouble:  # it may come back at every look
                _log.warning("whose the usage logs are could not be seen", exc_info=error)
            self._trouble = str(error)
            self._begin_anew()

    async def _look(self) -> None:
        if len(self._unkept) > UNKEPT_MAX:
            self._begin_anew()
        if self._looking is None:
            known = await self._database.run(log_sessions.still_had)
            where = self._places[CLAUDE], self._places[CODEX]
            self._looking = LogSessions(*where, self._is_ours, known)
        found = await asyncio.to_thread(self._looking.look, self._clock.wall_s())
        self._unkept += [self._had(session, one) for session, one in found]
        if self._unkept:
            await self._database.run(log_sessions.keep, self._unkept)
            self._unkept = []

    def _begin_anew(self) -> None:
        self._looking, self._unkept = None, []

    async def run(self) -> None:
        """Look whenever something changes, for as long as the node runs."""
        where = self._places[CLAUDE], self._places[CODEX]
        watch = await asyncio.to_thread(Directories, *where)
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        if watch.fd >= 0:
            loop.add_reader(watch.fd, _note, watch, changed)
        try:
            wait_s = 0.0  # for what changed before
            while True:
                try:
                    async with asyncio.timeout(wait_s):
                        await changed.wait()
                    await asyncio.sleep(TOGETHER_S)
                    wait_s = SETTLE_S
                except TimeoutError:
                    wait_s = LOOK_S
                changed.clear()
                await self.look(watch)
        finally:
            if watch.fd >= 0:
                loop.remove_reader(watch.fd)
            watch.close()

    def _is_ours(self, session: str) -> bool:
        return self._session(session) is not None

    def _had(self, session: str, had: LogSession) -> tuple[Whose, LogSession]:
        """Return whose it is, and no longer than that session lasts."""
        record = self._session(session)
        if record is None:  # forgotten since
            return Whose(session, "", ""), replace(had, until_s=had.since_s)
        ended_s = record.ended_at_s if record.ended and record.ended_at_s else math.inf
        until_s = max(had.since_s, min(had.until_s, ended_s))
        return Whose(session, record.agent_id, record.owner or ""), replace(had, until_s=until_s)


def _note(watch: Directories, changed: asyncio.Event) -> None:
    if watch.drain():
        changed.set()


def _places(source: str, sources: Iterable[SourceConfig]) -> list[Path]:
    """Return where a source says who writes: where it usually is, and beside what is followed."""
    usual, logs, said = SAID_IN[source]
    found: list[Path] = []
    with suppress(UsageError):  # a user without a home has no usual place
        for path in map(expanded, usual(os.environ, expanded("~"))):
            is_home = path.name != logs or _is_there(path / logs)
            found.append(path if is_home else path.parent)
    found += [_home_of(expanded(one.path), logs) for one in sources if one.source == source]
    return list({home / said: None for home in found})


def _home_of(path: Path, logs: str) -> Path:
    """Return the directory of a program: a path, or above where it keeps its logs."""
    if _is_there(path / logs):
        return path
    inside = (one.parent for one in (path, *path.parents) if one.name == logs)
    return next(inside, path)


def _is_there(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib's raises for what may not be seen
