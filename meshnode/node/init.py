"""The process that orphans come to, where `run` or `up` would be it: PID 1 of a container, say.

A supervisor takes whatever becomes its child for a part of its agent's tree, and a node waits for
no child that it has not started. So where orphans come to our process, what it was asked to be is
its child, and it stays as this: it collects who ends, passes on what that heeds, and ends as it.

Invariants: elsewhere nothing changes, the pid least of all. The child stays in our process group,
so the terminal is its own: what the kernel sends, a terminal's keys, it has got itself. What a
process sends to the whole group it gets twice, since nobody tells us to whom it was sent. No secret
and no session's mark is in our environment. Run as a file, with the standard library alone.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PR_GET_CHILD_SUBREAPER = 37
OURS = "SESSION_MESH_"  # how variables begin that may say whose a process is, or what it may
TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # what a node stops of, in order
SI_KERNEL = 0x80
DESCRIPTORS_MAX = 1 << 20  # fs.nr_open of Linux; a kernel before 5.9 has each looked at: 0.1 s
STOPS = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # of a terminal, for its whole group
KEYS = {signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP}
FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
HEARD = signal.valid_signals() - FAULTS  # KILL and STOP cannot be, and are no error


def become(argv: list[str], environment: Mapping[str, str], heeded: Collection[int]) -> NoReturn:
    """Replace this process with a program; where orphans come to us, with an init that has it.

    Signals that are not `heeded` are not passed on: the child would end, or stop, at once of what
    does nothing to PID 1.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not _adopts_orphans():
        os.execve(argv[0], argv, environment)  # noqa: S606 - our own interpreter and module
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, nobody would say that the child ends
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # none is lost until it is heard
    child = os.posix_spawn(argv[0], argv, environment, setsigmask=before)
    for key in signal.sigpending() & KEYS:  # it was not yet there to be sent it
        os.kill(child, signal.sigwait({key}))
    kept = {name: text for name, text in environment.items() if not name.startswith(OURS)}
    init = [sys.executable, "-I", "-S", __file__, str(child), *map(str, heeded)]
    os.execve(init[0], init, kept)  # noqa: S606 - as above


def _adopts_orphans() -> bool:
    import ctypes  # noqa: PLC0415 - not for what stays

    adopts = ctypes.c_int()
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return os.getpid() == 1 or bool(adopts.value)


def main(child: int, heeded: Collection[int]) -> int:
    """Be there until the child ends; returns its exit code, or ends by the signal that ended it."""
    _let_go_of_descriptors()
    while (status := _collect(child)) is None:
        heard = signal.sigwaitinfo(HEARD)
        # A terminal that hangs up tells the leader of its session alone.
        is_meant = heard.si_code != SI_KERNEL or heard.si_signo == signal.SIGHUP
        if is_meant and heard.si_signo in heeded and heard.si_signo != signal.SIGCHLD:
            os.kill(child, heard.si_signo)  # not waited for yet, so the pid is its own
    if os.WIFSIGNALED(status):
        _end_by(os.WTERMSIG(status))  # which PID 1 cannot
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _collect(child: int) -> int | None:
    """Wait for all who have ended; returns how the child has. Where it is stopped, so are we."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if pid != child:
            continue
        if not os.WIFSTOPPED(status):
            return status
        if os.WSTOPSIG(status) in STOPS:  # a shell looks at us
            os.kill(os.getpid(), signal.SIGSTOP)


def _end_by(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child's own is what may be looked at
    with suppress(OSError):  # KILL has no handler to be taken away
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _let_go_of_descriptors() -> None:
    """Close what the child has inherited: who reads from it would wait for us, too."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, min(most, DESCRIPTORS_MAX))  # /proc may not be there to list them


if __name__ == "__main__":
    only, *passed = map(int, sys.argv[1:])
    sys.exit(main(only, passed))
