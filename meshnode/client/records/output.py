"""An agent's output as it grows: one reading after another, through restarts and cut links.

Invariant: no byte is yielded twice, and none is left out unsaid: each reading goes on at the
position behind the last one, and its head tells what was lost before it could be read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client import clock
from meshnode.client.connection.absence import Absence
from meshnode.client.errors import PeerError, StaleError, UnreachableError
from meshnode.client.keys.blaming import blaming
from meshnode.client.targets.targets import Target
from meshnode.client.targets.wishes import order_to
from meshnode.core.errors import ExhaustedError
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.client.commands.ordering import Ordering
    from meshnode.core.errors import MeshError

    Plain = dict[str, Any]

HEAD_BYTES_MAX = 1024


class Span(msgspec.Struct, frozen=True):
    """Which output: of all there is, what satisfies each that is said. Seconds since 1970."""

    tail: int | None = None
    since_s: float | None = None

    @property
    def args(self) -> Plain:
        """As a request for it says."""
        return {"tail": self.tail, "since_s": self.since_s}


class Piece(msgspec.Struct, frozen=True):
    """Some output: where it begins in all of the session's, and what was `lost` right before it."""

    position: int
    output: bytes
    lost: int = 0


def read(mesh: Ordering, session: Plain, args: Plain) -> Iterator[bytes]:
    """Stream what the owner sends of a session's output; raises what it says."""
    order = order_to(session, "read_messages", args)
    request = pb.ReadSessionLogRequest(
        node_id=order.node_id, command=mesh.signed(order), pulses=True
    )
    with blaming(mesh.environment):
        for piece in mesh.pulsing(mesh.node.ReadSessionLog, request, lambda one: not one.output):
            yield piece.output


class Following:
    """Follows one session's output until it ends; `absent` hears when nobody answers, and after."""

    def __init__(
        self,
        mesh: Ordering,
        session: Plain,
        absent: Callable[[bool], None] = lambda _: None,
        pause: Callable[[float], None] = clock.pause,
    ) -> None:
        self._mesh = mesh
        self._session = session
        self._absence = Absence(pause, absent)
        self._position: int | None = None
        self._ended = self._is_stale = False

    def pieces(self, span: Span) -> Iterator[Piece]:
        """Yield the output, and what comes; raises a MeshError if nobody answers for a minute."""
        absence = self._absence
        while not self._ended:
            try:
                self._renew()
                for piece in self._reading(span):
                    absence.end()
                    if piece.output or piece.lost:
                        yield piece
                continue
            except StaleError:  # its owner's journal was lost: it is known by another epoch now
                if absence.is_too_long:
                    raise
                self._is_stale = True
            except (UnreachableError, ExhaustedError) as error:
                if self._position is None or absence.is_too_long:
                    raise
                self._note_failed(error)
            absence.wait()

    def _renew(self) -> None:
        """Look the session up again, if its owner knows it by another epoch."""
        if self._is_stale:
            self._session = self._mesh.resolve(Target(session_id=self._session["session_id"]))
            self._is_stale = False

    def _note_failed(self, error: MeshError) -> None:
        if not isinstance(error, ExhaustedError):  # who has too many readers does answer
            self._absence.notice(error)

    def _reading(self, span: Span) -> Iterator[Piece]:
        """Read until the owner has enough of it; notes the position, and whether that was all."""
        known = self._position
        args = span.args if known is None else {"position": known}
        said = read(self._mesh, self._session, {**args, "follow": True})
        head = _head(next(said, b""))
        position = head["position"]
        self._position = position
        yield Piece(position, b"", head["lost"])
        for output in said:
            self._position = position + len(output)
            yield Piece(position, output)
            position = self._position
        self._ended = head["ended"]


def _head(line: bytes) -> Plain:
    """Read what an owner sends first; raises PeerError."""
    try:
        head = json.loads(line) if len(line) <= HEAD_BYTES_MAX else None
        said = {"position": int, "lost": int, "ended": bool}
        if isinstance(head, dict) and all(type(head.get(name)) is said[name] for name in said):
            return head
    except (ValueError, RecursionError):
        pass
    raise PeerError(
        "the owner does not say where its output begins",
        "it may run an older version: session-mesh nodes --verbose shows which",
    )
