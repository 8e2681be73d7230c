"""What is said of blocks beside their sums: their ends in the user's zone, and how they go on."""

from typing import Any

from meshnode.app.cost.cost import OwnedSlot, cost
from meshnode.app.cost.cutting import CostQuery
from meshnode.core.ledger.ledger import Buckets, Slot, SlotKey
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.node.ledger.blocks import Blocks

OCT_25_S = 1792886400  # 2026-10-25T00:00:00Z: in Berlin the clocks go back at 01:00Z
BERLIN, SLOT = "Europe/Berlin", OCT_25_S // 1800


class Cheap:
    """Prices a token at one nano-USD."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        del provider, tier, at_s
        return None if model == "odd" else Priced(Rates(input_pusd=1000), "table", model)

    def is_steady(self, *_: object) -> bool:
        return True

    def source_text(self) -> str:
        return "table 1"


Use = tuple[int, str, str, int]  # slot, session, model, tokens


def told(
    uses: list[Use],
    now_s: float,
    ends: tuple[float, float] | None = None,
    by: tuple[str, ...] = ("block",),
    **span: float,
) -> dict[str, Any]:
    rows = [
        OwnedSlot("id", "n", SlotKey(session, model, "standard", slot), Slot(1, Buckets(tokens)))
        for slot, session, model, tokens in uses
    ]
    blocks = Blocks(CostQuery(by, tz=BERLIN, **span), rows)
    answer = cost(rows, [], blocks.query, Cheap())
    plain = {
        "groups": [{"key": dict(group.key)} for group in answer.groups],
        "tz_exact": answer.tz_exact,
        "notes": list(answer.notes),
    }
    return blocks.told(answer, plain, now_s, lambda *_: ends)


def test_a_block_is_five_hours_also_when_the_clocks_go_back():
    [group] = told([(SLOT, "s", "m", 1)], OCT_25_S + 5 * 3600)["groups"]
    assert group["key"] == {"block": "2026-10-25T02:00+02:00"}
    assert (group["block"]["end"], group["block"]["active"]) == ("2026-10-25T06:00+01:00", False)


def test_each_group_of_the_active_block_says_how_all_of_it_goes_on():
    uses = [(SLOT, "s", "m", 600), (SLOT + 1, "t", "m", 3000), (SLOT - 20, "s", "m", 9)]
    ends = (OCT_25_S + 600.0, OCT_25_S + 4200.0)
    found = told(uses, OCT_25_S + 2 * 3600, ends, by=("session", "block"))
    active = {one["key"]["session"]: one for one in found["groups"] if one["block"]["active"]}
    assert active.keys() == {"s", "t"}
    for group in active.values():
        assert group["block"] == {
            "end": "2026-10-25T06:00+01:00",
            "active": True,
            "remaining_s": 10_800,
            "tokens_per_minute": 60,
            "cost_usd_per_hour": "0.0000036",
            "projected_tokens": 14_400,
            "projected_cost_usd": "0.0000144",
        }


def test_what_has_no_price_has_no_forecast_of_money():
    ends = (OCT_25_S, OCT_25_S + 60.0)
    [group] = told([(SLOT, "s", "odd", 60)], OCT_25_S + 3600, ends)["groups"]
    block = group["block"]
    assert (block["tokens_per_minute"], block["projected_tokens"]) == (60, 60 + 240 * 60)
    assert (block["cost_usd_per_hour"], block["projected_cost_usd"]) == (None, None)


def test_ends_that_were_moved_are_told_in_the_zone():
    def noted(**span: float) -> list[str]:
        found = told([(SLOT, "s", "m", 1)], OCT_25_S, **span)
        assert found["tz_exact"] is not bool(found["notes"])
        return found["notes"]

    begin_s, end_s = float(OCT_25_S), float(OCT_25_S + 5 * 3600)
    assert noted() == noted(since_s=begin_s, until_s=end_s) == noted(since_s=end_s) == []
    counted = "blocks count whole: this is what was used"
    begin, end = "from 2026-10-25T02:00+02:00", "until 2026-10-25T06:00+01:00"
    assert noted(since_s=begin_s + 1) == [f"{counted} {begin}"]
    assert noted(since_s=begin_s, until_s=end_s - 1) == [f"{counted} {end}"]
    assert noted(since_s=end_s - 1, until_s=begin_s + 1) == [f"{counted} {begin} {end}"]
