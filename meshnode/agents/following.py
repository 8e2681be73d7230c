"""One session as its node follows it: the line to its supervisor, and who its processes are.

Invariant: what lies in the session's directory is a claim, since the agent runs as the same user.
The supervisor is whom the kernel names behind its socket; a process that a file alone names is
signalled only if it shows by itself that it is of this session.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Self

import msgspec

from meshnode.agents import cgroup, tree
from meshnode.agents.clients import LINE_BYTES_MAX as REQUEST_BYTES_MAX
from meshnode.agents.clients import peer_of
from meshnode.agents.namespaces import is_another, is_another_machine, listener_of
from meshnode.agents.state_file import make, read_state
from meshnode.agents.tree import Identity
from meshnode.core.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from meshnode.agents.cgroup import Cgroup

CONNECT_WAIT_S = 3.0
LINE_BYTES_MAX = 1 << 20  # of one line from a supervisor; longer: hung up on, and dialled again
TEXT_CHARS_MAX = 400  # of a reason; the rest is cut
EXIT_CODE_MAX = 255
PID_MAX = 1 << 22  # of Linux


class Ending(msgspec.Struct, frozen=True):
    """How a session's agent ended; `at_s` is in seconds since 1970. Code and signal exclude."""

    exit_code: int | None
    signal: str | None
    reason: str | None
    killed_by_command: str | None
    at_s: float
    closed_by_command: str | None = None
    timed_out: bool = False


def ending_of(state: dict[str, Any], now_s: float) -> Ending:
    """Read a supervisor's last word; what cannot be its words is left out."""
    code, at_s = state.get("exit_code"), state.get("ended_at")
    return Ending(
        exit_code=code if type(code) is int and 0 <= code <= EXIT_CODE_MAX else None,
        signal=_text(state.get("signal")),
        reason=_text(state.get("reason")),
        killed_by_command=_text(state.get("killed_by_command")),
        closed_by_command=_text(state.get("closed_by_command")),
        timed_out=state.get("timed_out") is True,
        at_s=float(at_s) if isinstance(at_s, int | float) and 0 < at_s < now_s else now_s,
    )


class Line:
    """One connection to a supervisor: requests out, replies and events in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0
        self.is_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        for reply in self._waiting.values():
            if not reply.done():
                reply.cancel()

    def send(self, operation: str, **fields: object) -> int:
        """Write a request; returns its id. Raises RefusedError, UnreachableError."""
        self._last_id += 1
        asked = {"id": self._last_id, "op": operation, **fields}
        # As it is, and not as \uXXXX: half a message of 32 KiB would not fit in Cyrillic letters.
        request = json.dumps(asked, ensure_ascii=False).encode(errors="replace")
        if len(request) > REQUEST_BYTES_MAX:  # what the supervisor takes
            raise RefusedError(f"a request has at most {REQUEST_BYTES_MAX} bytes")
        if self._writer.transport.get_write_buffer_size() > LINE_BYTES_MAX:
            raise UnreachableError("the session's supervisor does not read")
        self._writer.write(request + b"\n")
        return self._last_id

    async def ask(self, operation: str, wait_s: float, **fields: object) -> dict[str, Any]:
        """Write a request and wait for its reply; raises RefusedError, UnreachableError."""
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        request_id = self.send(operation, **fields)
        self._waiting[request_id] = reply
        try:
            done, _ = await asyncio.wait({reply}, timeout=wait_s)
            if not done or reply.cancelled():
                raise UnreachableError("the session's supervisor does not answer")
            return reply.result()
        finally:
            del self._waiting[request_id]

    def resolve(self, message: dict[str, Any]) -> None:
        """Hand a reply to whoever waits for it."""
        request_id = message.get("id")
        reply = self._waiting.get(request_id) if isinstance(request_id, int) else None
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the supervisor writes, until it hangs up or writes nonsense."""
        while True:
            try:
                text = await self._reader.readline()
                message = json.loads(text) if text.endswith(b"\n") else None
            except (OSError, ValueError, RecursionError):  # cut off, or beyond the limit
                return
            if not isinstance(message, dict):
                return
            yield message


class Following:
    """One attached session."""

    def __init__(self, session_id: str, directory: Path, socket: Path) -> None:
        self.session_id = session_id
        self.directory = directory
        self.socket = socket
        self.task: asyncio.Task[None] | None = None
        self.line: Line | None = None
        self.settled = asyncio.Event()
        self.is_being_cleared = False
        self.killers: list[str] = []  # commands that stop its tree without its supervisor
        self.whose = ""  # by whose order it ends, in words
        self.supervisor: Identity | None = None  # as the kernel named it, from then on for good
        self.agent: Identity | None = None  # as that supervisor named it
        self.above: frozenset[Identity] = frozenset()  # the supervisor's ancestors
        self.identified = asyncio.Event()  # whose supervisor is known, or who has none any more
        self.may_idle_out = False  # then its supervisor wants to hear of work that only we see,
        self.has_worked = False  # and has yet to hear of some
        self.is_elsewhere = False  # its supervisor lives, and has no number in our PID namespace

    async def connect(self) -> Line | None:
        """Dial the supervisor; None if nobody listens, or somebody else does."""
        self.line = None
        try:
            if not self.socket.exists():  # not yet: dialling costs ten times as much
                return None
            async with asyncio.timeout(CONNECT_WAIT_S):
                reader, writer = await asyncio.open_unix_connection(
                    self.socket, limit=LINE_BYTES_MAX
                )
        except OSError:  # TimeoutError is one
            return None
        line = Line(reader, writer)
        if self._is_the_supervisor(*peer_of(writer.get_extra_info("socket"))):
            return line
        with line:
            return None

    async def answers(self) -> bool:
        """Whether the supervisor takes a connection, which ends at once."""
        if (line := await self.connect()) is None:
            return False
        with line:
            return True

    async def ask(self, operation: str, wait_s: float, **fields: object) -> dict[str, Any]:
        """Ask over the line; raises UnreachableError, RefusedError."""
        if self.line is None:
            raise UnreachableError("the session's supervisor does not answer")
        return await self.line.ask(operation, wait_s, **fields)

    def heard(self, state: dict[str, Any]) -> int | None:
        """Note what the supervisor says of its agent; returns the agent's pid."""
        self.agent = _identity(state, "pid", "start_ticks") or self.agent
        self.may_idle_out = bool(state.get("idle_timeout_s"))  # an older one has no such field
        pid = state.get("pid")
        return pid if isinstance(pid, int) else None

    def state(self) -> dict[str, Any]:
        """Return what state.json claims."""
        return read_state(self.directory)

    def forbid(self, last_word: dict[str, object]) -> bool:
        """Let no agent start any more; False if one may have been started, or the disk is full."""
        said = {"state": "ended", "session_id": self.session_id, **last_word}
        try:
            return make(self.directory, said)
        except OSError:
            return False

    def supervisor_is_gone(self, state: dict[str, Any]) -> bool:
        """Whether nobody supervises this session any more."""
        return self.living_supervisor(state) is None

    def look_elsewhere(self) -> bool:
        """Whether who supervises this session lives where we see no processes.

        Asked where we see none: so whoever has a socket there is elsewhere.
        """
        if self.supervisor is None:
            try:
                self.is_elsewhere = listener_of(self.socket) == 0
            except BlockingIOError:  # it is stopped, say, and our own calls have filled its queue
                self.is_elsewhere = True
        if self.is_elsewhere:  # nothing more can be learnt of it
            self.identified.set()
            self.settled.set()
        return self.is_elsewhere

    @staticmethod
    def says_elsewhere(state: dict[str, Any]) -> bool:
        """Whether a state file says so, which nobody can confirm before its socket is there."""
        return _is_of_this_boot(state) and is_another(state.get("pid_namespace"))

    @staticmethod
    def says_moved(state: dict[str, Any]) -> bool:
        """Whether a state file came from another machine, where its home's node may run yet.

        Then the mesh tells us within seconds to give way, and nobody shall hear that it was lost.
        """
        return is_another_machine(state.get("machine"))

    def living_supervisor(self, state: dict[str, Any]) -> Identity | None:
        """Return the supervisor while it lives."""
        if self.supervisor is not None:
            return self.supervisor if tree.is_alive(self.supervisor) else None
        claimed = _claimed(state, "supervisor_pid", "supervisor_start_ticks")
        if claimed is None or not tree.carries_mark(claimed, self.session_id):
            return None
        return claimed

    def roots(self, state: dict[str, Any]) -> tuple[Identity, ...]:
        """Return the supervisor and the agent; the mark and the group find the others."""
        supervisor = self.living_supervisor(state)
        agent = self.agent
        claimed = _claimed(state, "pid", "start_ticks")
        if agent is None and claimed is not None and supervisor in tree.ancestors(claimed):
            agent = claimed
        return tuple(one for one in (supervisor, agent) if one is not None)

    def group(self, state: dict[str, Any]) -> Cgroup | None:
        """Return the session's control group, if it has one."""
        return cgroup.recorded(state.get("cgroup"), self.session_id)

    def _is_the_supervisor(self, pid: int, uid: int) -> bool:
        identity = tree.identity_of(pid)
        if identity is None or uid != os.getuid():
            return False
        if self.supervisor is None and tree.carries_mark(identity, self.session_id):
            self.supervisor, self.above = identity, tree.ancestors(identity)
            self.is_elsewhere = False
            self.identified.set()
        return self.supervisor == identity


def _claimed(state: dict[str, Any], pid: str, ticks: str) -> Identity | None:
    """Return whom a state file names, if it is of this boot."""
    return _identity(state, pid, ticks) if _is_of_this_boot(state) else None


def _is_of_this_boot(state: dict[str, Any]) -> bool:
    said = state.get("boot_id")
    return bool(said) and said == tree.boot_id()


def _identity(state: dict[str, Any], pid: str, ticks: str) -> Identity | None:
    if type(state.get(pid)) is not int or type(state.get(ticks)) is not int:
        return None
    return Identity(state[pid], state[ticks]) if 0 < state[pid] <= PID_MAX else None


def _text(value: object) -> str | None:
    """Take a claimed text as a row can hold it: JSON may name half a character, UTF-8 cannot."""
    if not isinstance(value, str):
        return None
    return value[:TEXT_CHARS_MAX].encode(errors="replace").decode()
