"""What is said of blocks beside their sums: their ends in the user's zone, and how they go on."""

from meshnode.app.blocks import blocks_of
from meshnode.app.cost import CostAnswer, OwnedSlot, cost
from meshnode.app.cutting import CostQuery
from meshnode.core.ledger import Buckets, Slot, SlotKey
from meshnode.core.prices import Priced, Rates
from meshnode.node.blocks import told_of, widened_notes

OCT_25_S = 1792886400  # 2026-10-25T00:00:00Z: in Berlin the clocks go back at 01:00Z
BERLIN = "Europe/Berlin"


class Cheap:
    """Prices a token at one nano-USD."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        del provider, tier, at_s
        return None if model == "odd" else Priced(Rates(input_pusd=1000), "table", model)

    def is_steady(self, *_: object) -> bool:
        return True

    def source_text(self) -> str:
        return "table 1"


def answered(*uses: tuple[int, str, str, int], by: tuple[str, ...]) -> tuple[CostAnswer, dict]:
    rows = [
        OwnedSlot(
            "id", "n", SlotKey(session, model, "standard", slot), Slot(1, Buckets(input=tokens))
        )
        for slot, session, model, tokens in uses
    ]
    blocks = blocks_of(row.key.slot for row in rows)
    return cost(rows, [], CostQuery(by, tz=BERLIN, blocks=blocks), Cheap()), blocks


def test_a_block_is_five_hours_also_when_the_clocks_go_back():
    answer, blocks = answered((OCT_25_S // 1800, "s", "m", 1), by=("block",))
    [told] = told_of(answer, blocks, BERLIN, OCT_25_S + 5 * 3600, lambda *_: None)
    assert dict(answer.groups[0].key) == {"block": "2026-10-25T02:00+02:00"}
    assert (told["end"], told["active"]) == ("2026-10-25T06:00+01:00", False)


def test_each_group_of_the_active_block_says_how_all_of_it_goes_on():
    slot, asked = OCT_25_S // 1800, []

    def ends(since_s: float, until_s: float) -> tuple[float, float]:
        asked.append((since_s, until_s))
        return since_s + 600.0, since_s + 4200.0

    uses = ((slot, "s", "m", 600), (slot + 1, "t", "m", 3000), (slot - 20, "s", "m", 9))
    answer, blocks = answered(*uses, by=("session", "block"))
    told = told_of(answer, blocks, BERLIN, OCT_25_S + 2 * 3600, ends)
    assert asked == [(OCT_25_S, OCT_25_S + 5 * 3600)]
    groups = zip((dict(group.key)["session"] for group in answer.groups), told, strict=True)
    active = [(session, one) for session, one in groups if one["active"]]
    assert [session for session, _ in active] == ["t", "s"]
    for _, one in active:
        assert one == {
            "end": "2026-10-25T06:00+01:00",
            "active": True,
            "remaining_s": 10_800,
            "tokens_per_minute": 60,
            "cost_usd_per_hour": "0.0000036",
            "projected_tokens": 14_400,
            "projected_cost_usd": "0.0000144",
        }


def test_what_has_no_price_has_no_forecast_of_money():
    answer, blocks = answered((OCT_25_S // 1800, "s", "odd", 60), by=("block",))
    [told] = told_of(answer, blocks, BERLIN, OCT_25_S + 3600, lambda at_s, _: (at_s, at_s + 60.0))
    assert (told["tokens_per_minute"], told["projected_tokens"]) == (60, 60 + 240 * 60)
    assert (told["cost_usd_per_hour"], told["projected_cost_usd"]) == (None, None)


def test_ends_that_were_moved_are_told_in_the_zone():
    ends = (float(OCT_25_S), float(OCT_25_S + 5 * 3600))
    assert widened_notes(ends, ends, BERLIN) == []
    assert widened_notes((None, None), (None, None), BERLIN) == []
    assert widened_notes((OCT_25_S + 1.0, None), (ends[0], None), BERLIN) == [
        "blocks count whole: this is what was used from 2026-10-25T02:00+02:00"
    ]
    assert widened_notes((ends[0], ends[1] - 1), ends, BERLIN) == [
        "blocks count whole: this is what was used until 2026-10-25T06:00+01:00"
    ]
