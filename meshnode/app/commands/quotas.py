"""How many commands a peer may deliver and a signer may have carried out, each counted by itself.

Invariant: who sends too many is told when to try again, and delays nobody else; the tables are
bounded, and who was forgotten there starts with a full allowance.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from meshnode.core.errors import ExhaustedError


class Allowance(msgspec.Struct, frozen=True):
    """So many at once, refilled at a steady rate."""

    burst: int
    per_s: float


# A core verifies some 5,000 commands a second and carries 1,500 out (bench/bench_commands.py): one
# peer gets a tenth to a third of it. The burst is two commands for each of 1,000 sessions.
OF_PEER = Allowance(burst=2000, per_s=500.0)
# Each costs two or three synced writes. The burst lets `kill --all` through for all 1,000 sessions.
OF_SIGNER = Allowance(burst=1200, per_s=100.0)
NAMES_MAX = 4096  # of peers, and of signers; beyond, who was quiet for longest is forgotten


class Quota:
    """Token buckets (RFC 2697, one colour), one a name."""

    def __init__(self, allowance: Allowance, whose: str) -> None:
        self._allowance = allowance
        self._whose = whose
        self._levels: OrderedDict[str | bytes, tuple[float, float]] = OrderedDict()

    def take(self, name: str | bytes, now_s: float) -> None:
        """Count one, by a steady clock; raises ExhaustedError, and then counts nothing."""
        burst, per_s = self._allowance.burst, self._allowance.per_s
        level, at_s = self._levels.get(name, (float(burst), now_s))
        level = min(float(burst), level + max(0.0, now_s - at_s) * per_s)
        if level < 1.0:
            raise ExhaustedError(
                f"too many commands of {self._whose}: {per_s:g} a second are taken",
                f"try again in {(1.0 - level) / per_s:.2f} s",
            )
        self._levels[name] = (level - 1.0, now_s)
        self._levels.move_to_end(name)
        if len(self._levels) > NAMES_MAX:
            self._levels.popitem(last=False)
