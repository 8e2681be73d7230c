"""What a chain of certificates says without a peer."""

import pytest
from integration.rpc.fleet import DAY_S, Founded, now_s

from meshnode.core.errors import DamagedError
from meshnode.node.homes.membership import membership_in


def test_a_member_chains_to_the_root_and_is_valid_now():
    mesh = Founded()
    member = mesh.node()
    facts = membership_in(member.chain, mesh.genesis, member.node_id)
    assert (facts.is_for_our_key, facts.chains_to_root) == (True, True)
    assert facts.valid_from_s < now_s() < facts.valid_until_s
    assert facts.valid_until_s > now_s() + 700 * DAY_S


def test_a_chain_for_another_key_or_from_another_mesh_is_seen():
    mesh, other = Founded(1), Founded(2)
    anna, berta = mesh.node(), mesh.node()
    assert not membership_in(anna.chain, mesh.genesis, berta.node_id).is_for_our_key
    assert not membership_in(anna.chain, other.genesis, anna.node_id).chains_to_root
    mixed = (anna.chain[0], other.admitter_certificate)
    assert not membership_in(mixed, mesh.genesis, anna.node_id).chains_to_root
    assert not membership_in(anna.chain[:1], mesh.genesis, anna.node_id).chains_to_root


@pytest.mark.parametrize("chain", [(), (b"no certificate",)])
def test_what_is_no_chain_is_damage(chain):
    mesh = Founded()
    with pytest.raises(DamagedError):
        membership_in(chain, mesh.genesis, mesh.node().node_id)
