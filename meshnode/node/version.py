"""The version of session-mesh: the package has it from here, and a start reads no metadata.

Invariant: what a process says of its build is what it was when it was loaded, whatever lies there
since.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from meshnode.store.database import VERSION as SCHEMA


def _build() -> str:
    """Return what the wheel was named when built (`proto/generate.py`); "" for a source tree."""
    with suppress(FileNotFoundError):
        return Path(__file__).with_name("build.txt").read_text().strip()
    return ""


VERSION = "0.1.0"
BUILD = _build()


def edition() -> dict[str, Any]:
    """Return version, build ("" for a source tree), schema of the database and Python's version."""
    python, _, _ = sys.version.partition(" ")
    return {"version": VERSION, "build": BUILD, "schema": SCHEMA, "python": python}
