"""What `usage --by block` says of the block that a group is of: its end, and how it goes on.

Invariant: a block is counted whole, so what is said of it does not depend on what was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.app.cost.blocks import (
    BLOCK_S,
    Forecast,
    Spent,
    blocks_of,
    forecast,
    is_active,
    widened,
)
from meshnode.app.cost.cutting import BLOCK, moment, zone_named
from meshnode.core.ledger.ledger import SLOT_S
from meshnode.core.ledger.prices import usd_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meshnode.app.cost.cost import CostAnswer, OwnedSlot
    from meshnode.app.cost.cutting import CostQuery

    Ends = Callable[[float, float], tuple[float, float] | None]  # of what was used in a span

WIDENED = "blocks count whole: this is what was used {}"


class Blocks:
    """The blocks that rows of half hours are in; `query` selects whole ones, and groups by them."""

    def __init__(self, asked: CostQuery, rows: Iterable[OwnedSlot]) -> None:
        blocks = blocks_of(row.key.start_s // SLOT_S for row in rows)
        since_s, until_s = widened(blocks, asked.since_s, asked.until_s)
        self.query = replace(asked, since_s=since_s, until_s=until_s, blocks=blocks)
        self._asked = asked
        self._zone = zone_named(asked.tz)
        self._starts = {moment(at_s, self._zone): at_s for at_s in blocks.values()}

    def told(
        self, answer: CostAnswer, plain: dict[str, Any], now_s: float, ends: Ends
    ) -> dict[str, Any]:
        """Return what of a plain answer changes: its groups, and what it says of the span."""
        of_groups = [self._starts[group.key[BLOCK]] for group in answer.groups]
        told = {
            start_s: {
                "end": moment(start_s + BLOCK_S, self._zone),
                "active": is_active(start_s, now_s),
                **_said(_forecast(answer, of_groups, start_s, now_s, ends)),
            }
            for start_s in dict.fromkeys(of_groups)
        }
        pairs = zip(plain["groups"], of_groups, strict=True)
        notes = self._widened_notes()
        return {
            "groups": [group | {"block": told[start_s]} for group, start_s in pairs],
            "tz_exact": plain["tz_exact"] and not notes,
            "notes": [*notes, *plain["notes"]],
        }

    def _widened_notes(self) -> list[str]:
        """Say from and until when blocks are counted, where that is more than was asked for."""
        asked, query = self._asked, self.query
        places = (("from", asked.since_s, query.since_s), ("until", asked.until_s, query.until_s))
        ends = [
            f"{word} {moment(to_s, self._zone)}"
            for word, at_s, to_s in places
            if to_s is not None and to_s != at_s
        ]
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
