"""For agents: what a process inside a session can ask of the mesh, and tell it about itself.

    with Inside() as session:
        print(session.who()["agent_id"])
        session.register("review", {"load": "0.2"})
        for steer in session.steers(follow=True):
            work_on(steer["message"] or steer["direction"])

Invariant: it works by the ticket alone, which `session-mesh run` put into the environment; no key
of the home is read, and no home is looked for. Everything that goes wrong is a MeshError.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import msgspec
from msgspec.structs import asdict

from meshnode.client import clock
from meshnode.client.connection.absence import Absence
from meshnode.client.connection.asking import Asking
from meshnode.client.connection.connection import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from meshnode.client.connection.retrying import tried
from meshnode.client.connection.tickets import TICKET_VARIABLE, ticket_in
from meshnode.client.errors import (
    NoNodeError,
    NotAuthenticatedError,
    SilentNodeError,
    UnreachableError,
    UsageError,
)
from meshnode.client.home import Home
from meshnode.client.messages import to_plain
from meshnode.v1 import session_service_pb2 as pb
from meshnode.v1.usage_pb2 import Buckets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.client.targets.targets import Selection
    from meshnode.core.errors import MeshError

    Plain = dict[str, Any]

SOCKET_VARIABLE = "SESSION_MESH_SOCKET"
AWAY_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.5, *[2.0] * 6)  # for a node that is being restarted
COUNT_MAX = (1 << 64) - 1  # what the wire carries; what makes sense, the node says


class Usage(msgspec.Struct, frozen=True):
    """What one response of a model provider has used, in disjoint tokens.

    `reasoning` is a part of `output`; `web_search` counts searches.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    web_search: int = 0


class Inside:
    """The session that this process runs in. Use it in a `with`.

    Raises NotAuthenticatedError outside a session, or once the session has ended; NoNodeError when
    its node is not running.
    """

    def __init__(
        self,
        *,
        environment: Mapping[str, str] = os.environ,
        pause: Callable[[float], None] = clock.pause,
        patience_s: float = CALL_TIMEOUT_S,
    ) -> None:
        if not ticket_in(environment):
            raise NotAuthenticatedError(
                "this process runs in no session", "start it: session-mesh run -- CMD"
            )
        door = _door(environment)
        self._another = partial(Asking, door, environment=environment, patience_s=patience_s)
        self._asking = self._another()
        self._pause = pause

    def __enter__(self) -> Self:
        """Connect; raises NoNodeError when there is no socket to connect to."""
        self._asking.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._asking.__exit__()

    def who(self) -> Plain:
        """Describe this session, as `list` does."""
        return to_plain(
            self._asking.call(self._asking.node_sessions.GetSelf, pb.GetSelfRequest()).session
        )

    def list_sessions(self, selection: Selection | None = None, limit: int | None = None) -> Plain:
        """List sessions of the whole mesh: `sessions` and `coverage`."""
        return self._asking.list_sessions(selection, limit)

    def find(self, specialization: str) -> Plain:
        """List who is alive with a specialization, the best first: `agents`, `coverage`."""
        return self._asking.find(specialization)

    def register(self, specialization: str, attributes: Mapping[str, str] | None = None) -> Plain:
        """Enter this agent into the registry: `agent_id, specialization, outcome, detail`."""
        request = pb.RegisterSelfRequest(
            specialization=specialization, attributes=dict(attributes or {})
        )
        answer = to_plain(self._asking.call(self._asking.node_sessions.RegisterSelf, request))
        return {"specialization": specialization, **answer}

    def unregister(self, specialization: str) -> Plain:
        """Take this agent out of the registry; outcome unknown: it was not in there."""
        request = pb.UnregisterSelfRequest(specialization=specialization)
        answer = to_plain(self._asking.call(self._asking.node_sessions.UnregisterSelf, request))
        return {"specialization": specialization, **answer}

    def report(
        self, report_id: str, model: str, usage: Usage, *, provider: str = "", tier: str = ""
    ) -> bool:
        """Count what one response has used; False if it was counted before.

        A node that is being restarted is waited for, for the sum of AWAY_PAUSES_S; also by who has
        not entered this. Raises ConflictError for other numbers under a known id, UsageError,
        RefusedError, UnreachableError.
        """
        counts = asdict(usage)
        for name, count in counts.items():
            if type(count) is not int or not 0 <= count <= COUNT_MAX:
                raise UsageError(f"{name} is a count of tokens, not {str(count)[:40]}")
        request = pb.ReportUsageRequest(
            id=report_id, model=model, usage=Buckets(**counts), provider=provider, tier=tier
        )

        def ask() -> bool:  # by a channel of its own: one that failed tries again ever more seldom
            began_s = clock.steady_s()
            try:
                with self._another() as asking:
                    return asking.call(asking.node_sessions.ReportUsage, request).counted
            except SilentNodeError as error:
                if clock.steady_s() - began_s >= CONNECT_TIMEOUT_S:
                    raise
                raise NoNodeError from error  # that one ended, and another has begun meanwhile

        try:
            return tried(ask, _is_away, AWAY_PAUSES_S, self._pause)
        except NoNodeError as error:
            again = f"report it again later, under the same id: {report_id[:60]}"
            raise UnreachableError("the node of this session is not running", again) from error

    def steers(
        self,
        *,
        after: int | None = None,
        follow: bool = False,
        absent: Callable[[bool], None] = lambda _: None,
    ) -> Iterator[Plain]:
        """Yield the steers that were not taken yet, or those behind a position, the oldest first.

        Each is `position, command_id, direction, message, at, mode`. One is taken when the next is
        asked for: whoever ends in the middle gets it again. To `follow` is to wait for more until
        the session ends, also through a restart of its node; `absent` hears when that does not
        answer, and when it does again.
        """
        absence = Absence(self._pause, absent)
        while True:
            try:
                for steer in self._inbox(after, absence) if follow else self._read(after):
                    yield steer
                    after = steer["position"]
                    self.take(steer["position"])
            except UnreachableError as error:
                if not follow or absence.is_too_long:
                    raise
                absence.notice(error)
            else:
                return
            absence.wait()

    def take(self, position: int) -> None:
        """Say that all steers up to this one are dealt with: `steers` goes on behind it."""
        self._asking.call(
            self._asking.node_sessions.TakeSteers, pb.TakeSteersRequest(position=position)
        )

    def _read(self, after: int | None) -> Iterator[Plain]:
        request = pb.ReadInboxRequest(after=after)
        return map(to_plain, self._asking.stream(self._asking.node_sessions.ReadInbox, request))

    def _inbox(self, after: int | None, absence: Absence) -> Iterator[Plain]:
        def is_pulse(answer: pb.ReadInboxResponse) -> bool:
            absence.end()
            return not answer.command_id

        request = pb.ReadInboxRequest(after=after, follow=True, pulses=True)
        read = self._asking.node_sessions.ReadInbox
        return map(to_plain, self._asking.pulsing(read, request, is_pulse))


def _is_away(error: MeshError) -> bool:
    """Whether there is no node, or one that ended before it answered: what it heard counts once.

    One that is stopped is there: each try takes seconds.
    """
    if isinstance(error, SilentNodeError):
        return False
    failure = error.__cause__
    ended = isinstance(failure, grpc.RpcError) and failure.code() is grpc.StatusCode.UNAVAILABLE
    return isinstance(error, NoNodeError) or ended


class _Door(Home, frozen=True):
    """The directory of a node's socket. What else a home holds is not looked for beside it."""

    @property
    def run(self) -> Path:
        return self.path

    @property
    def initialised(self) -> bool:
        return True  # its node has opened a session


def _door(environment: Mapping[str, str]) -> _Door:
    socket = Path(environment.get(SOCKET_VARIABLE, ""))
    door = _Door(socket.parent)
    if not socket.is_absolute() or door.socket != socket:
        raise UsageError(
            f"{SOCKET_VARIABLE} names no socket of a node",
            f"session-mesh run sets it beside {TICKET_VARIABLE}",
        )
    return door
