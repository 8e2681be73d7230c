"""Whom a node was told of when it joined is known, and not heard until something of it is here."""

from random import Random

import pytest
from viewing import GENESIS, IDS, KEYS, Viewer

from meshnode.app.membership.introduced import Introduced
from meshnode.core.control.entries import Forget, Revoke, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.links.liveness import MemberState
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.tables.tables import ID_CHARS

chance = Random(41).randbytes
HOST, OTHER = Key.new(chance), Key.new(chance)
HOST_ID, OTHER_ID = node_id_of(HOST.public), node_id_of(OTHER.public)
ME, ROOT = IDS[0], KEYS[0]


class Joined(Viewer):
    """A node that two others were named to."""

    def __init__(self) -> None:
        super().__init__()
        names = {ME: "me", IDS[3]: "away", HOST_ID: "host", OTHER_ID: ""}
        self.introduced = Introduced(self.mesh, names)
        self.queries.introduced = self.introduced

    def missing(self) -> list[str]:
        return [one.node_name for one in self.queries.coverage().missing]

    def bring(self, key: Key) -> OwnFeed:
        feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("host")))
        feed.flush(1.0)
        self.mesh.replication.replicas[feed.origin] = feed
        self.judge()
        return feed


@pytest.fixture
def joined() -> Joined:
    return Joined()


def test_who_was_only_named_is_known_and_missing(joined: Joined):
    coverage = joined.queries.coverage()
    assert (coverage.nodes_known, coverage.nodes_heard) == (6, 3)
    assert sorted(joined.missing()) == sorted(["away", "host", OTHER_ID[:ID_CHARS]])
    shown = {view.node_id: view for view in joined.queries.nodes({})}
    assert (shown[HOST_ID].name, shown[HOST_ID].state) == ("host", MemberState.UNREACHABLE)
    assert shown[HOST_ID].last_heard_s is None
    assert joined.queries.others() == 5
    assert len(joined.queries.nodes({"room": "a"})) == 2, "nothing is known of its labels"


def test_the_wait_for_a_member_ends_with_its_feed(joined: Joined):
    joined.bring(HOST)
    assert HOST_ID not in joined.introduced.awaited()
    assert len(joined.queries.nodes({})) == 6
    assert joined.introduced.kept() == {OTHER_ID: ""}


def test_the_wait_for_a_member_ends_once_it_is_revoked_or_forgotten(joined: Joined):
    joined.mesh.add_control(
        sign_entry(ROOT, GENESIS.mesh_id, Revoke("node", OTHER.public), chance, issued_s=1), 1.0
    )
    assert list(joined.introduced.awaited()) == [HOST_ID]
    role = Role(OTHER.public, "operator", "", ROOT.public, 1, None)
    joined.mesh.add_control(role_entry(ROOT, GENESIS.mesh_id, role, chance), 1.0)
    feed = OwnFeed(HOST, GENESIS.mesh_id, GENESIS.limits, 1)
    feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("host")))
    feed.flush(1.0)
    joined.mesh.add_control(
        sign_entry(OTHER, GENESIS.mesh_id, Forget(feed.header), chance, issued_s=2), 1.0
    )
    assert joined.introduced.awaited() == {}
    assert joined.missing() == ["away"]


def test_a_member_is_dropped_once_and_only_while_it_is_awaited(joined: Joined):
    assert joined.introduced.drop(HOST_ID) == "host"
    assert joined.introduced.drop(HOST_ID) is None
    assert joined.introduced.drop(IDS[3]) is None, "something of it is here"
    assert joined.introduced.kept() == {OTHER_ID: ""}
