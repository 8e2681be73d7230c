"""Whatever is recorded, rolled up, told without its session, lost and read again: totals stay.

As `test_rolled_ledgers`, of a feed that has room for less than there is.
"""

from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from property.test_rolled_ledgers import READER, Rolled, Upgraded, at_most, sums

from meshnode.core.ledger.folding import (
    NOWHERE,
    Plan,
    Room,
    covered,
    is_folded,
    planned,
    with_folded,
)
from meshnode.core.ledger.ledger import LEDGER, Slot, slot_key_of
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.marks import FOLDED, unmarked
from meshnode.core.ledger.regained import counters_of
from meshnode.core.ledger.rollups import month_of
from meshnode.core.periods import DAY_S, MonthKey
from meshnode.node.ledger.folding import cut, moved, moving
from meshnode.store import counters, folds, ledger, rollups

pytestmark = pytest.mark.property
ANY = Room(1 << 30, 1 << 40)


class Folded(Rolled):
    room = ANY

    def begin(self) -> None:
        self.horizon = NOWHERE
        super().begin()

    def grouped(self, rows: Any) -> dict[tuple, sums]:
        """Add up by month, and all that stays whatever becomes of the session."""
        found: dict[tuple, list[int]] = {}
        for key, slot in rows:
            counts = (slot.records, *slot.usage.counts)
            group = (month_of(key.start_s), key.model, unmarked(key.tier), self.whose(slot))
            held = found.setdefault(group, [0] * len(counts))
            found[group] = [one + other for one, other in zip(held, counts, strict=True)]
        return {group: tuple(counts) for group, counts in found.items() if any(counts)}

    def whose(self, slot: Slot) -> str:
        """Say who spent it, where that stays: whom a log had, and one of several, may be lost."""
        return slot.owner if self.by_owner else ""

    def by_day(self, rows: Any) -> dict[tuple, int]:
        """Add up records by day, where more than months are told."""
        found: dict[tuple, int] = {}
        for key, slot in rows:
            month = month_of(key.start_s)
            is_month = isinstance(key, MonthKey) or month < self.horizon.month
            when = ("month", month) if is_month else ("day", key.start_s // DAY_S)
            group = (*when, key.model, unmarked(key.tier), self.whose(slot))
            found[group] = found.get(group, 0) + slot.records
        return {group: records for group, records in found.items() if records}

    def say(self, rows: Any) -> None:
        told = list(rows)
        super().say((k, v) for k, v in told if k == READER or not is_folded(k, self.horizon))
        if self.horizon != NOWHERE:
            self.settle()

    def published(self) -> dict[Any, Slot]:
        return {k: v for k, v in ledger.published(self.connection) if k != READER}

    def settle(self, room: Room = ANY) -> Plan:
        """Add up all that is told without its session, and bring the feed there."""
        since, beside = folds.horizon(self.connection), folds.beside(self.connection)
        plan = planned(self.published(), beside, since, self.now_s, room)
        self.horizon = reached = plan.horizon
        folds.remember(self.connection, reached, plan.returned)
        for some in cut(moving(self.feed.values(LEDGER), reached), 1500):
            self.feed.write_together(LEDGER, moved(some, self.feed.latest))
            self.flush(changes=False)
        out = counters_of(self.feed.values(LEDGER).items())
        said = {key: None for key in out if key.session == FOLDED and key not in plan.rows}
        said |= {key: slot for key, slot in plan.rows.items() if out.get(key) != slot}
        packed = {key_to_row(k): slot and slot_to_row(slot) for k, slot in said.items()}
        self.feed.write_together(LEDGER, packed)
        self.flush()
        return plan

    def used_s(self) -> float:
        """Return when something was used last, by the clock: what is old is so by that."""
        return min(self.now_s, max((key.end_s for key in self.published()), default=0))

    @rule(rows=st.integers(4, 40))
    def fold(self, rows: int) -> None:
        """There is room for so many rows."""
        plan = self.settle(Room(rows, 1 << 40))
        if len(plan.rows) > rows:
            yesterday_s = (self.used_s() // DAY_S - 1) * DAY_S
            sessions = [key for key in plan.rows if key.session != FOLDED]
            assert not any(key.start_s < yesterday_s for key in sessions)
        if self.unread or self.horizon == NOWHERE:
            return  # what is read of a day may hide behind what is not
        said = counters_of(
            (key, row.value) for key, row in self.replica.rows.tables.get(LEDGER, {}).items()
        )
        logged = [
            (slot_key_of(one), Slot(1, one.usage, owner=one.owner))
            for one in self.counting.values()
        ]
        assert self.by_day(said.items()) == self.by_day(logged)

    @rule(pieces=st.integers(1, 3), room_bytes=st.sampled_from([1, 1500]), dies=st.booleans())
    def roll_up(self, pieces: int, room_bytes: int, dies: bool) -> None:
        if self.horizon != NOWHERE:
            self.settle()
        after: bytes | None = b""
        while after is not None and pieces:
            piece = rollups.plan(self.connection, self.used_s(), after, room_bytes)
            if dies and pieces == 1:
                return
            rows = {
                key_to_row(key): None if slot is None else slot_to_row(slot)
                for key, slot in piece.said.items()
                if not is_folded(key, self.horizon)
            }
            self.feed.write_together(LEDGER, rows)
            rollups.apply(self.connection, piece.moved)
            self.flush(changes=False)
            after, pieces = piece.after, pieces - 1
        if self.horizon != NOWHERE:
            before = self.shown()
            self.settle()
            assert self.shown() == before

    @rule()
    def roll_all_up(self) -> None:
        self.roll_up(10_000, 1500, dies=False)

    def hold_what_is_returned(self, *, unsaid: bool) -> None:
        returned = with_folded(counters_of(self.feed.values(LEDGER).items()), self.now_s)
        self.hold(returned, changes=True)
        self.horizon = folds.horizon(self.connection)
        beside = folds.beside(self.connection)
        folds.remember(self.connection, self.horizon)
        counters.delete(self.connection, covered(self.published(), beside, self.horizon))
        self.settle()

    @invariant()
    def nothing_is_lost_and_nothing_counts_twice(self) -> None:
        assert self.grouped(counters.counted(self.connection)) == self.logged()
        said = self.grouped((k, v) for k, v in folds.published(self.connection) if k != READER)
        assert said == self.shown()


class Shared(Folded):
    """Consumers of a gateway use one session."""

    source = "higress"

    def owner(self, session: str, consumer: str) -> str:
        return consumer


class Older(Upgraded, Folded):
    """The same at a ledger that an older version has begun, which told no consumers apart."""


Folded.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
Shared.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
Older.TestCase.settings = Shared.TestCase.settings
TestTotalsStay = Folded.TestCase
TestTotalsOfEachConsumerStay = Shared.TestCase


def test_what_was_told_without_its_session_and_is_read_again_counts_once():
    machine = Folded()
    for session in "ab":
        machine.record([3, 5, 9, 40], session, "m", 5, "x")
    machine.fold(4)
    assert machine.horizon != NOWHERE
    machine.lose_the_disk(Random(1), 0.5, 0.0)
    machine.record([0, 3], "a", "m", 7, "x")  # it goes on
    machine.read_all_again()
    machine.nothing_is_lost_and_nothing_counts_twice()
    machine.teardown()


def test_what_a_lost_disk_told_of_days_is_all_there_once_they_are_months():
    machine = Folded()
    machine.record([0, 1, 2, 3, 4, 5], "a", "m", 5, "x")
    machine.fold(4)
    before = machine.shown()
    machine.lose_the_disk(Random(1), 0.0, 0.0)
    machine.time_passes(460)
    machine.record([0], "b", "m", 5, "x")
    assert at_most(before, machine.shown())
    assert machine.horizon.month > max(group[0] for group in before)
    machine.roll_all_up()
    assert at_most(before, machine.shown())
    machine.teardown()


TestTotalsStayInAnUpgradedLedger = Older.TestCase
