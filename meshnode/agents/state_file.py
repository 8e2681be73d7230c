"""`state.json`: what is known of one session's agent, for whoever comes after this process.

Invariants: the file is either the old state or the new one, whole and on the disk. Who makes it
decides: a supervisor that finds it made starts nothing. Whoever reads it takes it for a claim: the
agent runs as the same user and may have written it.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from meshnode.agents import tree
from meshnode.agents.namespaces import machine_id, pid_namespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshnode.agents.cgroup import Cgroup

NAME = "state.json"
STATE_BYTES_MAX = 1 << 20  # a larger one was not written by us, and is not read


class OverError(Exception):
    """The session was given up, or killed, before its agent was started: it must not start."""


class StateFile:
    """The session's state, in memory and on the disk; `clock` returns seconds since 1970.

    Raises OverError if the session is over, or had a supervisor before; OSError.
    """

    def __init__(
        self,
        directory: Path,
        session_id: str,
        group: Cgroup | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        own = tree.identity_of(os.getpid())
        if own is None:
            raise OSError("this process is not in /proc")
        if not make(directory, {}):
            raise OverError
        self.supervisor = own
        self._directory = directory
        self.clock = clock
        self.fields: dict[str, object] = {
            "state": "starting",
            "session_id": session_id,
            "boot_id": tree.boot_id(),
            "pid_namespace": pid_namespace(),
            "machine": machine_id(),
            "supervisor_pid": own.pid,
            "supervisor_started": tree.started_at_s(own),
            "supervisor_start_ticks": own.start_ticks,
            "pid": None,
            "started": None,
            "start_ticks": None,
            "cgroup": None if group is None else str(group.path),
            "exit_code": None,
            "signal": None,
            "reason": None,
            "ended_at": None,
            "killed_by_command": None,
            "closed_by_command": None,
            "idle_timeout_s": 0,
            "timed_out": False,
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
            "ended_at": self.clock(),
        }
        self.save()

    def failed(self, order: str) -> None:
        """Record that an order has failed: whatever ends the agent later, it is not that."""
        self.fields[order] = None
        self.save()

    def save(self) -> None:
        """Replace the file; a disk that takes no more must stop neither the agent nor a kill."""
        with suppress(OSError):
            self._write()

    def _write(self) -> None:
        path = self._directory / NAME
        draft = self._directory / f"{NAME}.{os.getpid()}"
        draft.unlink(missing_ok=True)  # ours, or put there by the agent: never written through
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o600)
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


def make(directory: Path, last_word: dict[str, object]) -> bool:
    """Make the file, with the last word of a session that is over; False if it is there already.

    Who dies here leaves it empty, which starts nothing either.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(directory / NAME, flags, mode=0o600)
    except FileExistsError:
        return False
    try:
        if last_word:
            os.write(fd, json.dumps(last_word).encode())
    finally:
        os.close(fd)
    return True


def read_state(directory: Path) -> dict[str, Any]:
    """Return what the file claims; empty if there is none, or none that we could have written.

    Never blocks, never follows a link: the agent may have put anything there.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with ExitStack() as opened:
            place = os.open(directory, flags | os.O_DIRECTORY)
            opened.callback(os.close, place)
            fd = os.open(NAME, flags | os.O_NONBLOCK, dir_fd=place)
            opened.callback(os.close, fd)
            if not _is_ours(os.fstat(fd)):
                return {}
            state = json.loads(os.read(fd, STATE_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _is_ours(info: os.stat_result) -> bool:
    is_private = info.st_uid == os.getuid() and not stat.S_IMODE(info.st_mode) & 0o022
    return stat.S_ISREG(info.st_mode) and is_private and info.st_size <= STATE_BYTES_MAX
