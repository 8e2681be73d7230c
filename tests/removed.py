"""What feeds say about entries of the registry, as tests read it: all of it, afresh."""

from meshnode.core.ids import NodeId
from meshnode.core.sessions.registry import REGISTRY, Birth, Place
from meshnode.core.tables.removals import REMOVALS, RemovalsRow
from meshnode.core.tables.tables import Tables


def removals_of(tables: Tables, origin: NodeId) -> list[RemovalsRow]:
    """Return what one node says."""
    replica = tables._replicas.get(origin)
    keys = [] if replica is None else list(replica.rows.tables.get(REMOVALS, ()))
    rows = (tables.removal(origin, key) for key in keys)
    return [row for row in rows if row is not None]


def all_removals(tables: Tables) -> list[RemovalsRow]:
    """Return what all nodes say."""
    return [row for origin in tables.origins() for row in removals_of(tables, origin)]


def adds_of(tables: Tables, origin: NodeId) -> set[tuple[NodeId, Place, Birth]]:
    """Return what one node has entered."""
    replica = tables._replicas.get(origin)
    keys = [] if replica is None else list(replica.rows.tables.get(REGISTRY, ()))
    held = (tables.registration(origin, key) for key in keys)
    return {(origin, one.entry.place, one.birth) for one in held if one is not None}
