"""What Codex counts: cumulative totals, and which of them tell of a response that has a name.

Newer versions of Codex name a response before they tell the total that it leads to, older ones tell
totals alone, and a session is resumed by either. Invariant: a response counts once, by its name or
by its total, in whatever order they come.
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - as below
from typing import NamedTuple

import msgspec

from meshnode.core.ledger.ledger import UsageRecord  # noqa: TC001 - msgspec looks at it
from meshnode.ingest.lenient import count_of

COUNTS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_output_tokens")
WRITTEN = "cache_write_input_tokens"  # a part of the input as well, told by newer versions only
Totals = tuple[int, ...]  # COUNTS, then WRITTEN
TOLD = len(COUNTS)  # what all versions tell: nothing else is compared
NOTHING = (0,) * (TOLD + 1)
NAMED_MAX = 16  # responses whose total is awaited: not all have one; of more the last


class Total(NamedTuple):
    """One total as it was told."""

    lane: str
    totals: Totals
    last: Totals | None  # what the last response used, where it is told
    used: Totals  # the same, or what the total of this lane has grown by
    heard: Sequence[int]  # the total before, of whatever lane
    is_echo: bool  # just told, under another limit

    @property
    def begins_in_the_middle(self) -> bool:
        """Tell whether other responses came before, if this is the first total that there is."""
        return self.last is not None and self.last[:TOLD] != self.totals[:TOLD]


class Naming(msgspec.Struct, array_like=True):
    """Which responses of a file have a name and no total yet, or a total and no name."""

    heard: list[int] = msgspec.field(default_factory=list)  # the last total, of whatever lane
    named: list[list[int]] = msgspec.field(default_factory=list)  # what those without total used
    unnamed: list[int] = msgspec.field(default_factory=list)  # what the last one, counted, used
    is_late: bool = False  # names come after totals
    waiting: UsageRecord | None = None  # of the last total, where its name may still come

    def takes(self, total: Total) -> bool:
        """Tell whether a total is that of a response that was named; its name is used up.

        So is one that was told before, under another limit.
        """
        risen = since(total.heard, total.totals)
        if not any(risen[:TOLD]):
            return True
        told = [list(one[:TOLD]) for one in (total.used, risen)]
        for number, used in enumerate(self.named, 1):
            if used in told:
                del self.named[:number]
                self.unnamed = []
                return True
        # A compaction is named, and told with the response that follows it.
        if self.named and [*map(sum, zip(*self.named, strict=True))] == told[1]:
            self.named.clear()
            self.unnamed = []
            return True
        return False

    def name(self, used: Totals) -> None:
        """Note that a response has a name, and that its total is to come."""
        self.named = [*self.named, list(used[:TOLD])][-NAMED_MAX:]


def counts_in(usage: object) -> Totals | None:
    """Read the counts that add up; a full context sets `total_tokens` to the window."""
    if not isinstance(usage, dict):
        return None
    found = tuple(count_of(usage.get(name)) or 0 for name in (*COUNTS, WRITTEN))
    return found if any(found[:TOLD]) else None


def since(before: Sequence[int], totals: Totals) -> Totals:
    """Return what was used between two totals; one of which any part has fallen begins anew."""
    if len(before) == TOLD:  # kept by a version that did not read what was written: unknown
        before = [*before, totals[TOLD]]
    pairs = list(zip(totals, before, strict=True))
    if any(new < old for new, old in pairs[:TOLD]):
        return totals
    return tuple(max(new - old, 0) for new, old in pairs)
