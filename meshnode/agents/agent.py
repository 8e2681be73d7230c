"""The agent's process: starting it, its streams, collecting it when it has ended.

Invariant: its pid is signalled only before it is waited for, so never somebody else's.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.agents import tree
from meshnode.agents.environment import uncoerced
from meshnode.agents.signals import KEYS, MEANT, ORDERS, STOP_KEY, TERMINAL, TO_END
from meshnode.agents.streams import CHUNK_BYTES, Inlet, Outlet, Source
from meshnode.agents.terminal import TypedInlet, is_behind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meshnode.agents.cgroup import Cgroup
    from meshnode.agents.clients import Watch
    from meshnode.agents.log import Log
    from meshnode.agents.options import Options
    from meshnode.agents.signals import Heard
    from meshnode.agents.terminal import Terminal

REAPED_MAX = 2048  # in one go: an agent that forks without end must not keep us from our clients
SWEEPS_MAX = 200  # in one go; then clients are served, and the next go follows
QUIET_SWEEPS, QUIET_S = 5, 0.001  # so many without anybody new end the go
PIDFD_SIGNAL_PROCESS_GROUP = 4  # Linux 6.9; the group cannot change hands while the pidfd is open
# No process, descriptor or memory is left: not the command's fault.
EXHAUSTED = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127  # as docker answers


def start(
    options: Options,
    group: Cgroup | None,
    terminal: Terminal | None,
    let_through: Callable[[], None],
) -> subprocess.Popen[bytes]:
    """Start the command with the session's mark; raises OSError, and then nothing runs.

    `let_through` lets it have the signals that are blocked here.
    """

    def prepare() -> None:
        if group is not None:
            group.enter()
        if terminal is not None:
            terminal.adopt()
        let_through()

    end = subprocess.PIPE if terminal is None else terminal.slave
    process = subprocess.Popen(  # noqa: S603  # starting the user's command is the purpose
        options.command,
        stdin=end,
        stdout=end,
        stderr=end,
        bufsize=0,
        pass_fds=options.descriptors,
        start_new_session=options.detached or terminal is not None,
        preexec_fn=prepare,  # noqa: PLW1509 - one thread: no lock is held
        env={**uncoerced(os.environ), tree.MARK: options.session_id},
    )
    for fd in options.descriptors:
        os.close(fd)  # else who reads what the agent writes there would wait for us, too
    if terminal is not None:
        terminal.begun()
    return process


def why_not_started(error: OSError) -> tuple[int, str]:
    """Return our exit code, and what to tell the caller."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NOT_FOUND, "command not found"
    return FAILED if error.errno in EXHAUSTED else NOT_EXECUTABLE, str(error.strerror)


def reap() -> Iterator[tuple[int, int]]:
    """Collect ended children and adopted orphans; yields pids and return codes, so many at most."""
    for _ in range(REAPED_MAX):
        try:
            pid, ending = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(ending)


class Agent:
    """A started agent. In front of a caller, its streams are copied from and to 0, 1 and 2."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        log: Log,
        group: Cgroup | None,
        terminal: Terminal | None,
        *,
        session_id: str,
        detached: bool,
    ) -> None:
        self._process = process
        self._session_id = session_id
        self._has_told_of_loss = False
        self.group = group
        self._terminal = terminal
        self._detached = detached
        self._has_own_group = detached or terminal is not None
        self._pidfd = os.pidfd_open(process.pid)  # not waited for yet, so it is still its own
        # Each pipe has one owner here, which closes it: Popen's own file objects let go of them.
        if terminal is not None:
            self.inlet: Inlet = TypedInlet(os.dup(terminal.master))
            ends = [terminal.master]
        elif process.stdin and process.stdout and process.stderr:
            self.inlet = Inlet(os.dup(process.stdin.fileno()))
            ends = [os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno())]
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        else:
            raise OSError("the agent has no pipes")
        self._outlets = [] if detached else [Outlet(1), Outlet(2)]
        outlets = zip(ends, self._outlets or (None, None), strict=False)  # a terminal is one end
        self._sources = [Source(end, log, outlet) for end, outlet in outlets]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return its exit code, or minus the signal's number; None while it is not waited for."""
        return self._process.returncode

    @property
    def unread(self) -> int:
        """How many bytes of its output wait for the caller to read."""
        return sum(len(outlet.pending) for outlet in self._outlets if not outlet.full)

    @property
    def has_lost_output(self) -> bool:
        """Whether the caller lacks some of its output, and not because it has gone."""
        return any(outlet.lost for outlet in self._outlets if outlet.has_output)

    @property
    def bytes_moved(self) -> int:
        """How much has gone into its streams and come out of them."""
        return self.inlet.bytes_in + sum(source.bytes_out for source in self._sources)

    @property
    def looks_again(self) -> bool:
        """Whether nothing tells when a terminal is back that is away, or a disk has room."""
        is_full = any(outlet.full for outlet in self._outlets)
        return is_full or self._is_let_go or (self._takes_stdin and is_behind())

    @property
    def _is_let_go(self) -> bool:
        return any(source.is_let_go for source in self._sources)

    @property
    def _takes_stdin(self) -> bool:
        return not self._detached and self.inlet.has_room and self.returncode is None

    def watches(self) -> Iterator[Watch]:
        """Yield what to poll for."""
        self._look_again()
        if self.inlet.fd is not None and self.inlet.waiting and not self._is_let_go:
            yield self.inlet.fd, select.POLLOUT, self.inlet.flush
        if self._takes_stdin and not is_behind():
            if self._terminal is not None:
                self._terminal.take()
            yield 0, select.POLLIN, self._on_stdin
        for source in self._sources:
            if source.fd is not None and source.wanted:
                yield source.fd, select.POLLIN, source.read
        for outlet in self._outlets:
            if outlet.pending and not outlet.full:
                yield outlet.fd, select.POLLOUT, outlet.flush

    def _look_again(self) -> None:
        """Read a terminal that may have been opened again, write to a disk that may have room."""
        for outlet in self._outlets:
            if outlet.full:
                outlet.flush()
        self._tell_of_loss()
        for source in self._sources:
            if source.is_let_go and self.returncode is None:
                source.read()

    def _tell_of_loss(self) -> None:
        if self.has_lost_output and not self._has_told_of_loss:
            why = next(outlet.lost for outlet in self._outlets if outlet.lost)
            self._has_told_of_loss = True
            logs = f"session-mesh logs {self._session_id}"
            self.tell(f"some of its output was lost here ({why}): {logs} shows what is kept of it")

    def reap(self, struck: set[int] | None = None) -> None:
        """Collect it, and orphans that we adopted; whose pid may come back is no longer struck."""
        for pid, returncode in reap():
            if struck is not None:
                struck.discard(pid)
            if pid == self.pid and self.returncode is None:
                self._process.returncode = returncode

    def hear(self, heard: Iterable[Heard], *, suspended: bool) -> None:
        """Do what our caller, or the caller's terminal, means to be done with it."""
        for one in heard:
            if one.number in KEYS and self._terminal is not None and not self._detached:
                self.interrupt(signal.Signals(one.number))  # our caller's is not its terminal
            elif one.number in TO_END or (one.number in {*KEYS, *MEANT} and not one.by_kernel):
                self._pass_on(one.number)
            elif one.number == STOP_KEY:
                self._heard_stop(suspended=suspended)
            elif one.number in TERMINAL:
                self._look_at_terminal()

    def _pass_on(self, number: int) -> None:
        """Pass on a signal; once it has ended: let go of what the caller has not read."""
        if self.returncode is None:
            with suppress(PermissionError):
                os.kill(self.pid, number)  # not waited for yet, so the pid is still its
        elif number in ORDERS:
            # The agent is gone and we are asked to be: the log has what the caller did not read.
            for outlet in self._outlets:
                outlet.pending.clear()

    @property
    def may_be_signalled(self) -> bool:
        """Whether the system lets us: not once it has become another user."""
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return False
        return True

    def interrupt(self, number: signal.Signals) -> None:
        """Signal it and what it started, as a terminal does; in front of a caller, it alone."""
        if self._has_own_group:
            self._signal_group(number)
        else:
            self._pass_on(number)

    def _heard_stop(self, *, suspended: bool) -> None:
        """Let all run on that our caller's terminal stopped: while we stand still, nobody answers.

        A command line with a pipe in it stands in one group with us, and runs on with us.
        """
        if self.returncode is None:  # else it is only being read to its end
            suspend = f"session-mesh suspend {self._session_id}"
            self.tell(f"the agent runs on: Ctrl-Z stops none, {suspend} does")
        if not suspended:
            os.killpg(0, signal.SIGCONT)

    def tell(self, said: str) -> None:
        """Say something of our own to who waits in front; a budget's name may hold anything."""
        self.say("session-mesh: " + "".join(one if one.isprintable() else "?" for one in said))

    def say(self, *lines: str) -> None:
        """Say lines to who waits in front, who need not read them now."""
        end = "\n" if self._terminal is None else "\r\n"  # which a raw terminal does not make of it
        for outlet in self._outlets[1:]:
            outlet.add("".join(line + end for line in lines).encode(errors="replace"))

    def seize(self, number: signal.Signals, spared: frozenset[tree.Identity]) -> None:
        """Signal its process group and every orphan that we adopted, and those they leave us."""
        self._signal_group(number)
        struck: set[int] = set()
        quiet = 0
        for _ in range(SWEEPS_MAX):
            fresh = tree.signal_children(number, spared, struck)
            struck |= fresh
            self.reap(struck)
            quiet = 0 if fresh else quiet + 1
            if quiet > QUIET_SWEEPS:
                return
            time.sleep(0.0 if fresh else QUIET_S)  # what is a grandchild now is ours once it forks

    def _signal_group(self, number: signal.Signals) -> None:
        if not self._has_own_group:
            return  # its group is its caller's, and our own
        try:
            signal.pidfd_send_signal(self._pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError:
            with suppress(OSError):
                if self.returncode is None:  # not waited for: the group is still its
                    os.killpg(self.pid, number)

    def _look_at_terminal(self) -> None:
        """The caller's terminal has another size, or comes back to us, perhaps changed."""
        if self._terminal is not None:
            self._terminal.lost()
            self._terminal.fit()

    def finish(self) -> None:
        """Copy what it left in its pipes, and close its stdin."""
        for source in self._sources:
            source.drain()
        if self._terminal is not None:
            for outlet in self._outlets:
                outlet.flush_some()  # while ends of lines are the agent's own, `\r` and all
            self._terminal.give_back()  # now: the caller may take a while to read what is left
        self.inlet.shut("the agent has ended")

    def let_go_of_output(self, why: str) -> None:
        """Give up what the caller has not taken by now, and say so."""
        for outlet in self._outlets:
            outlet.let_go(why)
        self._tell_of_loss()
        for outlet in self._outlets:
            outlet.flush_some()

    def _on_stdin(self) -> None:
        if is_behind():  # since it was polled for: a shell may have taken its terminal back
            return
        try:
            chunk = os.read(0, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if chunk:
            self.inlet.pump(chunk)
        else:
            self.inlet.end("the caller's stdin has ended")
