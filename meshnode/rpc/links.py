"""Links over gRPC: one stream a pair of neighbours, whoever dialled it.

Invariant: at any time a peer has at most one link here. When two nodes dial each other at once, the
stream that the lower node id dialled stays, at both ends alike; when one dials again, or has
started anew, its newer stream replaces the older one. A link that was let go is gone at once; its
stream ends in good order if the peer still reads: a dialled one is cut off after LAST_WORDS_S, an
accepted one, which gRPC cannot cut off, ends with its connection. What waited for a peer that we
part from is written before, for PARTING_S at most.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from time import thread_time
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from meshnode.app.mesh.outbox import Outbox
from meshnode.core.errors import PeerError
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.messages import Farewell
from meshnode.rpc.dialling import TOO_OFTEN, DialPace, Failures, Patience
from meshnode.rpc.errors import reason_of_dial, reason_of_end
from meshnode.rpc.guard import Context, peer_of
from meshnode.rpc.share import Shares, worked_s
from meshnode.v1 import link_service_pb2 as pb
from meshnode.v1 import link_service_pb2_grpc as pb_grpc
from meshnode.wire.links import (
    FRAME_BYTES_MAX,
    Introduction,
    introduction_from_wire,
    introduction_to_wire,
    message_from_wire,
    message_to_wire,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.messages import Known, Message
    from meshnode.core.ids import NodeId
    from meshnode.rpc.tls import Identity

TOGETHER_MAX = 64  # frames that waited together travel as one message of the stream,
TOGETHER_BYTES_MAX = 256 << 10  # until they are so large together
INTRODUCTION_TIMEOUT_S = 16.0  # of a caller who has proved to be a member, on a narrow link
PARTING_S = 0.5  # for what waits at a parting; less than LAST_WORDS_S, to leave time for a farewell
LAST_WORDS_S = 1.0  # for a farewell to a peer that we dialled; one that does not read is cut off


class LinkEvents(Protocol):
    """Whoever decides what links are for."""

    def linked(self, peer: NodeId, *, dialled: bool) -> None:
        """A link works."""

    def unlinked(self, peer: NodeId, reason: str) -> None:
        """A link has ended."""

    def dial_failed(self, peer: NodeId, reason: str, *, stalled: bool) -> None:
        """A member could not be reached; `stalled` if its machine took the connection."""

    def learned(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """A peer said where it listens."""

    def received(self, peer: NodeId, message: Message | Known) -> None:
        """A message came."""

    def holds(self, header: Header) -> bool:
        """Whether news with this header would tell nothing new."""

    def refused(self, peer: NodeId, reason: str) -> None:
        """A frame broke the protocol."""

    def caught_up(self, peer: NodeId) -> None:
        """The outbox of a link is empty again after it overflowed."""


@dataclass(eq=False)
class Link:
    """One working stream."""

    peer: NodeId
    dialler: NodeId
    boot: int  # of the peer
    outbox: Outbox = field(default_factory=Outbox)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    encode: Callable[[Message], pb.Frame] = message_to_wire
    reason: str = "reset"
    _filled: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, message: Message) -> None:
        """Queue a message; never waits."""
        self.outbox.put(message)
        self._filled.set()

    async def next(self) -> list[pb.Frame]:
        """Take what waits, at least one frame, as far as it travels together; none once closed."""
        while (message := self.outbox.pop()) is None and not self.outbox.closed:
            self._filled.clear()
            await self._filled.wait()
        frames: list[pb.Frame] = []
        room = TOGETHER_BYTES_MAX
        while message is not None:
            frames.append(self.encode(message))
            room -= frames[-1].ByteSize()
            message = self.outbox.pop() if room > 0 and len(frames) < TOGETHER_MAX else None
        return frames

    def part(self, reason: str) -> None:
        """End the stream from this side once what waits is written, or PARTING_S are over."""
        self.outbox.part(Farewell(reason))
        self._end(reason)
        asyncio.get_running_loop().call_later(PARTING_S, self.outbox.close)

    def close(self, reason: str) -> None:
        """End the stream from this side, whatever else waits."""
        self.outbox.close()
        self._end(reason)

    def _end(self, reason: str) -> None:
        self.reason = reason
        self._filled.set()
        self.closed.set()


class OnceEncoded:
    """Encodes a flush once for all links: their writers take the same one after the other."""

    def __init__(self) -> None:
        self._last: Message | None = None
        self._frame = pb.Frame()

    def __call__(self, message: Message) -> pb.Frame:
        """Return the frame of a message, which nobody changes."""
        if not isinstance(message, Flush):
            return message_to_wire(message)
        if message is not self._last:
            self._last, self._frame = message, message_to_wire(message)
        return self._frame


class Links:
    """All links of one node."""

    def __init__(
        self,
        self_id: NodeId,
        mesh_id: str,
        introduction: Introduction,
        events: LinkEvents,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._self_id = self_id
        self._mesh_id = mesh_id
        self.introduction = introduction
        self._events = events
        self._spawn = spawn
        self.refusal: Callable[[NodeId, tuple[bytes, ...]], str] = _nobody_is_refused
        self.accepts: Callable[[str], Awaitable[bool]] = _nobody_accepts
        self._links: dict[NodeId, Link] = {}
        self._encode = OnceEncoded()
        self._shares = Shares()
        self._dial_pace = DialPace()
        self._failures = Failures()
        self._patience = Patience()
        self._is_silent = False

    def send(self, peer: NodeId, message: Message) -> None:
        """Queue a message for a peer; without a link nothing happens."""
        link = self._links.get(peer)
        if link is not None:
            link.put(message)

    def hang_up(self, peer: NodeId, reason: str, *, parting: bool = False) -> None:
        """End the link with a peer, telling it why if it can still be told.

        When `parting`, what waits for it is told before.
        """
        link = self._links.get(peer)
        if link is None:
            return
        if parting:
            link.part(reason)
            self._forget(link, reason)
        else:
            link.put(Farewell(reason))
            self._drop(link, reason)

    def close(self) -> None:
        """End all links."""
        for link in list(self._links.values()):
            link.put(Farewell("going down"))
            self._drop(link, "closed")

    def fall_silent(self, reason: str) -> None:
        """End all links, and dial nobody any more."""
        self._is_silent = True
        for peer in list(self._links):
            self.hang_up(peer, reason)

    def dial(self, peer: NodeId, addresses: tuple[str, ...], identity: Identity) -> None:
        """Try a member's addresses one after the other, in the background."""
        if not self._is_silent:
            self._spawn(self._dial(peer, addresses, identity))

    async def _dial(self, peer: NodeId, addresses: tuple[str, ...], identity: Identity) -> None:
        reasons: list[str] = []
        stalled, first = False, True
        for address in self._due(self._failures.ordered(peer, addresses), reasons):
            if peer in self._links:
                return
            timeout_s = self._patience.of(peer, address, first=first)
            try:
                async with identity.channel(peer, address) as channel:
                    await self._run_dialled(peer, channel, timeout_s)
            except TimeoutError:
                reasons.append(f"{address}: no answer in {timeout_s:g} s")
                stalled |= (is_taken := await self.accepts(address))
                self._patience.given_up(peer, address, stalled=is_taken)
            except Exception as error:  # noqa: BLE001 - untold, this peer were never dialled again
                reasons.append(f"{address}: {reason_of_dial(error)}")
            else:  # the link worked, and has ended
                self._failures.answered(peer, address)
                return
            self._failures.failed(peer, address)
            first = False
        if peer not in self._links:
            reason = "; ".join(reasons) or "no address is known"
            self._events.dial_failed(peer, reason, stalled=stalled)

    def _due(self, addresses: list[str], reasons: list[str]) -> Iterator[str]:
        """Yield the addresses that may be dialled now; of the others, the reasons say why not."""
        for address in addresses:
            if self._dial_pace.allows(address, asyncio.get_running_loop().time()):
                yield address
            else:
                reasons.append(f"{address} {TOO_OFTEN}")

    async def _run_dialled(self, peer: NodeId, channel: grpc.aio.Channel, timeout_s: float) -> None:
        call = pb_grpc.LinkServiceStub(channel).Link()
        responses = _responses(call)
        async with asyncio.timeout(timeout_s):
            with suppress(asyncio.InvalidStateError):  # it has ended already: reading tells why
                await call.write(pb.LinkRequest(frame=introduction_to_wire(self.introduction)))
            response = await anext(responses, None)
        if response is None:
            raise PeerError(reason_of_end(await call.code(), await call.details()))
        introduction = introduction_from_wire(response.frame)
        link = self._open(peer, introduction, dialler=self._self_id)
        if link is None:
            call.cancel()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                halves = {
                    tasks.create_task(self._read(link, responses)),
                    tasks.create_task(self._write(link, call)),
                }
                await link.closed.wait()
                await asyncio.wait(halves, timeout=LAST_WORDS_S)
                call.cancel()  # ends whichever half still waits for the peer
        finally:
            call.cancel()
            self._drop(link, link.reason)

    async def _write(self, link: Link, call: Any) -> None:  # noqa: ANN401 - not generic
        try:
            while frames := await link.next():
                await call.write(pb.LinkRequest(frame=frames[0], more=frames[1:]))
                self._check_overflow(link)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream broke: the link says so below
        finally:
            self._drop(link, link.reason)

    async def serve(
        self, peer: NodeId, frames: AsyncIterator[pb.LinkRequest]
    ) -> AsyncIterator[pb.LinkResponse]:
        """Speak with a node that dialled us, until either end lets go."""
        try:
            async with asyncio.timeout(INTRODUCTION_TIMEOUT_S):
                first = await anext(frames, None)
        except TimeoutError:
            raise PeerError(f"no introduction came in {INTRODUCTION_TIMEOUT_S:g} s") from None
        if first is None:
            return
        introduction = introduction_from_wire(first.frame)
        yield pb.LinkResponse(frame=introduction_to_wire(self.introduction))
        link = self._open(peer, introduction, dialler=peer)
        if link is None:
            return
        self._spawn(self._read(link, frames))
        try:
            while waiting := await link.next():
                yield pb.LinkResponse(frame=waiting[0], more=waiting[1:])
                self._check_overflow(link)
        finally:
            self._drop(link, link.reason)

    def _open(self, peer: NodeId, introduction: Introduction, dialler: NodeId) -> Link | None:
        reason = "" if dialler == peer else self.refusal(peer, introduction.certificates)
        if reason:  # callers have shown their chain to the guard
            raise PeerError(reason)
        if self._is_silent:  # since this dial began
            return None
        present = self._links.get(peer)
        if present is not None:
            if present.boot == introduction.boot and present.dialler < dialler:
                return None
            self._drop(present, "replaced")
        self._patience.linked(peer)
        link = self._links[peer] = Link(peer, dialler, introduction.boot, encode=self._encode)
        self._events.learned(peer, introduction.addresses)
        self._events.linked(peer, dialled=dialler == self._self_id)
        return link

    def _drop(self, link: Link, reason: str) -> None:
        link.close(reason)
        self._forget(link, reason)

    def _forget(self, link: Link, reason: str) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._events.unlinked(link.peer, reason)

    async def _read(
        self, link: Link, frames: AsyncIterator[pb.LinkRequest] | AsyncIterator[pb.LinkResponse]
    ) -> None:
        try:
            clock_s = asyncio.get_running_loop().time
            async for request in frames:
                if len(request.more) >= TOGETHER_MAX:
                    raise PeerError(f"more than {TOGETHER_MAX} frames together")
                for frame in (request.frame, *request.more):
                    began_s, began_cpu_s = clock_s(), thread_time()
                    self._take(link, frame)
                    now_s = clock_s()
                    took_s = worked_s(now_s - began_s, thread_time() - began_cpu_s)
                    if self._shares.charge(link.peer, took_s, now_s):
                        await self._shares.give_way(link.peer)
        except PeerError as error:
            self._events.refused(link.peer, error.message)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            pass  # the stream broke: the link says so below
        finally:
            self._drop(link, link.reason)

    def _take(self, link: Link, frame: pb.Frame) -> None:
        if self._links.get(link.peer) is not link:
            return
        try:
            if frame.ByteSize() > FRAME_BYTES_MAX:
                raise PeerError(f"a frame of more than {FRAME_BYTES_MAX} bytes")
            message = message_from_wire(frame, self._mesh_id, self._events.holds)
        except PeerError as error:
            self._events.refused(link.peer, error.message)
            return
        if message is not None:
            self._events.received(link.peer, message)

    def _check_overflow(self, link: Link) -> None:
        if link.outbox.emptied_after_overflow():
            self._events.caught_up(link.peer)


class LinkServicer(pb_grpc.LinkServiceServicer):
    """Answers neighbours."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def Link(  # noqa: N802 - named by the proto
        self, request_iterator: AsyncIterator[pb.LinkRequest], context: Context
    ) -> AsyncIterator[pb.LinkResponse]:
        """Open the stream of a pair of neighbours."""
        return self._links.serve(peer_of(context), request_iterator)


def _nobody_is_refused(_peer: NodeId, _certificates: tuple[bytes, ...]) -> str:
    return ""


async def _nobody_accepts(_address: str) -> bool:
    return False


async def _responses(call: Any) -> AsyncIterator[pb.LinkResponse]:  # noqa: ANN401 - not generic
    while (response := await call.read()) is not grpc.aio.EOF:
        if response is None:  # what gRPC's client makes of bytes that it cannot decode
            raise PeerError("bytes that are no frame")
        yield response
