"""Why an agent has ended: for its record, and in a line for who waits in front of it.

Invariant: nothing is said in front of one that ended by itself: its exit code says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.agents.lifetime import Lifetime
    from meshnode.agents.state_file import StateFile

SOMEBODYS = "by an order"
KILLED = "killed by command"


class LastWord:
    """What was ordered, as the state file has it, and by whom."""

    def __init__(self, state: StateFile, lifetime: Lifetime) -> None:
        self._fields = state.fields
        self._lifetime = lifetime
        self._whose = SOMEBODYS

    def ordered(self, whose: str | None) -> None:
        """Note whose order is carried out: words to follow "the agent was killed"."""
        self._whose = whose or SOMEBODYS

    def for_record(self, returncode: int, name: str | None) -> str | None:
        """Say why it ended, with the name of its signal; None: it is done."""
        if self._lifetime.is_over:
            return self._lifetime.reason
        if self._fields["killed_by_command"] is not None:
            return KILLED
        if self._fields["closed_by_command"] is not None:
            return "closed by command"
        if name:
            return f"ended by {name}"
        return f"exit code {returncode}" if returncode else None

    def for_caller(self) -> str:
        """Say what has ended it; empty: it itself, or a signal that its caller sent."""
        if self._lifetime.is_over:
            return f"the agent {self._lifetime.reason}"
        if self._fields["killed_by_command"] is not None:
            return f"the agent was killed {self._whose}"
        if self._fields["closed_by_command"] is not None:
            return f"the agent was closed {self._whose}"
        return ""
