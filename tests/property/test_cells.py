"""Laws of the indexes: whatever changes, and however far they are built, they say what rows say."""

from collections import Counter
from random import Random

import pytest
from copying import copied
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshnode.app.cost import cells as cells_module
from meshnode.app.cost import shelves, splitting
from meshnode.app.cost.cells import Cells
from meshnode.app.cost.cutting import BY, OF_CELLS, OF_WHOSE, CostQuery
from meshnode.app.cost.shelves import Whose
from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.spending import Spent
from meshnode.app.cost.tally import Rated
from meshnode.app.cost.totals import Totals
from meshnode.app.pieces import finished
from meshnode.core.effects import Announce
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of, session_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.counts import counter_of, weight_of
from meshnode.core.ledger.ledger import LEDGER, Buckets, Diagnostics, DiagnosticsKey, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DayKey, MonthKey
from meshnode.core.sessions.sessions import (
    SESSIONS,
    SessionRecord,
    State,
    is_proved,
    session_to_row,
)
from meshnode.core.tables.tables import Tables

pytestmark = pytest.mark.property

KEYS = [Key.new(Random(21).randbytes) for _ in range(3)]
ORIGINS = [node_id_of(key.public) for key in KEYS]
DAY = 20_000
OURS, THEIRS = (session_id_of(origin, 1) for origin in ORIGINS[:2])
SESSIONS_NAMED = [OURS, THEIRS, "total"]  # nobody can prove the last

names = st.tuples(
    st.sampled_from(SESSIONS_NAMED),
    st.sampled_from(["m", "M", "clock", "odd"]),
    st.just("standard"),
)
counters = st.one_of(
    st.builds(lambda n, slot: SlotKey(*n, slot), names, st.integers(DAY * 48, DAY * 48 + 100)),
    st.builds(lambda n, day: DayKey(*n, day), names, st.integers(DAY - 2, DAY + 2)),
    st.builds(lambda n, month: MonthKey(*n, month), names, st.integers(655, 658)),
)
values = st.builds(
    Slot,
    st.integers(0, 3),
    st.builds(Buckets, st.sampled_from([0, 1, 7, (1 << 63) - 1]), output=st.integers(0, 9)),
    agent=st.sampled_from(["", "x"]),
    owner=st.sampled_from(["", "ada", "bo"]),
    project=st.sampled_from(["", "/p"]),
    provider=st.sampled_from(["", "p", "q"]),
)
times = st.one_of(
    st.none(),
    st.integers(-2, 4).map(lambda days: float((DAY + days) * 86_400)),
    st.integers(0, 100).map(lambda slots: DAY * 86_400 + slots * 900.0),
)
queries = st.fixed_dictionaries(
    {
        "by": st.lists(st.sampled_from(BY), max_size=3).map(tuple),
        "since_s": times,
        "until_s": times,
        "tz": st.sampled_from(["UTC", "UTC", "Europe/Berlin", "Asia/Kathmandu"]),
        "node_id": st.sampled_from([None, None, None, ORIGINS[0]]),
        "session": st.sampled_from(["", "", "", OURS]),
        "most": st.sampled_from([0, 0, 0, 1, 2]),
    }
).map(lambda asked: CostQuery(**asked))


class ByTheClock:
    """Prices nothing but `m`, and `clock`, which is dearer in the evening."""

    def rates(self, model, provider, tier, at_s):
        dear = 3 if model == "clock" and at_s % 86_400 > 70_000 else 1
        rates = Rates(input_pusd=333 * dear, output_pusd=777, request_pusd=5)
        return Priced(rates, "t", model) if model.lower() in ("m", "clock") else None

    def is_steady(self, *_):
        return False

    def source_text(self):
        return "t"


class Forked:
    """Says which feeds are in quarantine."""

    def __init__(self) -> None:
        self.origins = set()

    def has(self, origin):
        return origin in self.origins


class Honest(Tables):
    """The same without rows of sessions that are another node's, or nobody's."""

    def sessions(self, *, forgotten=False):
        yield from (told for told in super().sessions(forgotten=forgotten) if is_proved(*told))


def answered(steps):
    return finished(finished(steps).answer({}))


class Changing(RuleBasedStateMachine):
    """Feeds are written, replaced and put into quarantine while indexes are built and asked."""

    @initialize()
    def begin(self) -> None:
        self.forked = Forked()
        self.feeds = {
            origin: OwnFeed(key, bytes(32), Limits(), 1)
            for origin, key in zip(ORIGINS, KEYS, strict=True)
        }
        self.tables = Tables(self.feeds, self.forked)
        self.honest = Honest(self.feeds, self.forked)
        self.cells = Cells(self.feeds)
        self.totals = Totals(self.tables, self.feeds, self.cells, Rated(ByTheClock()))
        self.cells.begin()
        self.building = self.settling = iter(())

    @rule(
        number=st.integers(0, 2),
        name=st.sampled_from(SESSIONS_NAMED),
        owner=st.sampled_from([None, "ada", "cy"]),
        project=st.sampled_from([None, "/p", "/q"]),
    )
    def know(self, number, name, owner, project) -> None:
        """Let a node tell of a session, which is its own or another's."""
        record = SessionRecord(
            name, 1, f"agent-{name}", State.RUNNING, 0.0, 0.0, owner=owner, project=project
        )
        feed = self.feeds[ORIGINS[number]]
        feed.write(SESSIONS, name.encode(), session_to_row(record))
        feed.flush(0.0)

    @rule(
        number=st.integers(0, 2),
        rows=st.lists(st.tuples(counters, st.none() | values), max_size=6),
        reader=st.none() | st.integers(1, 5),
    )
    def write(self, number, rows, reader) -> None:
        feed = self.feeds[ORIGINS[number]]
        for key, value in rows:
            feed.write(LEDGER, key_to_row(key), None if value is None else value_to_row(value))
        if reader is not None:
            key = key_to_row(DiagnosticsKey("higress", "x"))
            feed.write(LEDGER, key, value_to_row(Diagnostics(quarantined=reader)))
        change = feed.flush(0.0)
        if change is not None:
            self.cells.take(Announce(ORIGINS[number], change.rows, written=change.written))

    @rule(number=st.integers(0, 2), noise=st.binary(max_size=6))
    def write_noise(self, number, noise) -> None:
        feed = self.feeds[ORIGINS[number]]
        feed.write(LEDGER, noise, noise)
        change = feed.flush(0.0)
        if change is not None:
            self.cells.take(Announce(ORIGINS[number], change.rows, written=change.written))

    @rule(number=st.integers(0, 2), rows=st.dictionaries(counters, values, max_size=6))
    def replace(self, number, rows) -> None:
        other = OwnFeed(KEYS[number], bytes(32), Limits(), 1)
        for key, value in rows.items():
            other.write(LEDGER, key_to_row(key), value_to_row(value))
        other.flush(0.0)
        sessions = self.feeds[ORIGINS[number]].rows.tables.get(SESSIONS, {})
        for key, row in sessions.items():
            other.write(SESSIONS, key, row.value)
        other.flush(0.0)
        self.feeds[ORIGINS[number]].rows = copied(other.rows)
        self.cells.take(Announce(ORIGINS[number], replaced=True))

    @rule(number=st.integers(0, 2))
    def quarantine(self, number) -> None:
        self.forked.origins ^= {ORIGINS[number]}
        self.cells.take(Announce(ORIGINS[number], replaced=True))

    @rule(pauses=st.integers(1, 40))
    def build(self, pauses) -> None:
        for _ in range(pauses):
            if next(self.building, self) is self:
                self.building = self.cells.build()

    @precondition(lambda self: not self.cells.waiting)
    @rule()
    def build_totals(self) -> None:
        for _ in self.totals.warm():
            pass

    @rule(pauses=st.integers(1, 40))
    def settle_totals(self, pauses) -> None:
        for _ in range(pauses):
            if next(self.settling, self) is self:
                self.settling = self.totals.settle()

    @rule(query=queries)
    def ask(self, query) -> None:
        asked = (query, Rated(ByTheClock()))
        quick = answered(steps_of(self.tables, self.feeds, self.cells, asked))
        assert quick == answered(steps_of(self.tables, self.feeds, None, asked))
        assert quick == answered(steps_of(self.honest, self.feeds, None, asked))
        if query.by:
            assert sum(group.records for group in quick.groups) == quick.records
            assert sum((group.usage for group in quick.groups), Buckets()) == quick.totals

    @rule(
        by=st.sets(st.sampled_from(sorted(OF_CELLS)), max_size=2),
        since_s=times,
        tz=st.sampled_from(["UTC", "Europe/Berlin"]),
        most=st.sampled_from([0, 1]),
    )
    def ask_cells(self, by, since_s, tz, most) -> None:
        self.ask(CostQuery(tuple(by), since_s, tz=tz, most=most))

    @rule(
        by=st.sampled_from(sorted(OF_WHOSE)),
        more=st.sampled_from(["day", "model"]),
        most=st.sampled_from([0, 1]),
    )
    def ask_whose(self, by, more, most) -> None:
        self.ask(CostQuery((by, more), most=most))

    @rule()
    def ask_totals(self) -> None:
        spent = {}
        for _, (key, slot) in self.tables.ledger():
            if isinstance(slot, Slot) and (slot.records or slot.usage != Buckets()):
                spent.setdefault(key.session, Spent()).add(key, slot, ByTheClock())
        quick = self.totals.spent(dict.fromkeys(SESSIONS_NAMED, ORIGINS[0]))
        assert {one: told(found) for one, found in quick.items()} == {
            one: told(found) for one, found in spent.items() if one in SESSIONS_NAMED
        }

    @invariant()
    def patterns_and_cells_are_those_of_rows(self) -> None:
        if not hasattr(self, "cells"):
            return
        cells, shapes = self.cells, self.cells.patterns.shapes.values()
        parts = [part for shelf in cells.shelves.values() for part in shelf.parts.values()]
        assert sum(shape.sessions for shape in shapes) == sum(len(one.sessions) for one in parts)
        assert all(shape.held for shape in shapes)
        assert all(one.cells and one.sessions for one in parts)

    @invariant()
    def cells_are_those_of_rows(self) -> None:
        for origin, shelf in self.cells.shelves.items() if hasattr(self, "cells") else ():
            of_parts, totals = Counter(), Counter()
            for key, row in self.feeds[origin].rows.tables.get(LEDGER, {}).items():
                counter, weight = counter_of(key), weight_of(row.value)
                if counter is not None and weight is not None and weight.counts:
                    number = self.cells.number_of(counter, weight.provider)
                    whose = Whose(weight.agent, weight.owner, weight.project)
                    of_parts[whose if whose in shelf.parts else None, number] += weight.counts
                    totals[number] += weight.counts
            held = shelf.parts.items()
            assert of_parts == {
                (whose, number): cell.counts
                for whose, part in held
                for number, cell in part.cells.items()
            }
            assert shelf.totals == totals


def told(spent):
    return (spent.usage, spent.pusd, spent.model, spent.records)


Changing.TestCase.settings = settings(max_examples=150, stateful_step_count=25)
TestIndexesSayWhatRowsSay = Changing.TestCase


class ChangingWithLittleRoom(Changing):
    """The same, while all is built anew again and again, and few parts have a place."""

    def __init__(self) -> None:
        super().__init__()
        self.most = cells_module.KINDS_MAX, shelves.PARTS_MAX, splitting.ROWS_AT_ONCE
        cells_module.KINDS_MAX, shelves.PARTS_MAX, splitting.ROWS_AT_ONCE = 4, 2, 1

    def teardown(self) -> None:
        cells_module.KINDS_MAX, shelves.PARTS_MAX, splitting.ROWS_AT_ONCE = self.most


ChangingWithLittleRoom.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestIndexesThatAreBuiltAnewSayWhatRowsSay = ChangingWithLittleRoom.TestCase
