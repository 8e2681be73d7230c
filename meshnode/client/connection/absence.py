"""How long nobody has answered, for who goes on with a stream once somebody does again.

Invariant: a listener hears of an absence that lasts, and then of its end; of none twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.client import clock
from meshnode.client.errors import SilentNodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.client.errors import MeshError

GIVE_UP_S = 60.0  # without an answer; then that is an error
NOTICED_S = 1.0  # without an answer; then it is said
PAUSE_S, PAUSE_S_MAX = 0.1, 2.0  # between two attempts
ATTEMPT_S_MAX = 20.0  # counted of one that failed: it may have been a stream for hours


class Absence:
    """The time since the last answer: attempts, and the pauses between them, each twice the last.

    `listener` is told True when nobody answers any more, and False when somebody does again.
    """

    def __init__(
        self, pause: Callable[[float], None], listener: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._pause = pause
        self._listener = listener
        self._told = False
        self._begin()

    def _begin(self) -> None:
        self._away_s, self._pause_s = 0.0, PAUSE_S
        self._tried_at_s: float | None = None

    @property
    def is_too_long(self) -> bool:
        """Whether nobody has answered for GIVE_UP_S."""
        return self._away_s >= GIVE_UP_S

    def end(self) -> None:
        """Take note of an answer."""
        self._begin()
        self._tell(away=False)

    def notice(self, error: MeshError) -> None:
        """Take note that nobody answered, and for how long already if a stream fell silent."""
        if self._tried_at_s is None and isinstance(error, SilentNodeError):
            self._away_s += error.lasted_s
        self._tell(away=self._away_s >= NOTICED_S)

    def wait(self) -> None:
        """Pause before the next attempt."""
        if self._tried_at_s is not None:
            self._away_s += min(clock.steady_s() - self._tried_at_s, ATTEMPT_S_MAX)
        self._pause(self._pause_s)
        self._tried_at_s = clock.steady_s()
        self._away_s += self._pause_s
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)

    def _tell(self, *, away: bool) -> None:
        if away != self._told:
            self._told = away
            self._listener(away)
