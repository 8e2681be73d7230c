"""What a request is billed as: the service it asked for, and how long its prompt was.

Invariant: a tier belongs to one request and is lost in a sum, so it is part of every counter's key.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache

from meshnode.core.ledger.marks import MARK, unmarked

STANDARD = "standard"  # the service tier that providers bill unless told otherwise
PLACED = "+"  # before the place that a request was kept in, where that costs more: `standard+us`
CONTEXT_STEPS_TOKENS = (
    *(32_000, 100_000, 128_000, 199_999, 200_000),
    *(256_000, 272_000, 512_000, 524_288),
)
"""Prompts longer than a step may cost more per token; a test holds this against the price list."""
SERVICE_CHARS_MAX = 64  # longer: cut
_PLACE = re.compile(rf"[{PLACED}][^>{MARK}]*")
_KEPT = 1024  # read again and again
_STEP_DIGITS_MAX = 12  # more: beyond any prompt


def tier_of(service: str, prompt_tokens: int, place: str = "") -> str:
    """Name what a request is billed as: `standard`, `batch`, `standard>200000`, `standard+us`.

    `place`: which it was kept in, one that costs more; "" if in none.
    """
    step = bisect_left(CONTEXT_STEPS_TOKENS, prompt_tokens)
    return _tier(service.strip()[: 4 * SERVICE_CHARS_MAX], step, place)


@lru_cache(_KEPT)
def _tier(service: str, steps: int, place: str) -> str:
    name = service.lower().replace(">", "").replace(MARK, "").replace(PLACED, "")
    name = name[:SERVICE_CHARS_MAX].encode("utf-8", "replace").decode()
    name = STANDARD if name in ("", "auto", "default") else name
    name = f"{name}{PLACED}{place}" if place else name
    return f"{name}>{CONTEXT_STEPS_TOKENS[steps - 1]}" if steps else name


def anywhere(tier: str) -> str:
    """Return the tier that a request would have been of in no place."""
    return _PLACE.sub("", tier)


def tier_parts(tier: str) -> tuple[str, int]:
    """Return the service tier, and how many tokens the prompt exceeds, whatever the mark."""
    name, _, step = unmarked(tier).partition(">")
    is_step = step.isascii() and step.isdigit() and len(step) <= _STEP_DIGITS_MAX
    return name, int(step) if is_step else 0
