"""How often peers break the protocol: one line in the log a second each, and then the link.

Invariant: a peer that sends nothing but nonsense costs a line a second and REFUSALS_MAX frames.
"""

from __future__ import annotations

import msgspec

PEERS_MAX = 256  # counted at once; the one that began first is forgotten
WINDOW_S = 1.0
REFUSALS_MAX = 100  # within a window; more: the link is ended


class _Window(msgspec.Struct):
    began_at_s: float
    count: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """Whether to log this one, how many went unlogged before it, and whether to hang up."""

    logged: bool
    unlogged: int
    is_too_much: bool


class Refusals:
    """Counts refused frames, peer by peer."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def note(self, peer: str, now_s: float) -> Verdict:
        """Count one more."""
        window = self._windows.get(peer)
        unlogged = 0
        if window is None or now_s - window.began_at_s >= WINDOW_S:
            unlogged = 0 if window is None else window.count - 1
            self._windows.pop(peer, None)
            while len(self._windows) >= PEERS_MAX:
                del self._windows[next(iter(self._windows))]
            window = self._windows[peer] = _Window(now_s)
        window.count += 1
        return Verdict(window.count == 1, unlogged, window.count == REFUSALS_MAX)
