"""Whose feeds are taken: those whose member record carries a chain that leads to the root."""

from random import Random

import pytest

from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.effects import Report
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca, leads_to_root
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, is_admitted, node_to_row

chance = Random(19).randbytes
ROOT, ADMITTER, MEMBER, PHANTOM = (Key.new(chance) for _ in range(4))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NOW_S = 1_800_000_000.0
ADMITTED = issue_admitter(ROOT, GENESIS.mesh_id, node_id_of(ADMITTER.public), NOW_S, chance)


def ca_of(key: Key, issuer: Key = ADMITTER) -> bytes:
    return issue_node_ca(issuer, node_id_of(key.public), NOW_S, chance)


VERSION_3, ED25519 = b"\xa0\x03\x02\x01\x02", b"\x06\x03\x2b\x65\x70"  # in DER
MEMBER_CHAIN = (ca_of(MEMBER), ADMITTED)


def test_a_member_s_chain_leads_to_the_root():
    assert leads_to_root(MEMBER_CHAIN, node_id_of(MEMBER.public), GENESIS.root_keys)


@pytest.mark.parametrize(
    "chain",
    [
        (),
        MEMBER_CHAIN,
        (ca_of(PHANTOM), ADMITTED)[:1],
        (ca_of(PHANTOM, MEMBER), *MEMBER_CHAIN),
        (ca_of(PHANTOM, PHANTOM), ADMITTED),
        (ca_of(PHANTOM, Key.new(chance)), ADMITTED),
        (b"no certificate", ADMITTED),
        (ca_of(PHANTOM).replace(VERSION_3, VERSION_3[:-1] + b"\x58", 1), ADMITTED),
        (ca_of(PHANTOM).replace(ED25519, ED25519[:-1] + b"\x78"), ADMITTED),
        (ADMITTED, ADMITTED),
    ],
)
def test_nobody_else_s_does(chain: tuple[bytes, ...]):
    assert not leads_to_root(chain, node_id_of(PHANTOM.public), GENESIS.root_keys)


def test_another_mesh_s_root_does_not_count():
    other = Key.new(chance)
    assert not leads_to_root(MEMBER_CHAIN, node_id_of(MEMBER.public), (other.public,))
    assert not leads_to_root(MEMBER_CHAIN, node_id_of(MEMBER.public), ())


def feed_of(key: Key, certificates: tuple[bytes, ...]) -> tuple[OwnFeed, Change]:
    feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
    record = NodeRecord("n", ("a:1",), certificates=certificates)
    feed.write(NODE, ONLY_ROW, node_to_row(record))
    change = feed.flush(NOW_S)
    assert change is not None
    return feed, change


@pytest.mark.parametrize(
    ("key", "certificates", "taken"),
    [(MEMBER, MEMBER_CHAIN, True), (PHANTOM, MEMBER_CHAIN, False), (PHANTOM, (), False)],
)
def test_a_feed_of_somebody_whom_nobody_admitted_is_refused_and_takes_no_place(
    key: Key, certificates: tuple[bytes, ...], *, taken: bool
):
    def admits(origin, rows):
        return is_admitted(origin, rows, GENESIS.root_keys)

    mesh = Mesh(GENESIS, Self(ADMITTER, 1, Random(1), admits=admits))
    relay = node_id_of(ROOT.public)
    mesh.linked(relay, 0.0, dialled=False)
    feed, change = feed_of(key, certificates)
    assert change.flush is not None
    mesh.received(relay, change.flush, 1.0)
    assert feed.origin not in mesh.replication.replicas
    effects = mesh.received(relay, whole(change.header, feed.rows), 1.0)
    assert (feed.origin in mesh.replication.replicas) is taken
    assert (feed.origin in mesh.liveness.members()) is taken
    assert any(isinstance(effect, Report) for effect in effects) is not taken
