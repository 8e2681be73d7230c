"""Where a node takes time and chance from; everything else is given them as arguments."""

from __future__ import annotations

import os
import random
import time

chance = os.urandom


class SystemClock:
    """The machine's two clocks."""

    def steady_s(self) -> float:
        """Return a time that never jumps."""
        return time.monotonic()  # noqa: TID251 - the one place

    def wall_s(self) -> float:
        """Return the time since 1970, UTC, as this machine believes it."""
        return time.time()  # noqa: TID251 - the one place


def new_rng() -> random.Random:
    """Make the chance that protocols roll: jitter and choice of neighbours, nothing secret."""
    return random.Random(os.urandom(16))  # noqa: S311 - not for keys
