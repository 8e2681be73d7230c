"""Suspending a session's whole process tree, letting it run on, and asking it to end by itself.

Invariant: a tree is stopped whole or let go whole, but for whom the agent itself had stopped.
Nothing here blocks: one look per `step`.
"""

from __future__ import annotations

import math
import signal
from typing import TYPE_CHECKING

import msgspec

from meshnode.agents import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from meshnode.agents.clients import Reply

HALT_S = 2.0  # for all to stop; then all are let go: who waits for a device stops only later
LOOKS_MIN = (
    5  # before that, at who forks: the supervisor itself may have had no processor meanwhile
)
AGAIN_S, AGAIN_S_MAX = 5.0, 60.0  # before a tree that did not stand still again is tried once more
TERM_WAIT_S = 1.0  # at least, after TERM, for a tree to end; then it is reported, or stopped again


class Halted(msgspec.Struct, frozen=True):
    """What a suspension did: processes found, and those that did not stop; then all run on."""

    found: int
    running: tuple[int, ...]


class _Tree:
    """The processes of a session, looked for each time: where it began, and what it may reach."""

    def __init__(
        self,
        session_id: str,
        roots: Iterable[tree.Identity],
        reach: tree.Reach = tree.NO_MORE,
    ) -> None:
        self._session_id = session_id
        self._roots = frozenset(roots)
        self._reach = reach
        self._found: frozenset[tree.Identity] = frozenset()

    def _there(self) -> frozenset[tree.Identity]:
        return tree.members(self._session_id, self._roots | self._found, self._reach)


class Halt(_Tree):
    """STOP, and look again until nobody new is found and everybody stands still.

    A process may fork before its STOP arrives; once it has arrived, it cannot. So each look finds
    fewer, and one that finds nobody new beside the stopped is the last.
    """

    def __init__(
        self,
        session_id: str,
        roots: Iterable[tree.Identity],
        reach: tree.Reach = tree.NO_MORE,
        *,
        now_s: float,
        again: Halt | None = None,
    ) -> None:
        """`again`: what has stopped the tree already, and knows who had stood still before that."""
        super().__init__(session_id, roots, reach)
        self._give_up_at_s = now_s + HALT_S
        self._looks = 0
        self.sent: set[tree.Identity] = again.sent if again else set()
        self.stood: set[tree.Identity] = again.stood if again else set()

    def step(self, now_s: float) -> Halted | None:
        """Look once, and stop whoever runs; returns the result when it is over."""
        there = self._there()
        self._looks += 1
        fresh, self._found = there - self._found, there
        running = [one for one in there if one in fresh or not tree.is_stopped(one)]
        if not running:
            return Halted(len(there), ())
        if now_s >= self._give_up_at_s and self._looks >= LOOKS_MIN:
            let_go(self._session_id, self._roots | there, self._reach, self.stood)
            return Halted(len(there), tuple(sorted(one.pid for one in running)))
        for one in fresh:
            if one not in self.sent and tree.stands_still(one):
                self.stood.add(one)
            else:
                self.sent.add(one)
                tree.send(one, signal.SIGSTOP)
        return None


def let_go(
    session_id: str,
    roots: Iterable[tree.Identity],
    reach: tree.Reach = tree.NO_MORE,
    stood: AbstractSet[tree.Identity] = frozenset(),
) -> int:
    """Let a tree run on, but for who `stood` still before; returns how many there are of it."""
    there = tree.members(session_id, roots, reach)
    for one in there - stood:
        tree.send(one, signal.SIGCONT)
    return len(there)


class Stillness:
    """Whether a tree stands still: who waits until it does, and what ends it.

    `note` is told whenever it stands still from then on, or runs.
    """

    def __init__(
        self,
        session_id: str,
        roots: Iterable[tree.Identity],
        reach: Callable[[], tree.Reach],
        note: Callable[[bool], None],
    ) -> None:
        self._session_id = session_id
        self._roots = frozenset(roots)
        self._reach = reach
        self._note = note
        self._halt: Halt | None = None
        self._last: Halt | None = None  # which knows whom the tree itself had stopped
        self._waiters: list[Callable[[Reply], None]] = []
        self._again_at_s = math.inf
        self._pause_s = AGAIN_S
        self.is_whole = False
        self.is_wanted = False  # it was suspended, and nobody has resumed it since

    @property
    def is_begun(self) -> bool:
        """Whether some of the tree may stand still."""
        return self.is_whole or self.is_under_way

    @property
    def is_under_way(self) -> bool:
        """Whether `step` has something to do."""
        return self._halt is not None

    def left_s(self, now_s: float) -> float:
        """How long until `step` has something to do again."""
        return self._again_at_s - now_s

    def ask(self, now_s: float, answer: Callable[[Reply], None]) -> None:
        """Begin to stop the tree, and tell what came of it."""
        self._again_at_s = math.inf
        self._waiters.append(answer)
        if self._halt is None:
            again = self._last if self.is_whole else None
            words = self._session_id, self._roots, self._reach()
            self._halt = self._last = Halt(*words, now_s=now_s, again=again)

    def step(self, now_s: float) -> None:
        """Look once, if it is under way, or due."""
        if now_s >= self._again_at_s:
            self.ask(now_s, lambda _: None)
        if self._halt and (halted := self._halt.step(now_s)):
            self._become(is_whole=not halted.running)
            self._try_again(now_s)
            running = list(halted.running)
            self._settle({"ok": True, "found": halted.found, "running": running})

    def _try_again(self, now_s: float) -> None:
        """Set a time for one that was suspended before: it may wait for a device now, as none did.

        A tree that never stood still was told as such, and is not tried again.
        """
        if self.is_whole:
            self._pause_s = AGAIN_S
        elif self.is_wanted:
            self._again_at_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, AGAIN_S_MAX)

    def resume(self) -> int:
        """Let the tree run on for good; returns of how many processes, 0 if none stood still."""
        self.is_wanted = False
        return self.release()

    def release(self) -> int:
        """Let the tree run on, for the time that another order takes; returns as `resume` does."""
        there = 0
        if self.is_begun and self._last is not None:
            there = let_go(self._session_id, self._roots, self._reach(), self._last.stood)
        self._run_on()
        return there

    def lend(self, now_s: float, grace_s: float) -> None:
        """Let the tree run on to end by itself; if it does not, it stands still again afterwards.

        Asked for once more meanwhile, it has no more time: else it could ask for ever.
        """
        again_at_s = min(self._again_at_s, now_s + max(grace_s, TERM_WAIT_S))
        self.release()
        if self.is_wanted:
            self._again_at_s = again_at_s

    def give_way(self) -> None:
        """Leave the tree to an order that lets it run on for good."""
        self.is_wanted = False
        self._run_on()

    def _run_on(self) -> None:
        self._again_at_s = math.inf
        self._settle({"ok": False, "error": "another order came while it was being suspended"})
        self._become(is_whole=False)

    def _become(self, *, is_whole: bool) -> None:
        self.is_wanted = self.is_wanted or is_whole
        if is_whole != self.is_whole:
            self.is_whole = is_whole
            self._note(is_whole)

    def _settle(self, reply: Reply) -> None:
        self._halt = None
        waiters, self._waiters = self._waiters, []
        for answer in waiters:
            answer(reply)


class Parting(_Tree):
    """The end of a tree that was asked to end: nothing but time, then TERM, then time again.

    It never sends KILL: who must be gone is killed.
    """

    def __init__(
        self,
        session_id: str,
        roots: Iterable[tree.Identity],
        reach: tree.Reach = tree.NO_MORE,
        *,
        now_s: float,
        grace_s: float,
    ) -> None:
        super().__init__(session_id, roots, reach)
        self._term_at_s = self._give_up_at_s = math.inf
        self.hurry(now_s, grace_s)
        self._found = self._there()
        self._asked = False

    def hurry(self, now_s: float, grace_s: float) -> None:
        """Let the grace end then at the latest, and the waiting for what comes of it, too."""
        term_at_s = now_s + grace_s
        self._term_at_s = min(self._term_at_s, term_at_s)
        self._give_up_at_s = min(self._give_up_at_s, term_at_s + max(grace_s, TERM_WAIT_S))

    def step(self, now_s: float) -> tree.Killing | None:
        """Ask if it is time; returns how it stands when waiting is over."""
        if not self._asked and now_s >= self._term_at_s:
            self._asked = True
            self._found |= self._there()
            tree.ask_to_end(self._found)
        return self.result() if now_s >= self._give_up_at_s else None

    def result(self) -> tree.Killing:
        """Say who is gone by now, and who is not."""
        left = tuple(sorted(one.pid for one in self._found if tree.is_alive(one)))
        needed = "TERM" if self._asked else ""
        return tree.Killing(len(self._found), len(self._found) - len(left), left, needed)
