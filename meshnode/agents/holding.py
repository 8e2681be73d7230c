"""Suspending a session's whole process tree, letting it run on, and asking it to end by itself.

Invariant: a tree is stopped whole or let go whole. Nothing here blocks: one look per `step`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.agents import tree

if TYPE_CHECKING:
    from collections.abc import Iterable

HALT_S = 2.0  # for all to stop; then all are let go: who waits for a device stops only later
TERM_WAIT_S = 1.0  # at least, after TERM, until a tree that was asked to end is reported as it is


@dataclass(frozen=True, slots=True)
class Halted:
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
    ) -> None:
        super().__init__(session_id, roots, reach)
        self._give_up_at_s = now_s + HALT_S

    def step(self, now_s: float) -> Halted | None:
        """Look once, and stop whoever runs; returns the result when it is over."""
        there = self._there()
        fresh, self._found = there - self._found, there
        running = [one for one in there if one in fresh or not tree.is_stopped(one)]
        if not running:
            return Halted(len(there), ())
        if now_s >= self._give_up_at_s:
            let_go(self._session_id, self._roots | there, self._reach)
            return Halted(len(there), tuple(sorted(one.pid for one in running)))
        for one in fresh:
            tree.send(one, signal.SIGSTOP)
        return None


def let_go(
    session_id: str, roots: Iterable[tree.Identity], reach: tree.Reach = tree.NO_MORE
) -> int:
    """Let a tree run on; returns how many processes of it there are."""
    there = tree.members(session_id, roots, reach)
    for one in there:
        tree.send(one, signal.SIGCONT)
    return len(there)


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
        self._term_at_s = now_s + grace_s
        self._give_up_at_s = self._term_at_s + max(grace_s, TERM_WAIT_S)
        self._found = self._there()
        self._asked = False

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
