"""How long an agent may run, and how long it may be idle, if its caller has said so.

Invariant: its end is told once. Time that the machine sleeps does not count; what it stands
suspended for does, as with `timeout`(1), but it is not idle then. Nor is it while we stand still
ourselves: frozen together with us it could do nothing.
"""

from __future__ import annotations

from math import inf

TIMED_OUT = 124  # the exit code, as of `timeout`(1)
LOOK_S = 60.0  # the next look at an agent comes no later,
LATE_S = 5.0  # or by so much where the machine is busy; beyond, we stood still ourselves


class Lifetime:
    """`run_s` from `now_s` on, `idle_s` from whatever happened last on; 0: as long as it likes."""

    def __init__(self, run_s: float, idle_s: float, now_s: float) -> None:
        self._run_s = run_s
        self._idle_s = idle_s
        self._until_s = now_s + run_s if run_s else inf
        self._idle_until_s = now_s + idle_s if idle_s else inf
        self._looked_s = now_s
        self.is_over = False
        self.reason = ""  # why it has ended

    def looked(self, began_s: float, over_s: float, *, stirred: bool, is_held: bool) -> None:
        """Note what a look at the agent has shown that took from `began_s` to `over_s`.

        `stirred`: something has happened since the one before. `is_held`: it is suspended, or has
        been asked to end and given time for it.
        """
        due_s = min(self._looked_s + LOOK_S, self._idle_until_s)
        self._looked_s = began_s
        if is_held or not self._idle_s:
            self._idle_until_s = inf
        elif stirred or began_s > due_s + LATE_S or self._idle_until_s == inf:
            self._idle_until_s = over_s + self._idle_s

    def ends(self, now_s: float) -> bool:
        """Whether it is over now, and was not before."""
        # What happens after a look begins may be seen by the next one only: it is idle up to there.
        is_idle = self._looked_s >= self._idle_until_s
        if self.is_over or not (is_idle or now_s >= self._until_s):
            return False
        self.is_over = True
        if is_idle and self._idle_until_s < self._until_s:
            self.reason = f"timed out: idle for {self._idle_s:.12g} s"
        else:
            self.reason = f"timed out after {self._run_s:.12g} s"
        return True

    def left_s(self, now_s: float) -> float:
        """How long until it ends; no time at all to wait for where it has ended, or never does."""
        return inf if self.is_over else min(self._until_s, self._idle_until_s) - now_s
