"""How fast our `links` row follows our links, while they change.

Invariant: the first change after a rest is written within LINKS_DELAY_S; while they go on changing,
pauses grow threefold up to LINKS_PAUSE_S. Links come and go together, and all hear of each row.
"""

from __future__ import annotations

import math

LINKS_DELAY_S = 0.03  # changes that come together travel together
LINKS_PAUSE_S = 1.0
LINKS_REST_S = 5.0  # without a change: the next one is the first again


class LinksPace:
    """When the next `links` row is due."""

    def __init__(self) -> None:
        self._flushed_at_s = -math.inf
        self._pause_s = LINKS_DELAY_S

    def delay_s(self, now_s: float) -> float:
        """Return how long a change that has come now waits for others."""
        return max(LINKS_DELAY_S, self._flushed_at_s + self._pause_s - now_s)

    def flushed(self, now_s: float) -> None:
        """Note that a row was written."""
        rested = now_s - self._flushed_at_s > LINKS_REST_S
        longer_s = min(3 * self._pause_s, LINKS_PAUSE_S)
        self._pause_s = LINKS_DELAY_S if rested else longer_s
        self._flushed_at_s = now_s
