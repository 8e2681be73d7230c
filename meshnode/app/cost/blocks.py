"""The blocks of five hours that Claude's plans limit, as ccusage tells them.

A block begins with the hour, in UTC, of the first use, and the next one with that of the first use
after its end. Invariant: a slot is wholly in one block, for those begin and end with an hour.
Source: ccusage, `identify_session_blocks` and `calculate_burn_rate` in its blocks.rs; there a use
at the very millisecond of an end is still within, here it begins the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshnode.core.ledger.ledger import SLOT_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOUR_S, MINUTE_S = 3600, 60
BLOCK_S = 5 * HOUR_S


class Spent(NamedTuple):
    """What was used in a block so far: from its first use to its last, seconds since 1970."""

    start_s: int
    first_s: float
    last_s: float
    tokens: int
    cost_nusd: int | None  # of what has a price


class Forecast(NamedTuple):
    """How a block goes on, at the rate between its first use and its last.

    `tokens` and `cost_nusd` are those at its end. None: that is less than a second; of money also
    where nothing has a price.
    """

    remaining_s: int
    tokens_per_minute: int | None = None
    nusd_per_hour: int | None = None
    tokens: int | None = None
    cost_nusd: int | None = None


def blocks_of(slots: Iterable[int]) -> dict[int, int]:
    """Return where the block of each slot begins, seconds since 1970; slots in any order."""
    starts: dict[int, int] = {}
    start_s = -BLOCK_S
    for slot in sorted(set(slots)):
        at_s = slot * SLOT_S
        if at_s >= start_s + BLOCK_S:
            start_s = at_s - at_s % HOUR_S
        starts[slot] = start_s
    return starts


def is_active(start_s: int, now_s: float) -> bool:
    """Whether a block has begun and not ended."""
    return start_s <= now_s < start_s + BLOCK_S


def widened(
    blocks: Mapping[int, int], since_s: float | None, until_s: float | None
) -> tuple[float | None, float | None]:
    """Move the ends of a span out to those of the blocks that they cut."""
    starts = set(blocks.values())
    begin = [at_s for at_s in starts if since_s is not None and at_s < since_s < at_s + BLOCK_S]
    end = [at_s for at_s in starts if until_s is not None and at_s < until_s < at_s + BLOCK_S]
    return (begin[0] if begin else since_s, end[0] + BLOCK_S if end else until_s)


def forecast(spent: Spent, now_s: float) -> Forecast:
    """Say what an active block comes to if it goes on as it did."""
    left_s = max(0.0, spent.start_s + BLOCK_S - now_s)
    used_s = spent.last_s - spent.first_s
    if used_s < 1:
        return Forecast(int(left_s))
    often = left_s / used_s
    nusd = spent.cost_nusd
    return Forecast(
        int(left_s),
        round(spent.tokens * MINUTE_S / used_s),
        None if nusd is None else round(nusd * HOUR_S / used_s),
        spent.tokens + round(spent.tokens * often),
        None if nusd is None else nusd + round(nusd * often),
    )
