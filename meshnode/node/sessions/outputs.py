"""The output of this node's sessions, as a reading that was allowed asks for it.

Invariant: at most FOLLOWERS_MAX readings wait for more at a time, and each ends by itself: what a
request says of where to begin is checked here.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from meshnode.agents.output import Begin, follow_log, is_kept, read_log
from meshnode.core.errors import ExhaustedError, NotFoundError, UsageError
from meshnode.core.sessions.sessions import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.app.ports import Clock
    from meshnode.core.commands.commands import Command
    from meshnode.node.sessions.hosting import Hosting

FOLLOWERS_MAX = 64  # more: ExhaustedError
FOLLOW_S = 45.0  # then it is asked for anew: a call to another node lasts a minute at most


class Outputs:
    """Reads what the agents of this node have written."""

    def __init__(self, hosting: Hosting, clock: Clock) -> None:
        self._hosting = hosting
        self._clock = clock
        self._followers = 0

    def read(self, command: Command) -> Iterator[bytes]:
        """Yield the output that is asked for, from `tail`, `since_s` or `position` on.

        With `follow`, what comes for a while, after a head (`agents/output.py`). Raises UsageError,
        NotFoundError for a session whose output is gone.
        """
        begin = _begin(command.args)
        self._check_kept(command.session)
        if command.args.get("follow") is True:
            return self._follow(command.session, begin)
        return read_log(self._hosting.directory_of(command.session), begin)

    def _follow(self, session_id: str, begin: Begin) -> Iterator[bytes]:
        if self._followers >= FOLLOWERS_MAX:
            raise ExhaustedError(f"{FOLLOWERS_MAX} follow output of this node", "try again later")
        until_s = self._clock.steady_s() + FOLLOW_S
        self._followers += 1
        try:
            yield from follow_log(
                self._hosting.directory_of(session_id),
                begin,
                ended=lambda: self._has_ended(session_id),
                enough=lambda: self._has_ended(session_id) or self._clock.steady_s() >= until_s,
            )
        finally:
            self._followers -= 1

    def _check_kept(self, session_id: str) -> None:
        record = self._hosting.sessions.get(session_id)
        is_begun = record is None or record.state is not State.PENDING
        if is_begun and not is_kept(self._hosting.directory_of(session_id)):
            raise NotFoundError(
                f"the output of session {session_id} is gone",
                "it lay on the disk of its node alone",
            )

    def _has_ended(self, session_id: str) -> bool:
        record = self._hosting.sessions.get(session_id)
        return record is None or record.ended


def _begin(args: dict[str, Any]) -> Begin:
    """Read where to begin; raises UsageError."""
    tail, since_s, position = (args.get(name) for name in ("tail", "since_s", "position"))
    for name, value in (("tail", tail), ("position", position)):
        if value is not None and (type(value) is not int or value < 0):
            raise UsageError(f"the {name} of a reading is a number from 0 on")
    if since_s is not None and (type(since_s) not in {int, float} or not isfinite(since_s)):
        raise UsageError("a reading begins at a moment in seconds since 1970")
    return Begin(tail, since_s, position)
