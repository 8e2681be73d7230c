"""Where a front end takes time and chance from; everything else is given them as arguments."""

from __future__ import annotations

import os
import time

wall_s = time.time  # noqa: TID251 - the composition of the client: here, and nowhere else in it
steady_s = time.monotonic  # noqa: TID251 - as above
chance = os.urandom
pause = time.sleep
