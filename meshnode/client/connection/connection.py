"""A connection to the node of one home: calls go out, answers or MeshErrors come back."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cached_property
from threading import Timer
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote

import grpc

from meshnode.client import clock
from meshnode.client.connection.bearing import bearing
from meshnode.client.connection.pulses import Pulses
from meshnode.client.connection.retrying import tried
from meshnode.client.connection.silence import explained
from meshnode.client.connection.tickets import ticket_in
from meshnode.client.errors import MeshError, NoAnswerError, NoNodeError, error_from, was_heard
from meshnode.client.holding import node_of
from meshnode.client.home import check_private
from meshnode.v1.local_service_pb2_grpc import LocalServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meshnode.client.home import Home
    from meshnode.core.ids import Chance
    from meshnode.v1.audit_service_pb2_grpc import AuditServiceStub
    from meshnode.v1.authority_service_pb2_grpc import AuthorityServiceStub
    from meshnode.v1.budget_service_pb2_grpc import BudgetServiceStub
    from meshnode.v1.event_service_pb2_grpc import EventServiceStub
    from meshnode.v1.key_service_pb2_grpc import KeyServiceStub
    from meshnode.v1.order_service_pb2_grpc import OrderServiceStub
    from meshnode.v1.session_service_pb2_grpc import SessionServiceStub

CALL_TIMEOUT_S = 30.0
PULSING_TIMEOUT_S = 86400.0  # a pager may hold the stream for as long as somebody reads
NOTICED_S = 2.0  # then somebody at a terminal wonders
CONNECT_TIMEOUT_S = 4  # gRPC would wait 20 s for a process that is stopped to say hello
STUBS = frozenset(
    f"node_{noun}"
    for noun in ("audit", "authorities", "budgets", "events", "keys", "orders", "sessions")
)
LOOKING = ("Get", "List", "Find", "Read", "Judge")  # how the requests begin that change nothing
ANSWER_BYTES_MAX = 64 << 20  # larger: the call fails; a page of the largest rows is 16 MiB

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Connection:
    """Use it in a `with`; NoNodeError when no node is running, SilentNodeError when it is silent.

    `now` yields seconds since 1970, `chance` random bytes, `environment` holds SESSION_API_KEY, and
    inside a session its ticket, which every call then bears; an answer that takes longer than
    `patience_s` is UnreachableError. `on_wait` is told, from another thread, of each call that has
    waited for NOTICED_S, and how many seconds it takes at most where that is its own affair; else
    None. `on_call`, if it is set, is told of each that was made, in a few words.
    """

    def __init__(
        self,
        home: Home,
        *,
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = clock.wall_s,
        chance: Chance = clock.chance,
        patience_s: float = CALL_TIMEOUT_S,
        on_wait: Callable[[float | None], None] | None = None,
    ) -> None:
        self.home = home
        self.environment = environment
        self.now = now
        self.chance = chance
        self.patience_s = patience_s
        self.on_wait = on_wait
        self.on_call: Callable[[str], None] | None = None
        self._channel: grpc.Channel | None = None
        self._pulses = Pulses(home)
        self.node: LocalServiceStub

    def __enter__(self) -> Self:
        """Connect; raises NoNodeError when there is no socket to connect to."""
        self._channel = self.connected()
        self.node = LocalServiceStub(self._channel)
        return self

    @cached_property
    def node_audit(self) -> AuditServiceStub:
        """Who did what, and whether that was changed."""
        from meshnode.v1.audit_service_pb2_grpc import AuditServiceStub  # noqa: PLC0415 - a verb needs one of these, or none

        return AuditServiceStub(self._open)

    @cached_property
    def node_authorities(self) -> AuthorityServiceStub:
        """Who may do what."""
        from meshnode.v1.authority_service_pb2_grpc import AuthorityServiceStub  # noqa: PLC0415 - as above

        return AuthorityServiceStub(self._open)

    @cached_property
    def node_budgets(self) -> BudgetServiceStub:
        """Budgets, and what was spent of them."""
        from meshnode.v1.budget_service_pb2_grpc import BudgetServiceStub  # noqa: PLC0415 - as above

        return BudgetServiceStub(self._open)

    @cached_property
    def node_events(self) -> EventServiceStub:
        """What happens."""
        from meshnode.v1.event_service_pb2_grpc import EventServiceStub  # noqa: PLC0415 - as above

        return EventServiceStub(self._open)

    @cached_property
    def node_keys(self) -> KeyServiceStub:
        """Keys and admissions."""
        from meshnode.v1.key_service_pb2_grpc import KeyServiceStub  # noqa: PLC0415 - as above

        return KeyServiceStub(self._open)

    @cached_property
    def node_orders(self) -> OrderServiceStub:
        """Standing orders."""
        from meshnode.v1.order_service_pb2_grpc import OrderServiceStub  # noqa: PLC0415 - as above

        return OrderServiceStub(self._open)

    @cached_property
    def node_sessions(self) -> SessionServiceStub:
        """What an agent asks for itself, with its ticket."""
        from meshnode.v1.session_service_pb2_grpc import SessionServiceStub  # noqa: PLC0415 - as above

        return SessionServiceStub(self._open)

    @property
    def _open(self) -> grpc.Channel:
        if self._channel is None:
            raise NoNodeError(self.home)
        return self._channel

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            for name in STUBS & vars(self).keys():
                delattr(self, name)

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        timeout_s: float | None = None,
    ) -> Answer:
        """Ask, again where nobody was there to hear it; raises a MeshError."""
        return tried(lambda: self._ask(method, request, timeout_s), _never_heard)

    def _ask(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        timeout_s: float | None,
    ) -> Answer:
        with self._told_of(request):
            try:
                with self._noticed(timeout_s):
                    return method(request, timeout=timeout_s or self.patience_s)
            except grpc.RpcError as failure:
                error = error_from(failure)
                if isinstance(error, NoNodeError) and _may_have_changed(request, failure):
                    raise NoAnswerError(
                        "the node of this home ended before it answered"
                    ) from failure
                raise explained(error, self.home) from failure

    @contextmanager
    def _told_of(self, request: object) -> Iterator[None]:
        """Tell what was called, how long it took, and how it ended."""
        if self.on_call is None:
            yield
            return
        name, began_s = type(request).__name__.removesuffix("Request"), self.now()
        said = "interrupted"
        try:
            yield
            said = "ok"
        except MeshError as error:
            said = f"{error.code}: {error.message}"
            raise
        finally:
            self.on_call(f"{name}: {(self.now() - began_s) * 1000:.0f} ms, {said}")

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Answer],
        request: Request,
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """Yield each part of an answer; raises a MeshError."""
        with self._told_of(request):
            try:
                yield from method(request, timeout=timeout_s or self.patience_s)
            except grpc.RpcError as failure:
                raise explained(error_from(failure), self.home) from failure

    def pulsing(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Answer],
        request: Request,
        is_pulse: Callable[[Answer], bool],
    ) -> Iterator[Answer]:
        """Yield each part of an answer of any length to who reads at any pace; raises a MeshError.

        The request asks for pulses: SilentNodeError once a node that has sent them does not.
        """
        with self._told_of(request):
            yield from self._pulses.heard(method(request, timeout=PULSING_TIMEOUT_S), is_pulse)

    @contextmanager
    def _noticed(self, timeout_s: float | None) -> Iterator[None]:
        if self.on_wait is None:
            yield
            return
        notice = Timer(NOTICED_S, self.on_wait, (timeout_s,))
        notice.daemon = True
        notice.start()
        try:
            yield
        finally:
            notice.cancel()

    def connected(self) -> grpc.Channel:
        """Open one more channel to the node's socket; raises NoNodeError."""
        if self.home.is_moved or not self.home.socket.exists():
            raise NoNodeError(self.home, node_of(self.home))
        check_private(self.home.run)
        options = (
            ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_S * 1000),  # bounds an attempt too
        )
        channel = grpc.insecure_channel("unix:" + quote(str(self.home.socket)), options)
        ticket = ticket_in(self.environment)
        return bearing(channel, ticket) if ticket else channel


def _may_have_changed(request: object, failure: grpc.RpcError) -> bool:
    """Whether what was asked is more than to look, and the node was there to hear it."""
    return was_heard(failure) and not type(request).__name__.startswith(LOOKING)


def _never_heard(error: MeshError) -> bool:
    failure = error.__cause__
    return isinstance(error, NoNodeError) and not (
        isinstance(failure, grpc.RpcError) and was_heard(failure)
    )
