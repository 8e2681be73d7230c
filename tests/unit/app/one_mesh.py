"""A node that is alone in its mesh, and a disk that is done as soon as it is asked."""

from random import Random

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.effects import Effect, Persist, Wake
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, node_id_of, short_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)

chance = Random(16).randbytes
KEY = Key.new(chance)
GENESIS = Genesis((KEY.public,), 1, "test", bytes(16))
PEER_KEYS = [Key.new(chance) for _ in range(30)]
PEERS = [node_id_of(key.public) for key in PEER_KEYS]


def founded() -> Mesh:
    """Return a node that has begun, alone."""
    made = Mesh(GENESIS, Self(KEY, 1, Random(1)))
    made.write(NODE, ONLY_ROW, node_to_row(NodeRecord("me")), 0.0)
    made.start(0.0)
    synced(made, made.woken("flush", 0.0), 0.0)
    made.woken("liveness", 0.1)
    return made


def synced(mesh: Mesh, effects: list[Effect], now_s: float) -> list[Effect]:
    """Let the disk finish whatever was given to it."""
    for effect in effects:
        if isinstance(effect, Persist) and effect.ours:
            return synced(mesh, mesh.persisted(effect.change, now_s), now_s)
    return effects


def flushed(mesh: Mesh, now_s: float) -> None:
    synced(mesh, mesh.woken("flush", now_s), now_s)


def own_links(mesh: Mesh) -> LinksRecord:
    record = mesh.tables.links(mesh.self_id)
    assert record is not None
    return record


def wakes(effects: list[Effect]) -> dict[str, float]:
    return {effect.name: effect.at_s for effect in effects if isinstance(effect, Wake)}


def hear_of(mesh: Mesh, number: int, now_s: float, *, linked: bool) -> list[Effect]:
    """Let a peer's feed say that it is linked to us, or to nobody."""
    return hear_row(mesh, number, {mesh.self_id} if linked else set(), now_s)


def hear_row(mesh: Mesh, number: int, peers: set[NodeId], now_s: float) -> list[Effect]:
    """Let a peer's feed say whom it is linked to."""
    feed = OwnFeed(PEER_KEYS[number], GENESIS.mesh_id, GENESIS.limits, 1)
    marks = frozenset(map(short_id_of, peers))
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord(f"n{number}", ("a:1",))))
    feed.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
    feed.flush(1.0)
    mesh.replication.replicas[feed.origin] = feed
    return mesh.recall(now_s)
