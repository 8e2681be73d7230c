"""How an agent ended, and what that makes of its session."""

from __future__ import annotations

import msgspec

from meshnode.core.sessions.sessions import State


class Ended(msgspec.Struct, frozen=True):
    """How an agent ended, as its supervisor saw it."""

    exit_code: int | None
    signal: str | None
    reason: str | None
    killed: bool
    at_s: float
    closed: bool = False  # because it was asked to end
    timed_out: bool = False  # before any order came

    @property
    def state(self) -> State:
        """The state that its session ends in."""
        if self.timed_out:
            return State.EXPIRED
        if self.killed:
            return State.KILLED
        return State.CLOSED if self.closed or self.exit_code == 0 else State.FAILED

    @property
    def by_order(self) -> bool:
        """Whether an order ended it: not it itself, after an order that had failed."""
        return (self.killed or self.closed) and not self.timed_out

    @property
    def why(self) -> str:
        """Say in words why it ended."""
        if self.reason or self.signal:
            return self.reason or f"ended by {self.signal}"
        return "finished" if self.exit_code == 0 else f"exited with {self.exit_code}"
