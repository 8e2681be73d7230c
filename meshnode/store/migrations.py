"""The schema, as the ordered steps that made it.

Invariant: every file, new or old, went through the same steps; each is one transaction together
with its number, so that a crash leaves a file of some version, never one between two. A file of a
newer version is refused and left as it is.

A new table: append a `Migration` with its CREATE TABLE; never edit a step that was released. Steps
only add. No copy of the file is kept: a step that fails rolls back whole, an older program refuses
the newer file instead of harming it, and a copy of a large database is what fills a small device's
disk. The statements stand here, not in the modules of their tables, so that a new file needs none
of those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.store.transactions import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class Migration(msgspec.Struct, frozen=True):
    """One step: what it is for, and its statements, none of which holds a semicolon inside."""

    purpose: str
    script: str


MIGRATIONS = (
    Migration(
        "what a node keeps",
        """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS feeds (
    origin TEXT PRIMARY KEY, payload BLOB NOT NULL, signature BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
    origin TEXT NOT NULL, tab TEXT NOT NULL, key BLOB NOT NULL,
    epoch INTEGER NOT NULL, seq INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (origin, tab, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS control (
    id BLOB PRIMARY KEY, type TEXT NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
    command_id BLOB PRIMARY KEY, hash BLOB NOT NULL, expires_s INTEGER NOT NULL,
    payload BLOB, signature BLOB
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS journal_expires ON journal (expires_s);
CREATE TABLE IF NOT EXISTS invites (
    id BLOB PRIMARY KEY, secret BLOB NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL,
    role TEXT NOT NULL, uses_left INTEGER NOT NULL, expires_s INTEGER NOT NULL,
    labels BLOB NOT NULL, for_key BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS admitted (
    invite_id BLOB NOT NULL, node_key BLOB NOT NULL, operator_key BLOB NOT NULL,
    PRIMARY KEY (invite_id, node_key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_records (
    idem_key TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    at_s REAL NOT NULL,
    session TEXT NOT NULL,
    project TEXT NOT NULL,
    agent TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    tier TEXT NOT NULL,
    flags TEXT NOT NULL,
    input INTEGER NOT NULL,
    cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    web_search INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS usage_offsets (
    source TEXT NOT NULL,
    path_hash TEXT NOT NULL,
    path TEXT NOT NULL,
    position BLOB NOT NULL,
    diagnostics BLOB NOT NULL,
    PRIMARY KEY (source, path_hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage_slots (
    key BLOB PRIMARY KEY,
    slot BLOB NOT NULL
) WITHOUT ROWID
""",
    ),
    Migration(
        "why epochs are in quarantine, and a checksum beside each row (NULL: it is older)",
        """
CREATE TABLE IF NOT EXISTS forks (
    origin TEXT PRIMARY KEY, epoch INTEGER NOT NULL,
    payload BLOB NOT NULL, signature BLOB NOT NULL,
    other_payload BLOB NOT NULL, other_signature BLOB NOT NULL
) WITHOUT ROWID;
ALTER TABLE rows ADD COLUMN crc INTEGER
""",
    ),
    Migration(
        "what has changed lately",
        """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, kind TEXT NOT NULL, op TEXT NOT NULL,
    names TEXT NOT NULL, packed BLOB NOT NULL
)
""",
    ),
    Migration(
        "who did what here, and what was seen of others' logs",
        """
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, session TEXT NOT NULL,
    agent TEXT NOT NULL, owner TEXT NOT NULL, command TEXT NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_heads (
    node TEXT NOT NULL, seen_s REAL NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
    trouble TEXT NOT NULL, payload BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (node, trouble, payload)
) WITHOUT ROWID
""",
    ),
    Migration(
        "how far each command has come, and whose it is",
        """
ALTER TABLE journal ADD COLUMN state TEXT NOT NULL DEFAULT 'executing';
ALTER TABLE journal ADD COLUMN signer BLOB NOT NULL DEFAULT x'';
ALTER TABLE journal ADD COLUMN command BLOB;
ALTER TABLE journal ADD COLUMN mark BLOB;
UPDATE journal SET state = 'done' WHERE payload IS NOT NULL;
CREATE INDEX IF NOT EXISTS journal_undone ON journal (state) WHERE state <> 'done'
""",
    ),
    Migration(
        "what became of standing kills",
        """
CREATE TABLE IF NOT EXISTS standing (
    order_id BLOB NOT NULL, session TEXT NOT NULL, expires_s INTEGER NOT NULL, outcome TEXT,
    PRIMARY KEY (order_id, session)
) WITHOUT ROWID
""",
    ),
    Migration(
        "a log of usage that is chained and corrected, instead of records; a place for each file"
        " instead of one position; and in each slot the seq that changed it last",
        """
CREATE TABLE IF NOT EXISTS usage_kinds (
    id INTEGER PRIMARY KEY,
    session TEXT NOT NULL, source TEXT NOT NULL, project TEXT NOT NULL, agent TEXT NOT NULL,
    owner TEXT NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL, tier TEXT NOT NULL,
    flags TEXT NOT NULL, file TEXT NOT NULL, price_source TEXT NOT NULL,
    UNIQUE (session, source, project, agent, owner, model, provider, tier, flags, file,
            price_source)
);
CREATE TABLE IF NOT EXISTS usage_log (
    seq INTEGER PRIMARY KEY, idem_key TEXT NOT NULL, revision INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL, kind INTEGER NOT NULL, rank INTEGER NOT NULL, at_s REAL NOT NULL,
    byte_offset INTEGER NOT NULL, input INTEGER NOT NULL, cache_read INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL, output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL, web_search INTEGER NOT NULL, cost_nusd INTEGER, hash BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS usage_log_keys ON usage_log (idem_key, revision);
CREATE INDEX IF NOT EXISTS usage_log_kinds ON usage_log (kind);
INSERT INTO usage_kinds SELECT NULL, session, source, project, agent, owner, model, provider, tier,
    flags, '', '' FROM usage_records GROUP BY 2, 3, 4, 5, 6, 7, 8, 9, 10;
INSERT INTO usage_log SELECT NULL, idem_key, 0, CAST(at_s * 1000 AS INTEGER), usage_kinds.id, 0,
    at_s, 0, input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, web_search, NULL,
    x'' FROM usage_records JOIN usage_kinds USING (session, source, project, agent, owner, model,
    provider, tier, flags) ORDER BY at_s, idem_key;
DROP TABLE usage_records;
CREATE TABLE IF NOT EXISTS usage_places (
    source TEXT NOT NULL, path_hash TEXT NOT NULL, file BLOB NOT NULL, place BLOB NOT NULL,
    PRIMARY KEY (source, path_hash, file)
) WITHOUT ROWID;
INSERT INTO usage_places SELECT source, path_hash, x'', position FROM usage_offsets;
CREATE TABLE IF NOT EXISTS usage_readers (
    source TEXT NOT NULL, path_hash TEXT NOT NULL, path TEXT NOT NULL, diagnostics BLOB NOT NULL,
    PRIMARY KEY (source, path_hash)
) WITHOUT ROWID;
INSERT INTO usage_readers SELECT source, path_hash, path, diagnostics FROM usage_offsets;
DROP TABLE usage_offsets;
ALTER TABLE usage_slots ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS usage_slots_seq ON usage_slots (seq);
CREATE TABLE IF NOT EXISTS usage_imported (key BLOB PRIMARY KEY, slot BLOB NOT NULL) WITHOUT ROWID
""",
    ),
    Migration(
        "the texts of rounds",
        """
CREATE TABLE IF NOT EXISTS usage_rounds (
    idem_key TEXT PRIMARY KEY, session TEXT NOT NULL, at_s REAL NOT NULL, size INTEGER NOT NULL,
    said BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS usage_rounds_sessions ON usage_rounds (session, at_s, size);
CREATE INDEX IF NOT EXISTS usage_rounds_times ON usage_rounds (at_s, size)
""",
    ),
    Migration(
        "what was signed of the log of usage, and the marks of keys whose records were dropped",
        """
CREATE TABLE IF NOT EXISTS usage_checkpoints (
    seq INTEGER PRIMARY KEY, payload BLOB NOT NULL, signature BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS usage_dropped (mark INTEGER PRIMARY KEY)
""",
    ),
    Migration(
        "which sessions of usage logs the sessions of the mesh had",
        """
CREATE TABLE IF NOT EXISTS log_sessions (
    name TEXT NOT NULL, source TEXT NOT NULL, since_s REAL NOT NULL, until_s REAL NOT NULL,
    session TEXT NOT NULL, agent TEXT NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (name, source, session, since_s)
)
""",
    ),
    Migration(
        "whose each standing kill is, so that nobody's take the room of all",
        "ALTER TABLE standing ADD COLUMN issuer BLOB NOT NULL DEFAULT x''",
    ),
    Migration(
        "what of the ledger is said by a node whose place this one has taken",
        """
CREATE TABLE IF NOT EXISTS usage_elsewhere (key BLOB PRIMARY KEY, slot BLOB NOT NULL) WITHOUT ROWID
""",
    ),
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
