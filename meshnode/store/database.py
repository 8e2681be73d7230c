"""One SQLite file a home: opened with care, used by one thread at a time.

Invariant: a transaction that returned is synced (WAL, synchronous=FULL), and a crash at any
instruction leaves a file that opens with all of them and half of none; a file that is no database
of ours is reported and left as it is. A disk that fails is told as a StorageError, to the caller
and to `on_trouble`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from time import sleep
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from meshnode.core.errors import DamagedError, StorageError
from meshnode.store.faults import (
    damaged,
    disk_error,
    free_bytes,
    is_held,
    is_of_the_disk,
    opening_error,
    replaced,
    storage_error,
)
from meshnode.store.transactions import Connection
from meshnode.store.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from meshnode.store.transactions import Rider

PATIENCE_MS = 5000  # with others that write, for a turn and then for SQLite; then StorageError
LOOK_AGAIN_MS = 10
CACHE_KIB = 2000  # of pages in memory, as SQLite has it
LOG_PAGES = 1000  # written ahead until they are written to their places, too: as SQLite has it,
LOG_SHARE = 8  # but no more than this part of what is free on the disk when it is opened,
LOG_PAGES_MIN = 32  # down to so many
PAGE_BYTES = 4096
COPY_BYTES_MAX = 256 << 20  # of a file of an older version, in memory; larger: StorageError
VERSION = 12  # of the schema: how many steps `migrations` has
_START = "session-mesh up --detach"
_MADE_ANEW = f"start the node: {_START}; peers return its rows, logs its ledger"

P = ParamSpec("P")
Result = TypeVar("Result")


def has_log(path: Path) -> bool:
    """Whether anything waits in the log of a file: one that is empty was only begun.

    To read beside one SQLite wants room for shared memory, which a full disk has not.
    """
    try:
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    except FileNotFoundError:
        return False
    except OSError:
        return True


class Database:
    """A connection and, once a loop waits for it, the one thread that uses it."""

    copy_bytes_max = COPY_BYTES_MAX

    def __init__(  # noqa: PLR0913 - each is a matter of who opens it, and has a default
        self,
        path: Path,
        *,
        checked: bool = True,
        cache_kib: int = CACHE_KIB,
        log_pages: int = LOG_PAGES,
        patience_ms: int = PATIENCE_MS,
        frozen: bool = False,
        before_steps: Callable[[], None] = lambda: None,
    ) -> None:
        """Open a file, making it if need be; `checked` looks through all of it before.

        `before_steps` is called before a file of an older version is changed, and raises what
        forbids that: who does not hold the home may be beside a node of that version.

        `frozen` opens what there is only to be read: of a disk that takes nothing, or of a node
        that may be running; `store/frozen.py` sees whether somebody wrote meanwhile. A file of an
        older version is read as this one would have it, from a copy in memory.
        Raises DamagedError, StorageError.
        """
        self.path = path
        self._checked = checked
        self._frozen = frozen
        self.is_immutable = False  # read without locks, as of a file that nobody writes
        self._cache_kib = cache_kib
        self._log_pages = log_pages
        self._before_steps = before_steps
        self._patience_ms = patience_ms
        self.on_trouble: Callable[[StorageError], None] = lambda _trouble: None
        self._thread: ThreadPoolExecutor | None = None  # verbs without a loop need none
        self._connection = self._open()
        self._file = 0 if frozen else path.stat().st_ino

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], Result],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """Call a function with the connection, on the database's thread, in order of arrival.

        Raises StorageError when the disk fails, whatever the function raises otherwise.
        """
        import asyncio  # noqa: PLC0415 - 40 ms, which verbs without a loop save
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - as above

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        if not self._is_there():
            trouble = replaced(self.path)
            self.on_trouble(trouble)
            raise trouble
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: function(self._connection, *args, **kwargs)
            )
        except sqlite3.Error as error:
            if not is_of_the_disk(error):
                raise
            trouble = storage_error(self.path, error)
            self.on_trouble(trouble)
            raise trouble from error

    def run_now(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], Result],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Result:
        """Do the same and wait: before a node's loop runs, and for verbs without one.

        Raises StorageError when the disk fails, DamagedError for a file of no use.
        """
        try:
            if self._thread is None:
                return function(self._connection, *args, **kwargs)
            return self._thread.submit(lambda: function(self._connection, *args, **kwargs)).result()
        except sqlite3.Error as error:
            if not is_of_the_disk(error):
                raise
            raise opening_error(self.path, error) from error

    def carry(self, rider: Rider) -> None:
        """Let rows travel with every transaction from now on."""
        self._connection.rider = rider

    def close(self) -> None:
        """Finish what waits, then close the file."""
        if self._thread is not None:
            self._thread.shutdown()
        self._connection.close()

    def _is_there(self) -> bool:
        """Whether the file at the path is the open one: else what is written is lost."""
        try:
            return not self._file or self.path.stat().st_ino == self._file
        except FileNotFoundError:
            return False
        except OSError:  # nothing is known: SQLite says what is wrong
            return True

    def _open(self) -> Connection:
        if self.path.is_fifo():  # SQLite would wait for somebody who writes into it
            raise DamagedError(f"the database {self.path} is a pipe", "move it away")
        try:
            if self._frozen:
                return self._as_it_is()
            self.path.touch(mode=0o600, exist_ok=True)
            with closing(
                self._connect("ro")
            ) as reader:  # closing a writer would write the WAL back
                self._check(reader)
            return self._prepared(self._connect("rw"))
        except sqlite3.Error as error:
            raise opening_error(self.path, error) from error
        except UnicodeDecodeError as error:  # in what SQLite says about a spoiled schema
            raise damaged(self.path, "its schema is unreadable") from error
        except OSError as error:
            raise disk_error(self.path, (error.strerror or str(error)).lower()) from error

    def _prepared(self, connection: Connection) -> Connection:
        try:
            self._size_cache(connection)
            self._write_ahead(connection)
            connection.execute(f"PRAGMA wal_autocheckpoint={self._pages_ahead()}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                if version:
                    self._before_steps()
                from meshnode.store.migrations import migrate  # noqa: PLC0415 - knows all tables

                # Not synced before what follows is: a step that a crash undoes is taken again.
                connection.execute("PRAGMA synchronous=NORMAL")
                migrate(connection)
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()  # or its locks would outlive it, and spoil the next attempt
            raise
        return connection

    def _pages_ahead(self) -> int:
        """Return how long the log may get: it filled a small disk, and nothing else could."""
        free = free_bytes(self.path)
        if free is None:
            return self._log_pages
        return max(min(self._log_pages, free // (LOG_SHARE * PAGE_BYTES)), LOG_PAGES_MIN)

    def _write_ahead(self, connection: Connection) -> None:
        """Let a file have a log: with others that make the same new one, SQLite does not wait."""
        for left in reversed(range(self._patience_ms // LOOK_AGAIN_MS)):
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if not (is_held(error) and left):
                    raise
                sleep(LOOK_AGAIN_MS / 1000)
            else:
                return

    def _as_it_is(self) -> Connection:
        """Read without a log to write ahead, where there is nothing in one: nobody was writing."""
        if not (self.path.exists() and self.path.stat().st_size):
            raise DamagedError(f"the database {self.path} is missing or empty", _MADE_ANEW)
        self.is_immutable = not has_log(self.path)
        connection = self._connect("ro&immutable=1" if self.is_immutable else "ro")
        try:
            self._size_cache(connection)
            self._check(connection)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == VERSION:
                return connection
            copy = self._copied(connection)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return copy

    def _copied(self, connection: Connection) -> Connection:
        """Copy a file of an older version to memory, and take the steps there."""
        from meshnode.store.migrations import migrate  # noqa: PLC0415 - as in `_prepared`

        pragmas = ("page_count", "page_size")
        pages, page_bytes = (connection.execute(f"PRAGMA {one}").fetchone()[0] for one in pragmas)
        if pages * page_bytes > self.copy_bytes_max:
            said = f"{self.path} is of an older version, and too large to be read as of this one"
            raise StorageError(said, f"start its node once: {_START}")
        copy = self._connect("memory")
        try:
            connection.backup(copy)
            migrate(copy)
        except BaseException:
            copy.close()
            raise
        return copy

    def _size_cache(self, connection: Connection) -> None:
        """Read the schema, too: whoever calls this closes what is spoiled."""
        connection.execute(f"PRAGMA cache_size=-{self._cache_kib}")

    def _connect(self, mode: str) -> Connection:
        uri = f"file:{quote(str(self.path))}?mode={mode}"
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, factory=Connection, check_same_thread=False
        )
        connection.execute(f"PRAGMA busy_timeout={self._patience_ms}")
        if mode == "rw":
            turn = self.path.with_name(f"{self.path.name}-turn")
            connection.turn = Turn(turn, self._patience_ms)
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        if self._checked:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise damaged(self.path, str(verdict))
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise DamagedError(
                f"{self.path} was written by a newer session-mesh", "upgrade this machine"
            )
