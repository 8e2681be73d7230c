"""Find and stop one session's process tree (Linux 5.3 or later: /proc and pidfds).

Invariant: a signal only reaches a process that descends from one of the tree's roots, carries the
session's mark in its environment or is in the session's control group, that is still the very
process which was found (pid *and* start time), and that is neither the caller nor one of its
ancestors.

A detached supervisor of *another* session, started from inside this one, is not part of the tree:
its session is listed, steered and killed by its own id. Whether a process is one is never read from
its words or its files: the node knows it by what the kernel says of its socket, and names it.
"""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshnode.agents.cgroup import Cgroup

MARK = "SESSION_MESH_SESSION_ID"
VERIFY_S = 5.0  # after the first KILL; what still lives then is reported as a survivor
STEP_S = 0.02  # between two looks at the tree while it is being stopped
PROC_BYTES_MAX = 4 << 20  # of one file under /proc; the rest is not read


class Identity(msgspec.Struct, frozen=True):
    """One process for good: a pid comes back, a pid with its start time (clock ticks) does not."""

    pid: int
    start_ticks: int


class Killing(msgspec.Struct, frozen=True):
    """What a kill did: processes found, those verified gone, the pids that outlived it.

    `needed` is the last signal that a tree which was asked to end by itself had to be sent, and
    `suspended` says whether what is left of it stands still again.
    """

    found: int
    gone: int
    survivors: tuple[int, ...]
    needed: str = ""
    suspended: bool = False

    def fields(self) -> dict[str, object]:
        """Return the counts as they are told."""
        return {"found": self.found, "gone": self.gone, "survivors": list(self.survivors)}


class Reach(msgspec.Struct, frozen=True):
    """What else belongs to a tree, what does not, and how to seize many at once.

    `spared`: supervisors of other sessions. `seize` gives a signal to what it reaches without a
    look: a tree that forks faster than we look is otherwise only caught by luck.
    """

    cgroup: Cgroup | None = None
    spared: frozenset[Identity] = frozenset()
    seize: Callable[[signal.Signals, frozenset[Identity]], None] | None = None


NO_MORE = Reach()


class _Row(msgspec.Struct, frozen=True):
    parent: int
    start_ticks: int


def identity_of(pid: int) -> Identity | None:
    """Return who has this pid now; None if nobody, or only a zombie."""
    row = _row(pid)
    return None if row is None else Identity(pid, row.start_ticks)


def is_alive(one: Identity) -> bool:
    """Whether that very process still runs; one of its pid, where we have no descriptor to look."""
    found = identity_of(one.pid)
    is_unseen = found is None and not read("/proc/self/stat")
    return found == one or (is_unseen and os.path.exists(f"/proc/{one.pid}"))  # noqa: PTH110 - as below


def boot_id() -> str:
    """Return the kernel's id of this boot: start ticks of another boot mean nothing."""
    return read("/proc/sys/kernel/random/boot_id").decode().strip()


def is_stopped(one: Identity) -> bool:
    """Whether that very process is stopped, by a signal or by whoever traces it, or is gone."""
    state, row = _stat(one.pid)
    return row is None or row.start_ticks != one.start_ticks or state in {b"T", b"t"}


def stands_still(one: Identity) -> bool:
    """Whether that very process is stopped by a signal."""
    state, row = _stat(one.pid)
    return row is not None and row.start_ticks == one.start_ticks and state == b"T"


def started_at_s(one: Identity) -> float:
    """Return when a process started, in seconds since 1970 (psutil's `create_time`)."""
    lines = read("/proc/stat").splitlines()
    boot_s = next(float(line.split()[1]) for line in lines if line.startswith(b"btime "))
    return boot_s + one.start_ticks / os.sysconf("SC_CLK_TCK")


def age_s(one: Identity) -> float:
    """Return how long ago a process was started, to a clock tick; time asleep included."""
    uptime_s = float(read("/proc/uptime").split()[0])
    return max(uptime_s - one.start_ticks / os.sysconf("SC_CLK_TCK"), 0.0)


def members(
    session_id: str, roots: Iterable[Identity] = (), reach: Reach = NO_MORE
) -> frozenset[Identity]:
    """Return the living processes of the tree, roots included, without caller and ancestors."""
    table = dict(_table())
    children: dict[int, list[int]] = {}
    for pid, row in table.items():
        children.setdefault(row.parent, []).append(pid)
    spared = _caller_and_ancestors(table)
    apart = _closure({one.pid for one in reach.spared if _is_in(table, one)}, children, set())
    wanted = {one.pid for one in roots if _is_in(table, one)}
    marked = {pid for pid in table.keys() - spared if _is_marked(pid, session_id)}
    inside = reach.cgroup.pids() & table.keys() if reach.cgroup else set()
    first = wanted | ((marked | inside) - spared)
    seen = _closure(first - apart, children, apart | (spared - wanted))
    return frozenset(Identity(pid, table[pid].start_ticks) for pid in seen - spared)


def _closure(first: set[int], children: dict[int, list[int]], without: set[int]) -> set[int]:
    seen, queue = set[int](), list(first)
    while queue:
        pid = queue.pop()
        if pid not in seen and pid not in without:
            seen.add(pid)
            queue.extend(children.get(pid, ()))
    return seen


def ancestors(one: Identity) -> frozenset[Identity]:
    """Return the parents of a process, up to the first."""
    found: set[Identity] = set()
    row = _row(one.pid) if is_alive(one) else None
    while row is not None:
        parent = identity_of(row.parent)
        if parent is None or parent in found:
            break
        found.add(parent)
        row = _row(parent.pid)
    return frozenset(found)


def carries_mark(one: Identity, session_id: str) -> bool:
    """Whether that very process lives and was started with the session's mark."""
    return _is_marked(one.pid, session_id) and is_alive(one)


def mark_of(one: Identity) -> str:
    """Return the mark that a process was started with; empty if it has none, or is gone."""
    name = f"{MARK}=".encode()
    words = read(f"/proc/{one.pid}/environ").split(b"\0")
    mark = next((word for word in words if word.startswith(name)), b"")[len(name) :]
    is_its = bool(mark) and _is_ours(one.pid) and is_alive(one)
    return mark.decode(errors="replace") if is_its else ""


def marked() -> Iterator[tuple[str, Identity]]:
    """Yield each living process of ours that was started with a mark, and that, parents first."""
    for pid, row in sorted(_table(), key=lambda one: (one[1].start_ticks, one[0])):
        one = Identity(pid, row.start_ticks)
        if mark := mark_of(one):
            yield mark, one


def signal_children(
    number: signal.Signals, spared: frozenset[Identity], known: set[int]
) -> frozenset[int]:
    """Signal every direct child but those spared or known; returns their pids.

    No look is needed first: a child's pid stays its own until its parent waits for it.
    """
    own = os.getpid()
    pids = {int(word) for word in read(f"/proc/{own}/task/{own}/children").split()} - known
    struck = {pid for pid in pids if not spared or identity_of(pid) not in spared}
    for pid in struck:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return frozenset(struck)


def send(one: Identity, number: signal.Signals) -> bool:
    """Signal that very process; False if it is gone or not ours to signal."""
    try:
        pidfd = os.pidfd_open(one.pid)
    except OSError:
        return False
    try:
        if not is_alive(one):  # checked after the open: from here the pidfd cannot change hands
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    else:
        return True
    finally:
        os.close(pidfd)


class Ladder:
    """TERM, grace, then KILL until nothing is left: one look per `step`, never blocking.

    Descendants are recorded before the first signal, and looked for again before the end.
    """

    def __init__(
        self,
        session_id: str,
        roots: Iterable[Identity],
        *,
        now_s: float,
        grace_s: float,
        force: bool,
        reach: Reach = NO_MORE,
    ) -> None:
        self._session_id = session_id
        self._reach = reach
        self._roots = frozenset(roots)
        self._kill_at_s = now_s if force else now_s + max(grace_s, 0.0)
        self._give_up_at_s = math.inf
        self._found: set[Identity] = set()
        if force:
            self._seize(signal.SIGSTOP)
        fresh = self._look()
        if not force:
            ask_to_end(fresh)

    @property
    def reached(self) -> str:
        """The signal that it has come to; empty: there was nobody to signal."""
        if not self._found:
            return ""
        return "TERM" if self._give_up_at_s == math.inf else "KILL"

    def hurry(self, kill_at_s: float) -> None:
        """Let the grace end then at the latest."""
        self._kill_at_s = min(self._kill_at_s, kill_at_s)

    def step(self, now_s: float) -> Killing | None:
        """Look once and signal if it is time; returns the result when it is over."""
        alive = {one for one in self._found if is_alive(one)}
        if alive and now_s < self._kill_at_s:
            return None
        if now_s >= self._kill_at_s:
            self._seize(signal.SIGSTOP)  # a tree that stands still is seen whole
        fresh = self._look()
        alive |= fresh
        if not alive or now_s >= self._give_up_at_s:
            survivors = tuple(sorted(one.pid for one in alive if is_alive(one)))
            return Killing(len(self._found), len(self._found) - len(survivors), survivors)
        if now_s < self._kill_at_s:
            ask_to_end(fresh)
        else:
            self._give_up_at_s = min(self._give_up_at_s, now_s + VERIFY_S)
            self._seize(signal.SIGKILL)
            for one in alive:
                send(one, signal.SIGKILL)
        return None

    def _look(self) -> frozenset[Identity]:
        # What was found stays a root: a parent's death must not hide the children it leaves.
        roots = self._roots | self._found
        fresh = members(self._session_id, roots, self._reach) - self._found
        self._found |= fresh
        return fresh

    def _seize(self, number: signal.Signals) -> None:
        group, spared = self._reach.cgroup, self._reach.spared
        if group is not None:
            inside = group.pids()
            self._found.update(filter(None, map(identity_of, inside)))
            if inside and not inside & {os.getpid(), *(one.pid for one in spared)}:
                group.kill()
        if self._reach.seize is not None:
            self._reach.seize(number, spared)


def stop_tree(
    session_id: str,
    roots: Iterable[Identity] = (),
    *,
    grace_s: float,
    force: bool,
    clock: Callable[[], float],
    reach: Reach = NO_MORE,
) -> Killing:
    """Climb the whole ladder; blocks for at most `grace_s` + VERIFY_S. `clock` is monotonic."""
    ladder = Ladder(session_id, roots, now_s=clock(), grace_s=grace_s, force=force, reach=reach)
    while (killing := ladder.step(clock())) is None:
        time.sleep(STEP_S)
    return killing


def ask_to_end(them: Iterable[Identity]) -> None:
    """Send TERM, so that also a stopped process acts upon it at once."""
    for one in them:
        if send(one, signal.SIGTERM):
            send(one, signal.SIGCONT)  # a stopped process would see the TERM only after the grace


def _table() -> Iterator[tuple[int, _Row]]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (row := _row(int(entry.name))) is not None:
                yield int(entry.name), row


def _row(pid: int) -> _Row | None:
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[bytes, _Row | None]:
    # The name before the last bracket may hold anything, brackets and spaces included.
    fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if not fields or fields[0] == b"X" or (fields[0] == b"Z" and not _has_threads(pid)):
        return b"", None
    return fields[0], _Row(parent=int(fields[1]), start_ticks=int(fields[19]))


def _has_threads(pid: int) -> bool:
    # A process whose first thread has ended reads as a zombie while its other threads run on.
    try:
        with os.scandir(f"/proc/{pid}/task") as threads:
            return sum(1 for _ in threads) > 1
    except OSError:
        return False


def _is_in(table: dict[int, _Row], one: Identity) -> bool:
    row = table.get(one.pid)
    return row is not None and row.start_ticks == one.start_ticks


def _caller_and_ancestors(table: dict[int, _Row]) -> set[int]:
    spared, pid = {1}, os.getpid()
    while pid in table and pid not in spared:
        spared.add(pid)
        pid = table[pid].parent
    return spared


def _is_marked(pid: int, session_id: str) -> bool:
    mark = f"{MARK}={session_id}".encode()
    environment = read(f"/proc/{pid}/environ")  # empty for a process of another user
    # The search first: splitting the environment of every process of a user is what would cost.
    return mark in environment and mark in environment.split(b"\0") and _is_ours(pid)


def _is_ours(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()  # noqa: PTH116 - pathlib costs 1 MiB
    except OSError:
        return False


def read(path: str) -> bytes:
    """Read a file under /proc, of PROC_BYTES_MAX at most; empty if that cannot be."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts, left = [], PROC_BYTES_MAX
        while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
    except OSError:
        return b""
    else:
        return b"".join(parts)
    finally:
        os.close(fd)
