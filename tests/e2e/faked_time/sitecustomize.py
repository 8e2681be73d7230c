"""A process whose clock is wrong: on PYTHONPATH, this shifts what Python says the time is.

It reaches time.time() alone, which is where a node and the command line take the time from; the
TLS library keeps the machine's own clock. So this shows how others take what a node with a wrong
clock has signed and issued, and what that node makes of theirs, in everything but TLS itself.
"""

import os
import time

_true = time.time
_offset_s = float(os.environ.get("SM_TEST_CLOCK_OFFSET_S", "0"))

time.time = lambda: _true() + _offset_s
