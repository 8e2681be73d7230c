"""Where an invite comes from, so that it need not stand in argv for all to see; and joining."""

import os
from collections.abc import Callable
from getpass import getpass

from meshnode.client import clock
from meshnode.client.errors import UsageError
from session_mesh.arguments.stdin import on_terminal, read_text
from session_mesh.call import Call

INVITE_VARIABLE = "SESSION_MESH_INVITE"
INVITE_CHARS_MAX = 4096


def invite_from(argument: str) -> str:
    """Take the invite from stdin for `-`, from the argument, or from the environment."""
    if argument == "-" and on_terminal():
        found = getpass("paste the invite (it is not shown), then Enter: ").strip()
    elif argument == "-":
        found = read_text(INVITE_CHARS_MAX, "the invite").strip()
    else:
        found = argument.strip() or os.environ.get(INVITE_VARIABLE, "").strip()
    if not found:
        raise UsageError("no invite", f"pipe it into session-mesh join -, or set {INVITE_VARIABLE}")
    return found


def patience(call: Call) -> Callable[[float], None]:
    """Return how to wait while many join at once: the first time, it is said why."""
    told: list[str] = []

    def pause(pause_s: float) -> None:
        if not told:
            told.append("many devices join at once: waiting for a turn")
            call.streams.tell(told[0])
        clock.pause(pause_s)

    return pause
