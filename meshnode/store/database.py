"""One SQLite file a home: opened with care, used by one thread.

Invariant: a transaction that returned is synced (WAL, synchronous=FULL); a file that is no database
of ours is reported and left as it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from meshnode.core.errors import DamagedError
from meshnode.store import facts, feeds, forks, invites, journal, ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION = 1  # of the schema; a file with a higher one is refused, not guessed at
BUSY_TIMEOUT_MS = 5000
_SCHEMA = (
    facts.SCHEMA + feeds.SCHEMA + forks.SCHEMA + journal.SCHEMA + invites.SCHEMA + ledger.SCHEMA
)

P = ParamSpec("P")
Result = TypeVar("Result")


class Database:
    """A connection and the one thread that uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection = self._thread.submit(self._open).result()

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], Result],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """Call a function with the connection, on the database's thread, in order of arrival."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._thread, lambda: function(self._connection, *args, **kwargs)
        )

    def run_now(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], Result],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """Do the same and wait: before a node's loop runs, and for verbs without one."""
        return self._thread.submit(lambda: function(self._connection, *args, **kwargs)).result()

    def close(self) -> None:
        """Finish what waits, then close the file."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    def _open(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600, exist_ok=True)
        try:
            with closing(
                self._connect("ro")
            ) as reader:  # closing a writer would write the WAL back
                version = self._checked_version(reader)
            connection = self._connect("rw")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
            if version < VERSION:
                connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, str(error)) from error
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        return connection

    def _checked_version(self, connection: sqlite3.Connection) -> int:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise damaged(self.path, str(verdict))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise DamagedError(
                f"{self.path} was written by a newer session-mesh", "upgrade this machine"
            )
        return int(version)


def damaged(path: Path, detail: str) -> DamagedError:
    """Say that a database is of no use, and what to do."""
    return DamagedError(
        f"the database {path} is damaged: {detail.splitlines()[-1]}",
        f"move it aside (mv {path} {path}.damaged) and start again: peers return this node's rows, "
        "logs its ledger",
    )
