"""What budgets do to the sessions of this node: suspended or killed, once each in a window.

Invariant: a hold is on disk as begun before it is carried out, and whether it is still called for
is asked again at that very moment. What could not be done is tried again, and told once.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from meshnode.app.sessions.done import Done
from meshnode.app.sessions.holding import Holding
from meshnode.core.errors import MeshError, RefusedError
from meshnode.core.ids import b32, node_key_of
from meshnode.core.keys import key_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from meshnode.app.ports import Clock, OrderBook
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.budgets import Allowance, Hold

    Key = tuple[bytes, str]

AT_ONCE = 16  # trees that are being stopped
AGAIN_S, AGAIN_S_MAX = 1.0, 30.0  # after what could not be done; each time twice as long
TOLD_CHARS_MAX = 200  # of a reason, beside its session
WORDS = {"suspend": "suspended", "kill": "killed"}


class _Later(NamedTuple):
    """When to try again, and how long to wait if that fails, too."""

    at_s: float
    pause_s: float


class Withholding:
    """Carries holds out; `tell` puts them into the log, `calls_for` says what a hold is by now.

    What could not be done, or was not called for as sums were being made anew, is judged again.
    """

    def __init__(
        self,
        sessions: OwnSessions,
        book: OrderBook,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        tell: Callable[[Hold, Done], None],
    ) -> None:
        self._sessions = sessions
        self._holding = Holding(sessions)
        self._book = book
        self._clock = clock
        self._spawn = spawn
        self._tell = tell
        self.calls_for: Callable[[Hold], str] = lambda one: one.action
        self.judge_again: Callable[[], None] = lambda: None
        self._taken: set[Key] = set()
        self._later: dict[Key, _Later] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    def restore(self, done: Iterable[Key]) -> None:
        """Take over what earlier runs have done."""
        self._taken.update(done)

    def done(self) -> set[Key]:
        """Return what is done, under way, or to be tried later."""
        now_s = self._clock.steady_s()
        return self._taken | {key for key, later in self._later.items() if later.at_s > now_s}

    def left_s(self) -> float:
        """How long until something is to be tried again; infinite if nothing is."""
        now_s = self._clock.steady_s()
        times = (later.at_s for later in self._later.values() if later.at_s > now_s)
        return min(times, default=math.inf) - now_s

    def carry_out(self, holds: Iterable[Hold]) -> None:
        """Begin what is due."""
        for one in holds:
            self._taken.add(one.key)
            self._spawn(self._hold(one))

    def keep_only(self, keys: Iterable[bytes]) -> None:
        """Forget what was done in windows that are over."""
        current = set(keys)
        self._taken = {key for key in self._taken if key[0] in current}
        self._later = {key: later for key, later in self._later.items() if key[0] in current}

    async def _hold(self, one: Hold) -> None:
        async with self._room:
            try:
                now_s = self._clock.wall_s()
                issuer, end_s = one.allowance.issuer, one.window.end_s
                if not await self._book.begin(one.key, issuer, end_s, now_s):
                    return
                done = await self._act(one)
            except RefusedError as error:  # our disk, or a process that does not stop
                done = Done("waits", error.message)
            except MeshError as error:
                done = Done("failed", error.message)
            if done is None or done.outcome in {"waits", "failed"}:
                self._put_off(one, done)
                return
            await self._book.finish(one.key, done.outcome)
            self._later.pop(one.key, None)
            if done.outcome == "applied":
                told = f"{b32(one.allowance.budget_id)} {WORDS[one.action]} {_named(one)}"
                await self._sessions.note_order(one.session.session_id, told)
            self._tell(one, done)

    async def _act(self, one: Hold) -> Done | None:
        """Suspend or kill; None if that is not called for any more."""
        record = self._sessions.get(one.session.session_id)
        if record is None or record.ended:
            return Done("refused", "the session has ended")
        if self.calls_for(one) != one.action:
            return None
        if one.action == "suspend":
            return await self._holding.suspend(record)
        by = by_whom(one.allowance, self._sessions.self_id)
        whose = f"by {_named(one)}"
        return await self._sessions.kill(record, b32(one.key[0]), {}, by, whose)

    def _put_off(self, one: Hold, done: Done | None) -> None:
        self._taken.discard(one.key)
        self.judge_again()  # when it is due
        if done is None:
            return
        before = self._later.get(one.key)
        pause_s = before.pause_s if before else AGAIN_S
        at_s = self._clock.steady_s() + pause_s
        self._later[one.key] = _Later(at_s, min(2 * pause_s, AGAIN_S_MAX))
        if before is None:
            self._tell(one, done)


def _named(one: Hold) -> str:
    return f"budget {one.allowance.name}: {one.reason}"[:TOLD_CHARS_MAX]


def by_whom(allowance: Allowance, node: str | NodeId) -> str:
    """Name the key whose word a budget is: its signer's, or the node's for its configuration."""
    return key_id_of(allowance.issuer or node_key_of(node))
