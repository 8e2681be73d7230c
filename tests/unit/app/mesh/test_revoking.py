"""A revoked node is no neighbour and on no path, stays listed, and what it spent is counted."""

from random import Random

import pytest
from doubles import ManualClock

from meshnode.app.mesh import revoking
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.mesh.outbox import OUTBOX_BYTES_MAX, Outbox
from meshnode.app.mesh.revoking import REVOKED
from meshnode.app.queries.listing import page_of
from meshnode.app.queries.queries import Queries
from meshnode.app.queries.views import Selection
from meshnode.core.control.entries import Body, Revoke, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.effects import Announce, Dial, Effect, HangUp, Persist, Report, Send
from meshnode.core.feeds.feed import Flush
from meshnode.core.feeds.messages import Order, Pulse, Routed
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import NodeId, SessionId, node_id_of, short_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.links.liveness import MemberState
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca
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
from meshnode.ingest.prices import PriceBook

chance = Random(77).randbytes
ROOT, KEY, *OTHERS = (Key.new(chance) for _ in range(5))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
ME = node_id_of(KEY.public)
BERTA, CARL, DORA = (node_id_of(other.public) for other in OTHERS)


def said(issuer: Key, body: Body) -> Signed:
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=1)


def revocation(key: Key, by: Key = ROOT) -> Signed:
    return said(by, Revoke("node", key.public))


class Viewer:
    """A node linked with berta and carl; dora is reached through carl only."""

    def __init__(self) -> None:
        self.mesh = Mesh(GENESIS, Self(KEY, 1, Random(1)))
        self.feeds = [OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1) for key in OTHERS]
        self.do(self.mesh.write(NODE, ONLY_ROW, node_to_row(NodeRecord("me")), 0.0))
        self.do(self.mesh.start(0.0))
        for peer in (BERTA, CARL):
            self.mesh.linked(peer, 0.0, dialled=True)
        self.do(self.mesh.woken("flush", 0.0))
        self.says(0, "berta", {ME, CARL})
        self.says(1, "carl", {ME, BERTA, DORA})
        self.says(2, "dora", {CARL})
        self.mesh.woken("liveness", 1.0)

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist) and effect.ours:
                self.mesh.persisted(effect.change, 0.0)

    def says(
        self, number: int, name: str, links: set[NodeId], chain: tuple[bytes, ...] = ()
    ) -> None:
        feed = self.feeds[number]
        member = NodeRecord(name, (f"{name}:1",), certificates=chain)
        feed.write(NODE, ONLY_ROW, node_to_row(member))
        marks = frozenset(map(short_id_of, links))
        feed.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
        record = SessionRecord(SessionId(name), 1, name, State.RUNNING, 1.0, 2.0)
        feed.write(SESSIONS, name.encode(), session_to_row(record))
        change = feed.flush(1.0)
        assert change is not None
        self.do(self.mesh.received(BERTA, whole(change.header, feed.rows), 1.0))

    def states(self) -> dict[NodeId, MemberState]:
        return {peer: self.mesh.liveness.state(peer) for peer in (BERTA, CARL, DORA)}


@pytest.fixture
def viewer() -> Viewer:
    viewer = Viewer()
    assert set(viewer.states().values()) == {MemberState.ALIVE}
    return viewer


def test_a_link_with_a_revoked_node_ends_with_the_revocation_which_it_is_still_told(viewer):
    entry = revocation(OTHERS[1])
    effects = viewer.mesh.received(BERTA, entry, 2.0)
    parting = effects.index(HangUp(CARL, REVOKED, parting=True))
    assert effects.index(Send(CARL, entry)) < parting
    assert any(CARL in one.members for one in effects if isinstance(one, Announce))
    assert viewer.states() == {
        BERTA: MemberState.ALIVE,
        CARL: MemberState.REVOKED,
        DORA: MemberState.UNREACHABLE,
    }
    viewer.mesh.unlinked(CARL, REVOKED, 2.0)
    for second in range(3, 90):
        dialled = viewer.mesh.woken("tick", float(second))
        assert not [one for one in dialled if isinstance(one, Dial) and one.peer == CARL]


def test_its_rows_go_on_being_taken_and_passed_on_and_do_not_revive_it(viewer):
    viewer.mesh.received(BERTA, revocation(OTHERS[1]), 2.0)
    feed = viewer.mesh.replication.replicas[CARL]
    viewer.says(1, "carl-anew", {ME, BERTA, DORA})
    viewer.mesh.woken("liveness", 3.0)
    assert viewer.states()[CARL] is MemberState.REVOKED
    assert feed.head.seq


def test_it_is_listed_its_sessions_are_not_to_be_reached_and_nobody_waits_for_it(viewer):
    viewer.mesh.received(BERTA, revocation(OTHERS[2]), 2.0)
    queries = Queries(viewer.mesh, PriceBook(), ManualClock())
    listed = {node.node_id: node for node in queries.nodes({})}
    assert (listed[DORA].state, listed[DORA].sessions) == (MemberState.REVOKED, 1)
    sessions, _ = page_of(queries, Selection(filter="all"))
    assert {one.record.agent_id: one.state for one in sessions} == {
        "berta": State.RUNNING,
        "carl": State.RUNNING,
        "dora": State.UNREACHABLE,
    }
    assert (queries.coverage().nodes_known, queries.coverage().missing) == (4, ())


def test_a_node_is_out_that_is_heard_of_only_after_its_revocation():
    viewer = Viewer()
    viewer.mesh = Mesh(GENESIS, Self(KEY, 1, Random(1)))
    viewer.feeds[2] = OwnFeed(OTHERS[2], GENESIS.mesh_id, GENESIS.limits, 1)
    viewer.mesh.linked(BERTA, 0.0, dialled=True)
    viewer.mesh.received(BERTA, revocation(OTHERS[2]), 1.0)
    assert viewer.mesh.revoked.has(DORA)
    viewer.says(2, "dora", {ME})
    viewer.mesh.woken("liveness", 2.0)
    assert viewer.mesh.liveness.state(DORA) is MemberState.REVOKED


def test_a_node_that_hears_of_its_own_revocation_says_so_and_still_answers_its_user(viewer):
    effects = viewer.mesh.received(BERTA, revocation(KEY), 2.0)
    assert [one.event for one in effects if isinstance(one, Report)] == [REVOKED]
    assert viewer.mesh.liveness.state(ME) is MemberState.ALIVE


def test_a_disk_that_knows_of_a_revocation_starts_with_it(viewer):
    entry = revocation(OTHERS[1])
    viewer.mesh.received(BERTA, entry, 2.0)
    again = Mesh(GENESIS, Self(KEY, 2, Random(1)))
    again.control.add_all(viewer.mesh.control.entries(), 2.0)
    for replica in viewer.mesh.replication.replicas.values():
        if replica.header and replica.header.origin != ME:
            again.replication.restore(replica.header, replica.rows)
    again.start(3.0)
    assert again.liveness.state(CARL) is MemberState.REVOKED
    assert again.revoked.has(CARL)


@pytest.mark.parametrize("count", [1, 9])
def test_one_more_revocation_looks_once_at_each_member_whoever_else_was_revoked(
    viewer, monkeypatch, count
):
    """Each may be an admitter by what another shows, and then only the root's word counts."""
    admin = Key.new(chance)
    made = Role(admin.public, "admin", "", ROOT.public, 1, None)
    entries = [role_entry(ROOT, GENESIS.mesh_id, made, chance)]
    entries += [revocation(Key.new(chance), admin) for _ in range(count)]
    entries.append(revocation(OTHERS[1], admin))
    for entry in entries:
        viewer.mesh.received(BERTA, entry, 2.0)
    looked: list[tuple[bytes, ...]] = []
    real = revoking.admitters_in

    def looking(chain: tuple[bytes, ...], roots: frozenset[bytes]) -> frozenset[bytes]:
        looked.append(chain)
        return real(chain, roots)

    monkeypatch.setattr(revoking, "admitters_in", looking)
    viewer.mesh.received(BERTA, revocation(OTHERS[2], admin), 3.0)
    assert [peer for peer in (BERTA, CARL, DORA) if viewer.mesh.revoked.has(peer)] == [CARL, DORA]
    judged_again = 1  # the record of the one that is out now is read anew
    assert len(looked) == (1 + judged_again) * len(viewer.mesh.tables.origins())


def test_whom_an_admitter_let_in_falls_once_it_is_known_that_a_root_has_revoked_it(viewer):
    """What says that it is one has come last: its word was stored, and counted as an admin's."""
    admitter, new, newest = (Key.new(chance) for _ in range(3))
    above = issue_admitter(ROOT, GENESIS.mesh_id, node_id_of(admitter.public), 1.0, chance)
    chain = (issue_node_ca(admitter, DORA, 1.0, chance), above)
    viewer.says(2, "dora", {CARL}, chain)
    called = said(ROOT, RootKeys(9, (new.public, newest.public)))
    second = said(ROOT, RootKeys(2, (ROOT.public, new.public)))
    third = said(new, RootKeys(3, (ROOT.public, new.public, newest.public)))
    for entry in (called, third, said(newest, Revoke("node", admitter.public))):
        viewer.mesh.received(BERTA, entry, 2.0)
    assert not viewer.mesh.revoked.has(DORA)
    viewer.mesh.received(BERTA, second, 3.0)
    assert viewer.mesh.revoked.has(DORA)


def made_admin(viewer: Viewer) -> Key:
    admin = Key.new(chance)
    made = Role(admin.public, "admin", "", ROOT.public, 1, None)
    viewer.mesh.received(BERTA, role_entry(ROOT, GENESIS.mesh_id, made, chance), 2.0)
    return admin


def promotion(root: Key, key: Key) -> Signed:
    der = issue_admitter(root, GENESIS.mesh_id, node_id_of(key.public), 1.0, chance)
    return said(root, Admits(key.public, der))


@pytest.mark.parametrize("first", ["promotion", "revocation"])
def test_an_admin_does_not_revoke_a_promoted_node_that_has_let_nobody_in(viewer, first):
    """Whoever stole it shows that it admits when it pleases: that must change nothing then."""
    admin, carl = made_admin(viewer), OTHERS[1]
    entries = [promotion(ROOT, carl), revocation(carl, admin)]
    for entry in entries if first == "promotion" else reversed(entries):
        viewer.mesh.received(BERTA, entry, 2.0)
    assert viewer.mesh.revoked.admits(carl.public)
    assert not viewer.mesh.revoked.has(CARL)
    viewer.mesh.received(BERTA, revocation(carl), 3.0)
    assert viewer.mesh.revoked.has(CARL)
    above = issue_admitter(ROOT, GENESIS.mesh_id, CARL, 1.0, chance)
    viewer.says(2, "dora", {ME}, (issue_node_ca(carl, DORA, 1.0, chance), above))
    assert viewer.mesh.revoked.has(CARL)
    assert viewer.mesh.revoked.has(DORA)


def test_who_admits_by_a_removed_root_alone_is_revoked_by_an_admin(viewer):
    """Else its thief could take every admin's revocation of a node back."""
    admin, new, carl = made_admin(viewer), Key.new(chance), OTHERS[1]
    second, third = RootKeys(2, (ROOT.public, new.public)), RootKeys(3, (new.public,))
    entries = [promotion(ROOT, carl), revocation(carl, admin), said(ROOT, second)]
    for entry in entries:
        viewer.mesh.received(BERTA, entry, 2.0)
    above = issue_admitter(ROOT, GENESIS.mesh_id, CARL, 1.0, chance)
    viewer.says(1, "carl", {ME}, (issue_node_ca(carl, CARL, 1.0, chance), above))
    assert not viewer.mesh.revoked.has(CARL)
    viewer.mesh.received(BERTA, said(new, third), 3.0)
    assert viewer.mesh.revoked.has(CARL)


def test_a_revocation_goes_out_before_all_that_waits_even_from_a_full_outbox():
    outbox = Outbox()
    news = Flush(Signed("flush", b"h", bytes(64)), bytes(200_000))
    outbox.put(Pulse(1))
    for _ in range(OUTBOX_BYTES_MAX // 200_000 + 9):
        outbox.put(news)
        outbox.put(Routed((ME, BERTA), 0, Order(1, bytes(40_000))))
    assert outbox.overflowed
    entries = [revocation(OTHERS[1]), revocation(OTHERS[2])]
    for entry in entries:
        outbox.put(entry)
    assert [outbox.pop(), outbox.pop()] == entries
    assert outbox.pop() == Pulse(1)
