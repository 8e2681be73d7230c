"""One agent under supervision: the loop that serves its streams and clients and ends it whole.

Invariants: nothing that a client or the agent does blocks the loop; once the state says "ended",
every process of the tree is gone or named in its `survivors`.
One thread and `poll`, no asyncio: a fleet's gateway holds one such process per session (asyncio
alone would add 8 MiB to each), and `poll` takes terminals and plain files, which epoll does not.
"""

from __future__ import annotations

import json
import select
import signal
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.agents import tree
from meshnode.agents.clients import LOOK_S, RequestError, id_of, text_of
from meshnode.agents.holding import Parting, Stillness
from meshnode.agents.inbox import Inbox
from meshnode.agents.last_word import LastWord
from meshnode.agents.lifetime import TIMED_OUT, Lifetime
from meshnode.agents.signals import TO_END, signal_name
from meshnode.agents.sparing import Spared
from meshnode.agents.steering import NOT_INTERRUPTED, Steer, steer_line
from meshnode.agents.streams import Patience
from meshnode.core.commands.steers import AFTER, NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.agents.agent import Agent
    from meshnode.agents.clients import Client, Door, Reply, Watch
    from meshnode.agents.options import Options
    from meshnode.agents.signals import Signals
    from meshnode.agents.state_file import StateFile

STEER_WAIT_S = 2.0  # for room in the agent's stdin; then the steer is withdrawn and refused
READERS_WAIT_S = 2.0  # after the end, for clients that still read
FLUSH_WAIT_S = 600.0  # after the end, for a caller to read the next byte; what is left is lost
AGAIN_S = 1.0  # until we look whether our terminal is ours, or a disk has room
GRACE_S_MAX = 3600.0


class Supervisor:
    """Supervises an agent that was just started."""

    def __init__(
        self,
        options: Options,
        agent: Agent,
        state: StateFile,
        door: Door,
        signals: Signals,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._agent = agent
        self._state = state
        self._door = door
        self._signals = signals
        self._clock = clock
        self._ladder: tree.Ladder | None = None
        self._kill_waiters: list[Callable[[Reply], None]] = []
        self._stillness = Stillness(
            options.session_id, self._roots, self._reach, self._stands_or_runs
        )
        self._parting: Parting | None = None
        self._parting_waiters: list[Callable[[Reply], None]] = []
        self._swept = False
        self._swept_with = ""  # the last signal that what it left running had to be sent
        self._lifetime = Lifetime(options.timeout_s, options.idle_timeout_s, clock())
        self._worked = False  # or was given something to do, since the last look
        self._bytes_moved = 0
        state.fields["idle_timeout_s"] = options.idle_timeout_s
        self._last_word = LastWord(state, self._lifetime)
        self._inbox = Inbox(state.clock, lone=options.steer_format == "none")
        self._spared = Spared(state.supervisor)
        self._operations: dict[str, Callable[[Client, Reply, Reply], None]] = {
            "info": self._on_info,
            "steer": self._on_steer,
            "inbox": self._inbox.read,
            "take": self._inbox.take,
            "kill": self._on_kill,
            "close": self._on_close,
            "suspend": self._on_suspend,
            "resume": self._on_resume,
            "subscribe": self._on_subscribe,
            "spare": self._spared.add,
            "worked": self._on_worked,
        }

    def run(self) -> int:
        """Supervise until the agent has ended; returns the exit code for the caller."""
        self._state.running(self._agent.pid)
        while not self._state.has_ended:
            self._turn()
        self._linger()
        returncode = self._agent.returncode or 0
        if self._lifetime.is_over:
            return TIMED_OUT
        code = returncode if returncode >= 0 else 128 - returncode
        return code or int(self._agent.has_lost_output)

    # --- the agent's life

    def _turn(self) -> None:
        """Wait for one round of events and handle it."""
        began_s = self._clock()
        self._watch_once(self._timeout_s())
        now_s = self._clock()
        self._note_work(began_s, now_s)
        self._agent.inlet.expire(now_s)
        self._agent.reap()
        self._door.forget_gone()
        self._door.look()
        if self._agent.returncode is None and not self._ladder and self._lifetime.ends(now_s):
            self._time_out(now_s)
        if self._agent.returncode is None:
            self._stillness.step(now_s)
        if self._parting and (standing := self._parting.step(now_s)):
            self._parted(standing)
        if self._ladder and (killing := self._ladder.step(now_s)):
            self._killed(killing)
        if self._agent.returncode is not None and self._ladder is None:
            self._conclude(self._agent.returncode, now_s)

    def _note_work(self, began_s: float, now_s: float) -> None:
        """Note whether anything has happened since the last look."""
        before, self._bytes_moved = self._bytes_moved, self._agent.bytes_moved
        stirred, self._worked = self._worked or before != self._bytes_moved, False
        is_held = self._stillness.is_begun or self._parting is not None
        self._lifetime.looked(began_s, now_s, stirred=stirred, is_held=is_held)

    def _time_out(self, now_s: float) -> None:
        """Stop it as a kill would."""
        self._ladder = self._new_ladder(now_s, self._options.grace_s, force=False)
        self._state.fields["timed_out"] = True
        self._state.save()

    def _conclude(self, returncode: int, now_s: float) -> None:
        if not self._swept:
            # It ended by itself: what it left running must neither stay nor go unseen.
            self._swept = True
            self._ladder = self._new_ladder(now_s, self._options.grace_s, force=False)
            if (killing := self._ladder.step(now_s)) is None:
                return
            self._killed(killing)
        self._agent.finish()
        name = signal_name(-returncode) if returncode < 0 else None
        exit_code = returncode if returncode >= 0 else None
        self._state.ended(exit_code, name, self._last_word.for_record(returncode, name))
        if said := self._last_word.for_caller():
            self._agent.tell(said)
        if self._parting:
            standing = self._parting.result()
            self._parted(replace(standing, needed=self._swept_with or standing.needed))
        self._door.announce({"event": "ended", **self._state.fields})

    def _linger(self) -> None:
        """Serve those who still read; bounded."""
        ended_at_s = self._clock()
        reader = Patience(FLUSH_WAIT_S, ended_at_s)
        while True:
            self._door.forget_gone()
            now_s = self._clock()
            clients_s = ended_at_s + READERS_WAIT_S - now_s if self._door.has_clients else 0.0
            left_s = max(clients_s, reader.left_s(self._agent.unread, now_s))
            if left_s <= 0.0:
                break
            self._watch_once(left_s)
        self._agent.let_go_of_output(f"nobody has read it for {FLUSH_WAIT_S:g} s")

    def _new_ladder(self, now_s: float, grace_s: float, *, force: bool) -> tree.Ladder:
        self._stillness.give_way()  # a TERM is followed by a CONT
        return tree.Ladder(
            self._options.session_id,
            self._roots,
            now_s=now_s,
            grace_s=grace_s,
            force=force,
            reach=self._reach(),
        )

    @property
    def _roots(self) -> list[tree.Identity]:
        return [self._state.supervisor]

    def _reach(self) -> tree.Reach:
        return tree.Reach(self._agent.group, self._spared.alive(), self._agent.seize)

    def _stands_or_runs(self, suspended: bool) -> None:  # noqa: FBT001 - as it is told
        self._state.fields["suspended"] = suspended
        self._state.save()
        self._door.announce({"event": "suspended", "suspended": suspended})
        if suspended:
            session_id = self._options.session_id
            self._agent.tell(f"the agent is suspended: session-mesh resume {session_id}")

    def _parted(self, standing: tree.Killing) -> None:
        self._parting = None
        waiters, self._parting_waiters = self._parting_waiters, []

        def answer(_: Reply | None = None) -> None:
            stands = {"suspended": self._stillness.is_whole}
            for waiter in waiters:
                waiter({"ok": True, **standing.fields(), "needed": standing.needed, **stands})

        if standing.survivors and self._agent.returncode is None:
            self._state.failed("closed_by_command")
            if self._stillness.is_wanted:  # it was let run to end, not for good
                self._stillness.ask(self._clock(), answer)
                return
        answer()

    def _killed(self, killing: tree.Killing) -> None:
        if self._swept:
            self._state.fields["leftovers"] = killing.found
            self._swept_with = self._ladder.reached if self._ladder else ""
        self._ladder = None
        self._agent.reap()
        self._swept = self._agent.returncode is not None
        self._state.fields["survivors"] = list(killing.survivors)
        if killing.survivors and not (self._swept or self._agent.may_be_signalled):
            self._state.failed("killed_by_command")  # otherwise a KILL waits for it
        for answer in self._kill_waiters:
            answer({"ok": True, **killing.fields()})
        self._kill_waiters.clear()

    # --- events

    def _watch_once(self, timeout_s: float) -> None:
        poll = select.poll()
        watches = {fd: (mask, act) for fd, mask, act in self._watches()}
        for fd, (mask, _) in watches.items():
            poll.register(fd, mask)
        for fd, _ in poll.poll(max(timeout_s, 0.0) * 1000):
            watches[fd][1]()

    def _watches(self) -> Iterator[Watch]:
        yield self._signals.fileno(), select.POLLIN, self._on_signals
        yield from self._door.watches(self._handle)
        yield from self._agent.watches()

    def _timeout_s(self) -> float:
        has_steps = self._ladder or self._parting or self._stillness.is_under_way
        if has_steps or self._agent.returncode is not None:
            return tree.STEP_S
        now_s, deadline_s = self._clock(), self._agent.inlet.next_deadline_s()
        wait_s = AGAIN_S if self._agent.looks_again else LOOK_S
        wait_s = min(wait_s, self._lifetime.left_s(now_s), self._stillness.left_s(now_s))
        return wait_s if deadline_s is None else min(deadline_s - now_s, wait_s)

    def _on_signals(self) -> None:
        heard = self._signals.heard()
        self._agent.hear(heard, suspended=self._stillness.is_begun)
        if any(one.number in TO_END for one in heard):
            # A stopped agent would act upon it only when it is resumed, and may outlive it.
            if self._parting:
                self._stillness.release()  # its end tells whether to stop it again
            else:
                self._stillness.lend(self._clock(), self._options.grace_s)

    # --- operations

    def _handle(self, client: Client, line: bytes) -> None:
        head: Reply = {"id": None}
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise RequestError("a request is a JSON object")
            head = {"id": id_of(request)}
            operation = self._operations.get(str(request.get("op")))
            if operation is None:
                raise RequestError(f"there is no operation {request.get('op')!r}")
            operation(client, head, request)
        except (RequestError, ValueError, RecursionError) as error:
            client.send({**head, "ok": False, "error": str(error)})

    def _on_info(self, client: Client, head: Reply, _request: Reply) -> None:
        client.send({**head, "ok": True, **self._state.fields})

    def _on_subscribe(self, client: Client, head: Reply, request: Reply) -> None:
        client.subscribed = True
        self._on_info(client, head, request)

    def _on_steer(self, client: Client, head: Reply, request: Reply) -> None:
        if self._agent.returncode is not None:
            raise RequestError("the agent has ended")
        line, mode = steer_line(request, self._options.steer_format), text_of(request, "mode")
        said: Reply = {"followed": self._inbox.is_followed}
        interrupt = self._interrupt_of(mode, line)
        if mode == AFTER and self._inbox.was_read:  # it asks for the next when it is done
            line, said["behind"] = b"", self._inbox.untaken
        position = self._inbox.add(request)
        if interrupt:
            self._agent.interrupt(signal.Signals["SIG" + interrupt])
        sent: Reply = {"interrupted": "SIG" + interrupt} if interrupt else {}

        def landed(*, stdin: bool) -> None:
            self._worked = True
            client.send({**head, "ok": True, "stdin": stdin, **said, **sent})

        def answer(reply: Reply) -> None:
            if reply["ok"] or self._inbox.was_read:  # at worst it has the steer the other way
                landed(stdin=bool(reply["ok"]))
                return
            self._inbox.withdraw(position)
            client.send({**head, **reply, **sent})

        if not line:
            landed(stdin=False)
            return
        self._agent.inlet.steer(Steer(line, answer, self._clock() + STEER_WAIT_S))

    def _interrupt_of(self, mode: str | None, line: bytes) -> str:
        """Return the signal that comes before a steer; raises RequestError."""
        if mode != NOW:
            return ""
        if not self._options.interrupt and not self._inbox.is_followed:
            raise RequestError(NOT_INTERRUPTED)
        if self._options.interrupt and not self._agent.may_be_signalled:
            raise RequestError("it cannot be interrupted: it runs as another user")
        if line and not self._inbox.was_read and (why := self._agent.inlet.refusal(line)):
            raise RequestError(why)
        return self._options.interrupt

    def _on_worked(self, client: Client, head: Reply, _request: Reply) -> None:
        """Hear of work that its node alone sees: a report, say."""
        self._worked = True
        client.send({**head, "ok": True})

    def _on_suspend(self, client: Client, head: Reply, _request: Reply) -> None:
        self._check_runs("suspended")
        if self._parting is not None:
            raise RequestError("it was asked to end, and cannot be suspended")
        self._stillness.ask(self._clock(), lambda reply: client.send({**head, **reply}))

    def _on_resume(self, client: Client, head: Reply, _request: Reply) -> None:
        self._check_runs("resumed")
        client.send({**head, "ok": True, "found": self._stillness.resume()})

    def _on_close(self, client: Client, head: Reply, request: Reply) -> None:
        grace_s, command_id = self._grace_s(request), text_of(request, "command_id")
        self._check_runs("closed")
        self._stillness.release()  # a stopped agent would not see that its stdin has ended
        self._state.fields["closed_by_command"] = command_id or ""
        self._last_word.ordered(text_of(request, "whose"))
        self._state.save()
        self._parting_waiters.append(lambda reply: client.send({**head, **reply}))
        if self._parting is None:
            self._parting = Parting(
                self._options.session_id,
                self._roots,
                self._reach(),
                now_s=self._clock(),
                grace_s=grace_s,
            )
        self._parting.hurry(self._clock(), grace_s)  # who is patient keeps nobody waiting
        self._agent.inlet.ask_to_end("it was asked to end")

    def _check_runs(self, asked: str) -> None:
        if self._agent.returncode is not None:
            raise RequestError("the agent has ended")
        if self._ladder is not None:
            raise RequestError(f"it is being killed, and cannot be {asked}")

    def _grace_s(self, request: Reply) -> float:
        grace_s = request.get("grace_s", self._options.grace_s)
        if not isinstance(grace_s, int | float) or not 0 <= grace_s <= GRACE_S_MAX:
            raise RequestError(f"grace_s is between 0 and {GRACE_S_MAX:.0f}")
        return grace_s

    def _on_kill(self, client: Client, head: Reply, request: Reply) -> None:
        grace_s = self._grace_s(request)
        force, command_id = request.get("force", False), text_of(request, "command_id")
        if not isinstance(force, bool):
            raise RequestError("force is true or false")
        if self._state.has_ended:
            client.send({**head, "ok": True, "found": 0, "gone": 0, "survivors": []})
            return
        if self._agent.returncode is None and command_id is not None:
            self._state.fields["killed_by_command"] = command_id
            self._last_word.ordered(text_of(request, "whose"))
            self._state.save()
        self._kill_waiters.append(lambda reply: client.send({**head, **reply}))
        if self._ladder is None:
            self._ladder = self._new_ladder(self._clock(), grace_s, force=force)
        else:  # who is more patient does not keep who is less so waiting
            self._ladder.hurry(self._clock() + (0.0 if force else grace_s))
