"""A ledger that somebody has edited by hand: a clear word, and nothing changed."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from usage_records import usage_record

from meshnode.core.errors import DamagedError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.checkpoints import Checkpoint, sign_checkpoint
from meshnode.core.ledger.ledger import Batch, Buckets, Diagnostics, DiagnosticsKey
from meshnode.node.ledger.verifying import verify_ledger
from meshnode.store import checkpoints, ledger, usage_log
from meshnode.store.database import Database

KEY = DiagnosticsKey("claude", "0" * 16)


def batch(rank: int) -> Batch:
    usage = Buckets(input=1, output=rank)
    record = usage_record("claude:m1", source="claude", at_s=1.8e9, usage=usage, rank=rank)
    return Batch(KEY, "/x", {}, (record,), Diagnostics())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A ledger of one record."""
    database = Database(tmp_path / "state.db")
    database.run_now(ledger.commit, batch(1), 0)
    yield database
    database.close()


def edited(connection: sqlite3.Connection, edit: str) -> None:
    connection.execute(edit)


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM usage_slots",
        "UPDATE usage_log SET at_s = 1e300",
        "UPDATE usage_log SET at_s = -1e300",
        "UPDATE usage_log SET input = -5",
        "UPDATE usage_kinds SET model = x'ff'",
        "UPDATE usage_kinds SET id = 99",
        "UPDATE usage_log SET kind = 'x'",
        "UPDATE usage_log SET rank = 1e300",
        "DELETE FROM usage_kinds",
    ],
)
def test_a_correction_of_an_edited_row_tells_of_the_damage(database: Database, edit: str):
    database.run_now(edited, edit)
    with pytest.raises(DamagedError):
        database.run_now(ledger.commit, batch(2), 0)
    (seq, _) = database.run_now(usage_log.tail)
    assert seq == 1


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE usage_log SET at_s = 1e300",
        "UPDATE usage_log SET input = 'many'",
        "UPDATE usage_kinds SET model = x'ff'",
    ],
)
def test_sums_of_what_no_reader_gives_tell_of_the_damage(database: Database, edit: str):
    database.run_now(edited, edit)
    with pytest.raises(DamagedError):
        database.run_now(usage_log.slots_where, lambda _source, _file: True)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE usage_kinds SET model = x'ff'",
        "UPDATE usage_kinds SET id = 99",
        "UPDATE usage_log SET kind = 'x'",
        "UPDATE usage_log SET rank = 1e300",
        "UPDATE usage_log SET recorded_ms = 'x'",
        "DELETE FROM usage_kinds",
    ],
)
def test_an_edited_log_is_named_and_nothing_of_it_dropped(database: Database, edit: str):
    key = Key(bytes(32))
    node = node_id_of(key.public)

    def signed(seq: int, hash_: bytes, totals: tuple[int, ...]) -> Signed:
        return sign_checkpoint(key, Checkpoint(node, seq, hash_, 1, totals, dropped=not totals))

    database.run_now(ledger.commit, batch(2), 0)
    database.run_now(checkpoints.write, node, signed)
    database.run_now(edited, edit)
    said = verify_ledger(database, node)
    assert said["wrong"]["seq"] == 1
    if "recorded_ms" in edit:
        assert database.run_now(checkpoints.drop, 1 << 60, 1 << 61, signed) is None
