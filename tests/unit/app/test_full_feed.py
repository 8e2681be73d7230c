"""A feed that is full keeps its node from nothing that others wait for."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
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

from meshnode.app.mesh.mesh import Mesh
from meshnode.app.sessions.endings import Ended
from meshnode.app.sessions.sessions import SESSIONS_MAX
from meshnode.core.errors import ExhaustedError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import node_id_of, session_id_of, short_id_of
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.members import (
    NODE,
    ONLY_ROW,
    NodeRecord,
    node_to_row,
)
from meshnode.core.sessions.registry import Birth, Place, Specialist, registry_key, registry_row
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, moved, session_to_row


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


def test_sessions_that_took_all_that_was_left_end_where_all_see_it(mesh: Mesh):
    full(mesh, LEDGER, "registry")
    opened = [row for row in sessions() if is_taken(mesh, row)]
    assert 300 < len(opened) < SESSIONS_MAX, "the feed is full"
    flushed(mesh, 2.0)
    for record in opened:
        end = Ended(None, "SIGKILL", f"killed by order of key {bytes(8).hex()}", True, 9.0)
        ended = moved(record, end.state, 9.0, signal=end.signal, end_reason=end.why, pid=1 << 22)
        mesh.own.write(SESSIONS, record.session_id.encode(), session_to_row(ended))
    while mesh.own.waiting:
        flushed(mesh, 3.0)
    shown = [mesh.tables.session(mesh.self_id, one.session_id) for one in opened]
    assert {one.state for one in shown} == {State.KILLED}


def sessions() -> Iterator[SessionRecord]:
    """Make sessions with much to say."""
    for number in range(SESSIONS_MAX):
        session_id = session_id_of(node_id_of(KEY.public), number + 1)
        record = SessionRecord(session_id, number + 1, "agent", State.RUNNING, 1.0, 1.0)
        yield replace(record, labels={"said": "x" * 2048})


def is_taken(mesh: Mesh, record: SessionRecord) -> bool:
    try:
        mesh.own.write(SESSIONS, record.session_id.encode(), session_to_row(record))
    except ExhaustedError:
        return False
    return True


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
