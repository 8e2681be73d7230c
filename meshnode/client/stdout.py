"""Standard output that nobody takes, and a process that goes on."""

from __future__ import annotations

import os
import sys


def silence_stdout() -> None:
    """Let go nowhere what is printed, also what Python would still flush at its end."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - for its descriptor
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
