"""A ticket on every call of a channel, in its metadata, where a node looks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

if TYPE_CHECKING:
    from collections.abc import Callable

TICKET_KEY = "session-mesh-ticket"


def bearing(channel: grpc.Channel, ticket: str) -> grpc.Channel:
    """Return the channel with a ticket on each of its calls."""
    return grpc.intercept_channel(channel, _Bearer(ticket))


class _Details(NamedTuple):
    """What gRPC reads of a call, and wants to be handed back."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def __init__(self, ticket: str) -> None:
        self._ticket = ticket

    def intercept_unary_unary(
        self,
        continuation: Callable[[Any, Any], Any],
        client_call_details: Any,  # noqa: ANN401 - grpc's own
        request: object,
    ) -> Any:  # noqa: ANN401 - as above
        """Put the ticket onto a call."""
        return continuation(self._borne(client_call_details), request)

    intercept_unary_stream = intercept_unary_unary  # answers are passed on as they come

    def _borne(self, details: Any) -> _Details:  # noqa: ANN401 - grpc's own
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), (TICKET_KEY, self._ticket)],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
