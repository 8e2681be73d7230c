"""Answering from the disk of a home whose node is not running.

Invariant: nothing is written to the disk; nobody counts as heard, this home's own node included,
and the answers carry that as their coverage. What is answered was on the disk at one time.
"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from meshnode.app.audit.witnessing import Seen
from meshnode.app.mesh.mesh import Mesh
from meshnode.app.mesh.mesh import Self as Who
from meshnode.app.queries.queries import Queries
from meshnode.client.errors import NoNodeError
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import ExhaustedError, PeerError
from meshnode.core.feeds.heads import NOTHING
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.ledger.folding import is_folded
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.core.ledger.regained import counters_of
from meshnode.core.links.liveness import Liveness
from meshnode.node.clock import SystemClock
from meshnode.node.configuration.pricing import prices_of
from meshnode.node.homes.founding import device_key, read_genesis
from meshnode.node.homes.introducing import introduced_in
from meshnode.node.homes.restoring import Damage, restore
from meshnode.node.presence.last_heard import last_heard
from meshnode.rpc.audit import heads_to_wire, part_to_wire, sought_from_wire
from meshnode.rpc.events import kept_events
from meshnode.rpc.local import find_agents, get_cost, list_nodes, list_sessions, name_member
from meshnode.store import audit, elsewhere, events, folds, heads
from meshnode.store.frozen import read_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.client.home import Home
    from meshnode.store.database import Database

NOBODY = NodeId("")  # the disk is linked to nobody, and is nobody


class OfflineMesh(MeshClient):
    """What a MeshClient can read, answered from a stopped node's database."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.damage: Damage | None = None
        self.left_out = 0  # rows of the ledger that our feed has no room for

    def __enter__(self) -> Self:
        """Read everything; raises UsageError for a home without a mesh, DamagedError.

        Raises ConflictError while others write into the home again and again.
        """
        read_home(self.home.database, self._read, checked=True)
        return self

    def _read(self, database: Database) -> None:
        clock = SystemClock()
        genesis, key = read_genesis(self.home), device_key(self.home)
        mesh = Mesh(genesis, Who(key, boot=1, rng=Random(0)))  # noqa: S311 - rolls nothing
        self.damage = restore(mesh, database, clock.wall_s())
        self.left_out = _publish_what_is_counted(mesh, database)
        mesh.liveness = Liveness(NOBODY)
        mesh.recall(clock.steady_s())
        held = database.run_now(events.load)
        happened = SimpleNamespace(ListEvents=lambda request, **_: kept_events(held, request))
        self.node_events = happened  # type: ignore[assignment] # reads alike
        self.node_audit = _audit_half(self.home, database, mesh)  # type: ignore[assignment] # reads alike
        heard = last_heard(database)
        queries = Queries(mesh, prices_of(self.home), clock, heard_before=heard)
        queries.introduced = introduced_in(database, mesh)
        self.node = _reading_half(queries)  # type: ignore[assignment] # reads alike

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


def _publish_what_is_counted(mesh: Mesh, database: Database) -> int:
    """Let our feed say, here in memory, what `usage` has counted since the node ran, if it has.

    Returns how many rows there is no room for; raises DamagedError, StorageError.
    """
    left_out = 0
    if not database.run_now(elsewhere.is_settled, mesh.genesis.mesh_id):
        return left_out
    horizon = database.run_now(folds.horizon)
    for counter in counters_of(mesh.own.values(LEDGER).items()):
        if is_folded(counter, horizon):  # it was on its way when the node ended
            mesh.own.write(LEDGER, key_to_row(counter), None)
    for key, value in database.run_now(folds.published):
        try:
            mesh.own.write(LEDGER, key_to_row(key), value_to_row(value))
        except ExhaustedError:
            left_out += 1
        except PeerError:  # what no feed takes: the node leaves it out, too
            continue
    while mesh.own.flush(0.0):
        pass
    return left_out


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


def _audit_half(home: Home, database: Database, mesh: Mesh) -> SimpleNamespace:
    """Return what answers about audit logs from the disk: our own, and what proves changes.

    They are too long to be held for whoever may ask: what is asked for is read then.
    """
    tail = database.run_now(audit.tail_of, node_key_of(mesh.self_id))

    def read(request: Any, **_: object) -> Iterator[Any]:  # noqa: ANN401 - as the stub takes it
        if request.node_id not in {"", mesh.self_id}:
            raise NoNodeError(home)
        sought = sought_from_wire(request)
        asked = (audit.newest, sought) if sought.limit else (audit.page, 0, audit.KEPT_MAX)
        kept = read_home(home.database, lambda disk: disk.run_now(*asked), checked=False)
        yield part_to_wire(mesh.self_id, tail.log if tail else 0, kept)

    def list_heads(request: Any, **_: object) -> Any:  # noqa: ANN401 - as the stub takes it
        node = NodeId(request.node_id)
        asked = (heads.of_node, node) if node else (heads.troubles,)
        seen = read_home(home.database, lambda disk: disk.run_now(*asked), checked=False)
        said = mesh.tables.audit_head(node)
        if said is not None:
            seen.append(Seen(*said, 0.0, NOTHING))
        return heads_to_wire(mesh.self_id, seen)

    return SimpleNamespace(ReadAudit=read, ListHeads=list_heads)
