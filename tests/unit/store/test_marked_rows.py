"""Rows that a version without marks has counted stand beside marked ones, and no total changes."""

import sqlite3
from collections import Counter
from random import Random

import pytest
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.core.ledger import ledger as core_ledger
from meshnode.core.ledger.ledger import (
    Batch,
    Buckets,
    CounterKey,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    SlotKey,
    UsageRecord,
)
from meshnode.core.ledger.log_sessions import LogSession, Whose
from meshnode.core.ledger.marks import GATEWAYS, MARK
from meshnode.core.periods import DAY_S
from meshnode.store import counters, ledger, log_sessions, rollups
from meshnode.store.migrations import migrate

DAY_BEGAN_S = 20_000.0 * DAY_S
READER = DiagnosticsKey("higress", "00ff")
RECORD = usage_record("a", at_s=DAY_BEGAN_S, owner="x", provider="p", usage=Buckets(input=1000))
HAD = Whose("f" * 26, "reviewer", "olga"), LogSession("claude", "s", 0, DAY_BEGAN_S * 2)
LATER = replace(RECORD, idem_key="b", at_s=DAY_BEGAN_S + 50_000, usage=Buckets(input=5))


def commit(
    connection: sqlite3.Connection, *records: UsageRecord, days: int = 0, older: bool = False
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_ledger, "GATEWAYS", frozenset() if older else GATEWAYS)
        batch = Batch(READER, "access.log", {}, records, Diagnostics())
        ledger.commit(connection, batch, int(DAY_BEGAN_S + days * DAY_S) * 1000)


def roll_up(connection: sqlite3.Connection, days: int) -> None:
    piece = rollups.plan(connection, DAY_BEGAN_S + days * DAY_S, b"", 1 << 20)
    rollups.apply(connection, piece.moved)


def counted(connection: sqlite3.Connection) -> dict[CounterKey, Slot]:
    return dict(counters.counted(connection))


def total(connection: sqlite3.Connection) -> tuple[int, int]:
    slots = counted(connection).values()
    return sum(slot.records for slot in slots), sum(slot.usage.total for slot in slots)


@pytest.fixture
def upgraded(connection: sqlite3.Connection) -> sqlite3.Connection:
    """A day on which an older version counted 1000, and this one 5 of the same consumer."""
    commit(connection, RECORD, older=True)
    commit(connection, LATER)
    roll_up(connection, 40)
    tiers = {key.tier: slot.usage.total for key, slot in counted(connection).items()}
    assert sorted(tiers.values()) == [5, 1000]
    assert tiers["standard"] == 1000
    return connection


@pytest.mark.parametrize("tokens", [1001, 999, 1])
def test_a_correction_comes_off_the_row_that_holds_it(upgraded: sqlite3.Connection, tokens: int):
    commit(upgraded, replace(RECORD, usage=Buckets(input=tokens), rank=1), days=40)
    assert total(upgraded) == (2, tokens + 5)
    commit(upgraded, replace(LATER, usage=Buckets(input=7), rank=1), days=40)
    assert total(upgraded) == (2, tokens + 7)


def test_a_response_that_moves_elsewhere_leaves_its_row_whole(upgraded: sqlite3.Connection):
    commit(upgraded, replace(RECORD, model="n", rank=1), days=40)
    assert total(upgraded) == (2, 1005)
    commit(upgraded, replace(LATER, model="n", rank=1), days=40)
    left = [slot for key, slot in counted(upgraded).items() if key.model == "m"]
    assert {(slot.records, slot.usage.total) for slot in left} == {(0, 0)}
    assert total(upgraded) == (2, 1005)


def test_a_larger_line_changes_no_row_but_the_first(upgraded: sqlite3.Connection):
    before = counted(upgraded)
    commit(upgraded, replace(RECORD, usage=Buckets(input=1001), rank=1), days=40)
    changed = {key for key, slot in counted(upgraded).items() if before[key] != slot}
    assert len(changed) == 1


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_corrections_changes_a_total_or_what_is_whose(
    connection: sqlite3.Connection, seed: int
):
    chance = Random(seed)
    logged: dict[str, UsageRecord] = {}
    for number in range(46):
        days = 0 if number < 16 else 40
        key = str(chance.randrange(8))
        usage = Buckets(chance.choice([1, 50, 1000]), output=chance.choice([0, 7]))
        rank = logged[key].rank + 1 if key in logged else 0
        new = replace(
            RECORD, idem_key=key, owner="xy"[int(key) % 2], at_s=DAY_BEGAN_S + number * 600
        )
        at_s = logged.get(key, new).at_s
        logged[key] = replace(new, usage=usage, rank=rank, at_s=at_s, model=chance.choice("mmmn"))
        commit(connection, logged[key], days=days, older=number < 6)
        roll_up(connection, days)
        assert total(connection) == (len(logged), sum(r.usage.total for r in logged.values()))
    used = Counter[tuple[str, str]]()
    for record in logged.values():
        used[record.model, record.owner] += record.usage.total
    for row, slot in counted(connection).items():
        assert MARK not in row.tier or slot.usage.total <= used[row.model, slot.owner]


def test_a_service_with_a_mark_that_an_older_version_let_in_is_corrected(
    connection: sqlite3.Connection,
):
    old = replace(RECORD, tier="flex#eu")
    commit(connection, old, older=True)
    commit(connection, replace(old, usage=Buckets(input=1500), rank=1))
    assert total(connection) == (1, 1500)
    commit(connection, replace(old, tier="flexeu", usage=Buckets(input=1600), rank=2))
    assert total(connection) == (1, 1600)


def test_such_a_service_is_joined_once_with_what_a_feed_says(connection: sqlite3.Connection):
    commit(connection, replace(RECORD, tier="flex#eu"), older=True)
    feed = {**counted(connection), SlotKey("s", "m", "flex", 1 + 20_000 * 48): Slot(1, Buckets(7))}
    rollups.hold(connection, feed)
    said = [slot for _, slot in ledger.published(connection) if isinstance(slot, Slot)]
    assert sum(slot.usage.total for slot in said) == 1007


@pytest.mark.parametrize("days", [0, 40])
@pytest.mark.parametrize("output", [-40, 0, 50])
def test_a_correction_finds_what_went_into_a_row_that_peers_have_returned(
    connection: sqlite3.Connection, output: int, days: int
):
    """That row says no more than is counted here: both disks have read the same responses."""
    first = replace(RECORD, source="claude", owner="", usage=Buckets(100, output=50))
    second = replace(first, idem_key="b", at_s=first.at_s + 1)
    lost = sqlite3.connect(":memory:", isolation_level=None)
    migrate(lost)
    commit(lost, first)
    log_sessions.keep(lost, [HAD])
    commit(lost, second)
    log_sessions.keep(connection, [HAD])
    commit(connection, first, second)
    rollups.hold(connection, counted(lost))
    lost.close()
    roll_up(connection, days)
    commit(connection, replace(second, usage=Buckets(100, output=50 + output), rank=1), days=days)
    commit(connection, replace(first, model="n", rank=1), days=days)
    commit(connection, replace(second, idem_key="c"), days=days)
    said = [slot for _, slot in ledger.published(connection) if isinstance(slot, Slot)]
    assert total(connection) == (3, 450 + output)
    assert sum(slot.records for slot in said) == 3
    assert sum(slot.usage.total for slot in said) == 450 + output
