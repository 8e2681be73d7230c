"""The schema, as the ordered steps that made it.

Invariant: every file, new or old, went through the same steps; each is one transaction together
with its number, so that a crash leaves a file of some version, never one between two. A file of a
newer version is refused and left as it is.

A new table: put its CREATE TABLE into its module as `SCHEMA` and append a `Migration` here; never
edit a step that was released. Steps only add. No copy of the file is kept: a step that fails rolls
back whole, an older program refuses the newer file instead of harming it, and a copy of a large
database is what fills a small device's disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.store import (
    audit,
    events,
    facts,
    feeds,
    forks,
    heads,
    invites,
    journal,
    ledger,
    rounds,
    standing,
    usage_log,
)
from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: what it is for, and its statements, none of which holds a semicolon inside."""

    purpose: str
    script: str


MIGRATIONS = (
    Migration(
        "what a node keeps",
        facts.SCHEMA + feeds.SCHEMA + journal.SCHEMA + invites.SCHEMA + ledger.SCHEMA,
    ),
    Migration(
        "why epochs are in quarantine, and a checksum beside each row",
        forks.SCHEMA + feeds.CHECKSUMS,
    ),
    Migration("what has changed lately", events.SCHEMA),
    Migration("who did what here, and what was seen of others' logs", audit.SCHEMA + heads.SCHEMA),
    Migration("how far each command has come, and whose it is", journal.STATES),
    Migration("what became of standing kills", standing.SCHEMA),
    Migration(
        "a log of usage that is chained and corrected, and a place for each file",
        f"{usage_log.SCHEMA};{usage_log.FROM_RECORDS};{ledger.PLACES}",
    ),
    Migration("the texts of rounds", rounds.SCHEMA),
    Migration("checkpoints of the log of usage, and what it has dropped", usage_log.CHECKPOINTS),
)


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration] = MIGRATIONS) -> None:
    """Take the steps that a file has not taken yet; a step that fails leaves those before it.

    Raises sqlite3.Error.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(steps[version:], version + 1):
        with transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version >= number:
                continue  # another process was quicker
            for statement in step.script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={number}")
