"""What a steer says, and how it meets what its agent is doing.

Invariant: a mode is acted upon or refused, never passed over: who says `now` must know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshnode.core.errors import UsageError

SOFT = "soft"  # beside what it does: it reads this when it likes
NOW = "now"  # it is interrupted, or hears at once that it should be
AFTER = "after"  # when it is done with what it has
MODES = (SOFT, NOW, AFTER)


class Instruction(msgspec.Struct, frozen=True):
    """A direction, a message or both; an empty mode leaves it to the direction, then is SOFT."""

    direction: str = ""
    message: str = ""
    mode: str = ""


def instruction_of(args: dict[str, Any]) -> Instruction:
    """Read a command's arguments; raises UsageError."""
    steer = Instruction(_text(args, "direction"), _text(args, "message"), _text(args, "mode"))
    if not steer.direction and not steer.message:
        raise UsageError("a steer needs a direction or a message")
    if steer.mode and steer.mode not in MODES:
        raise UsageError(f"there is no mode {steer.mode[:40]!r}", f"one of: {', '.join(MODES)}")
    return steer


def _text(args: dict[str, Any], name: str) -> str:
    value = args.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name} must be a text")
    return value or ""
