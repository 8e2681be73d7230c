"""A steer inside the supervisor: from a client's request to one line for the agent.

Invariant: a steer is one line, its only newline at its end, and is answered once at most.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from meshnode.agents.clients import RequestError, text_of
from meshnode.core.commands.steers import SOFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.agents.clients import Reply


NOT_INTERRUPTED = (
    "it cannot be interrupted: nobody follows its inbox, and it was not started with --interrupt"
)


class Steer:
    """One line on its way into the agent's stdin, and whom to tell."""

    def __init__(self, line: bytes, answer: Callable[[Reply], None], give_up_at_s: float) -> None:
        self.line = line
        self.give_up_at_s = give_up_at_s
        self.answered = False
        self._answer = answer

    def delivered(self) -> None:
        """Every byte is in the pipe."""
        self._say({"ok": True})

    def refused(self, why: str) -> None:
        """No byte was written, and none will be."""
        self._say({"ok": False, "error": why})

    def unsure(self, why: str) -> None:
        """Some bytes were written: it can neither be confirmed nor taken back."""
        self._say({"ok": False, "error": why, "indeterminate": True})

    def _say(self, reply: Reply) -> None:
        if not self.answered:
            self.answered = True
            self._answer(reply)


def steer_line(request: Reply, steer_format: str) -> bytes:
    """Return the one line that the agent reads, nothing if it reads none; raises RequestError."""
    message, direction = text_of(request, "message"), text_of(request, "direction")
    if not message and not direction:
        raise RequestError("a steer needs a message or a direction")
    if steer_format == "none":
        return b""
    if steer_format == "json":
        order = {
            "command_id": text_of(request, "command_id"),
            "direction": direction,
            "message": message,
            "mode": text_of(request, "mode") or SOFT,
        }
        return json.dumps(order, ensure_ascii=False).encode(errors="replace") + b"\n"
    text = message or f"direction: {direction}"
    text = text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
    return text.encode(errors="replace") + b"\n"
