"""The node's side of supervised agents: follow their supervisors, steer, suspend, end them.

Invariant: a session that was attached gets exactly one `on_ended`, unless we are closed first.
A supervisor that is merely silent (somebody sent it STOP) is waited for, never taken
for lost; a supervisor that is gone without a word takes what is left of its tree with it. No kill
is confirmed by a supervisor's word alone: we look ourselves.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.agents import replies
from meshnode.agents.following import Ending, Following, ending_of
from meshnode.agents.holding import HALT_S, TERM_WAIT_S
from meshnode.agents.last_word import KILLED
from meshnode.agents.tree import VERIFY_S, Identity, Killing, Reach, is_alive, members, stop_tree
from meshnode.core.errors import ConflictError, RefusedError, UnreachableError
from meshnode.core.sessions.sessions import LOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshnode.agents.following import Line
    from meshnode.app.ports import Steered
    from meshnode.core.commands.steers import Instruction

START_WAIT_S = 3.0  # for a supervisor to open its socket and to answer the first request
FIRST_SIGN_WAIT_S = 30.0  # for a supervisor's first word, on the busiest machine or another one
RETRY_S = 0.02  # between two tries while it starts,
RETRY_GROWTH = 1.2  # so it is found late by a fifth of the time it took, and by no more
RETRY_LATER_S = 0.5  # between two tries once it is late, yet alive
STEER_WAIT_S = 5.0  # longer than the supervisor's own limit, which decides
PING_WAIT_S = 1.0  # a supervisor silent for longer does not get to do the killing
KILL_MARGIN_S = 2.0
GRACE_S = 5.0  # for what a lost supervisor left running
LADDERS_MAX = 16  # trees that are stopped at a time without a supervisor; more wait
LATE = "it was not started in time"


class ProcessAgents:
    """Every agent process of this node. Tasks live in the given group; `close` ends them.

    `clock` returns seconds since 1970. Callbacks run in the event loop and must not block;
    `on_started` comes again when a session is attached again after a node restart, and says whether
    the tree stands still: it may have been suspended while nobody could be told. `on_held` is told
    whenever it stands still from then on, or runs.
    """

    def __init__(
        self,
        on_started: Callable[[str, int, bool], None],
        on_ended: Callable[[str, Ending], None],
        on_held: Callable[[str, bool], None],
        *,
        tasks: asyncio.TaskGroup,
        clock: Callable[[], float],
    ) -> None:
        self._on_started = on_started
        self._on_ended = on_ended
        self._on_held = on_held
        self._tasks = tasks
        self._clock = clock
        self.on_elsewhere: Callable[[list[str]], None] = lambda _: None  # whom no order reaches
        self._following: dict[str, Following] = {}
        # Of our own: a ladder takes seconds, and others' short looks share asyncio's few threads.
        self._ladders = ThreadPoolExecutor(LADDERS_MAX, thread_name_prefix="ladder")
        self._is_closed = False

    def expect(self, session_id: str, directory: Path, socket: Path) -> None:
        """Let orders to a session wait until it is attached, which comes next."""
        self._following.setdefault(session_id, Following(session_id, directory, socket))

    async def attach(self, session_id: str, directory: Path, socket: Path) -> None:
        """Follow a session until it ends; returns when its supervisor has answered or ended.

        Waits for at most 3 s (longer only while a lost supervisor's tree is being stopped) and
        goes on trying in the background. Raises ConflictError if it is followed already.
        """
        if self._is_closed:
            return
        self.expect(session_id, directory, socket)
        following = self._following[session_id]
        if following.task is not None:
            raise ConflictError(f"session {session_id} is followed already")
        following.task = self._tasks.create_task(self._follow(following))
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                await following.settled.wait()
        if following.is_being_cleared:
            await following.settled.wait()  # bounded by the ladder of stop_tree

    async def answers(self, session_id: str, directory: Path, socket: Path) -> bool:
        """Whether a supervisor answers for a session that is not followed."""
        return await Following(session_id, directory, socket).answers()

    async def steer(self, session_id: str, command_id: str, steer: Instruction) -> Steered:
        """Hand over a steer; RefusedError: it is nowhere; UnreachableError: nobody knows.

        MeshError: it is nowhere, and yet the agent was interrupted.
        """
        following = await self._reached(session_id)
        said = {"direction": steer.direction or None, "message": steer.message or None}
        reply = await following.ask(
            "steer", STEER_WAIT_S, command_id=command_id, mode=steer.mode, **said
        )
        if not reply.get("ok"):
            raise replies.not_steered(reply)
        return replies.steered(reply)

    def worked(self, session_id: str) -> None:
        """Let a session's supervisor know of work that it cannot see; later if it is away."""
        if (following := self._following.get(session_id)) is not None:
            following.has_worked = True
            _say_worked(following)

    def ordered(self, session_id: str, whose: str) -> None:
        """Note whose the next kill or close of a session is, for who waits in front of it."""
        if (following := self._following.get(session_id)) is not None:
            following.whose = whose

    async def kill(
        self, session_id: str, command_id: str, grace_s: float, *, force: bool
    ) -> Killing:
        """Stop the whole tree and verify it; through its supervisor, or without it."""
        following = self._following.get(session_id)
        if following is None:
            return await self._climb(session_id, (), Reach(), grace_s=grace_s, force=force)
        if not await self._forbid(following, KILLED, command_id) and await _answers(following):
            with suppress(UnreachableError):
                order = {"command_id": command_id, "grace_s": grace_s, "force": force}
                wait_s = grace_s + VERIFY_S + KILL_MARGIN_S
                said = replies.killing(await self._order(session_id, "kill", wait_s, **order))
                if said.survivors or not await self._leftovers(following):
                    return said
        following.killers.append(command_id)  # before: its end is noticed while we still work
        killing = await self._stop(following, grace_s=grace_s, force=force)
        if not killing.found:
            following.killers.remove(command_id)  # who finds somebody may be another
            if following.is_elsewhere:
                raise _elsewhere(session_id)
        return killing  # of what a supervisor says that was wrong nothing is believed

    async def ask_to_end(self, session_id: str, command_id: str, grace_s: float) -> Killing:
        """Close the agent's stdin, and send TERM after the grace; returns who is gone by then.

        Raises RefusedError if it was not asked, UnreachableError if nobody knows.
        """
        wait_s = grace_s + max(grace_s, TERM_WAIT_S) + VERIFY_S + KILL_MARGIN_S
        order = {"command_id": command_id, "grace_s": grace_s}
        return replies.killing(await self._order(session_id, "close", wait_s, **order))

    async def suspend(self, session_id: str) -> int:
        """Stop the whole tree; returns of how many processes. All or none: raises RefusedError."""
        reply = await self._order(session_id, "suspend", HALT_S + KILL_MARGIN_S)
        if reply.get("running"):
            stuck = ", ".join(map(str, reply["running"]))
            raise RefusedError(
                f"not all of it stops (process {stuck}), so it was let go on",
                "what waits for a device stops only after it: try again",
            )
        return replies.found(reply)

    async def resume(self, session_id: str) -> int:
        """Let the whole tree run on; returns of how many processes, 0 if it was not suspended."""
        return replies.found(await self._order(session_id, "resume", STEER_WAIT_S))

    async def _order(
        self, session_id: str, operation: str, wait_s: float, **fields: object
    ) -> dict[str, Any]:
        following = await self._reached(session_id)
        # A stopped supervisor would act upon it whenever it runs on: ask for a sign first.
        await following.ask("info", PING_WAIT_S)
        reply = await following.ask(operation, wait_s, whose=following.whose, **fields)
        if not reply.get("ok"):
            raise RefusedError(str(reply.get("error")))
        return reply

    async def _reached(self, session_id: str) -> Following:
        """Return a session whose supervisor has answered, once it has.

        Raises RefusedError if it does not: nothing was sent to it.
        """
        following = self._following.get(session_id)
        if following is not None and await _answers(following):
            return following
        if following is None or self._following.get(session_id) is not following:
            raise RefusedError(f"no agent of session {session_id} runs here")
        if following.is_elsewhere:
            raise _elsewhere(session_id)
        if not following.state():
            raise RefusedError(f"session {session_id} has not started yet: try again")
        raise RefusedError(
            f"the supervisor of session {session_id} does not answer, and was sent nothing:"
            " try again"
        )

    async def close(self) -> None:
        """Stop following; the agents and their supervisors live on."""
        self._is_closed = True
        followings = list(self._following.values())
        self._following.clear()
        tasks = [following.task for following in followings if following.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, following: Following) -> None:
        try:
            ending = await self._ending(following)
            if ending.killed_by_command is None and following.killers:
                ending = replace(ending, killed_by_command=following.killers[-1])
            self._following.pop(following.session_id, None)
            self._on_ended(following.session_id, ending)
        finally:
            following.identified.set()
            following.settled.set()
            if following.is_elsewhere and not self._is_closed:
                self._tell_elsewhere()

    async def _ending(self, following: Following) -> Ending:
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
                    return ending_of(ended, self._clock())
                if line.is_answered:
                    late_at_s, pause_s = loop.time() + START_WAIT_S, RETRY_S
            state = following.state()
            is_late = loop.time() >= late_at_s
            is_gone = following.supervisor_is_gone(state)
            is_gone = is_gone and not self._is_elsewhere(following, state, is_late=is_late)
            is_gone = is_gone and (loop.time() >= unheard_at_s or not following.says_moved(state))
            if state.get("state") == "ended" and not (is_gone and await self._leftovers(following)):
                return ending_of(state, self._clock())
            pause_s = min(pause_s * RETRY_GROWTH, RETRY_LATER_S)
            knows_it = bool(state) or following.supervisor is not None or following.is_elsewhere
            if is_gone if knows_it else loop.time() >= unheard_at_s:
                is_over = knows_it or await self._forbid(following, LATE)
                if is_over or not following.state():  # else it came just now
                    return await self._clear(following)
            await asyncio.sleep(RETRY_LATER_S if is_late else pause_s)

    def _is_elsewhere(self, following: Following, state: dict[str, Any], *, is_late: bool) -> bool:
        """Whether the supervisor lives in another PID namespace, or may yet turn out to."""
        before = following.is_elsewhere
        if following.look_elsewhere() is not before:
            self._tell_elsewhere()
        return following.is_elsewhere or (following.says_elsewhere(state) and not is_late)

    def _tell_elsewhere(self) -> None:
        self.on_elsewhere([one.session_id for one in self._following.values() if one.is_elsewhere])

    async def _listen(self, following: Following, line: Line) -> dict[str, Any] | None:
        """Read until the supervisor says that it ended; None if it hung up without."""
        subscription = line.send("subscribe")
        async for message in line.messages():
            if message.get("event") == "ended" or message.get("state") == "ended":
                return message
            if message.get("event") == "suspended":
                self._on_held(following.session_id, message.get("suspended") is True)
                continue
            is_answer = message.get("id") == subscription
            if is_answer and (pid := following.heard(message)) is not None:
                line.is_answered, following.line = True, line
                self._spare(following)
                _say_worked(following)
                is_suspended = message.get("suspended") is True
                self._on_started(following.session_id, pid, is_suspended)
                following.settled.set()
            else:
                line.resolve(message)
        return None

    async def _forbid(
        self, following: Following, reason: str, command_id: str | None = None
    ) -> bool:
        """Let no agent be started in a session that nobody has heard of yet; whether that holds."""
        if following.line is not None:
            return False
        said: dict[str, object] = {"reason": reason, "killed_by_command": command_id}
        said["ended_at"] = self._clock()
        return await asyncio.to_thread(following.forbid, said)

    async def _clear(self, following: Following) -> Ending:
        following.is_being_cleared = True
        following.identified.set()
        await self._others_identified()
        killing = await self._stop(following, grace_s=GRACE_S, force=False)
        # Our signal may have let it say its last word after all.
        state = following.state()
        if state.get("state") == "ended" and not killing.survivors and not killing.found:
            return ending_of(state, self._clock())
        reason = LOST
        if killing.survivors:
            reason += f"; still there are {', '.join(map(str, killing.survivors))}"
        return Ending(None, None, reason, None, self._clock())

    async def _others_identified(self) -> None:
        """Give all that are being found time: none of them shall be taken for another's tree."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                for one in list(self._following.values()):
                    await one.identified.wait()

    def _spare(self, following: Following) -> None:
        """Tell sessions one of whose processes started another, whom not to take for theirs.

        `above` is as it was when we first looked; later its parents may have died.
        """
        for one in self._following.values():
            if one is following or one.supervisor is None or following.supervisor is None:
                continue
            if one.supervisor in following.above:
                _say_spare(one, following.supervisor)
            elif following.supervisor in one.above:
                _say_spare(following, one.supervisor)

    def _reach(self, following: Following, state: dict[str, Any]) -> Reach:
        others = (one.supervisor for one in self._following.values() if one is not following)
        spared = frozenset(one for one in others if one is not None and is_alive(one))
        return Reach(following.group(state), spared)

    async def _leftovers(self, following: Following) -> frozenset[Identity]:
        """Look for processes of a session, its supervisor left aside."""
        state = following.state()
        roots, reach = following.roots(state), self._reach(following, state)
        supervisor = following.living_supervisor(state)  # now: it may end while we look
        found = await asyncio.to_thread(members, following.session_id, roots, reach)
        return found - {supervisor}

    async def _stop(self, following: Following, *, grace_s: float, force: bool) -> Killing:
        state = following.state()
        roots, reach = following.roots(state), self._reach(following, state)
        killing = await self._climb(
            following.session_id, roots, reach, grace_s=grace_s, force=force
        )
        if reach.cgroup is not None and not killing.survivors:
            reach.cgroup.remove()
        return killing

    async def _climb(
        self,
        session_id: str,
        roots: tuple[Identity, ...],
        reach: Reach,
        *,
        grace_s: float,
        force: bool,
    ) -> Killing:
        loop = asyncio.get_running_loop()
        climb = partial(stop_tree, session_id, roots, grace_s=grace_s, force=force)
        return await loop.run_in_executor(
            self._ladders, partial(climb, clock=loop.time, reach=reach)
        )


async def _answers(following: Following) -> bool:
    """Whether a supervisor is there for orders; one that is looked for is given time to start."""
    if following.line is None:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_WAIT_S):
                await following.settled.wait()
    return following.line is not None


def _elsewhere(session_id: str) -> RefusedError:
    return RefusedError(
        f"session {session_id} runs in another PID namespace than its node (of a container,"
        " say), which no order reaches: end it there, or run its node there"
    )


def _say_spare(outer: Following, inner: Identity) -> None:
    if outer.line is not None:
        with suppress(UnreachableError):
            outer.line.send("spare", pid=inner.pid, start_ticks=inner.start_ticks)


def _say_worked(following: Following) -> None:
    if following.line is None or not following.has_worked:
        return
    following.has_worked = False
    if following.may_idle_out:
        with suppress(UnreachableError):  # it does not read, and ends nobody meanwhile
            following.line.send("worked")
