"""What `usage --by block` says of the block that a group is of: its end, and how it goes on.

Invariant: a block is told whole, so what is said of it does not depend on what was selected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.app.blocks import BLOCK_S, Forecast, Spent, forecast, is_active
from meshnode.app.cutting import BLOCK, moment, zone_named
from meshnode.core.prices import usd_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshnode.app.cost import CostAnswer

    Ends = Callable[[float, float], tuple[float, float] | None]  # of what was used in a span

WIDENED = "blocks count whole: this is what was used {}"


def told_of(
    answer: CostAnswer, blocks: Mapping[int, int], tz: str, now_s: float, ends: Ends
) -> list[dict[str, Any]]:
    """Return what is to be said of the block of each group, in the order of the groups."""
    zone = zone_named(tz)
    starts = {moment(start_s, zone): start_s for start_s in blocks.values()}
    of_groups = [starts[group.key[BLOCK]] for group in answer.groups]
    told = {
        start_s: {
            "end": moment(start_s + BLOCK_S, zone),
            "active": is_active(start_s, now_s),
            **_said(_forecast(answer, of_groups, start_s, now_s, ends)),
        }
        for start_s in dict.fromkeys(of_groups)
    }
    return [told[start_s] for start_s in of_groups]


def widened_notes(
    asked: tuple[float | None, float | None], counted: tuple[float | None, float | None], tz: str
) -> list[str]:
    """Say from and until when blocks are counted, where that is more than was asked for."""
    pairs = zip(("from", "until"), asked, counted, strict=True)
    zone = zone_named(tz)
    ends = [f"{word} {moment(to_s, zone)}" for word, at_s, to_s in pairs if to_s and to_s != at_s]
    return [WIDENED.format(" ".join(ends))] if ends else []


def _forecast(
    answer: CostAnswer, of_groups: list[int], start_s: int, now_s: float, ends: Ends
) -> Forecast | None:
    if not is_active(start_s, now_s):
        return None
    first_s, last_s = ends(start_s, start_s + BLOCK_S) or (start_s, start_s)
    pairs = zip(of_groups, answer.groups, strict=True)
    groups = [group for at_s, group in pairs if at_s == start_s]
    known = [group.cost_nusd for group in groups if group.cost_nusd is not None]
    tokens = sum(group.usage.total for group in groups)
    spent = Spent(start_s, first_s, last_s, tokens, sum(known) if known else None)
    return forecast(spent, now_s)


def _said(found: Forecast | None) -> dict[str, Any]:
    return {
        "remaining_s": found and found.remaining_s,
        "tokens_per_minute": found and found.tokens_per_minute,
        "cost_usd_per_hour": _usd(found and found.nusd_per_hour),
        "projected_tokens": found and found.tokens,
        "projected_cost_usd": _usd(found and found.cost_nusd),
    }


def _usd(nusd: int | None) -> str | None:
    return None if nusd is None else usd_text(nusd)
