"""Signed commands over gRPC: what an owner node serves, and how others bring them to it."""

from __future__ import annotations

import asyncio
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import grpc
import grpc.aio
import msgspec

from meshnode.app.sessions.readings import LATER_S
from meshnode.core.errors import NoAnswerError, UnreachableError, UsageError
from meshnode.rpc.errors import error_from
from meshnode.rpc.guard import Context, peer_of
from meshnode.v1 import command_service_pb2 as pb
from meshnode.v1 import command_service_pb2_grpc as pb_grpc
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from meshnode.app.commands.commands import CommandDesk
    from meshnode.core.commands.commands import Command
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.rpc.tls import Identity

    _ReadCall = grpc.aio.UnaryStreamCall[pb.ReadLogRequest, pb.ReadLogResponse]

TIMEOUT_S_MAX = 120.0
TIMEOUT_S = 10.0  # for a command whose sender names none
RACED_TIMEOUT_S = 0.5  # the same, where the command can go over links instead
DIAL_TIMEOUT_S = 3.0  # per address, so that a dead one does not use up the caller's time
ALIVE_S = 5.0  # from one piece to an empty one that says no more than that its owner lives
READ_LOG_TIMEOUT_S = 60.0  # for the next piece; who reads may take as long as they like between two


class CommandServicer(pb_grpc.CommandServiceServicer):
    """Takes commands from other nodes for what this node owns."""

    def __init__(self, desk: CommandDesk, read: Callable[[Command], Iterator[bytes]]) -> None:
        self._desk = desk
        self._read = read

    async def Submit(  # noqa: N802 - named by the proto
        self, request: pb.SubmitRequest, context: Context
    ) -> pb.SubmitResponse:
        """Verify, execute at most once, and answer with a receipt."""
        command = signed_from_wire(request.command)
        receipt = await self._desk.submit(
            command, peer_of(context), until_accepted=request.until_accepted
        )
        return pb.SubmitResponse(receipt=signed_to_wire(receipt))

    async def ReadLog(  # noqa: N802 - named by the proto
        self, request: pb.ReadLogRequest, context: Context
    ) -> AsyncIterator[pb.ReadLogResponse]:
        """Stream the output of a session."""
        async for output in self.read(signed_from_wire(request.command), peer_of(context)):
            yield pb.ReadLogResponse(output=output)  # an empty one, too: it says that we live

    async def read(self, signed: Signed, via: str) -> AsyncIterator[bytes]:
        """Check that the signer may read, then read off the event loop, piece by piece.

        Reading may take as long as the reader does: it ends when what it stands on is revoked.
        A piece is empty where an agent whose output is followed has said nothing for ALIVE_S.
        """
        command = self._desk.judge_reading(signed, via)
        lines = self._read(command)
        loop = asyncio.get_running_loop()
        due_s = loop.time() + ALIVE_S
        while (piece := await asyncio.to_thread(next, lines, None)) is not None:
            self._desk.check_revocations(command)
            if piece or loop.time() >= due_s:
                yield piece
                due_s = loop.time() + ALIVE_S
            else:
                await asyncio.sleep(LATER_S)


class OverLinks(Protocol):
    """The way to nodes that cannot be dialled (app/commands/relaying.py)."""

    def is_linked(self, owner: NodeId) -> bool:
        """Whether there is a link with this node."""

    def has_path(self, owner: NodeId) -> bool:
        """Whether links lead to this node."""

    async def submit(
        self, owner: NodeId, command: Signed, *, until_accepted: bool = False
    ) -> Signed:
        """Deliver a command; returns the receipt, raises what the owner said."""

    def read(self, owner: NodeId, command: Signed, timeout_s: float) -> AsyncIterator[bytes]:
        """Read a session's output, piece by piece, waiting so long at most for each."""


class UndialledError(UnreachableError):
    """No address of the node answered. Nothing changed."""


class _Sending(msgspec.Struct):
    """A command on its way, and whether it may have left this node."""

    command: Signed
    timeout_s: float
    until_accepted: bool
    is_sent: bool = False


class Courier:
    """Brings commands to their owner nodes, over channels that are opened for them."""

    def __init__(
        self,
        identity: Identity,
        addresses_of: Callable[[NodeId], tuple[str, ...]],
        described: Callable[[NodeId], str],
        over_links: OverLinks,
    ) -> None:
        self._identity = identity
        self._addresses_of = addresses_of
        self._described = described
        self._over_links = over_links

    async def submit(
        self, owner: NodeId, command: Signed, timeout_s: float, *, until_accepted: bool = False
    ) -> Signed:
        """Deliver a command; returns the receipt, raises what the owner said.

        Raises UnreachableError if it was certainly not sent, NoAnswerError if it may have been.
        """
        sending = _Sending(command, min(max(timeout_s, 0.1), TIMEOUT_S_MAX), until_accepted)
        try:
            async with asyncio.timeout(sending.timeout_s):
                if self._over_links.is_linked(owner):
                    return await self._send_over_links(owner, sending)
                return await self._submit(owner, sending)
        except TimeoutError:
            kind = NoAnswerError if sending.is_sent else UnreachableError
            raise kind(
                f"{self._described(owner)} did not answer in {sending.timeout_s:g} s",
                "the same --command-id may be sent again safely",
            ) from None

    async def _send_over_links(self, owner: NodeId, sending: _Sending) -> Signed:
        sending.is_sent = True
        return await self._over_links.submit(
            owner, sending.command, until_accepted=sending.until_accepted
        )

    async def _submit(self, owner: NodeId, sending: _Sending) -> Signed:
        """Dial the owner; one that cannot be dialled is reached over the links of others."""
        request = pb.SubmitRequest(
            command=signed_to_wire(sending.command), until_accepted=sending.until_accepted
        )
        otherwise = self._over_links.has_path(owner)
        try:
            async with self._reach(owner, patience_s(otherwise=otherwise)) as channel:
                stub = pb_grpc.CommandServiceStub(channel)
                sending.is_sent = True
                response = await stub.Submit(request, timeout=sending.timeout_s)
        except UndialledError:
            if not otherwise:
                raise
            return await self._send_over_links(owner, sending)
        return signed_from_wire(response.receipt)

    async def read_log(self, owner: NodeId, command: Signed) -> AsyncIterator[bytes]:
        """Stream a session's output from its owner; over the links of others if need be."""
        request = pb.ReadLogRequest(command=signed_to_wire(command))
        otherwise = self._over_links.has_path(owner)
        try:
            async with self._reach(owner, patience_s(otherwise=otherwise)) as channel:
                stub = pb_grpc.CommandServiceStub(channel)
                call = stub.ReadLog(request)
                while response := await self._next_piece(owner, call):
                    if response.output:
                        yield response.output
        except UndialledError:
            if not otherwise:
                raise
            async for output in self._over_links.read(owner, command, READ_LOG_TIMEOUT_S):
                yield output

    async def _next_piece(self, owner: NodeId, call: _ReadCall) -> pb.ReadLogResponse | None:
        try:
            async with asyncio.timeout(READ_LOG_TIMEOUT_S):
                response = await call.read()
        except TimeoutError:
            raise NoAnswerError(f"{self._described(owner)} did not answer in time") from None
        return response if isinstance(response, pb.ReadLogResponse) else None

    def _reach(self, owner: NodeId, patience_s: float = DIAL_TIMEOUT_S) -> _Reached:
        addresses, described = self._addresses_of(owner), self._described(owner)
        return _Reached(self._identity, owner, addresses, described, patience_s)


class Bringer:
    """Brings a command to its owner, be that this node or another; every front end's way out."""

    def __init__(self, self_id: NodeId, desk: CommandDesk, courier: Courier) -> None:
        self._self_id = self_id
        self._desk = desk
        self._courier = courier

    async def submit(
        self, owner: NodeId, command: Signed, timeout_s: float, *, until_accepted: bool = False
    ) -> Signed:
        """Return the owner's receipt; raises what it said, or why it could not be asked."""
        if not isfinite(timeout_s):
            raise UsageError("timeout_s is a number of seconds", f"0 is {TIMEOUT_S:g}")
        if owner == self._self_id:
            return await self._desk.submit(command, owner, until_accepted=until_accepted)
        return await self._courier.submit(
            owner, command, timeout_s or TIMEOUT_S, until_accepted=until_accepted
        )


def patience_s(*, otherwise: bool) -> float:
    """Return how long to dial an address, given whether there is another way."""
    return RACED_TIMEOUT_S if otherwise else DIAL_TIMEOUT_S


class _Reached:
    """A channel to the first address of a node that answers, and its failures as sentences."""

    def __init__(
        self,
        identity: Identity,
        owner: NodeId,
        addresses: tuple[str, ...],
        described: str,
        patience_s: float,
    ) -> None:
        self._identity = identity
        self._owner = owner
        self._patience_s = patience_s
        self._addresses = addresses
        self._described = described
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> grpc.aio.Channel:
        for address in self._addresses:
            channel = self._identity.channel(self._owner, address)
            if await _connects(channel, self._patience_s):
                self._channel = channel
                return channel
            await channel.close()
        tried = ", ".join(self._addresses) or "no address is known"
        raise UndialledError(
            f"{self._described} cannot be reached ({tried})",
            "session-mesh nodes shows who is alive",
        )

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if self._channel is not None:
            await self._channel.close()
        if isinstance(error, grpc.aio.AioRpcError):
            said = error_from(error, self._described)
            if type(said) is UnreachableError:  # it was connected: the request may have arrived
                said = NoAnswerError(said.message, said.hint)
            raise said from error


async def _connects(channel: grpc.aio.Channel, patience_s: float) -> bool:
    """Wait for a connection, and no longer than for its first failure."""
    try:
        async with asyncio.timeout(patience_s):
            state = channel.get_state(try_to_connect=True)
            while state in {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING}:
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY
