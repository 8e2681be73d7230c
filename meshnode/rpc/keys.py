"""What a node answers its own user about keys: what they are worth, and what hangs on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import NodeId
from meshnode.v1 import key_service_pb2 as pb
from meshnode.v1 import key_service_pb2_grpc as pb_grpc
from meshnode.wire.signed import signed_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from meshnode.app.commands.keys import Keys
    from meshnode.rpc.guard import Context

CHAINS_MAX = 256  # in one request; more: UsageError


class KeyServicer(pb_grpc.KeyServiceServicer):
    """Answers over the Unix socket; nothing here is a secret, and nothing changes."""

    def __init__(self, keys: Keys, wall_s: Callable[[], float]) -> None:
        self._keys = keys
        self._wall_s = wall_s

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_KeyServiceServicer_to_server(self, server)

    async def JudgeKeys(  # noqa: N802 - named by the proto
        self, request: pb.JudgeKeysRequest, context: Context
    ) -> pb.JudgeKeysResponse:
        """Say what each key is worth."""
        del context
        if len(request.chains) > CHAINS_MAX:
            raise UsageError(f"at most {CHAINS_MAX} keys are judged at once")
        return pb.JudgeKeysResponse(verdicts=map(self._judge, request.chains))

    async def ReadAdmission(  # noqa: N802 - named by the proto
        self, request: pb.ReadAdmissionRequest, context: Context
    ) -> pb.ReadAdmissionResponse:
        """Say what hangs on a node."""
        del context
        try:
            found = self._keys.admission(NodeId(request.node_id))
        except PeerError as error:
            raise UsageError(error.message) from error
        return pb.ReadAdmissionResponse(
            admits=found.admits, node_ids=found.nodes, operator_keys=found.operators
        )

    def _judge(self, chain: pb.GrantChain) -> pb.KeyVerdict:
        try:
            grants = [signed_from_wire(one) for one in chain.grants]
        except PeerError as error:
            return pb.KeyVerdict(state="worthless", detail=error.message)
        verdict = self._keys.judge(grants, self._wall_s())
        return pb.KeyVerdict(state=verdict.state, detail=verdict.detail, role=verdict.role)
