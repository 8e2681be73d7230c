"""Trying again what failed for the moment, as often as there are pauses.

Invariant: only what certainly had no effect, or acts once however often it arrives, is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from meshnode.client import clock
from meshnode.core.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PAUSES_S = (0.1, 0.2)  # for a node of this machine

Answer = TypeVar("Answer")


def tried(
    ask: Callable[[], Answer],
    is_passing: Callable[[MeshError], bool],
    pauses_s: Iterable[float] = PAUSES_S,
    pause: Callable[[float], None] = clock.pause,
) -> Answer:
    """Return what is answered; raises the error of the last try, or one that will not pass."""
    for pause_s in pauses_s:
        try:
            return ask()
        except MeshError as error:
            if not is_passing(error):
                raise
        pause(pause_s)
    return ask()
