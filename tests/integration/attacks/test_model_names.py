"""Made-up names of models: a member may report any number, and holds no loop with them."""

import pytest
from viewing import IDS, Viewer

from meshnode.app.cost import tally
from meshnode.app.cost.cost import MODELS_MAX, NAMES_MAX
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.cost.shortcut import steps_of
from meshnode.app.cost.tally import Rated
from meshnode.app.queries.indexes import Indexes
from meshnode.app.queries.queries import Queries
from meshnode.core.effects import Announce
from meshnode.core.errors import UsageError
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.ingest.prices import PriceBook
from meshnode.rpc.local import get_cost
from meshnode.v1 import local_service_pb2 as pb

pytestmark = pytest.mark.integration
NAMES = 3000
PRICES_AT_ONCE = 1000  # each known, or found in an index: a millisecond or few
HOUR = 1_000_000


class Counting:
    """The real prices, and how often they were asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.book = PriceBook()

    def rates(self, model, provider, tier, at_s):
        self.asked += 1
        return self.book.rates(model, provider, tier, at_s)

    def is_steady(self, *_):
        return False

    def source_text(self):
        return self.book.source_text()


class Made:
    """A node whose neighbour has spent one token on each of very many models."""

    def __init__(self) -> None:
        self.viewer = viewer = Viewer()
        record = SessionRecord("made", 1, "mallory", State.RUNNING, 0.0, 0.0)
        feed = viewer.feeds[IDS[1]]
        feed.write(SESSIONS, b"made", session_to_row(record))
        for number in range(NAMES):
            key = SlotKey(
                "made", f"openai/made-up-{number}-20250101", "standard", HOUR + number % 96
            )
            feed.write(
                LEDGER, key_to_row(key), slot_to_row(Slot(1, Buckets(1), provider=f"p{number}"))
            )
        while feed.flush(0.0):
            pass
        self.prices = Counting()
        self.indexes = Indexes(viewer.mesh, self.prices)
        self.queries = Queries(viewer.mesh, self.prices, viewer.clock, indexes=self.indexes)
        self.indexes.begin()

    def bounded(self, steps):
        """Take all steps, of which none looks for many prices."""
        while True:
            before = self.prices.asked
            try:
                next(steps)
            except StopIteration as answered:
                assert self.prices.asked - before <= PRICES_AT_ONCE
                return answered.value
            assert self.prices.asked - before <= PRICES_AT_ONCE


@pytest.fixture
def made():
    return Made()


@pytest.mark.parametrize("by", [(), ("model",), ("day",), ("node",), ("owner", "hour"), ("agent",)])
def test_cost_is_answered_in_pieces(made, by):
    made.bounded(made.indexes.build())
    answer = made.bounded(made.queries.cost_steps(CostQuery(by)))
    assert (answer.records, answer.cost_nusd, answer.totals.total) == (NAMES, None, NAMES)


def test_an_answer_names_so_many_and_sums_up_the_rest(made):
    made.bounded(made.indexes.build())
    answer = made.bounded(made.queries.cost_steps(CostQuery(("node",))))
    *_, rest = answer.unpriced
    assert (len(answer.unpriced), rest.model) == (NAMES_MAX + 1, f"({NAMES - NAMES_MAX} more)")
    assert sum(one.total for one in answer.unpriced) == NAMES
    assert [len(group.models) for group in answer.groups] == [MODELS_MAX + 1]


def test_cost_from_all_rows_is_answered_in_pieces(made):
    asked = (CostQuery(("model",)), Rated(made.prices))
    replicas = made.viewer.mesh.replication.replicas
    adding = made.bounded(steps_of(made.viewer.mesh.tables, replicas, None, asked))
    assert len(made.bounded(adding.answer({})).groups) == NAMES


def test_what_a_session_has_spent_is_priced_in_pieces(made):
    made.bounded(made.indexes.build())
    made.bounded(made.queries.settle())
    before = made.prices.asked
    spent = made.queries.spent({"made": IDS[1]})["made"]
    assert (spent.usage.total, spent.nusd, made.prices.asked) == (NAMES, None, before)


def test_one_more_row_does_not_have_all_priced_again(made):
    made.bounded(made.indexes.build())
    made.bounded(made.queries.settle())
    made.indexes.rated.prices = again = Counting()
    feed = made.viewer.feeds[IDS[1]]
    feed.write(
        LEDGER,
        key_to_row(SlotKey("made", "one-more", "standard", HOUR)),
        slot_to_row(Slot(1, Buckets(5))),
    )
    change = feed.flush(0.0)
    made.indexes.take(Announce(IDS[1], change.rows, written=change.written))
    assert made.queries.spent({"made": IDS[1]})["made"].usage.total == NAMES + 5
    assert again.asked == 1


def test_reports_by_model_are_answered_with_the_dearest_and_one_sum_of_the_rest(made, monkeypatch):
    monkeypatch.setattr(tally, "GROUPS_MAX", NAMES // 3)
    by_model = pb.GetCostRequest(by=["model"])
    with pytest.raises(UsageError, match="these are more") as refused:
        get_cost(made.queries, by_model)
    assert "cost --most 100" in refused.value.hint
    by_model.most = NAMES // 3 - 1
    answer = get_cost(made.queries, by_model)
    assert (len(answer.groups), answer.groups_more) == (NAMES // 3, NAMES - NAMES // 3 + 1)
    assert answer.groups[-1].key["model"] == f"({answer.groups_more} more)"
    assert sum(group.records for group in answer.groups) == answer.records == NAMES
