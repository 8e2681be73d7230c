"""One guard over every service of a port: who calls, over what, and errors on the way out.

Invariant: on the members' port no handler runs unless the connection is TLS 1.3, not resumed, and
carries exactly one DNS name, of a node of this mesh that has signed it and is not revoked. Subject,
common name and URIs are never read: name constraints do not bind them. A stream that runs gives
nothing more to a node that was revoked meanwhile.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from meshnode.core.errors import NotAuthenticatedError, PeerError
from meshnode.core.membership.certificates import is_own_leaf, node_id_in
from meshnode.rpc.errors import refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from meshnode.core.ids import NodeId

Context = grpc.aio.ServicerContext[Any, Any]


def check_tls(context: Context) -> dict[str, list[bytes]]:
    """Return what TLS knows of a caller; raises NotAuthenticatedError for TLS below 1.3, resumed.

    gRPC cannot refuse such handshakes by itself.
    """
    auth = {name: list(values) for name, values in context.auth_context().items()}
    if auth.get("ssl_tls_version") != [b"TLSv1.3"]:
        raise NotAuthenticatedError("only TLS 1.3 is served")
    if auth.get("ssl_session_reused") != [b"false"]:
        raise NotAuthenticatedError("resumed TLS sessions are not served")
    return auth


def peer_of(context: Context) -> NodeId:
    """Return the node at the other end; raises NotAuthenticatedError."""
    auth = check_tls(context)
    names = list(auth.get("peer_dns", ()))
    if len(names) != 1:
        raise NotAuthenticatedError("a certificate must carry exactly one DNS name")
    try:
        node = node_id_in(names[0].decode())
    except (PeerError, UnicodeDecodeError) as error:
        raise NotAuthenticatedError("a certificate for a name outside the mesh") from error
    if not is_own_leaf(b"".join(auth.get("x509_pem_cert", ())), node):
        raise NotAuthenticatedError("a certificate that was not signed by the node it names")
    return node


class Membership(Protocol):
    """Who of the nodes with a certificate is a member still."""

    @property
    def version(self) -> int:
        """Another one whenever somebody may have been revoked."""

    def check_caller(self, node: NodeId, shown: bytes) -> None:
        """Raise NotPermittedError for a node that is revoked, by the chain (PEM) that it shows."""


def members_guard(membership: Membership) -> Guard:
    """Guard the members' port: at every call, however old the connection is."""

    def check(context: Context) -> None:
        peer = peer_of(context)
        (shown,) = context.auth_context().get("x509_pem_cert_chain") or (b"",)
        membership.check_caller(peer, shown)

    return Guard(check, lambda: membership.version)


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server: checks the peer first, turns exceptions into sentences."""

    def __init__(
        self, check: Callable[[Context], object], version: Callable[[], int] = lambda: 0
    ) -> None:
        """Check each call, and a stream that runs again whenever `version` is another."""
        self._check = check
        self._version = version

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handler type is not public
        """Wrap the handler that was asked for, if there is one."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if handler.response_streaming:
            method = handler.stream_stream or handler.unary_stream
            wrap = grpc.stream_stream_rpc_method_handler
            if handler.unary_stream:
                wrap = grpc.unary_stream_rpc_method_handler
            guarded = self._streaming(method, _requests_of(handler))
        else:
            method = handler.stream_unary or handler.unary_unary
            wrap = grpc.unary_unary_rpc_method_handler
            if handler.stream_unary:
                wrap = grpc.stream_unary_rpc_method_handler
            guarded = self._single(method, _requests_of(handler))
        # Requests come as bytes: gRPC would tell callers what its deserializer raised.
        return wrap(guarded, None, handler.response_serializer)

    def _single(
        self, method: Callable[..., Awaitable[Any]], requests_of: Callable[[Any], Any]
    ) -> Callable[..., Any]:
        async def guarded(request: Any, context: Context) -> Any:  # noqa: ANN401 - grpc is untyped here
            try:
                self._check(context)
                return await method(requests_of(request), context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last place that can word it
                await refuse(context, error)

        return guarded

    def _streaming(
        self, method: Callable[..., Any], requests_of: Callable[[Any], Any]
    ) -> Callable[..., Any]:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - grpc is untyped here
            try:
                self._check(context)
                version = self._version()
                responses = method(requests_of(request), context)
                if isawaitable(responses):  # it writes by itself, as the stock health service does
                    await responses
                    return
                async for response in responses:
                    if version != self._version():
                        version = self._version()
                        self._check(context)
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last place that can word it
                await refuse(context, error)

        return guarded


def _requests_of(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[[Any], Any]:
    """Decode what a handler is called with: one request, or all of a stream."""
    deserializer = handler.request_deserializer or bytes

    def decoded(packed: bytes) -> Any:  # noqa: ANN401 - grpc is untyped here
        try:
            return deserializer(packed)
        except DecodeError as error:
            raise PeerError("bytes that are no request of this service") from error

    async def each_decoded(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for packed in requests:
            yield decoded(packed)

    return each_decoded if handler.request_streaming else decoded


def anyone(context: Context) -> None:
    """Check nothing: for the Unix socket, whose directory is the guard."""
    del context
