"""Another process that writes one transaction after the other, as one that reads a large log."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshnode.store import facts
from meshnode.store.database import Database
from meshnode.store.transactions import transaction

ROWS = {f"row {number}": bytes(100) for number in range(1000)}
TIMES = 30  # in one transaction: some 0.1 s, and next to nothing until the next begins
LOG_PAGES = 1 << 20  # never put into their places meanwhile: that would be a pause


@contextmanager
def written_without_pauses(path: Path) -> Iterator[None]:
    """Have it write into a database meanwhile."""
    Database(path).close()
    command = [sys.executable, __file__, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def write(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        os.write(sys.stdout.fileno(), b"begun\n")
        for _ in range(TIMES):
            facts.remember(connection, ROWS)


def main(path: str) -> None:
    database = Database(Path(path), log_pages=LOG_PAGES)
    while True:
        database.run_now(write)


if __name__ == "__main__":
    main(sys.argv[1])
