"""Loading much at once: Python's collector passes over it, now and later.

Nothing that is loaded is garbage: not the modules of a program, nor the rows of a disk.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def no_collection() -> Iterator[None]:
    """Let the collector rest, and keep what is there by then out of its sight for good.

    Looking through it took 30 % of the time for 460,000 rows, and 10 % for a node's modules.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
