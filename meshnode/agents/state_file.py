"""`state.json`: what is known of one session's agent, for whoever comes after this process.

Invariant: the file is either the old state or the new one, whole and on the disk.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.agents import tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class StateFile:
    """The session's state, in memory and on the disk; `clock` returns seconds since 1970."""

    def __init__(self, directory: Path, session_id: str, *, clock: Callable[[], float]) -> None:
        own = tree.identity_of(os.getpid())
        if own is None:
            raise OSError("this process is not in /proc")
        self.supervisor = own
        self._directory = directory
        self._clock = clock
        self.fields: dict[str, object] = {
            "state": "starting",
            "session_id": session_id,
            "boot_id": tree.boot_id(),
            "supervisor_pid": own.pid,
            "supervisor_started": tree.started_at_s(own),
            "supervisor_start_ticks": own.start_ticks,
            "pid": None,
            "started": None,
            "start_ticks": None,
            "exit_code": None,
            "signal": None,
            "reason": None,
            "ended_at": None,
            "killed_by_command": None,
            "closed_by_command": None,
            "suspended": False,
            "leftovers": 0,
            "survivors": [],
        }
        self._write()

    @property
    def has_ended(self) -> bool:
        """Whether the last word is written."""
        return self.fields["state"] == "ended"

    def running(self, pid: int) -> None:
        """Record the agent that was just started and is not waited for yet."""
        agent = tree.identity_of(pid)  # None if it has ended already: no reuse before wait
        self.fields |= {"state": "running", "pid": pid}
        if agent is not None:
            self.fields["started"] = tree.started_at_s(agent)
            self.fields["start_ticks"] = agent.start_ticks
        self.save()

    def ended(self, exit_code: int | None, signal: str | None, reason: str | None) -> None:
        """Record the last word."""
        self.fields |= {
            "state": "ended",
            "exit_code": exit_code,
            "signal": signal,
            "reason": reason,
            "ended_at": self._clock(),
        }
        self.save()

    def save(self) -> None:
        """Replace the file; a disk that takes no more must stop neither the agent nor a kill."""
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        path = self._directory / "state.json"
        draft = self._directory / f"state.json.{os.getpid()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode=0o600)
        try:
            content = json.dumps(self.fields).encode()
            if os.write(fd, content) != len(content):
                raise OSError("the disk is full")
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)  # or the rename may be lost with the power
        finally:
            os.close(fd)
