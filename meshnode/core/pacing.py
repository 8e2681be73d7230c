"""So many a second of each, with room for a burst: token buckets (Turner, 1986), one a key.

Invariant: over any time of t seconds a key takes at most `burst + rate * t`; at most `keys_max`
keys are remembered, the longest unused is forgotten, which can only give a key more than it had
left.
"""

from __future__ import annotations

from typing import Generic, TypeVar

KEYS_MAX = 1024

Name = TypeVar("Name")


class Buckets(Generic[Name]):
    """What is left to each key. `now_s` is a steady clock in seconds."""

    def __init__(self, rate_s: float, burst: float, keys_max: int = KEYS_MAX) -> None:
        self._rate_s = rate_s
        self._burst = burst
        self._keys_max = keys_max
        self._left: dict[Name, tuple[float, float]] = {}  # and when; the longest unused first

    def left(self, name: Name, now_s: float) -> float:
        """Return what a key may take now; below 0 if it was charged more than it had."""
        left, at_s = self._left.get(name, (self._burst, now_s))
        return min(self._burst, left + max(0.0, now_s - at_s) * self._rate_s)

    def charge(self, name: Name, now_s: float, amount: float = 1.0) -> float:
        """Take from a key, whatever it has, and return what is left to it."""
        left = self.left(name, now_s) - amount
        self._left.pop(name, None)
        self._left[name] = (left, now_s)
        if len(self._left) > self._keys_max:
            del self._left[next(iter(self._left))]
        return left

    def take(self, name: Name, now_s: float, amount: float = 1.0) -> bool:
        """Take from a key what it has; False, and nothing taken, if that is too little."""
        if self.left(name, now_s) < amount:
            return False
        self.charge(name, now_s, amount)
        return True

    def wait_s(self, name: Name, now_s: float, amount: float = 0.0) -> float:
        """Return how long until a key owes nothing, or has that much."""
        return max(0.0, (amount - self.left(name, now_s)) / self._rate_s)
