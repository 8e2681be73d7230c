"""Signals to the supervisor, turned into bytes that poll sees; and their names.

Invariant: the agent inherits no handler of ours, and an inherited "ignore HUP" stays ignored.
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

KEYS = (signal.SIGINT, signal.SIGQUIT)  # of the caller's terminal, for all in front of it
ORDERS = (*KEYS, signal.SIGTERM, signal.SIGHUP)
TERMINAL = (signal.SIGWINCH, signal.SIGCONT)  # of the caller: it may be another now
STOP_KEY = signal.SIGTSTP
NOTED = (*ORDERS, *TERMINAL, STOP_KEY, signal.SIGCHLD)


def signal_name(number: int) -> str:
    """Return the name as the kernel's headers spell it."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIG{number}"


def signals_as_bytes() -> socket.socket:
    """Turn signals into bytes that poll sees.

    INT, QUIT and TSTP are handled by doing nothing, not ignored: a handler is reset by exec, so the
    agent gets the defaults. An inherited "ignore HUP" (nohup) is kept, for the agent too.
    """
    reader, writer = socket.socketpair()
    reader.settimeout(0.0)
    writer.settimeout(0.0)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    for number in NOTED:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _noted)
    return reader


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wake-up byte says it all."""
