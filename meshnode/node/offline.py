"""Answering from the disk of a home whose node is not running.

Invariant: no row is written; nobody counts as heard, this home's own node included, and the answers
carry that as their coverage.
"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
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
from meshnode.node.restoring import Damage, restore
from meshnode.rpc.events import kept_events
from meshnode.rpc.local import find_agents, get_cost, list_nodes, list_sessions
from meshnode.store import events
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.client.home import Home

NOBODY = NodeId("")  # the disk is linked to nobody, and is nobody


class OfflineMesh(MeshClient):
    """What a MeshClient can read, answered from a stopped node's database."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._database: Database | None = None
        self.damage: Damage | None = None

    def __enter__(self) -> Self:
        """Read everything; raises UsageError for a home without a mesh, DamagedError."""
        clock = SystemClock()
        genesis, key = read_genesis(self.home), device_key(self.home)
        self._database = Database(self.home.database)
        mesh = Mesh(genesis, Who(key, boot=1, rng=Random(0)))  # noqa: S311 - rolls nothing
        self.damage = restore(mesh, self._database, clock.wall_s())
        mesh.liveness = Liveness(NOBODY)
        mesh.recall(clock.steady_s())
        held = self._database.run_now(events.load)
        happened = SimpleNamespace(ListEvents=lambda request, **_: kept_events(held, request))
        self.node_events = happened  # type: ignore[assignment] # reads alike
        self.node = _reading_half(Queries(mesh, PriceBook(), clock))  # type: ignore[assignment] # reads alike
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()


def _reading_half(queries: Queries) -> SimpleNamespace:
    """Return what reads of LocalService there are, without a wire."""

    def answering(answer: Callable[[Queries, Any], Any]) -> Callable[..., Any]:
        return lambda request, **_: answer(queries, request)

    return SimpleNamespace(
        ListSessions=answering(list_sessions),
        ListNodes=answering(list_nodes),
        FindAgents=answering(find_agents),
        GetCost=answering(get_cost),
    )
