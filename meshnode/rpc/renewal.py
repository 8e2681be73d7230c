"""Renewal over gRPC: an admitter answers whom TLS has proved, a member checks what it gets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio

from meshnode.core.errors import UnreachableError
from meshnode.rpc.errors import error_from
from meshnode.rpc.guard import Context, peer_of
from meshnode.v1 import renewal_service_pb2 as pb
from meshnode.v1 import renewal_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.app.membership.renewal import RenewalDesk
    from meshnode.core.ids import NodeId
    from meshnode.rpc.tls import Identity

RENEW_S = 5.0  # for one address


class RenewalServicer(pb_grpc.RenewalServiceServicer):
    """Answers members."""

    def __init__(self, desk: RenewalDesk) -> None:
        self._desk = desk

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_RenewalServiceServicer_to_server(self, server)

    async def Renew(  # noqa: N802 - named by the proto
        self, request: pb.RenewRequest, context: Context
    ) -> pb.RenewResponse:
        """Issue a certificate for the caller."""
        del request
        return pb.RenewResponse(certificates=self._desk.renew(peer_of(context)))


async def ask_to_renew(
    identity: Identity, admitter: NodeId, addresses: Iterable[str]
) -> tuple[bytes, ...]:
    """Ask a node that admits at its addresses; returns what it issued, unchecked.

    Raises UnreachableError, or the MeshError that it answered with.
    """
    reasons = []
    for address in addresses:
        try:
            async with asyncio.timeout(RENEW_S), identity.channel(admitter, address) as channel:
                answer = await pb_grpc.RenewalServiceStub(channel).Renew(pb.RenewRequest())
        except grpc.aio.AioRpcError as failure:
            error = error_from(failure, address)
            if not isinstance(error, UnreachableError):
                raise error from failure
            reasons.append(error.message)
        except TimeoutError:
            reasons.append(f"{address} did not answer in {RENEW_S:g} s")
        else:
            return tuple(answer.certificates)
    raise UnreachableError("; ".join(reasons) or "no address of it is known")
