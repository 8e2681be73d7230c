"""A forgotten node is no member, is not dialled and does not count, but what it spent does."""

from random import Random

import pytest

from meshnode.app.mesh.mesh import TICK_S, Mesh, Self
from meshnode.core.control.entries import Body, Forget, StandingKill, entry_id_of, sign_entry
from meshnode.core.effects import Announce, Dial, DropControl, Effect, Persist, PersistControl, Send
from meshnode.core.errors import PeerError
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import SessionId, node_id_of, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.links.liveness import MemberState
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
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row

chance = Random(73).randbytes
ROOT, KEY, LOST_KEY, NEIGHBOUR = (Key.new(chance) for _ in range(4))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
ME, LOST = node_id_of(KEY.public), node_id_of(LOST_KEY.public)
PEER = node_id_of(NEIGHBOUR.public)
SLOT = SlotKey("s", "m", "standard", 1)


class Viewer:
    """A mesh that has heard of one other member, and has one neighbour."""

    def __init__(self) -> None:
        self.mesh = Mesh(GENESIS, Self(KEY, 1, Random(1)))
        self.do(self.mesh.write(NODE, ONLY_ROW, node_to_row(NodeRecord("me")), 0.0), 0.0)
        self.do(self.mesh.start(0.0), 0.0)
        self.do(self.mesh.woken("flush", 0.0), 0.0)
        self.mesh.linked(PEER, 0.0, dialled=False)
        self.lost = OwnFeed(LOST_KEY, GENESIS.mesh_id, GENESIS.limits, 1)
        self.write_lost(now_s=1.0)

    def do(self, effects: list[Effect], now_s: float) -> None:
        """Let the disk finish what it was given."""
        for effect in effects:
            if isinstance(effect, Persist) and effect.ours:
                self.mesh.persisted(effect.change, now_s)

    def write_lost(self, name: str = "lost", now_s: float = 2.5) -> None:
        marks = frozenset({short_id_of(ME), name.encode()})  # so that every row is new
        record = SessionRecord(SessionId(name), 1, "a", State.RUNNING, 1.0, 2.0, owner="olga")
        self.lost.write(NODE, ONLY_ROW, node_to_row(NodeRecord(name, ("a:1",))))
        self.lost.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
        self.lost.write(SESSIONS, name.encode(), session_to_row(record))
        slot = Slot(1, Buckets(input=5))
        self.lost.write(LEDGER, key_to_row(SLOT), slot_to_row(slot))
        change = self.lost.flush(1.0)
        assert change is not None
        self.do(self.mesh.received(PEER, whole(change.header, self.lost.rows), now_s), now_s)
        self.mesh.woken("liveness", now_s)

    def forget(self, feed: OwnFeed, now_s: float = 2.0) -> list[Effect]:
        assert feed.header is not None
        return self.mesh.add_control(said(Forget(feed.header)), now_s)


def said(body: Body, expires_s: int | None = None) -> Signed:
    return sign_entry(ROOT, GENESIS.mesh_id, body, chance, issued_s=1, expires_s=expires_s)


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


def test_a_forgotten_node_is_hidden_but_for_what_it_spent(viewer: Viewer):
    mesh = viewer.mesh
    assert mesh.liveness.members() == sorted([ME, LOST])
    effects = viewer.forget(viewer.lost)
    assert mesh.liveness.members() == [ME]
    assert mesh.tables.node(LOST) is mesh.tables.links(LOST) is None
    assert mesh.tables.session(LOST, "lost") is None
    assert list(mesh.tables.sessions()) == []
    assert [origin for origin, _ in mesh.tables.ledger()] == [LOST]
    assert mesh.tables.name_of(LOST) == "lost"
    assert [record.owner for _, record in mesh.tables.sessions(forgotten=True)] == ["olga"]
    kinds = [type(effect) for effect in effects]
    assert PersistControl in kinds
    assert Announce(members={LOST}) in effects
    assert [effect.peer for effect in effects if isinstance(effect, Send)] == [PEER]


def test_a_forgotten_node_is_not_dialled_unless_it_comes_back(viewer: Viewer):
    mesh = viewer.mesh
    viewer.forget(viewer.lost)

    def dialled(from_s: float) -> bool:
        moments = [from_s + step * TICK_S for step in range(400)]
        effects = [effect for now_s in moments for effect in mesh.woken("tick", now_s)]
        return any(isinstance(effect, Dial) and effect.peer == LOST for effect in effects)

    assert not dialled(3.0)
    viewer.mesh.neighbours.heard(PEER, 200.0)
    viewer.write_lost("back", 200.0)
    assert mesh.tables.node(LOST) is not None
    assert dialled(300.0)


def test_a_node_that_comes_back_is_shown_by_what_is_new(viewer: Viewer):
    viewer.forget(viewer.lost)
    viewer.write_lost("back")
    assert LOST in viewer.mesh.liveness.members()
    assert [record.session_id for _, record in viewer.mesh.tables.sessions()] == ["back"]


def test_what_was_forgotten_stays_so_after_a_restart(viewer: Viewer):
    viewer.forget(viewer.lost)
    again = Mesh(GENESIS, Self(KEY, 2, Random(2)))
    again.control.add_all(viewer.mesh.control.entries(), 5.0)
    assert viewer.lost.header is not None
    again.replication.restore(viewer.lost.header, viewer.lost.rows)
    again.start(5.0)
    assert again.liveness.members() == []
    assert all(not isinstance(effect, Dial) for effect in again.woken("tick", 60.0))


def test_a_neighbour_that_is_forgotten_falls_out_of_the_graph_and_returns_with_its_rows(
    viewer: Viewer,
):
    viewer.mesh.linked(LOST, 1.5, dialled=False)
    viewer.mesh.woken("liveness", 1.6)
    assert viewer.mesh.liveness.state(LOST) is MemberState.ALIVE
    viewer.forget(viewer.lost)
    assert LOST not in viewer.mesh.liveness.alive
    viewer.write_lost("back")
    assert viewer.mesh.liveness.state(LOST) is MemberState.ALIVE


def test_a_node_that_hears_that_it_was_forgotten_says_again_what_still_holds(viewer: Viewer):
    mesh = viewer.mesh
    for name, state in (("runs", State.RUNNING), ("ended", State.CLOSED)):
        record = SessionRecord(SessionId(name), 1, "a", state, 1.0, 2.0)
        mesh.write(SESSIONS, name.encode(), session_to_row(record), 1.0)
    viewer.do(mesh.woken("flush", 1.5), 1.5)
    before = mesh.own.head
    mesh.write(LINKS, ONLY_ROW, mesh.own.latest(LINKS, ONLY_ROW), 1.6)
    viewer.forget(mesh.own)
    assert mesh.tables.node(ME) is None
    mesh.write(LINKS, ONLY_ROW, mesh.own.latest(LINKS, ONLY_ROW), 2.1)  # the same does not undo it
    viewer.do(mesh.woken("flush", 2.5), 2.5)
    assert mesh.own.head == Head(before.epoch, before.seq + 3)
    assert mesh.tables.node(ME) is not None
    assert mesh.tables.links(ME) is not None
    assert [record.session_id for _, record in mesh.tables.sessions() if _ == ME] == ["runs"]
    mesh.woken("flush", 3.0)
    assert mesh.own.head == Head(before.epoch, before.seq + 3), "once is enough"


def test_a_session_that_this_version_cannot_read_is_said_again_too(viewer: Viewer):
    viewer.do(viewer.mesh.write(SESSIONS, b"later", b"of a later version", 1.0), 1.0)
    viewer.do(viewer.mesh.woken("flush", 2.0), 2.0)
    viewer.forget(viewer.mesh.own)
    assert viewer.mesh.own.is_pending(SESSIONS, b"later")


def test_an_expired_entry_leaves_the_disk(viewer: Viewer):
    order = said(StandingKill(agent="a"), expires_s=20)
    assert PersistControl(order) in viewer.mesh.add_control(order, 2.0)
    assert DropControl((entry_id_of(order),)) not in viewer.mesh.woken("tick", 19.0)
    assert DropControl((entry_id_of(order),)) in viewer.mesh.woken("tick", 20.0)
    assert viewer.mesh.received(PEER, order, 21.0) == [], "neither taken again, nor passed on"


def test_an_entry_from_a_neighbour_without_authority_is_reported_and_goes_nowhere(viewer: Viewer):
    entry = sign_entry(NEIGHBOUR, GENESIS.mesh_id, Forget(viewer.lost.header), chance, issued_s=1)
    (report,) = viewer.mesh.received(PEER, entry, 2.0)
    assert "forget" in report.detail
    with pytest.raises(PeerError):
        viewer.mesh.add_control(entry, 2.0)
    assert LOST in viewer.mesh.liveness.members()
