"""One link's silence: pulses out, a deadline for pulses in.

Invariant: any frame from the peer is a sign of life; a link is silent after MISSES_MAX intervals
without one, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass

PULSE_S = 1.0
MISSES_MAX = 3


@dataclass(slots=True)
class Silence:
    """When a peer was last heard, and how often it was pulsed."""

    heard_at_s: float
    pulses: int = 0

    def heard(self, now_s: float) -> None:
        """Note a frame."""
        self.heard_at_s = now_s

    def is_silent(self, now_s: float) -> bool:
        """Whether the peer has missed too many pulses."""
        return now_s - self.heard_at_s > PULSE_S * MISSES_MAX

    def next_pulse(self) -> int:
        """Count one more pulse."""
        self.pulses += 1
        return self.pulses
