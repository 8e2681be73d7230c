"""One transaction at a time; several can be made one, and rows may travel with any."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.store.turns import Turn


class Rider(Protocol):
    """Rows that travel with the next transaction, whosever it is, and cost no sync of their own."""

    def board(self, connection: sqlite3.Connection) -> None:
        """Write what waits, in a transaction that is about to be committed."""

    def arrived(self) -> None:
        """What was written is on disk."""

    def missed(self) -> None:
        """Nothing of it is: it waits for the next."""


class Connection(sqlite3.Connection):
    """A connection that may have a rider, and takes turns with others if it is told to."""

    rider: Rider | None = None
    turn: Turn | None = None


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit, synced, if the block ends well; leave everything as it was if not.

    Inside another one it is part of that, and synced with it.
    """
    if connection.in_transaction:
        yield
        return
    rider = connection.rider if isinstance(connection, Connection) else None
    turn = connection.turn if isinstance(connection, Connection) else None
    with turn.taken() if turn else nullcontext():
        connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if rider is not None:
            rider.board(connection)
        connection.execute("COMMIT")
    except BaseException:
        if rider is not None:
            rider.missed()
        if connection.in_transaction:  # some failures of COMMIT have ended it already
            connection.execute("ROLLBACK")
        raise
    if rider is not None:
        rider.arrived()
