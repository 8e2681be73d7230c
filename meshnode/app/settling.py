"""Whether the wall clock can be believed when it calls something old enough to be deleted.

Invariant: nothing is old by a clock that has jumped in the last ten minutes of the steady one: it
may be years ahead for one moment, and what it then calls old would be gone for good.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.app.ports import Clock

JUMP_S = 60.0  # of the wall clock against the steady one, between two looks
SETTLED_S = 600.0  # without one, and after the start, before anything is old


class Settling:
    """Watches one clock, by comparing it with the steady one whenever it is asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s = clock.wall_s() - clock.steady_s()
        self._settles_at_s = clock.steady_s() + SETTLED_S

    def look(self) -> bool:
        """Return whether the wall clock has gone with the steady one for a while."""
        before_s, self._offset_s = self._offset_s, self._clock.wall_s() - self._clock.steady_s()
        if abs(self._offset_s - before_s) > JUMP_S:
            self._settles_at_s = self._clock.steady_s() + SETTLED_S
        return self._clock.steady_s() >= self._settles_at_s

    def old_s(self, kept_s: float) -> float:
        """Return before when (seconds since 1970) what is kept so long is old; -inf: nothing is."""
        return self._clock.wall_s() - kept_s if self.look() else -inf
