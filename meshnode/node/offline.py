"""Answering from the disk of a home whose node is not running.

Invariant: no row is written; nobody counts as heard, this home's own node included, and the answers
carry that as their coverage.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Self

from meshnode.app.mesh import Mesh
from meshnode.app.mesh import Self as Who
from meshnode.app.queries import Queries
from meshnode.client.mesh import MeshClient
from meshnode.core.ids import NodeId
from meshnode.core.liveness import Liveness
from meshnode.ingest.prices import PriceBook
from meshnode.node.clock import SystemClock
from meshnode.node.founding import device_key, read_genesis
from meshnode.node.restoring import restore
from meshnode.rpc.local import find_agents, get_cost, list_nodes, list_sessions
from meshnode.store.database import Database

if TYPE_CHECKING:
    from meshnode.client.home import Home
    from meshnode.v1 import local_service_pb2 as pb

NOBODY = NodeId("")  # the disk is linked to nobody, and is nobody


class OfflineMesh(MeshClient):
    """What a MeshClient can read, answered from a stopped node's database."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._database: Database | None = None

    def __enter__(self) -> Self:
        """Read everything; raises UsageError for a home without a mesh, DamagedError."""
        clock = SystemClock()
        genesis, key = read_genesis(self.home), device_key(self.home)
        self._database = Database(self.home.database)
        mesh = Mesh(genesis, Who(key, boot=1, rng=Random(0)))  # noqa: S311 - rolls nothing
        restore(mesh, self._database)
        mesh.liveness = Liveness(NOBODY)
        mesh.judge(clock.steady_s())
        self._node = _Stub(Queries(mesh, PriceBook(), clock))  # type: ignore[misc, assignment] # reads alike
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()


class _Stub:
    """The reading half of LocalService, without a wire."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def ListSessions(  # noqa: N802 - named by the proto
        self,
        request: pb.ListSessionsRequest,
        **_: Any,  # noqa: ANN401 - what a call may carry
    ) -> pb.ListSessionsResponse:
        """List sessions."""
        return list_sessions(self._queries, request)

    def ListNodes(self, request: pb.ListNodesRequest, **_: Any) -> pb.ListNodesResponse:  # noqa: ANN401, N802 - named by the proto
        """List members."""
        return list_nodes(self._queries, request)

    def FindAgents(self, request: pb.FindAgentsRequest, **_: Any) -> pb.FindAgentsResponse:  # noqa: ANN401, N802 - named by the proto
        """Answer who has a specialization."""
        return find_agents(self._queries, request)

    def GetCost(self, request: pb.GetCostRequest, **_: Any) -> pb.GetCostResponse:  # noqa: ANN401, N802 - named by the proto
        """Sum the ledgers."""
        return get_cost(self._queries, request)
