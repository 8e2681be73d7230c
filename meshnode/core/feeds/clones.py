"""Which of two processes with one key goes on writing its feed, and which falls silent.

Invariant: a header that says that it left *our* boot's history was signed by a process that has
run since our start, whatever an old disk, a distant part of the mesh or a liar remembers.

Who started from a disk that the other has written is a copy of a home that runs: it gives way at
the first such header. So does who first took up a history whose writer knew nothing of us, and is
answered above: that writer ran before us, and our disk is an older copy of its home. A home that
gave way does so again, until it has gone on for a while and nobody objected. The other answers,
with an epoch above; so what its agents do is told by the process that sees them. Of two that
started from one disk nobody can say which is the copy: both answer ANSWERS_MAX times at most, then
one gives way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from meshnode.core.feeds.headers import Header

    Processes = dict[int, int]  # a number for each, by its boot

ANSWERS_MAX = 2  # to one process: a copy may have left what we wrote before it had all of it
PROCESSES_MAX = 64  # that are remembered; of more, the latest


class Clones:
    """What one process knows of others that write with its key."""

    def __init__(self, boot: int) -> None:
        self._boot = boot
        self._before = 0  # the boot of the process that wrote the disk we started from
        self.gave_way: Collection[int] = ()  # who wrote this home's disk when it last gave way
        self._answers: Processes = {}  # given to each
        self._unasked: Processes = {}  # the epoch in which we first went on after each

    def began_with(self, header: Header) -> None:
        """Note whose history our disk held at our start."""
        self._before = header.boot

    def trust_own(self) -> None:
        """Forget that our home gave way: whoever it gave way to would have been heard by now."""
        self.gave_way = ()

    @property
    def writers(self) -> list[int]:
        """One or two boots, of which one is in the header of ours that our disk holds."""
        return [boot for boot in (self._before, self._boot) if boot]

    def runs_beside(self, header: Header) -> bool:
        """Whether a header proves that another process has written since our start."""
        return header.left == self._boot != 0

    def gives_way_to(self, header: Header, epoch: int) -> bool:
        """Whether we, in this epoch, leave the feed to the process that has signed a header."""
        if not self.runs_beside(header):
            return False
        if header.boot == self._before:
            return True
        # Of two that leave each other at once, the later one goes on.
        if (header.epoch, header.boot) <= (epoch, self._boot):
            return False
        is_answer = header.epoch > self._unasked.get(header.boot, header.epoch)
        gave_way = self._before in self.gave_way  # and our home has said nothing since
        return is_answer or gave_way or self._answers.get(header.boot, 0) >= ANSWERS_MAX

    def continued_after(self, header: Header, epoch: int) -> None:
        """Note that this epoch was opened over what another process wrote."""
        if self.runs_beside(header):
            _note(self._answers, header.boot, self._answers.pop(header.boot, 0) + 1)
        else:
            _note(self._unasked, header.boot, self._unasked.pop(header.boot, epoch))


def _note(processes: Processes, boot: int, number: int) -> None:
    processes[boot] = number
    while len(processes) > PROCESSES_MAX:
        del processes[next(iter(processes))]
