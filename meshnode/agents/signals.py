"""Signals to the supervisor, read from a descriptor that poll sees, with who has sent them.

Invariant: the agent is started with the mask of our caller, and with no handler of ours.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

import msgspec

KEYS = (signal.SIGINT, signal.SIGQUIT)  # of the caller's terminal, for all in front of it
TO_END = (signal.SIGTERM, signal.SIGHUP)  # whoever sends them
ORDERS = (*KEYS, *TO_END)
TERMINAL = (signal.SIGWINCH, signal.SIGCONT)  # of the caller: it may be another now
STOP_KEY = signal.SIGTSTP
# What would end us and means the agent, since its caller knows no other pid than ours.
MEANT = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXCPU),
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
OURS = (signal.SIGTERM, *TERMINAL, STOP_KEY, signal.SIGCHLD)  # though our caller ignores them
NOTED = (*ORDERS, *TERMINAL, *MEANT, STOP_KEY, signal.SIGCHLD)
SIGINFO = struct.Struct("=Iii116x")  # struct signalfd_siginfo: number, errno, code, more
READ_AT_ONCE = 64  # signals; more are read with the next look
SI_KERNEL = 0x80
SIGSET_WORDS = 16  # of C's sigset_t, which is as large everywhere


def signal_name(number: int) -> str:
    """Return the name as the kernel's headers spell it."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


class Heard(msgspec.Struct, frozen=True):
    """A signal. What the kernel sends itself, as a terminal's keys do, reaches a whole group."""

    number: int
    by_kernel: bool


class Signals:
    """The signals that are noted; they are blocked from now on."""

    def __init__(self, *, in_group: bool) -> None:
        """`in_group`: the agent will be in our caller's process group. Raises OSError.

        What is ignored by inheritance stays so for the agent, too: HUP (nohup) always, and INT and
        QUIT, which a script's `CMD &` ignores, where its caller's terminal could send them.
        """
        ours = OURS if in_group else (*OURS, *KEYS)
        for number in ours:
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        noted = [one for one in NOTED if signal.getsignal(one) != signal.SIG_IGN]
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, noted)
        self._fd = _signalfd(noted)

    def fileno(self) -> int:
        """Return what poll sees."""
        return self._fd

    def let_through(self) -> None:
        """Block what our caller blocked, between fork and exec."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def heard(self) -> list[Heard]:
        """Return what has come, oldest first."""
        try:
            read = os.read(self._fd, SIGINFO.size * READ_AT_ONCE)
        except BlockingIOError:
            return []
        return [Heard(number, code == SI_KERNEL) for number, _, code in SIGINFO.iter_unpack(read)]


def _signalfd(numbers: list[int]) -> int:
    """Open signalfd(2), which Python has not; raises OSError."""
    c = ctypes.CDLL(None, use_errno=True)
    mask = (ctypes.c_ulong * SIGSET_WORDS)()
    c.sigemptyset(mask)
    for number in numbers:
        c.sigaddset(mask, number)
    fd = int(c.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return fd
