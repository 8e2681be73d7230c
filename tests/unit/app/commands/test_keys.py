"""What a key is worth here, and what hangs on a node."""

from random import Random

import pytest
from msgspec.structs import replace

from meshnode.app.commands.keys import Keys
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.control.entries import Revoke, role_entry, sign_entry
from meshnode.core.control.grants import Grant, grant
from meshnode.core.control.roles import Authorization, Role, authorize
from meshnode.core.control.succession import Admits
from meshnode.core.errors import PeerError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row

NOW_S = 1_790_000_000
chance = Random(41).randbytes
ROOT, ADMIN, OPERATOR, FOUNDER, MEMBER, SESSION = (Key.new(chance) for _ in range(6))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
FOUNDER_ID, MEMBER_ID = node_id_of(FOUNDER.public), node_id_of(MEMBER.public)
LINK = Grant(
    GENESIS.mesh_id, ADMIN.public, SESSION.public, ("steer",), NOW_S - 9, NOW_S + 999, bytes(16)
)


def role(issuer: Key, subject: Key, name: str, via: Signed | None = None) -> Signed:
    value = Role(subject.public, name, "", issuer.public, NOW_S, via)
    return role_entry(issuer, GENESIS.mesh_id, value, chance)


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh(GENESIS, Self(FOUNDER, 1, Random(1), lambda _: NOW_S))
    word = Authorization(
        GENESIS.mesh_id, bytes(16), FOUNDER_ID, "operator", 1, NOW_S, NOW_S + 60, b""
    )
    given = role(FOUNDER, OPERATOR, "operator", authorize(ADMIN, word))
    assert mesh.control.add_all([role(ROOT, ADMIN, "admin"), given], NOW_S) == []
    above = issue_admitter(ROOT, GENESIS.mesh_id, FOUNDER_ID, NOW_S, chance)
    for key in (FOUNDER, MEMBER):
        node_id = node_id_of(key.public)
        chain = (issue_node_ca(FOUNDER, node_id, NOW_S, chance), above)
        feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord("n", certificates=chain)))
        feed.flush(NOW_S)
        mesh.replication.replicas[node_id] = feed
    return mesh


WORTH = {
    "valid": (LINK, "admin"),
    "expired": (replace(LINK, expires_s=NOW_S - 999), ""),
    "early": (replace(LINK, not_before_s=NOW_S + 999), ""),
    "worthless": (replace(LINK, issuer=SESSION.public), ""),
    "revoked": (replace(LINK, grant_id=b"r" * 16), ""),
}


@pytest.mark.parametrize("state", WORTH)
def test_a_key_is_judged_as_its_commands_would_be(mesh: Mesh, state: str):
    revoke = Revoke("grant", b"r" * 16)
    mesh.control.add(
        sign_entry(ADMIN, GENESIS.mesh_id, revoke, chance, issued_s=NOW_S, expires_s=NOW_S + 99999),
        NOW_S,
    )
    link, role_name = WORTH[state]
    signer = SESSION if state == "worthless" else ADMIN
    verdict = Keys(mesh).judge([grant(signer, link)], NOW_S)
    assert (verdict.state, verdict.role) == (state, role_name)
    assert bool(verdict.detail) == (state != "valid")


def test_what_is_no_chain_is_worth_nothing(mesh: Mesh):
    endless = grant(ADMIN, replace(LINK, expires_s=1 << 40))
    for chain in ([], [Signed("grant", b"x", bytes(64))], [endless]):
        assert Keys(mesh).judge(chain, NOW_S).state == "worthless"


def test_on_an_admitter_hangs_whom_it_let_in_and_to_whom_it_gave_a_role(mesh: Mesh):
    found = Keys(mesh).admission(FOUNDER_ID)
    assert (found.admits, found.nodes, found.operators) == (
        True,
        (MEMBER_ID,),
        (OPERATOR.public,),
    )
    found = Keys(mesh).admission(MEMBER_ID)
    assert (found.admits, found.nodes, found.operators) == (False, (), ())
    with pytest.raises(PeerError):
        Keys(mesh).admission(NodeId("nobody"))


def test_a_promoted_node_admits_before_it_has_let_anybody_in(mesh: Mesh):
    der = issue_admitter(ROOT, GENESIS.mesh_id, MEMBER_ID, NOW_S, chance)
    said = sign_entry(ROOT, GENESIS.mesh_id, Admits(MEMBER.public, der), chance, issued_s=NOW_S)
    assert mesh.control.add(said, NOW_S)
    assert Keys(mesh).admission(MEMBER_ID).admits
