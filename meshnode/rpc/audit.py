"""Audit logs over gRPC: one's own to one's user, to other members for a signed request only.

Invariant: what was seen of others' logs is for every member, since all of it is replicated; the
records are not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from meshnode.app.ports import Sought
from meshnode.core.commands.envelopes import PIECE_BYTES_MAX
from meshnode.core.errors import MeshError, NotPermittedError, PeerError, UsageError
from meshnode.core.ids import NodeId, node_key_of
from meshnode.rpc.commands import READ_LOG_TIMEOUT_S, Courier, UndialledError, patience_s
from meshnode.rpc.guard import Context, peer_of
from meshnode.v1 import audit_service_pb2 as pb
from meshnode.v1 import audit_service_pb2_grpc as pb_grpc
from meshnode.wire.signed import signed_from_wire, signed_to_wire
from meshnode.wire.times import time_from_wire, time_to_wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    import grpc.aio

    from meshnode.app.audit.witnessing import Seen
    from meshnode.app.ports import AuditBook
    from meshnode.core.commands.audit import Kept

READ_TIMEOUT_S = 120.0  # of another node's whole log
HEADS_TIMEOUT_S = 3.0  # for all neighbours together; who is later was not heard
ASKED_MAX = 8  # neighbours that are asked what they have seen
LIMIT_MAX = 10_000  # records that are selected; a whole log comes in parts
WORDS_MAX = 64  # kinds asked for
SOUGHT = (
    "since",
    "session",
    "kinds",
    "limit",
)  # of a request, and in the command that goes with it
PART_BYTES, ENTRY_BYTES = 128, 8  # at most, beside records; beside one


class AuditCourier(Courier):
    """Asks other nodes about logs, over channels that are opened for that."""

    async def read_audit(
        self, owner: NodeId, request: pb.ReadAuditRequest
    ) -> AsyncIterator[pb.ReadAuditResponse]:
        """Stream another node's log, over the links of others if need be.

        Raises what it says, or UnreachableError.
        """
        command = signed_from_wire(request.command)
        otherwise = self._over_links.has_path(owner)
        try:
            async with self._reach(owner, patience_s(otherwise=otherwise)) as channel:
                stub = pb_grpc.AuditServiceStub(channel)
                async for response in stub.ReadAudit(request, timeout=READ_TIMEOUT_S):
                    yield response
        except UndialledError:
            if not otherwise:
                raise
            async for piece in self._over_links.read(owner, command, READ_LOG_TIMEOUT_S):
                yield _part_of(piece)

    async def list_heads(self, peer: NodeId, node_id: str) -> list[pb.SeenHead] | None:
        """Ask a neighbour what it has seen of a node's log; None if it does not say in time."""
        request = pb.ListHeadsRequest(node_id=node_id)
        try:
            async with (
                asyncio.timeout(HEADS_TIMEOUT_S),
                self._reach(peer) as channel,
            ):
                answer = await pb_grpc.AuditServiceStub(channel).ListHeads(request)
        except (MeshError, TimeoutError):
            return None
        for one in answer.heads:
            one.seen_by = peer  # whatever it says: TLS has proved who it is
        return list(answer.heads)


class AuditServicer(pb_grpc.AuditServiceServicer):
    """Answers about logs; with a courier on the socket, without one between members."""

    def __init__(self, book: AuditBook, courier: AuditCourier | None = None) -> None:
        self._book = book
        self._courier = courier

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_AuditServiceServicer_to_server(self, server)

    async def ReadAudit(  # noqa: N802 - named by the proto
        self, request: pb.ReadAuditRequest, context: Context
    ) -> AsyncIterator[pb.ReadAuditResponse]:
        """Stream records."""
        sought = sought_from_wire(request)
        command = None
        if self._courier is None:
            command = self._book.judge(signed_from_wire(request.command), peer_of(context))
        elif request.node_id not in {"", self._book.self_id}:
            node_key_of(request.node_id)
            async for response in self._courier.read_audit(NodeId(request.node_id), request):
                yield response
            return
        async for log, kept in self._book.pages(sought):
            if command is not None:
                self._book.check_revocations(command)
            yield part_to_wire(self._book.self_id, log, kept)

    async def ListHeads(  # noqa: N802 - named by the proto
        self, request: pb.ListHeadsRequest, context: Context
    ) -> pb.ListHeadsResponse:
        """Answer what was seen of one log, or what proves that any was changed."""
        del context
        if request.node_id:
            node_key_of(request.node_id)
        seen = await self._book.heads(request.node_id)
        answer = heads_to_wire(self._book.self_id, seen)
        if self._courier is not None and request.neighbours:
            asked = [peer for peer in self._book.neighbours() if peer != request.node_id]
            asks = (self._courier.list_heads(p, request.node_id) for p in asked[:ASKED_MAX])
            said = await asyncio.gather(*asks)
            answer.asked, answer.heard = len(said), sum(one is not None for one in said)
            for heads in said:
                answer.heads.extend(heads or ())
        return answer

    async def AcceptLog(  # noqa: N802 - named by the proto
        self, request: pb.AcceptLogRequest, context: Context
    ) -> pb.AcceptLogResponse:
        """Take another node's log as it is now."""
        del context
        if self._courier is None:
            raise NotPermittedError("what a node has seen is forgotten by its own user only")
        node_key_of(request.node_id)
        return pb.AcceptLogResponse(forgotten=await self._book.accept(NodeId(request.node_id)))


def sought_from_wire(request: pb.ReadAuditRequest) -> Sought:
    """Decode which records; raises UsageError."""
    if request.limit > LIMIT_MAX or len(request.kinds) > WORDS_MAX:
        raise UsageError(f"at most {LIMIT_MAX} records, of at most {WORDS_MAX} kinds")
    since_s = time_from_wire(request.since) if request.HasField("since") else 0.0
    return Sought(int(since_s * 1000), request.session, tuple(request.kinds), request.limit)


def sought_in(args: Mapping[str, Any]) -> Sought:
    """Decode which records a command itself asks for, as one over links does; raises UsageError."""
    try:
        said: dict[str, Any] = {name: args.get(name) for name in SOUGHT}
        request = pb.ReadAuditRequest(**said)
    except (TypeError, ValueError) as error:
        raise UsageError(f"not a choice of records: {error}") from error
    return sought_from_wire(request)


def pieces_of(node: NodeId, pages: Iterable[tuple[int, list[Kept]]]) -> Iterator[bytes]:
    """Encode parts of a log, each small enough to travel over links, one at least a page."""
    for log, kept in pages:
        whole = part_to_wire(node, log, kept)
        part, taken = part_to_wire(node, log, []), PART_BYTES
        for entry in whole.records:
            more = entry.ByteSize() + ENTRY_BYTES
            if taken + more > PIECE_BYTES_MAX:
                yield part.SerializeToString()
                part, taken = part_to_wire(node, log, []), PART_BYTES
            part.records.append(entry)
            taken += more
        yield part.SerializeToString()


def _part_of(piece: bytes) -> pb.ReadAuditResponse:
    try:
        return pb.ReadAuditResponse.FromString(piece)
    except DecodeError as error:
        raise PeerError("the owner sent what is no part of a log") from error


def part_to_wire(node: NodeId, log: int, kept: list[Kept]) -> pb.ReadAuditResponse:
    """Encode a part of a log; a record that makes no sense has no bytes."""
    records = [
        pb.AuditEntry(
            seq=max(one.seq, 0),
            record=b"" if one.record is None else one.record.to_bytes(),
            hash=one.hash,
        )
        for one in kept
    ]
    return pb.ReadAuditResponse(node_id=node, log=log, records=records)


def heads_to_wire(seen_by: NodeId, seen: list[Seen]) -> pb.ListHeadsResponse:
    """Encode what was seen."""
    heads = [
        pb.SeenHead(
            head=signed_to_wire(one.signed),
            seen_by=seen_by,
            seen_at=time_to_wire(one.seen_s),
            trouble=one.trouble,
        )
        for one in seen
    ]
    return pb.ListHeadsResponse(heads=heads)
