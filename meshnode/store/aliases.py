"""Responses that have two keys: one by which they count, and one by which others tell of them.

Invariant: of the two keys of a response one counts at most, in whatever order they are told.
Functions are synchronous, and change nothing outside the caller's transaction.
"""

from __future__ import annotations

from posixpath import basename
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.ledger.ledger import Buckets
from meshnode.store import usage_log

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from meshnode.core.ledger.ledger import UsageRecord
    from meshnode.core.ledger.usage_log import Entry

SUPERSEDED = 1 << 62  # the rank of a record that counts nothing: above all that readers give


def settled(
    connection: sqlite3.Connection, records: Sequence[UsageRecord]
) -> Sequence[UsageRecord]:
    """Return records under the key that an older version has counted them by, if it has."""
    former = {one.formerly for one in records if one.formerly}
    if not former:
        return records
    known = usage_log.latest(connection, sorted(former))
    dropped = usage_log.dropped(connection, former - known.keys())
    named = usage_log.dropped(connection, {_named(key.rpartition(":")[0]) for key in dropped})

    def is_counted(one: UsageRecord) -> bool:
        entry = known.get(one.formerly)
        if entry is None:
            lineage = one.formerly.rpartition(":")[0]
            return one.formerly in dropped and _named(lineage) not in named
        if entry.record.rank == SUPERSEDED:
            return False
        # Others that made the same totals had the same key: it is that of the one which counts.
        counted = entry.record
        return counted.session == one.session or basename(counted.file) == basename(one.file)

    return [
        msgspec.structs.replace(one, idem_key=one.formerly) if is_counted(one) else one
        for one in records
    ]


def supersede(
    connection: sqlite3.Connection, keys: Sequence[str]
) -> tuple[dict[str, Entry], list[UsageRecord]]:
    """Let keys count nothing from now on; return what counts of them, and what is to take over."""
    if not keys:
        return {}, []
    known = usage_log.latest(connection, list(dict.fromkeys(keys)))
    lineages = {key.rpartition(":")[0] for key in keys}
    marked = [*(key for key in keys if key not in known), *map(_named, lineages)]
    connection.executemany(
        "INSERT OR IGNORE INTO usage_dropped VALUES (?)",
        [(usage_log.mark_of(key),) for key in marked],
    )
    counted = {key: entry for key, entry in known.items() if entry.record.rank < SUPERSEDED}
    nothing = [
        msgspec.structs.replace(entry.record, usage=Buckets(), rank=SUPERSEDED)
        for entry in counted.values()
    ]
    return counted, nothing


def _named(lineage: str) -> str:
    """Name what is marked of a lineage in which keys were superseded: marks of them are no counts.

    The lineage is what keys begin with; a mark more for each key would make keeping 6 % slower.
    """
    return f"superseded:{lineage}"
