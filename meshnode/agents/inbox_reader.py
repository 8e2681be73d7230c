"""The node's side of an inbox: asks a session's supervisor, over a connection of its own.

Invariant: one connection a reader, closed with it, so a supervisor knows who follows; whatever the
other end writes becomes a steer or an error.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from meshnode.app.sessions.inboxes import Received
from meshnode.core.commands.steers import SOFT
from meshnode.core.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ANSWER_WAIT_S = 5.0  # of a supervisor that has something to say
LINE_BYTES_MAX = 1 << 20  # of one answer; longer: hung up on
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


class SupervisorInboxes:
    """Reads the inboxes that supervisors keep; `place_of` returns a session's socket second."""

    def __init__(self, place_of: Callable[[str], tuple[Path, Path]]) -> None:
        self._place_of = place_of

    async def read(
        self, session_id: str, after: int | None, *, follow: bool
    ) -> AsyncIterator[Received]:
        """Yield steers; following ends when the supervisor does. Raises UnreachableError."""
        async with self._line(session_id) as line:
            while True:
                asked: dict[str, object] = {"op": "inbox", "after": after, "follow": follow}
                reply = await line.ask(asked, wait_s=None if follow else ANSWER_WAIT_S)
                if reply is None:
                    return
                steers, after = page_of(reply)
                for steer in steers:
                    yield steer
                if not steers and not follow:
                    return

    async def take(self, session_id: str, position: int) -> None:
        """Note up to where steers are dealt with; raises UsageError, UnreachableError."""
        async with self._line(session_id) as line:
            reply = await line.ask({"op": "take", "position": position}, ANSWER_WAIT_S)
            if reply is None:
                raise _silent()

    @asynccontextmanager
    async def _line(self, session_id: str) -> AsyncIterator[_Line]:
        _, socket = self._place_of(session_id)
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_BYTES_MAX)
        except OSError:  # TimeoutError is one
            raise _silent() from None
        try:
            yield _Line(reader, writer)
        finally:
            writer.close()


class _Line:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: dict[str, object], wait_s: float | None) -> dict[str, Any] | None:
        """Return the answer, None if the supervisor has hung up."""
        self._writer.write(json.dumps(request).encode() + b"\n")
        try:
            async with asyncio.timeout(wait_s):
                text = await self._reader.readline()
        except TimeoutError:
            raise _silent() from None
        except (OSError, ValueError):  # cut off, or beyond the limit
            return None
        return answer_of(text) if text.endswith(b"\n") else None


def answer_of(text: bytes) -> dict[str, Any]:
    """Read a line of a supervisor; raises UsageError if it refuses, UnreachableError."""
    try:
        reply = json.loads(text)
        refused = None if reply["ok"] is True else str(reply.get("error"))
    except _NONSENSE as error:
        raise _silent() from error
    if refused is not None:
        raise UsageError(refused)
    return dict(reply)


def page_of(reply: dict[str, Any]) -> tuple[list[Received], int]:
    """Read a page of an inbox, and behind which position the next one begins."""
    try:
        return [_received(steer) for steer in reply["steers"]], int(reply["next"])
    except _NONSENSE as error:
        raise _silent() from error


def _received(steer: dict[str, Any]) -> Received:
    return Received(
        position=int(steer["position"]),
        command_id=str(steer["command_id"] or ""),
        direction=str(steer["direction"] or ""),
        message=str(steer["message"] or ""),
        at_s=float(steer["at_s"]),
        mode=str(steer.get("mode") or SOFT),  # a supervisor of before knows none
    )


def _silent() -> UnreachableError:
    return UnreachableError("the session's supervisor does not answer", "try again")
