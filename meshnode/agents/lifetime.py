"""How long an agent may run, if its caller has said so.

Invariant: its end is told once. Time that the machine sleeps does not count; what it stands
suspended for does, as with `timeout`(1).
"""

from __future__ import annotations

from math import inf

TIMED_OUT = 124  # the exit code, as of `timeout`(1)


class Lifetime:
    """`seconds` from `now_s` on; 0: for as long as it likes."""

    def __init__(self, seconds: float, now_s: float) -> None:
        self._seconds = seconds
        self._until_s = now_s + seconds if seconds else inf
        self.is_over = False

    def ends(self, now_s: float) -> bool:
        """Whether it is over now, and was not before."""
        before, self.is_over = self.is_over, self.is_over or now_s >= self._until_s
        return self.is_over and not before

    def left_s(self, now_s: float) -> float:
        """How long until it ends; no time at all to wait for where it has ended, or never does."""
        return inf if self.is_over else self._until_s - now_s

    @property
    def reason(self) -> str:
        """Say why it has ended."""
        return f"timed out after {self._seconds:g} s"
