"""Rows of days and months that a member makes up: they count as its own, and as nobody else's."""

import pytest
from viewing import IDS, Viewer

from meshnode.app.cost.cutting import CostQuery
from meshnode.app.queries.indexes import Indexes
from meshnode.app.queries.queries import Queries
from meshnode.core.ledger.ledger import LEDGER, SLOT_MAX, SLOT_S, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.rollups import month_of
from meshnode.core.packing import pack
from meshnode.core.periods import DAY_MAX, DAY_S, MONTH_MAX, DayKey, MonthKey
from meshnode.ingest.prices import PriceBook

pytestmark = pytest.mark.integration
AT_S = 1_790_000_000
TEXTS = ("made", "gpt-4o", "standard")
SLOT = SlotKey(*TEXTS, AT_S // SLOT_S)
OVERLAPPING = [SLOT, DayKey(*TEXTS, AT_S // DAY_S), MonthKey(*TEXTS, month_of(AT_S))]
AT_THE_ENDS = [
    *(SlotKey(*TEXTS, 0), DayKey(*TEXTS, 0), MonthKey(*TEXTS, 0)),
    *(SlotKey(*TEXTS, SLOT_MAX), DayKey(*TEXTS, DAY_MAX), MonthKey(*TEXTS, MONTH_MAX)),
]
NO_KEYS = [
    *(b"", b"\xc1", b"\x95\x02", pack([2, *TEXTS]), pack([2, *TEXTS, -1]), pack([2, *TEXTS, True])),
    *(pack([2, *TEXTS, DAY_MAX + 1]), pack([3, *TEXTS, MONTH_MAX + 1]), pack([3, *TEXTS, 1e300])),
    *(pack([2, *TEXTS, "1"]), pack([3, b"made", "m", "t", 1]), pack([3, "x" * 300, "m", "t", 1])),
]
NO_VALUES = [
    b"",
    b"\xc1",
    pack([]),
    pack([1, [1] * 6, "", "", "", ""]),
    pack([-1, [1] * 7, *"abcd"]),
]
BY = [
    (),
    ("month", "week"),
    ("day",),
    ("hour",),
    ("model",),
    ("session", "day"),
    ("owner", "agent"),
]
ZONES = ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu"]


def counted(tokens: int) -> bytes:
    return slot_to_row(Slot(1, Buckets(tokens), owner="mallory"))


def answers(viewer: Viewer, *by: str, tz: str = "UTC", **span: float):
    """Ask from roll-ups, and from nothing but the rows; both say the same."""
    prices = PriceBook()
    indexes = Indexes(viewer.mesh, prices)
    plain = Queries(viewer.mesh, prices, viewer.clock)
    indexed = Queries(viewer.mesh, prices, viewer.clock, indexes=indexes)
    indexes.begin()
    for _ in indexes.build():
        pass
    query = CostQuery(by, tz=tz, **span)
    one, other = plain.cost(query), indexed.cost(query)
    assert (one.records, one.totals, one.cost_nusd) == (
        other.records,
        other.totals,
        other.cost_nusd,
    )
    return one


@pytest.fixture
def viewer() -> Viewer:
    viewer = Viewer()
    viewer.put(2, LEDGER, key_to_row(SLOT), slot_to_row(Slot(1, Buckets(7), owner="anna")))
    return viewer


def of_nodes(viewer: Viewer) -> dict[str, int]:
    return {one.key["node"]: one.usage.total for one in answers(viewer, "node").groups}


def test_a_day_and_a_month_over_a_slot_count_as_its_owners_alone(viewer):
    before = of_nodes(viewer)
    for key in OVERLAPPING:
        viewer.put(1, LEDGER, key_to_row(key), counted(100))
    after = of_nodes(viewer)
    added = {name: after[name] - before.get(name, 0) for name in after}
    assert sorted(added.values()) == [0, 300]
    by_owner = {one.key["owner"]: one.usage.total for one in answers(viewer, "owner").groups}
    assert by_owner == {"anna": 7, "mallory": 300}


@pytest.mark.parametrize("by", BY, ids=lambda by: "-".join(by) or "all")
@pytest.mark.parametrize("tz", ZONES)
def test_rows_of_both_ends_of_time_can_be_asked_for_in_every_way(viewer, by, tz):
    for key in (*OVERLAPPING, *AT_THE_ENDS):
        viewer.put(1, LEDGER, key_to_row(key), counted(1))
    answer = answers(viewer, *by, tz=tz)
    assert (answer.records, answer.totals.total) == (10, 16)
    assert sum(group.usage.total for group in answer.groups) in (0, 16)
    assert answers(viewer, *by, tz=tz, since_s=AT_S - 60, until_s=AT_S + 60).totals.total == 10
    far_s = float(MONTH_MAX * 31 * DAY_S)
    assert answers(viewer, *by, tz=tz, since_s=-far_s, until_s=far_s).totals.total == 16


def test_what_is_no_row_of_a_day_or_month_counts_nothing(viewer):
    before = of_nodes(viewer)
    for number, key in enumerate(NO_KEYS):
        viewer.put(1, LEDGER, key, counted(1 + number))
    for key, value in zip(OVERLAPPING * 2, NO_VALUES, strict=False):
        viewer.put(1, LEDGER, key_to_row(key), value)
    assert of_nodes(viewer) == before
    assert IDS[1] in viewer.mesh.replication.replicas
