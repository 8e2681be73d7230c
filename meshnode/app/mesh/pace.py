"""When our feed's next flush is due, and how fast our `links` row follows our links.

Invariant: a write that somebody waits for is flushed after the pause since the last flush, at most;
one that nobody waits for PATIENT_S later, or with the next. Links come and go together, and all
hear of each row: the first change after a rest is due within LINKS_DELAY_S; while they go on
changing, pauses grow threefold up to LINKS_PAUSE_S, and to SPARE_PAUSE_S for links that change
nobody's reach. What is due earlier takes along what is due later.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from meshnode.core.membership.members import LINKS, ONLY_ROW

if TYPE_CHECKING:
    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.feeds.rows import Place

FLUSH_DELAY_S = 0.001  # writes that come together travel together
FLUSH_PAUSE_S = 0.01  # between two flushes at least, and with many members:
FLUSH_PAUSE_A_MEMBER_S = 0.0002  # every member receives every flush
LAG_PAUSE_S = 1.0
PATIENT_S = 0.5  # what nobody waits for comes after the news that it follows
LINKS_DELAY_S = 0.03  # changes that come together travel together
LINKS_PAUSE_S = 0.3
LINKS_REST_S = 5.0  # without a change: the next one is the first again
SPARE_PAUSE_S = 3.0  # for one more link between members that have enough

OUR_LINKS: Place = (LINKS, ONLY_ROW)


class FlushPace:
    """When what waits in our feed is due."""

    def __init__(self, own: OwnFeed) -> None:
        self._own = own
        self._flushed_at_s = -math.inf
        self._due_s: dict[Place, float] = {}  # of rows that need not be out at once
        self._links_at_s = -math.inf  # when a `links` row was last flushed
        self._links_pause_s = LINKS_DELAY_S

    def wrote(self, place: Place, now_s: float, *, patient: bool) -> None:
        """Note whether somebody waits for a row that was just written."""
        if patient:
            self._due_s.setdefault(place, now_s + PATIENT_S)
        else:
            self._due_s.pop(place, None)

    def wrote_links(self, now_s: float, *, spare: bool) -> None:
        """Note that our links have changed; `spare` if that changes nobody's reach."""
        pause_s = SPARE_PAUSE_S if spare else self._links_pause_s
        due_s = max(now_s + LINKS_DELAY_S, self._links_at_s + pause_s)
        self._due_s[OUR_LINKS] = min(self._due_s.get(OUR_LINKS, math.inf), due_s)

    def due_s(self, now_s: float, members: int, late_s: float) -> float:
        """Return when what waits now is flushed; `late_s` is how late this node's timers are."""
        pause_s = max(FLUSH_PAUSE_S, FLUSH_PAUSE_A_MEMBER_S * members)
        if self._own.waits_only_for(self._due_s.keys()):
            return max(min(self._due_s.values()), self._flushed_at_s + pause_s)
        if not self._own.is_pending(*OUR_LINKS):  # what liveness waits for is not held back
            pause_s += min(late_s, LAG_PAUSE_S)  # who cannot keep up says more at a time
        return max(now_s + FLUSH_DELAY_S, self._flushed_at_s + pause_s)

    def flushed(self, change: Change, now_s: float) -> None:
        """Note what was flushed."""
        self._flushed_at_s = now_s
        for place in change.rows:
            self._due_s.pop(place, None)
        if OUR_LINKS in change.rows:
            rested = now_s - self._links_at_s > LINKS_REST_S
            longer_s = min(3 * self._links_pause_s, LINKS_PAUSE_S)
            self._links_pause_s = LINKS_DELAY_S if rested else longer_s
            self._links_at_s = now_s
