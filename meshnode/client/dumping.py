"""Keeping what a process holds in memory out of core dumps, and from other processes of its user.

A process that starts another program (`run` becoming a supervisor) takes it off for that one.
"""

from __future__ import annotations

import ctypes

PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Let nobody but root read this process's memory or environment; where the kernel can do it."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
