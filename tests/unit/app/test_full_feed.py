"""A feed that is full keeps its node from nothing that others wait for."""

import pytest
from unit.app.one_mesh import (
    GENESIS,
    KEY,
    PEER_KEYS,
    PEERS,
    flushed,
    founded,
    hear_of,
    own_links,
)

from meshnode.app.mesh import Mesh
from meshnode.core.errors import ExhaustedError
from meshnode.core.ids import short_id_of
from meshnode.core.ledger import LEDGER
from meshnode.core.members import (
    NODE,
    ONLY_ROW,
    NodeRecord,
    node_to_row,
)
from meshnode.core.own_feed import OwnFeed
from meshnode.core.registry import Birth, Place, Specialist, registry_key, registry_row
from meshnode.core.snapshots import whole


@pytest.fixture
def mesh() -> Mesh:
    return founded()


def full(mesh: Mesh, *tables: str) -> None:
    """Write rows into each table until it takes no more."""
    for table in tables:
        for number in range(3000):
            try:
                mesh.own.write(table, b"%d" % number, bytes(16_000))
            except ExhaustedError:
                break
        else:
            raise AssertionError(f"{table} has room for ever")
    while mesh.own.waiting:
        flushed(mesh, 1.0)


def test_a_full_feed_keeps_nobody_from_linking_parting_or_leaving(mesh: Mesh):
    full(mesh, LEDGER, "registry", "sessions")
    for number, peer in enumerate(PEERS[:5]):
        mesh.linked(peer, 2.0 + number, dialled=True)
        flushed(mesh, 2.5 + number)
    assert own_links(mesh).peers == frozenset(map(short_id_of, PEERS[:5]))
    mesh.unlinked(PEERS[0], "x" * 200, 9.0)
    flushed(mesh, 9.5)
    assert own_links(mesh).peers == frozenset(map(short_id_of, PEERS[1:5]))
    record = NodeRecord("me", tuple(f"{number}:1" for number in range(8)), standing="left")
    mesh.write(NODE, ONLY_ROW, node_to_row(record), 10.0)
    flushed(mesh, 11.0)
    assert mesh.tables.node(mesh.self_id) == record


def test_however_much_was_used_a_session_ends_and_a_registration_is_taken_back(mesh: Mesh):
    mesh.write("sessions", b"one", bytes(300), 1.0)
    full(mesh, LEDGER, "registry")
    mesh.write("sessions", b"one", bytes(900), 2.0)
    mesh.write("sessions", b"two", bytes(900), 2.0)
    hear_of(mesh, 1, 2.0, linked=False)
    place = Place("agent", "docs")
    other = OwnFeed(PEER_KEYS[2], GENESIS.mesh_id, GENESIS.limits, 1)
    other.write(NODE, ONLY_ROW, node_to_row(NodeRecord("n2", ("a:1",))))
    other.write(
        "registry", registry_key(place), registry_row(Specialist("agent", "docs"), Birth(1, 1))
    )
    other.flush(1.0)
    mesh.linked(PEERS[2], 3.0, dialled=True)
    mesh.received(PEERS[2], whole(other.header, other.rows), 3.0)
    assert mesh.roster.entries()
    assert mesh.roster.remove(place)
    flushed(mesh, 4.0)
    assert not mesh.roster.entries()


def test_what_had_no_room_in_our_feed_is_counted_once(mesh: Mesh):
    lost = OwnFeed(KEY, GENESIS.mesh_id, GENESIS.limits, 7)
    for feed, name in ((lost, b"lost %d"), (mesh.own, b"ours %d")):
        for number in range(1500):
            feed.write(LEDGER, name % number, bytes(16_000))
    while lost.flush(1.0):
        pass
    mesh.own.continue_after(lost.header, lost.rows)
    while mesh.own.waiting:
        flushed(mesh, 5.0)
    assert mesh.own.left_out == 3000 - len(mesh.own.keys(LEDGER)) > 0
