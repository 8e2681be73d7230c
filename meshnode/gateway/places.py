"""Places for strangers: so many in all, and of them a share to each source.

Invariant: a source holds at most half of what the others leave, so whoever comes next finds some;
ten sources that take all they can leave the eleventh one of 1024.
"""

from __future__ import annotations

from collections import Counter


class Places:
    """Counts who is inside, by source."""

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._of: Counter[str] = Counter()
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether nobody at all finds a place."""
        return self._count >= self._places_max

    def enter(self, source: str) -> bool:
        """Take a place; False, and nothing taken, if there is none for this source."""
        left_by_others = self._places_max - self._count + self._of[source]
        if self.full or self._of[source] >= max(1, left_by_others // 2):
            return False
        self._of[source] += 1
        self._count += 1
        return True

    def leave(self, source: str) -> None:
        """Give back a place that was taken."""
        self._count -= 1
        self._of[source] -= 1
        if not self._of[source]:
            del self._of[source]
