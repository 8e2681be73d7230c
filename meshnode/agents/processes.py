"""The node's side of supervised agents: follow their supervisors, steer, suspend, end them.

Invariant: a session that was attached gets exactly one `on_ended`, unless we are closed first.
A supervisor that is merely silent (a foreground session under Ctrl-Z) is waited for, never taken
for lost; a supervisor that is gone without a word takes what is left of its tree with it.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from meshnode.agents.holding import HALT_S, TERM_WAIT_S
from meshnode.agents.tree import (
    VERIFY_S,
    Identity,
    Killing,
    boot_id,
    is_alive,
    stop_tree,
)
from meshnode.core.errors import ConflictError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

START_WAIT_S = 3.0  # for a supervisor to open its socket and to answer the first request
FIRST_SIGN_WAIT_S = 30.0  # for a supervisor to write its first word, on the busiest machine
RETRY_S = 0.02  # between two tries while it starts,
RETRY_GROWTH = 1.2  # so it is found late by a fifth of the time it took, and by no more
RETRY_LATER_S = 0.5  # between two tries once it is late, yet alive
STEER_WAIT_S = 5.0  # longer than the supervisor's own limit, which decides
PING_WAIT_S = 1.0  # a supervisor silent for longer does not get to do the killing
KILL_MARGIN_S = 2.0
GRACE_S = 5.0  # for what a lost supervisor left running
LINE_BYTES_MAX = 1 << 20  # of one line from a supervisor; longer: hung up on, and dialled again
REQUEST_BYTES_MAX = 64 << 10  # what the supervisor takes; larger: refused here
STATE_BYTES_MAX = 1 << 20
LOST = "its supervisor was lost"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session's agent ended; `at_s` is in seconds since 1970. Code and signal exclude."""

    exit_code: int | None
    signal: str | None
    reason: str | None
    killed_by_command: str | None
    at_s: float
    closed_by_command: str | None = None


class ProcessAgents:
    """Every agent process of this node. Tasks live in the given group; `close` ends them.

    `clock` returns seconds since 1970. Callbacks run in the event loop and must not block;
    `on_started` comes again when a session is attached again after a node restart, and says whether
    the tree stands still: it may have been suspended while nobody could be told.
    """

    def __init__(
        self,
        on_started: Callable[[str, int, bool], None],
        on_ended: Callable[[str, Ending], None],
        *,
        tasks: asyncio.TaskGroup,
        clock: Callable[[], float],
    ) -> None:
        self._on_started = on_started
        self._on_ended = on_ended
        self._tasks = tasks
        self._clock = clock
        self._following: dict[str, _Following] = {}

    async def attach(self, session_id: str, directory: Path, socket: Path) -> None:
        """Follow a session until it ends; returns when its supervisor has answered or ended.

        Waits for at most 3 s (longer only while a lost supervisor's tree is being stopped) and
        goes on trying in the background. Raises ConflictError if it is followed already.
        """
        if session_id in self._following:
            raise ConflictError(f"session {session_id} is followed already")
        following = _Following(session_id, directory, socket)
        self._following[session_id] = following
        following.task = self._tasks.create_task(self._follow(following))
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                await following.settled.wait()
        if following.is_being_cleared:
            await following.settled.wait()  # bounded by the ladder of stop_tree

    async def steer(
        self, session_id: str, command_id: str, direction: str | None, message: str | None
    ) -> None:
        """Write one line to the agent's stdin; returns once it is in the pipe.

        Raises RefusedError if it certainly was not written, UnreachableError if nobody knows.
        """
        following = self._following.get(session_id)
        if following is None:
            raise RefusedError(f"no agent of session {session_id} runs here")
        order = {"command_id": command_id, "direction": direction, "message": message}
        reply = await following.ask("steer", STEER_WAIT_S, **order)
        if not reply.get("ok"):
            error = str(reply.get("error"))
            raise UnreachableError(error) if reply.get("indeterminate") else RefusedError(error)

    async def kill(
        self, session_id: str, command_id: str, grace_s: float, *, force: bool
    ) -> Killing:
        """Stop the whole tree and verify it; through its supervisor, or without it."""
        following = self._following.get(session_id)
        if following is not None:
            with suppress(UnreachableError):
                order = {"command_id": command_id, "grace_s": grace_s, "force": force}
                wait_s = grace_s + VERIFY_S + KILL_MARGIN_S
                return _killing(await self._order(session_id, "kill", wait_s, **order))
        if following is None:
            return await _stop(session_id, (), grace_s=grace_s, force=force)
        following.killed_by_command = command_id  # before: its end is noticed while we still work
        killing = await _stop(session_id, following.roots(), grace_s=grace_s, force=force)
        if not killing.found:
            following.killed_by_command = None
        return killing

    async def ask_to_end(self, session_id: str, command_id: str, grace_s: float) -> Killing:
        """Close the agent's stdin, and send TERM after the grace; returns who is gone by then.

        Raises RefusedError if it was not asked, UnreachableError if nobody knows.
        """
        wait_s = grace_s + max(grace_s, TERM_WAIT_S) + VERIFY_S + KILL_MARGIN_S
        order = {"command_id": command_id, "grace_s": grace_s}
        return _killing(await self._order(session_id, "close", wait_s, **order))

    async def suspend(self, session_id: str) -> int:
        """Stop the whole tree; returns of how many processes. All or none: raises RefusedError."""
        reply = await self._order(session_id, "suspend", HALT_S + KILL_MARGIN_S)
        if reply["running"]:
            stuck = ", ".join(map(str, reply["running"]))
            raise RefusedError(
                f"not all of it stops (process {stuck}), so it was let go on",
                "what waits for a device stops only after it: try again",
            )
        return int(reply["found"])

    async def resume(self, session_id: str) -> int:
        """Let the whole tree run on; returns of how many processes, 0 if it was not suspended."""
        reply = await self._order(session_id, "resume", STEER_WAIT_S)
        return int(reply["found"])

    async def _order(
        self, session_id: str, operation: str, wait_s: float, **fields: object
    ) -> dict[str, Any]:
        following = self._following.get(session_id)
        if following is None:
            raise RefusedError(f"no agent of session {session_id} runs here")
        # A stopped supervisor would act upon it whenever it runs on: ask for a sign first.
        await following.ask("info", PING_WAIT_S)
        reply = await following.ask(operation, wait_s, **fields)
        if not reply.get("ok"):
            raise RefusedError(str(reply.get("error")))
        return reply

    async def close(self) -> None:
        """Stop following; the agents and their supervisors live on."""
        followings = list(self._following.values())
        self._following.clear()
        tasks = [following.task for following in followings if following.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, following: _Following) -> None:
        try:
            ending = await self._ending(following)
            if ending.killed_by_command is None:
                ending = replace(ending, killed_by_command=following.killed_by_command)
            self._following.pop(following.session_id, None)
            self._on_ended(following.session_id, ending)
        finally:
            following.settled.set()

    async def _ending(self, following: _Following) -> Ending:
        """Return how it ended, however many connections that takes."""
        loop = asyncio.get_running_loop()
        late_at_s = loop.time() + START_WAIT_S
        unheard_at_s = loop.time() + FIRST_SIGN_WAIT_S
        pause_s = RETRY_S
        while True:
            if (line := await following.connect()) is not None:
                with line:
                    ended = await self._listen(following, line)
                following.line = None
                if ended is not None:
                    return _ending(ended)
                if line.is_answered:
                    late_at_s, pause_s = loop.time() + START_WAIT_S, RETRY_S
            state = following.state()
            if state.get("state") == "ended":
                return _ending(state)
            is_late = loop.time() >= late_at_s
            pause_s = min(pause_s * RETRY_GROWTH, RETRY_LATER_S)
            if _supervisor_is_gone(state) if state else loop.time() >= unheard_at_s:
                return await self._clear(following)
            await asyncio.sleep(RETRY_LATER_S if is_late else pause_s)

    async def _listen(self, following: _Following, line: _Line) -> dict[str, Any] | None:
        """Read until the supervisor says that it ended; None if it hung up without."""
        subscription = line.send("subscribe")
        async for message in line.messages():
            if message.get("event") == "ended" or message.get("state") == "ended":
                return message
            pid = message.get("pid")
            if message.get("id") == subscription and isinstance(pid, int):
                line.is_answered, following.line = True, line
                is_suspended = message.get("suspended") is True
                self._on_started(following.session_id, pid, is_suspended)
                following.settled.set()
            else:
                line.resolve(message)
        return None

    async def _clear(self, following: _Following) -> Ending:
        following.is_being_cleared = True
        await _stop(following.session_id, following.roots(), grace_s=GRACE_S, force=False)
        # Our signal may have let it say its last word after all.
        state = following.state()
        if state.get("state") == "ended":
            return _ending(state)
        return Ending(None, None, LOST, None, self._clock())


class _Line:
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
        self._last_id += 1
        request = json.dumps({"id": self._last_id, "op": operation, **fields}).encode()
        if len(request) > REQUEST_BYTES_MAX:
            raise RefusedError(f"a request has at most {REQUEST_BYTES_MAX} bytes")
        if self._writer.transport.get_write_buffer_size() > LINE_BYTES_MAX:
            raise UnreachableError("the session's supervisor does not read")
        self._writer.write(request + b"\n")
        return self._last_id

    async def ask(self, operation: str, wait_s: float, **fields: object) -> dict[str, Any]:
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
        request_id = message.get("id")
        reply = self._waiting.get(request_id) if isinstance(request_id, int) else None
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            try:
                text = await self._reader.readline()
                message = json.loads(text) if text.endswith(b"\n") else None
            except (OSError, ValueError, RecursionError):  # cut off, or beyond the limit
                return
            if not isinstance(message, dict):
                return
            yield message


class _Following:
    """One attached session."""

    def __init__(self, session_id: str, directory: Path, socket: Path) -> None:
        self.session_id = session_id
        self.directory = directory
        self.socket = socket
        self.task: asyncio.Task[None] | None = None
        self.line: _Line | None = None
        self.settled = asyncio.Event()
        self.is_being_cleared = False
        self.killed_by_command: str | None = None

    async def connect(self) -> _Line | None:
        self.line = None
        try:
            async with asyncio.timeout(START_WAIT_S):
                reader, writer = await asyncio.open_unix_connection(
                    self.socket, limit=LINE_BYTES_MAX
                )
        except OSError:  # TimeoutError is one
            return None
        return _Line(reader, writer)

    async def ask(self, operation: str, wait_s: float, **fields: object) -> dict[str, Any]:
        if self.line is None:
            raise UnreachableError("the session's supervisor does not answer")
        return await self.line.ask(operation, wait_s, **fields)

    def state(self) -> dict[str, Any]:
        """Return state.json; empty if there is none, or none that can be read."""
        try:
            with (self.directory / "state.json").open("rb") as file:
                state = json.loads(file.read(STATE_BYTES_MAX))
        except (OSError, ValueError, RecursionError):
            return {}
        return state if isinstance(state, dict) else {}

    def roots(self) -> tuple[Identity, ...]:
        """Return the supervisor and the agent as last recorded; the mark finds the others."""
        state = self.state()
        if state.get("boot_id") != boot_id():
            return ()
        pairs = (("supervisor_pid", "supervisor_start_ticks"), ("pid", "start_ticks"))
        return tuple(
            Identity(state[pid], state[ticks])
            for pid, ticks in pairs
            if isinstance(state.get(pid), int) and isinstance(state.get(ticks), int)
        )


def _supervisor_is_gone(state: dict[str, Any]) -> bool:
    pid, ticks = state.get("supervisor_pid"), state.get("supervisor_start_ticks")
    if state.get("boot_id") != boot_id() or not isinstance(pid, int) or not isinstance(ticks, int):
        return True
    return not is_alive(Identity(pid, ticks))


async def _stop(
    session_id: str, roots: tuple[Identity, ...], *, grace_s: float, force: bool
) -> Killing:
    clock = asyncio.get_running_loop().time
    return await asyncio.to_thread(
        stop_tree, session_id, roots, grace_s=grace_s, force=force, clock=clock
    )


def _killing(reply: dict[str, Any]) -> Killing:
    return Killing(int(reply["found"]), int(reply["gone"]), tuple(reply["survivors"]))


def _ending(state: dict[str, Any]) -> Ending:
    return Ending(
        exit_code=state.get("exit_code"),
        signal=state.get("signal"),
        reason=state.get("reason"),
        killed_by_command=state.get("killed_by_command"),
        closed_by_command=state.get("closed_by_command"),
        at_s=float(state.get("ended_at") or 0.0),
    )
