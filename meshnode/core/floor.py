"""The latest time that a node's clock has shown: what a clock that was set back is measured by.

Invariant: it only rises. The journal forgets a command once its clock is well beyond the command's
end, so a clock that then goes back would let that command be carried out again.
"""

from __future__ import annotations

SKEW_S = 120  # how far two clocks may be apart, or one from what it showed before


class ClockFloor:
    """One node's; the journal keeps it on disk."""

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def raise_to(self, now_s: float) -> None:
        """Note what the clock shows."""
        self.at_s = max(self.at_s, now_s)

    def behind_s(self, now_s: float) -> float:
        """Return by how much a clock is behind what it showed; 0.0 within the skew.

        Within it nothing can come back: the journal keeps commands for one skew longer.
        """
        behind_s = self.at_s - now_s
        return behind_s if behind_s > SKEW_S else 0.0
