"""Trying again what failed for the moment: three tries, each pause twice as long as the last.

Invariant: only what certainly had no effect, or acts once however often it arrives, is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from meshnode.client import clock
from meshnode.core.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES_MAX = 3
FIRST_PAUSE_S = 0.1

Answer = TypeVar("Answer")


def tried(
    ask: Callable[[], Answer],
    is_passing: Callable[[MeshError], bool],
    pause: Callable[[float], None] = clock.pause,
) -> Answer:
    """Return what is answered; raises the error of the last try, or one that will not pass."""
    pause_s = FIRST_PAUSE_S
    for _ in range(TRIES_MAX - 1):
        try:
            return ask()
        except MeshError as error:
            if not is_passing(error):
                raise
        pause(pause_s)
        pause_s *= 2
    return ask()
