"""Laws of the ledger: whatever happens to the log, and in whatever order, totals are the same."""

import gzip
import json
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshnode.app.cost.cost import OwnedSlot, cost
from meshnode.app.cost.cutting import BY, CostQuery
from meshnode.core.errors import PeerError
from meshnode.core.ledger.ledger import (
    COUNT_MAX,
    LEDGER,
    SLOT_MAX,
    Buckets,
    Diagnostics,
    Slot,
    SlotKey,
    Slots,
    UsageRecord,
    added_up,
    merged,
)
from meshnode.core.ledger.ledger_rows import (
    diagnostics_from_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    slot_to_row,
)
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.ledger.regained import joined_rows
from meshnode.ingest.higress import HigressReader
from meshnode.store import ledger
from meshnode.store.migrations import migrate

pytestmark = pytest.mark.property

counts = st.integers(0, 1 << 40)
buckets = st.builds(Buckets, *[counts] * 7)
texts = st.text(max_size=4)
models = st.sampled_from(["gpt-4o", "GPT-4o", "odd"])
records = st.builds(
    UsageRecord,
    idem_key=texts,
    source=st.just("higress"),
    at_s=st.floats(0, 20_000),
    session=st.sampled_from("abc"),
    project=texts,
    agent=texts,
    owner=texts,
    model=models,
    provider=texts,
    tier=st.just("standard"),
    usage=buckets,
)


class GrowingLog(RuleBasedStateMachine):
    """A writer, logrotate and a reader that crashes take turns; every call is counted once."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.path = Path(self.directory.name) / "access.log"
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.reader = HigressReader(str(self.path))
        self.places: dict[bytes, bytes] = {}
        self.half = b""
        self.written = 0
        self.tokens = 0
        self.rotated = 0

    def teardown(self) -> None:
        self.reader.close()
        self.connection.close()
        self.directory.cleanup()

    def line(self, tokens: int) -> bytes:
        self.written += 1
        self.tokens += tokens
        call = {"model": "m", "input_token": tokens, "session_id": "s"}
        outer = {
            "ai_log": json.dumps(call),
            "request_id": f"r{self.written:06}",
            "start_time": "2026-02-01T09:30:15Z",
        }
        return json.dumps(outer).encode() + b"\n"

    def append(self, written: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(written)

    @rule(tokens=st.lists(st.integers(1, 9), max_size=4))
    def write(self, tokens: list[int]) -> None:
        self.append(self.half + b"".join(map(self.line, tokens)))
        self.half = b""

    @rule(tokens=st.integers(1, 9), cut=st.integers(1, 60))
    def write_a_part(self, tokens: int, cut: int) -> None:
        line = self.half or self.line(tokens)
        self.append(line[:cut])
        self.half = line[cut:]

    @rule()
    def write_noise(self) -> None:
        self.write([])
        self.append(b"\n[info] started\n")

    def older(self) -> Path:
        """Make room for a rotated file, as logrotate does, and name it."""
        for number in range(self.rotated, 0, -1):
            for end in ("", ".gz"):
                old = Path(f"{self.path}.{number}{end}")
                if old.exists():
                    old.rename(f"{self.path}.{number + 1}{end}")
        self.rotated += 1
        return Path(f"{self.path}.1")

    @precondition(lambda self: self.path.exists())
    @rule()
    def rename(self) -> None:
        self.write([])
        self.path.rename(self.older())

    @precondition(lambda self: self.path.exists())
    @rule(packed=st.booleans())
    def copy_and_truncate(self, packed: bool) -> None:
        self.write([])
        content = self.path.read_bytes()
        older = self.older()
        if packed:
            Path(f"{older}.gz").write_bytes(gzip.compress(content))
        else:
            older.write_bytes(content)
        self.path.write_bytes(b"")

    @rule(number=st.integers(1, 3))
    def pack(self, number: int) -> None:
        old = Path(f"{self.path}.{number}")
        if old.exists():
            Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()

    @rule(bytes_max=st.integers(1, 2000))
    def poll_and_crash_before_anything_is_kept(self, bytes_max: int) -> None:
        self.reader.read(self.places, bytes_max)

    @rule(bytes_max=st.integers(1, 2000))
    def poll(self, bytes_max: int) -> None:
        self.read_and_keep(bytes_max)

    def read_and_keep(self, bytes_max: int) -> bool:
        reading = self.reader.read(self.places, bytes_max)
        ledger.commit(self.connection, reading.batch, 0)
        self.places |= reading.batch.places
        return reading.more

    @rule()
    def restart(self) -> None:
        self.reader.close()
        self.reader = HigressReader(str(self.path))

    @rule()
    def lose_the_position(self) -> None:
        self.places: dict[bytes, bytes] = {}

    @rule()
    def catch_up(self) -> None:
        while self.read_and_keep(1 << 20):
            pass
        unfinished = bool(self.half)
        kept = [slot for _, slot in ledger.slots(self.connection) if isinstance(slot, Slot)]
        assert sum(slot.records for slot in kept) == self.written - unfinished
        if not unfinished:
            assert sum(slot.usage.total for slot in kept) == self.tokens

    @invariant()
    def nothing_is_counted_that_was_not_written(self) -> None:
        kept = [slot for _, slot in ledger.slots(self.connection) if isinstance(slot, Slot)]
        assert sum(slot.records for slot in kept) <= self.written


GrowingLog.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestEveryCallInAGrowingLogIsCountedOnce = GrowingLog.TestCase


@given(st.lists(records, max_size=12), st.randoms(use_true_random=False), st.integers(0, 12))
def test_any_order_and_any_division_of_records_gives_the_same_slots(
    read: list[UsageRecord], chance: Any, cut: int
):
    whole = Slots()
    whole.correct((), added_up(read))
    shuffled = chance.sample(read, len(read))
    parts = Slots()
    parts.correct((), added_up(shuffled[:cut]))
    parts.correct((), added_up(shuffled[cut:]))
    assert dict(whole) == dict(parts)


class OnlyGpt:
    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        del provider, tier, at_s
        priced = Priced(Rates(1_234, 567, 89, 10, 11_111, 2_222, 3, 4), "table", model)
        return priced if model.lower() == "gpt-4o" else None

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        del model, provider, tier, day_s
        return False

    def source_text(self) -> str:
        return "table"


keys = st.builds(
    SlotKey, st.sampled_from("abc"), models, st.just("standard"), st.integers(0, SLOT_MAX)
)
slots = st.builds(Slot, st.integers(1, 1 << 20), buckets, *[st.sampled_from(["", "x", "y"])] * 4)
owned = st.builds(
    lambda node, key, slot: OwnedSlot(f"id-{node}", node[0], key, slot),
    st.sampled_from(["ab", "ac", "bd"]),
    keys,
    slots,
)
queries = st.fixed_dictionaries(
    {
        "by": st.lists(st.sampled_from(BY), max_size=3, unique=True).map(tuple),
        "tz": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"]),
    }
).map(lambda asked: CostQuery(**asked))


@given(st.lists(owned, max_size=8), queries, st.randoms(use_true_random=False))
def test_groups_add_up_to_the_total_in_any_order_of_merging(
    rows: list[OwnedSlot], query: CostQuery, chance: Any
):
    answer = cost(rows, [], query, OnlyGpt())
    assert cost(chance.sample(rows, len(rows)), [], query, OnlyGpt()) == answer
    if query.by:
        assert sum(group.records for group in answer.groups) == answer.records
        assert sum((group.usage for group in answer.groups), Buckets()) == answer.totals
        priced = [g.cost_nusd for g in answer.groups if g.cost_nusd is not None]
        assert sum(priced) == (answer.cost_nusd or 0)
    unpriced = [row for row in rows if row.key.model == "odd"]
    assert sum(found.total for found in answer.unpriced) == sum(
        row.slot.usage.total for row in unpriced
    )


@given(st.lists(st.tuples(st.sampled_from(BY), owned), max_size=1), st.integers(0, COUNT_MAX))
def test_hostile_counts_stay_within_what_an_answer_can_carry(rows: list[Any], count: int):
    slot = Slot(count, Buckets(*[count] * 7))
    hostile = [OwnedSlot("id", "n", SlotKey("s", "odd", "standard", 0), slot)] * 3
    answer = cost([*hostile, *(row for _, row in rows)], [], CostQuery(("node",)), OnlyGpt())
    assert answer.totals.total <= COUNT_MAX
    assert answer.records <= COUNT_MAX


@given(keys, slots)
def test_rows_come_back_as_they_were(key: SlotKey, slot: Slot):
    assert key_from_row(key_to_row(key)) == key
    assert slot_from_row(slot_to_row(slot)) == slot


@given(st.binary(max_size=200))
@example(b"\x93\x00\xa1s\xa1m")
def test_any_bytes_are_a_row_or_the_peers_fault(row: bytes):
    for decode in (key_from_row, slot_from_row, diagnostics_from_row):
        try:
            found = decode(row)
        except PeerError:
            continue
        assert found is None or isinstance(found, (SlotKey, Slot, Diagnostics)) or found.source


@given(slots, slots, slots)
def test_what_two_disks_counted_joins_in_any_order_and_as_often_as_you_like(
    one: Slot, other: Slot, third: Slot
):
    assert merged(one, other) == merged(other, one)
    assert merged(one, one) == one
    assert merged(merged(one, other), third) == merged(one, merged(other, third))
    assert merged(one, other).usage.total >= max(one.usage.total, other.usage.total)


@given(keys, slots, slots)
def test_only_counters_are_joined_with_what_a_lost_disk_said(
    key: SlotKey, ours: Slot, theirs: Slot
):
    row, *said = key_to_row(key), slot_to_row(ours), slot_to_row(theirs)
    joined = slot_to_row(merged(ours, theirs))
    assert joined_rows(LEDGER, {row: said[0]}, {row: said[1]}) == {row: joined}
    assert joined_rows("sessions", {row: said[0]}, {row: said[1]}) == {}
    assert joined_rows(LEDGER, {b"\xc1": said[0]}, {b"\xc1": said[1]}) == {}
    assert joined_rows(LEDGER, {row: said[0]}, {row: b"\xc1"}) == {}
