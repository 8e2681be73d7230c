"""Whatever is recorded, corrected, rolled up, lost and read again, in any order: totals stay.

A ledger on a real (memory) database, its feed, and a replica of that feed take part. The replica
may at no flush show anything but the total before it or the total after it.
"""

import sqlite3
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from usage_records import usage_record

from meshnode.app.cost.cells import Cells
from meshnode.app.cost.cost import OwnedSlot, cost
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.tally import Rated
from meshnode.app.pieces import finished
from meshnode.core.effects import Announce
from meshnode.core.feeds.feed import Replica
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import Rows, all_rows
from meshnode.core.keys import Key
from meshnode.core.ledger import ledger as core_ledger
from meshnode.core.ledger.ledger import (
    LEDGER,
    Batch,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    UsageRecord,
    slot_key_of,
)
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row, value_to_row
from meshnode.core.ledger.marks import GATEWAYS
from meshnode.core.ledger.prices import Priced
from meshnode.core.ledger.regained import by_month, counters_of, joined_rows
from meshnode.core.ledger.rollups import month_of
from meshnode.core.membership.genesis import Genesis, Limits
from meshnode.core.periods import DAY_S
from meshnode.core.tables.tables import Tables
from meshnode.store import counters, ledger, rollups
from meshnode.store.migrations import migrate

pytestmark = pytest.mark.property
KEY = Key(bytes(range(32)))
LIMITS = Limits(flush_bytes_max=4000)
GENESIS = Genesis((KEY.public,), 1, "rolled", bytes(16), LIMITS)
READER = DiagnosticsKey("claude", "0" * 16)
START_S = 1_790_000_000.0
OWNERS = {"a": "anna", "b": "bob"}
sums = tuple[int, ...]


class NoPrices:
    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        del model, provider, tier, at_s

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        del model, provider, tier, day_s
        return False

    def source_text(self) -> str:
        return "none"


def at_most(some: dict[tuple, sums], more: dict[tuple, sums]) -> bool:
    return all(
        one <= other
        for group, counts in some.items()
        for one, other in zip(counts, more.get(group, [0] * len(counts)), strict=True)
    )


class Rolled(RuleBasedStateMachine):
    source = "claude"
    older = False  # whether the ledger is that of a version that tells no consumers apart
    by_owner = True

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self.counting: dict[str, UsageRecord] = {}  # what the logs say, if all is read
        self.boot = 0
        self.changed = True  # since groups were last added up
        self.connection: sqlite3.Connection | None = None
        self.replica = Replica(OwnFeed(KEY, GENESIS.mesh_id, LIMITS, 1).origin, LIMITS)
        self.replicas = {self.replica.origin: self.replica}
        self.cells = Cells(self.replicas)
        self.cells.begin()
        self.begin()

    def begin(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection)
        self.boot += 1
        self.feed = OwnFeed(KEY, GENESIS.mesh_id, LIMITS, self.boot, joined_rows)
        self.unread: set[str] = set(self.counting)

    def teardown(self) -> None:
        self.connection.close()

    def read(self, keys: list[str]) -> None:
        self.say(self.count(keys))

    def count(self, keys: list[str]) -> Any:
        records = [self.counting[key] for key in keys]
        batch = Batch(READER, "/log", {}, records, Diagnostics())
        gateways = frozenset[str]() if self.older else GATEWAYS
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(core_ledger, "GATEWAYS", gateways)
            rows = ledger.commit(self.connection, batch, int(self.now_s * 1000))
        self.unread.difference_update(keys)
        return rows

    def say(self, rows: Any) -> None:
        for key, value in rows:
            self.feed.write(LEDGER, key_to_row(key), value_to_row(value))
        self.flush()

    def flush(self, *, changes: bool = True) -> None:
        """Send what waits; a replica follows each flush, and shows the same if nothing changes."""
        while (change := self.feed.flush(self.now_s)) is not None:
            self.changed = True
            before = self.shown()
            if self.replica.follows(change.header) and change.flush is not None:
                applied = self.replica.apply(change.flush)
                news = Announce(applied.origin, applied.rows, written=applied.written)
            else:
                rows = Rows()
                for (table, key), row in all_rows(self.feed.rows).items():
                    rows.put(table, key, row)
                self.replica.replace(change.header, rows)
                news = Announce(self.replica.origin, replaced=True)
            if self.replica in self.replicas.values():
                self.cells.take(news)
            assert changes or self.shown() == before

    def grouped(self, rows: Any) -> dict[tuple, sums]:
        """Add up by month, session, model and owner."""
        found: dict[tuple, list[int]] = {}
        for key, slot in rows:
            counts = (slot.records, *slot.usage.counts)
            owner = slot.owner if self.by_owner else ""
            group = (month_of(key.start_s), key.session, key.model, owner)
            held = found.setdefault(group, [0] * len(counts))
            found[group] = [one + other for one, other in zip(held, counts, strict=True)]
        return {group: tuple(counts) for group, counts in found.items() if any(counts)}

    def owner(self, session: str, consumer: str) -> str:
        return OWNERS[session]

    def at_s(self, number: int, ago: int) -> float:
        return self.now_s - ago * DAY_S - 1000.0 * number

    def shown(self) -> dict[tuple, sums]:
        rows = self.replica.rows.tables.get(LEDGER, {})
        return self.grouped(counters_of((key, row.value) for key, row in rows.items()).items())

    def logged(self, *, all_of_it: bool = False) -> dict[tuple, sums]:
        """Add up what is read, or will be, straight from the records."""
        return self.grouped(
            (slot_key_of(one), Slot(1, one.usage, owner=one.owner))
            for key, one in self.counting.items()
            if all_of_it or key not in self.unread
        )

    @rule(
        days=st.lists(st.integers(0, 500), min_size=1, max_size=6),
        session=st.sampled_from("ab"),
        model=st.sampled_from("mn"),
        tokens=st.integers(1, 99),
        consumer=st.sampled_from("xy"),
    )
    def record(self, days: list[int], session: str, model: str, tokens: int, consumer: str) -> None:
        """Something is used, or a log from long ago is read."""
        keys = []
        for number, ago in enumerate(days):
            key = f"{len(self.counting)}"
            self.counting[key] = usage_record(
                key,
                source=self.source,
                at_s=self.at_s(number, ago),
                session=session,
                project=f"/{model}",
                owner=self.owner(session, consumer),
                model=model,
                usage=Buckets(input=tokens, output=1),
            )
            keys.append(key)
        self.read(keys)

    @rule(chance=st.randoms(use_true_random=False))
    def correct(self, chance: Any) -> None:
        """A log says more of a response."""
        if self.counting:
            key = chance.choice(sorted(self.counting))
            was = self.counting[key]
            usage = was.usage + Buckets(output=7)
            self.counting[key] = msgspec.structs.replace(was, usage=usage, rank=was.rank + 1)
            self.read([key])

    @rule(chance=st.randoms(use_true_random=False))
    def read_again(self, chance: Any) -> None:
        keys = sorted(self.counting)
        self.read(chance.sample(keys, len(keys) // 2))

    @rule(days=st.sampled_from([-40, 1, 20, 36, 100, 400]))
    def time_passes(self, days: int) -> None:
        """Or the clock is put back."""
        self.now_s += days * DAY_S

    @rule(pieces=st.integers(1, 3), room_bytes=st.sampled_from([1, 1500]), dies=st.booleans())
    def roll_up(self, pieces: int, room_bytes: int, dies: bool) -> None:
        after: bytes | None = b""
        before = self.grouped(counters.counted(self.connection))
        while after is not None and pieces:
            piece = rollups.plan(self.connection, self.now_s, after, room_bytes)
            if dies and pieces == 1:
                return  # between looking and doing
            rows = {
                key_to_row(key): None if slot is None else slot_to_row(slot)
                for key, slot in piece.said.items()
            }
            self.feed.write_together(LEDGER, rows)
            rollups.apply(self.connection, piece.moved)
            self.flush(changes=False)
            after, pieces = piece.after, pieces - 1
        assert self.grouped(counters.counted(self.connection)) == before

    @rule()
    def roll_all_up(self) -> None:
        self.roll_up(10_000, 1500, dies=False)
        again = rollups.plan(self.connection, self.now_s, b"", 1500)
        assert not again.moved

    @rule(
        chance=st.randoms(use_true_random=False),
        share=st.floats(0, 1),
        late=st.sampled_from([0.0, 0.5, 1.0]),
    )
    def lose_the_disk(self, chance: Any, share: float, late: float) -> None:
        """Some logs are read again before peers return what was published, the rest later.

        Of those some while what is returned is not held yet: they are counted, and said then.
        """
        header, rows = self.replica.header, self.replica.rows
        if header is None:
            return
        before, whole = self.shown(), not self.unread
        self.begin()
        keys = sorted(self.counting)
        replica, self.replica = self.replica, Replica(self.replica.origin, LIMITS)
        if keys:
            self.read(chance.sample(keys, int(len(keys) * share)))
        self.replica = replica
        self.feed.continue_after(header, rows)
        self.flush()
        # The larger count of a row stays: what was not read when it was written may add to it.
        assert at_most(before, self.shown())
        assert at_most(self.shown(), before if whole else self.logged(all_of_it=True))
        unread = sorted(self.unread)
        unsaid = chance.sample(unread, int(len(unread) * late))
        if unsaid:
            self.count(unsaid)
        self.hold_what_is_returned(unsaid=bool(unsaid))
        assert at_most(before, self.shown())
        assert at_most(self.shown(), self.logged(all_of_it=True))

    def hold_what_is_returned(self, *, unsaid: bool) -> None:
        self.hold(counters_of(self.feed.values(LEDGER).items()), changes=unsaid)
        if unsaid:
            self.say(ledger.published(self.connection))

    def hold(self, returned: Any, *, changes: bool) -> None:
        for piece in by_month(returned, 3):
            said = rollups.hold(self.connection, piece)
            packed = {key_to_row(k): slot and slot_to_row(slot) for k, slot in said.items()}
            self.feed.write_together(LEDGER, packed)
            self.flush(changes=changes)

    @rule()
    def read_all_again(self) -> None:
        self.read(sorted(self.counting))
        assert self.shown() == self.logged()

    @invariant()
    def nothing_is_lost_and_nothing_counts_twice(self) -> None:
        assert self.grouped(counters.counted(self.connection)) == self.logged()
        said = self.grouped((k, v) for k, v in ledger.published(self.connection) if k != READER)
        assert said == self.shown()

    @invariant()
    def groups_add_up(self) -> None:
        if not self.changed:
            return  # the same rows and cells as at the last step, which added up
        rows = [
            OwnedSlot("id", "n", key, slot)
            for key, slot in counters_of(
                (key, row.value) for key, row in self.replica.rows.tables.get(LEDGER, {}).items()
            ).items()
        ]
        for by in ("month", "week", "day", "hour", "owner", "model", "session"):
            answer = cost(rows, [], CostQuery((by,), tz="Europe/Berlin"), NoPrices())
            assert sum(group.records for group in answer.groups) == answer.records
        for _ in self.cells.build():
            pass
        for by in (
            ("model", "day"),
            ("owner", "project"),
            ("project", "day"),
            ("week", "month"),
            ("agent", "hour"),
            ("session",),
        ):
            query = CostQuery(by)
            asked = Tables(self.replicas), self.replicas, self.cells, (query, Rated(NoPrices()))
            quick = finished(finished(steps_of(*asked)).answer({}))
            assert quick.groups == cost(rows, [], query, NoPrices()).groups
        self.changed = False


Rolled.TestCase.settings = settings(max_examples=100, stateful_step_count=25)
TestTotalsStay = Rolled.TestCase


class Shared(Rolled):
    """Consumers of a gateway use one session: of each it stays what it was."""

    source = "higress"

    def owner(self, session: str, consumer: str) -> str:
        return consumer


class Upgraded(Shared):
    """The same at a ledger that an older version has begun. Each version has months of its own."""

    older = True
    by_owner = False

    def at_s(self, number: int, ago: int) -> float:
        at_s = super().at_s(number, ago)
        while month_of(at_s) % 2 == self.older:
            at_s -= 15 * DAY_S
        return at_s

    @rule()
    def upgrade(self) -> None:
        self.older = False


Shared.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
Upgraded.TestCase.settings = Shared.TestCase.settings
TestTotalsOfEachConsumerStay = Shared.TestCase
TestTotalsStayInAnUpgradedLedger = Upgraded.TestCase


@pytest.mark.parametrize("days", [0, 100])
def test_what_an_older_version_told_and_a_disk_has_lost_is_counted_once(days: int):
    ledger = Upgraded()
    for consumer in "xy":
        ledger.record([1, 40], "a", "m", 5, consumer)
    ledger.roll_all_up()
    ledger.time_passes(days)
    ledger.upgrade()
    ledger.lose_the_disk(Random(1), 1.0, 0.0)
    for step in (ledger.roll_all_up, ledger.read_all_again):
        step()
        ledger.nothing_is_lost_and_nothing_counts_twice()
        ledger.groups_add_up()
    ledger.teardown()
