import pytest
from msgspec.structs import replace
from usage_records import usage_record

from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import KEY_BYTES_MAX
from meshnode.core.ledger.ledger import (
    COUNT_MAX,
    SLOT_MAX,
    TEXT_CHARS_MAX,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    Slot,
    SlotKey,
    Slots,
    UsageRecord,
    added_up,
    cut,
    slot_key_of,
)
from meshnode.core.ledger.ledger_rows import (
    diagnostics_from_row,
    key_from_row,
    key_to_row,
    slot_from_row,
    slot_to_row,
    value_to_row,
)
from meshnode.core.ledger.marks import mark_of, marked, unmarked
from meshnode.core.ledger.rollups import way_of
from meshnode.core.ledger.tiers import tier_of, tier_parts
from meshnode.core.packing import pack
from meshnode.core.periods import DAY_MAX, MONTH_MAX


def record(key: str = "k", at_s: float = 1800.0, **changes: object) -> UsageRecord:
    usage = Buckets(input=10, output=2, reasoning=1, web_search=1)
    return replace(usage_record(key, source="codex", at_s=at_s, usage=usage), **changes)


def test_the_total_is_the_first_five_buckets():
    assert Buckets(1, 10, 100, 1_000, 10_000, 5_000, 7).total == 11_111


def test_sums_stay_at_the_largest_count_that_a_row_may_hold():
    full = Buckets(input=COUNT_MAX, output=COUNT_MAX)
    assert (full + full).input == COUNT_MAX
    assert full.total == COUNT_MAX
    assert Slot(COUNT_MAX, full + full) == slot_from_row(slot_to_row(Slot(COUNT_MAX, full)))


def test_records_of_one_half_hour_add_up_and_others_do_not():
    slots = Slots()
    first = slots.correct(
        (), added_up([record(at_s=1800.0), record(at_s=3599.9), record(at_s=3600.0)])
    )
    assert [(key.slot, slot.records, slot.usage.input) for key, slot in first] == [
        (1, 2, 20),
        (2, 1, 10),
    ]
    changed = slots.correct((), added_up([record(at_s=3601.0)]))
    assert changed == [(SlotKey("s", "m", "standard", 2), Slot(2, changed[0][1].usage))]
    assert changed[0][1].usage.output == 4
    assert len(list(slots)) == 2


def test_texts_of_a_slot_do_not_depend_on_the_order_of_records():
    records = [record(owner="bob"), record(owner=""), record(owner="alice", agent="a")]
    forth, back = (
        Slots().correct((), added_up(records)),
        Slots().correct((), added_up(records[::-1])),
    )
    assert forth == back
    assert forth[0][1].owner == "alice"


def test_a_gateway_has_a_counter_for_each_consumer_and_provider_of_a_session():
    def one(**changes: str) -> UsageRecord:
        return record(source="higress", **changes)

    whose = [{"owner": "olga"}, {"owner": "paul"}, {"owner": "paul", "provider": "azure"}, {}]
    found = Slots().correct((), added_up([one(**said) for said in (*whose, whose[0])]))
    assert sorted((slot.owner, slot.provider, slot.records) for _, slot in found) == [
        ("", "", 1),
        ("olga", "", 2),
        ("paul", "", 1),
        ("paul", "azure", 1),
    ]
    assert len({key.tier for key, _ in found}) == 4
    assert {tier_parts(key.tier) for key, _ in found} == {("standard", 0)}
    assert slot_key_of(one(owner="o" * 300)) == slot_key_of(one(owner="o" * 299))


NAMES = [
    ("s" * 256, "m" * 256),
    ("\U0001f600" * 256, "m"),
    ("s", "\u6f22" * 400),
    ("\u6f22" * 166,) * 2,
    ("\U0001f600" * 256,) * 2,
]


@pytest.mark.parametrize(("session", "model"), NAMES)
@pytest.mark.parametrize("source", ["claude", "higress"])
def test_a_key_has_names_that_a_feed_takes(session, model, source):
    tier = tier_of("\U0001f600" * 64, 600_000)
    key = slot_key_of(record(session=session, model=model, tier=tier, source=source))
    for one in (key, *way_of(key)):
        assert len(key_to_row(one)) <= KEY_BYTES_MAX
        assert key_from_row(key_to_row(one)) == one
    assert unmarked(key.tier) == tier


def test_names_that_no_feed_takes_are_shortened_and_stay_apart():
    long = "\U0001f600" * 255
    keys = [slot_key_of(record(session=f"{long}{end}")) for end in "ab"]
    assert keys[0].session[:61] == keys[1].session[:61] == long[:61]
    assert keys[0] != keys[1]
    for session, model in (("\u6f22" * 256, "m" * 200), ("s" * 256, "\U0001f600" * 183)):
        key = slot_key_of(record(session=session, model=model))
        assert (key.session, key.model) == (session, model)


def older_tier_parts(tier: str) -> tuple[str, int]:
    """How versions without marks read a tier."""
    name, _, step = tier.partition(">")
    return name, int(step) if step.isascii() and step.isdigit() and len(step) <= 12 else 0


@pytest.mark.parametrize("tier", ["standard", "standard>200000", "batch", "fast>32000", "a#b>1"])
def test_a_mark_changes_no_tier_and_no_price(tier: str):
    said = marked(tier, mark_of("", "olga", "", ""))
    assert (unmarked(said), unmarked(unmarked(said))) == (unmarked(tier),) * 2
    assert tier_parts(said) == tier_parts(tier)
    assert said != tier
    if tier in {"standard", "batch"}:
        assert older_tier_parts(said) == tier_parts(tier)
    assert older_tier_parts(said)[1] == tier_parts(tier)[1]


def test_long_and_broken_texts_are_cut():
    [(key, slot)] = Slots().correct((), added_up([record(session="s" * 999, owner="o" * 999)]))
    assert len(key.session) == len(slot.owner) == TEXT_CHARS_MAX
    assert cut("a\ud800") == "a?"


def test_rows_come_back_as_they_were():
    key = SlotKey("s", "m", "standard", 42)
    slot = Slot(3, Buckets(1, 2, 3, 4, 5, 6, 7), "agent", "owner", "project", "provider")
    reader, found = DiagnosticsKey("higress", "00ff"), Diagnostics(1, 2, 3, 4, 5, 6, 7)
    assert key_from_row(key_to_row(key)) == key
    assert slot_from_row(value_to_row(slot)) == slot
    assert key_from_row(key_to_row(reader)) == reader
    assert diagnostics_from_row(value_to_row(found)) == found


def test_kinds_and_elements_of_later_versions_are_passed_over():
    assert key_from_row(pack([4, "node", "day"])) is None
    assert slot_from_row(pack([1, [0] * 9, "", "", "", "", "later"])) == Slot(1, Buckets())
    assert diagnostics_from_row(pack([0] * 9)) == Diagnostics()


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\xc1",
        pack({}),
        pack([]),
        pack([0]),
        pack([0, "s", "m", "t", -1]),
        pack([0, "s", "m", "t", SLOT_MAX + 1]),
        pack([0, "s", "m", "t", True]),
        pack([0, "s", "m", "t", 1.0]),
        pack([0, "s", b"m", "t", 1]),
        pack([0, "s" * 257, "m", "t", 1]),
        pack([1, "higress"]),
        pack([2, "s", "m", "t", DAY_MAX + 1]),
        pack([2, "s", "m", 1]),
        pack([3, "s", "m", "t", MONTH_MAX + 1]),
        pack([3, "s", "m", "t", -1]),
        pack(["slot", "s"]),
        pack([-1]),
    ],
)
def test_a_broken_key_is_the_peers_fault(row: bytes):
    with pytest.raises(PeerError):
        key_from_row(row)


@pytest.mark.parametrize(
    "row",
    [
        b"",
        pack([1, [0] * 6, "", "", "", ""]),
        pack([1, 7, "", "", "", ""]),
        pack([-1, [0] * 7, "", "", "", ""]),
        pack([1, [0, 0, 0, 0, 0, 0, 1 << 63], "", "", "", ""]),
        pack([1, [0] * 7, "", "", None, ""]),
        pack([1, [0] * 7, "", "", ""]),
    ],
)
def test_a_broken_slot_is_the_peers_fault(row: bytes):
    with pytest.raises(PeerError):
        slot_from_row(row)


def test_broken_diagnostics_are_the_peers_fault():
    for row in (pack([0] * 6), pack([-1] * 7), pack("text")):
        with pytest.raises(PeerError):
            diagnostics_from_row(row)
