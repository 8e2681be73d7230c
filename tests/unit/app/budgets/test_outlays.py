"""How much of a ledger is looked at in one go: sums are held to their laws in tests/property."""

from random import Random

from meshnode.app.budgets.outlays import PRICE_ROWS, ROWS_AT_ONCE, Outlays
from meshnode.core.control.settings import Terms
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.budgets import USD, Heard, judge, window_of
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.core.ledger.marks import FOLDED
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.membership.genesis import Limits
from meshnode.core.periods import DayKey
from meshnode.core.tables.tables import Tables

MODELS = 500
SLOT = 1_000_000
FIVE = Slot(1, Buckets(5))


class Counting:
    asked = 0

    def rates(self, model, provider, tier, at_s):
        self.asked += 1

    def is_steady(self, *_):
        return False

    def source_text(self):
        return "t"


class Listed:
    """One price for all, or none yet, in a list whose version it names."""

    def __init__(self):
        self.nusd, self.version = None, 1

    def rates(self, model, provider, tier, at_s):
        return None if self.nusd is None else Priced(Rates(self.nusd * 1000), "l", model)

    def is_steady(self, *_):
        return False

    def source_text(self):
        return f"l@{self.version}"

    def change(self, nusd):
        self.nusd, self.version = nusd, self.version + 1


class Nothing:
    def has(self, origin):
        return False


def test_one_session_with_very_many_models_is_priced_in_pieces():
    key = Key.new(Random(1).randbytes)
    feed = OwnFeed(key, bytes(32), Limits(), 1)
    for number in range(MODELS):
        row = key_to_row(SlotKey("s", f"m{number}", "standard", SLOT))
        feed.write(LEDGER, row, value_to_row(Slot(1, Buckets(1))))
    while feed.flush(0.0):
        pass
    prices = Counting()
    outlays = Outlays(Tables({node_id_of(key.public): feed}, Nothing()), prices)
    window = window_of("day", SLOT * 1800)
    outlays.ask({b"b": (Terms(10**12, USD, "day", "suspend", 80), window)})
    while outlays.busy:
        before = prices.asked
        outlays.settle()
        assert prices.asked - before <= ROWS_AT_ONCE // PRICE_ROWS + 1
    assert (prices.asked, outlays.spent(b"b").tokens) == (MODELS, MODELS)


def test_a_day_that_a_clock_ahead_has_rolled_up_counts_where_all_of_it_is_in_the_window():
    key = Key.new(Random(1).randbytes)
    feed = OwnFeed(key, bytes(32), Limits(), 1)
    day = SLOT // 48
    row = key_to_row(DayKey("s", "m", "standard", day))
    feed.write(LEDGER, row, value_to_row(Slot(1, Buckets(7))))
    feed.flush(0.0)
    outlays = Outlays(Tables({node_id_of(key.public): feed}, Nothing()), Counting())
    outlays.ask(
        {
            per.encode(): (Terms(10**12, "tok", per, "suspend", 80), window_of(per, day * 86_400))
            for per in ("hour", "day", "month")
        }
    )
    while outlays.busy:
        outlays.settle()
    assert [outlays.spent(per).tokens for per in (b"hour", b"day", b"month")] == [0, 7, 7]


def test_what_is_told_without_its_session_is_doubted_where_only_that_would_tell_whose_it_is():
    key = Key.new(Random(1).randbytes)
    feed = OwnFeed(key, bytes(32), Limits(), 1)
    day = SLOT // 48
    rows = {"olga": 3, "otto": 5, "": 7}
    for owner, tokens in rows.items():
        row = DayKey(FOLDED, "m", f"standard>#{owner}", day)
        feed.write(LEDGER, key_to_row(row), value_to_row(Slot(1, Buckets(tokens), owner=owner)))
    feed.flush(0.0)
    origin = node_id_of(key.public)
    outlays = Outlays(Tables({origin: feed}, Nothing()), Counting())
    terms = {
        b"olga's": Terms(10**6, "tok", "month", "suspend", owner="olga"),
        b"crawlers'": Terms(10**6, "tok", "month", "suspend", owner="olga", specialization="crawl"),
        b"a project's": Terms(10**6, "tok", "month", "suspend", project="site"),
        b"all": Terms(10**6, "tok", "month", "suspend"),
    }
    outlays.ask({name: (one, window_of("month", day * 86_400)) for name, one in terms.items()})

    def known() -> dict:
        while outlays.busy:
            outlays.settle()
        spent = {name: outlays.spent(name) for name in terms}
        return {name: (one.tokens, one.unsure) for name, one in spent.items()}

    sums = {b"olga's": (3, 7), b"crawlers'": (0, 10), b"a project's": (0, 15), b"all": (15, 0)}
    assert known() == sums
    row = key_to_row(DayKey(FOLDED, "m", "standard>#", day))
    feed.write(LEDGER, row, value_to_row(Slot(2, Buckets(9))))
    feed.flush(1.0)
    outlays.touch(origin, row)
    sums = {b"olga's": (3, 9), b"crawlers'": (0, 12), b"a project's": (0, 17), b"all": (17, 0)}
    assert known() == sums
    outlays.touch_all(origin)
    assert known() == sums
    for owner in rows:  # all of it is replaced by rows that name their sessions
        feed.write(LEDGER, key_to_row(DayKey(FOLDED, "m", f"standard>#{owner}", day)), None)
    feed.write(LEDGER, key_to_row(DayKey("s", "m", "standard", day)), value_to_row(FIVE))
    feed.flush(2.0)
    crawlers = outlays.spent(b"crawlers'")
    outlays.touch_all(origin)
    assert [unsure for _, unsure in known().values()] == [0, 0, 0, 0]
    reason = judge(terms[b"crawlers'"], crawlers, Heard(1, 1)).reason
    assert reason.endswith("; whether 12 tokens of (older sessions) count is not known")


def test_an_hour_that_begins_makes_nobody_look_at_the_month_in_one_piece(monkeypatch):
    key = Key.new(Random(1).randbytes)
    feed = OwnFeed(key, bytes(32), Limits(), 1)
    start = window_of("month", SLOT * 1800).start_s // 1800
    for number in range(5 * ROWS_AT_ONCE):
        slot = SlotKey(f"s{number // 40}", f"m{number % 40}", "standard", start + number % 1000)
        feed.write(LEDGER, key_to_row(slot), value_to_row(FIVE))
    while feed.flush(0.0):
        pass
    looked, end_s = 0, SlotKey.end_s.fget

    def counted(one):
        nonlocal looked
        looked += 1
        return end_s(one)

    monkeypatch.setattr(SlotKey, "end_s", property(counted))
    outlays = Outlays(Tables({node_id_of(key.public): feed}, Nothing()), Counting())

    def asked(at_s, *pers):
        nonlocal looked
        looked = 0
        windows = {per.encode(): window_of(per, at_s) for per in pers}
        outlays.ask(
            {
                name: (Terms(10**12, "tok", name.decode(), "suspend", 80), window)
                for name, window in windows.items()
            }
        )
        most = looked
        for _ in range(20):
            looked = 0
            outlays.settle()
            most = max(most, looked)
        assert not outlays.busy
        return most

    first_s = start * 1800
    for at_s in (first_s, first_s + 3600, first_s + 32 * 86_400):
        assert asked(at_s, "month", "hour") < 4 * ROWS_AT_ONCE
    assert outlays._rows == {}  # of a month that is over
    assert not any(outlays._of_origin.values())


def test_a_price_that_comes_later_or_changes_counts_for_all_that_is_spent():
    key = Key.new(Random(1).randbytes)
    feed = OwnFeed(key, bytes(32), Limits(), 1)
    feed.write(LEDGER, key_to_row(SlotKey("s", "m", "standard", SLOT)), value_to_row(FIVE))
    feed.flush(0.0)
    prices = Listed()
    outlays = Outlays(Tables({node_id_of(key.public): feed}, Nothing()), prices)
    outlays.ask({b"b": (Terms(10**12, USD, "day", "suspend", 80), window_of("day", SLOT * 1800))})
    told = []
    for nusd in (None, 3, 3, 2, None):
        if nusd != prices.nusd:
            prices.change(nusd)
        outlays.take_prices()
        while outlays.busy:
            outlays.settle()
        told.append(outlays.spent(b"b"))
    assert [(one.nusd, one.unpriced) for one in told] == [
        (0, {"m": 5}),
        (15, {}),
        (15, {}),
        (10, {}),
        (0, {"m": 5}),
    ]
