"""Answering from the disk of a home whose node is not running.

Invariant: nothing is written to the disk; nobody counts as heard, this home's own node included,
and the answers carry that as their coverage.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from meshnode.app.mesh import Mesh
from meshnode.app.mesh import Self as Who
from meshnode.app.queries import Queries
from meshnode.app.witnessing import Seen
from meshnode.client.errors import NoNodeError
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import ExhaustedError, MeshError, PeerError
from meshnode.core.headers import NOTHING
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.ledger import LEDGER
from meshnode.core.ledger_rows import key_to_row, value_to_row
from meshnode.core.liveness import Liveness
from meshnode.node.clock import SystemClock
from meshnode.node.founding import device_key, read_genesis
from meshnode.node.last_heard import last_heard
from meshnode.node.pricing import prices_of
from meshnode.node.restoring import Damage, restore
from meshnode.rpc.audit import heads_to_wire, part_to_wire, sought_from_wire
from meshnode.rpc.events import kept_events
from meshnode.rpc.local import find_agents, get_cost, list_nodes, list_sessions, name_member
from meshnode.store import audit, events, heads, ledger
from meshnode.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        self._database = Database(self.home.database, frozen=True)
        mesh = Mesh(genesis, Who(key, boot=1, rng=Random(0)))  # noqa: S311 - rolls nothing
        self.damage = restore(mesh, self._database, clock.wall_s())
        _publish_what_is_counted(mesh, self._database)
        mesh.liveness = Liveness(NOBODY)
        mesh.recall(clock.steady_s())
        held = self._database.run_now(events.load)
        happened = SimpleNamespace(ListEvents=lambda request, **_: kept_events(held, request))
        self.node_events = happened  # type: ignore[assignment] # reads alike
        self.node_audit = _audit_half(self._database, mesh)  # type: ignore[assignment] # reads alike
        heard = last_heard(self._database)
        queries = Queries(mesh, prices_of(self.home), clock, heard_before=heard)
        self.node = _reading_half(queries)  # type: ignore[assignment] # reads alike
        return self

    def __exit__(self, *_: object) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()


def _publish_what_is_counted(mesh: Mesh, database: Database) -> None:
    """Let our feed say, here in memory, what `usage` has counted since the node ran, if it has."""
    with suppress(MeshError):
        for key, value in database.run_now(ledger.published):
            with suppress(ExhaustedError, PeerError):  # the node would leave it out, too
                mesh.own.write(LEDGER, key_to_row(key), value_to_row(value))
    while mesh.own.flush(0.0):
        pass


def _reading_half(queries: Queries) -> SimpleNamespace:
    """Return what reads of LocalService there are, without a wire."""

    def answering(answer: Callable[[Queries, Any], Any]) -> Callable[..., Any]:
        return lambda request, **_: answer(queries, request)

    return SimpleNamespace(
        ListSessions=answering(list_sessions),
        ListNodes=answering(list_nodes),
        NameMember=answering(name_member),
        FindAgents=answering(find_agents),
        GetCost=answering(get_cost),
    )


def _audit_half(database: Database, mesh: Mesh) -> SimpleNamespace:
    """Return what answers about audit logs from the disk: our own, and what proves changes."""
    tail = database.run_now(audit.tail_of, node_key_of(mesh.self_id))

    def read(request: Any, **_: object) -> Iterator[Any]:  # noqa: ANN401 - as the stub takes it
        if request.node_id not in {"", mesh.self_id}:
            raise NoNodeError
        sought = sought_from_wire(request)
        kept = (
            database.run_now(audit.newest, sought)
            if sought.limit
            else database.run_now(audit.page, 0, audit.KEPT_MAX)
        )
        yield part_to_wire(mesh.self_id, tail.log if tail else 0, kept)

    def list_heads(request: Any, **_: object) -> Any:  # noqa: ANN401 - as the stub takes it
        node = NodeId(request.node_id)
        seen = database.run_now(heads.of_node, node) if node else database.run_now(heads.troubles)
        said = mesh.tables.audit_head(node)
        if said is not None:
            seen.append(Seen(*said, 0.0, NOTHING))
        return heads_to_wire(mesh.self_id, seen)

    return SimpleNamespace(ReadAudit=read, ListHeads=list_heads)
