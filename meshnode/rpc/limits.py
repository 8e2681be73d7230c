"""How much of a port one caller may use: calls at once and a second, and time for each of them.

Invariant: a call holds a place for `receive_s` at most until its request has come, and for
`answer_s` after that, unless its method is endless; one caller holds at most `of_one_max` places,
fewer when few are free, so that some are left for whoever else comes. A port takes so many
connections that all ports together leave a quarter of our open files to the rest of the node.

gRPC reads the request of a unary call before any handler or check runs, and waits for it for ever.
So every call is taken as a stream of requests, which is the same on the wire: then the checks come
first, and the wait for the request is ours to end.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec

from meshnode.core.errors import ExhaustedError, PeerError, UnreachableError
from meshnode.core.pacing import Buckets
from meshnode.rpc.errors import refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from meshnode.rpc.guard import Context

    Taking = Callable[[AsyncIterator[Any]], Awaitable[Any]]

SHARE = 4  # of the places that are free a caller may hold a quarter: what it holds already included
IPV6_SITE_BITS = 64  # a machine may take any address of its network: they count as one caller


class Limits(msgspec.Struct, frozen=True):
    """Of one port."""

    connections_max: int  # at once, of all callers; more are closed before anything is said,
    of_files: float  # and sooner when so many are this part of the files that we may open
    calls_max: int  # at once, of all callers; more: ExhaustedError
    of_one_max: int  # at once, of one caller
    per_s: float  # by one caller
    burst: float
    receive_s: float  # for the request of a call that has one; later: PeerError
    answer_s: float  # for all of the answer; later: UnreachableError
    endless: frozenset[str] = frozenset()  # methods that last as long as both ends like


def room_for(most: int, of_files: float) -> int:
    """Return how many connections a port takes: `most`, or a part of the files we may open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else min(most, int(files * of_files))


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Lets calls in. Stands before the guard, which sees no call that is turned away here."""

    def __init__(
        self,
        limits: Limits,
        caller_of: Callable[[Context], str],
    ) -> None:
        """Count calls by the name that `caller_of` gives, which may raise a MeshError."""
        self._limits = limits
        self._caller_of = caller_of
        self._inside: Counter[str] = Counter()
        self._count = 0
        self._pace: Buckets[str] = Buckets(limits.per_s, limits.burst)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401 - grpc's handler type is not public
        """Wrap the handler that was asked for, if there is one."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        answer_s = None if method in self._limits.endless else self._limits.answer_s
        request_of = _as_they_come if handler.request_streaming else self._first
        if handler.response_streaming:
            streamed = handler.stream_stream or handler.unary_stream
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(streamed, request_of, answer_s),
                handler.request_deserializer,
                handler.response_serializer,
            )
        single = handler.stream_unary or handler.unary_unary
        return grpc.stream_unary_rpc_method_handler(
            self._single(single, request_of, answer_s),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _single(
        self,
        method: Callable[..., Awaitable[Any]],
        request_of: Taking,
        answer_s: float | None,
    ) -> Callable[..., Any]:
        async def limited(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 - grpc is untyped here
            try:
                with self._place_of(context):
                    request = await request_of(requests)
                    async with _within(answer_s):
                        return await method(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last place that can word it
                await refuse(context, error)

        return limited

    def _streaming(
        self,
        method: Callable[..., Any],
        request_of: Taking,
        answer_s: float | None,
    ) -> Callable[..., Any]:
        async def limited(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            try:
                with self._place_of(context):
                    responses = method(await request_of(requests), context)
                    async for response in _until(responses, answer_s):
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the last place that can word it
                await refuse(context, error)

        return limited

    @contextmanager
    def _place_of(self, context: Context) -> Iterator[None]:
        caller, limits = self._caller_of(context), self._limits
        free = limits.calls_max - self._count
        share = min(limits.of_one_max, max(1, (free + self._inside[caller]) // SHARE))
        if free <= 0 or self._inside[caller] >= share:
            raise ExhaustedError("too many calls at once", "wait for some of them to end")
        if not self._pace.take(caller, asyncio.get_running_loop().time()):
            raise ExhaustedError(f"more than {limits.per_s:g} calls a second", "try again later")
        self._count += 1
        self._inside[caller] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._inside[caller] -= 1
            if not self._inside[caller]:
                del self._inside[caller]

    async def _first(self, requests: AsyncIterator[Any]) -> Any:  # noqa: ANN401 - grpc is untyped here
        try:
            async with asyncio.timeout(self._limits.receive_s):
                async for request in requests:
                    return request
        except TimeoutError:
            raise PeerError(f"no request came in {self._limits.receive_s:g} s") from None
        raise PeerError("a call without a request")


async def _as_they_come(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    return requests


async def _until(responses: AsyncIterator[Any], seconds: float | None) -> AsyncIterator[Any]:
    """Yield what is answered in time.

    No deadline is kept while gRPC writes: cancelled there, it would send no status, and the caller
    would wait for ever. A reader that does not read holds a place of its own.
    """
    if seconds is None:  # a link: no timer around each frame
        async for response in responses:
            yield response
        return
    clock_s = asyncio.get_running_loop().time
    until_s = clock_s() + seconds
    while (left_s := until_s - clock_s()) > 0:  # a time-out ends no answer that is at hand at once
        try:
            async with asyncio.timeout(left_s):
                response = await anext(responses)
        except StopAsyncIteration:
            return
        except TimeoutError:
            break
        yield response
    raise UnreachableError(f"it took more than {seconds:g} s")


@asynccontextmanager
async def _within(seconds: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise UnreachableError(f"it took more than {seconds:g} s") from None


def source_of(context: Context) -> str:
    """Name whoever calls by address: the machine, or for IPv6 its network."""
    peer = str(context.peer())
    kind, _, place = peer.partition(":")
    host = place.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    return site_of(host) or peer[:64]


def site_of(host: str) -> str:
    """Name the machine at an IP address, or for IPv6 its network; empty for what is none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{int(address) >> (128 - IPV6_SITE_BITS):x}/{IPV6_SITE_BITS}"
    return str(address)
