"""Which session of a usage log an agent's processes had, and from when until when.

A program such as Claude Code writes its usage under an id of its own: a log session.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

NAME_CHARS_MAX = 128  # longer names are nobody's
SOURCES = frozenset({"claude", "codex"})  # that tell, while they run, what they write into


class LogSession(msgspec.Struct, frozen=True):
    """A log session as it was had; times in seconds since 1970, `until_s` is inf while it is."""

    source: str
    name: str
    since_s: float
    until_s: float


class Whose(NamedTuple):
    """The session of the mesh that had it, with what its row says of it."""

    session: str
    agent: str
    owner: str
