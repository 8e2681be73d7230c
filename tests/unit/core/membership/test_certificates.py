"""Certificates: what they bind, how far they reach, and how long they last."""

from datetime import timedelta
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import DNSName
from cryptography.x509.oid import NameOID

from meshnode.core.errors import PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.certificates import (
    BACKDATED,
    DOMAIN,
    LEAF_LIFE,
    NODE_CA_LIFE,
    anchor,
    begins_at_s,
    counts_at,
    dns_name_of,
    expires_at_s,
    from_pem,
    hints_in,
    issue_admitter,
    issue_leaf,
    issue_node_ca,
    node_id_in,
    renewal_due_s,
    to_pem,
)

chance = Random(7).randbytes
ROOT, ADMITTER, NODE = (Key.new(chance) for _ in range(3))
ADMITTER_ID, NODE_ID = node_id_of(ADMITTER.public), node_id_of(NODE.public)
MESH = "mesh"
NOW_S = 1_790_000_000.0
DAY_S = 86400
ADMITTER_DER = issue_admitter(ROOT, MESH, ADMITTER_ID, NOW_S, chance)
NODE_DER = issue_node_ca(ADMITTER, NODE_ID, NOW_S, chance)
LEAF = issue_leaf(NODE, MESH, (NODE_DER, ADMITTER_DER), NOW_S + 3600, chance)

anchor_certificate, admitter, node, leaf = (
    x509.load_pem_x509_certificate(anchor(ROOT.public, MESH)),
    x509.load_der_x509_certificate(ADMITTER_DER),
    x509.load_der_x509_certificate(NODE_DER),
    x509.load_pem_x509_certificate(LEAF.chain),
)


def permitted(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert found.value.excluded_subtrees is None
    names = found.value.permitted_subtrees or []
    assert all(isinstance(name, DNSName) for name in names)
    return [name.value for name in names]


def path_length(certificate: x509.Certificate) -> int | None:
    found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert found.critical
    return found.value.path_length if found.value.ca else None


def test_every_link_of_the_chain_is_signed_by_the_one_above():
    assert isinstance(anchor_certificate.public_key(), Ed25519PublicKey)
    leaf.verify_directly_issued_by(node)
    node.verify_directly_issued_by(admitter)
    admitter.verify_directly_issued_by(anchor_certificate)


def test_a_nodes_authority_may_speak_for_its_own_name_only():
    assert permitted(node) == [dns_name_of(NODE_ID)]
    assert permitted(admitter) == [DOMAIN]


def test_each_authority_reaches_one_step_less_far():
    assert [path_length(c) for c in (anchor_certificate, admitter, node)] == [2, 1, 0]
    assert path_length(leaf) is None


def test_a_leaf_carries_exactly_one_name_and_it_is_the_nodes():
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [DNSName(dns_name_of(NODE_ID))]
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)


def test_a_leaf_is_valid_from_its_authoritys_first_moment_and_for_a_week():
    assert leaf.not_valid_before_utc == node.not_valid_before_utc
    issued = node.not_valid_before_utc + BACKDATED + timedelta(hours=1)
    assert leaf.not_valid_after_utc == issued + LEAF_LIFE


def test_a_leaf_never_outlives_its_authority():
    late_s = NOW_S + NODE_CA_LIFE.total_seconds() - 3600
    late = issue_leaf(NODE, MESH, (NODE_DER, ADMITTER_DER), late_s, chance)
    found = x509.load_pem_x509_certificate(late.chain)
    assert found.not_valid_after_utc == node.not_valid_after_utc
    assert expires_at_s(NODE_DER) == NOW_S + NODE_CA_LIFE.total_seconds()


def test_a_certificate_is_due_in_the_second_half_of_its_life():
    half_s = NODE_CA_LIFE.total_seconds() / 2
    chain = (NODE_DER, ADMITTER_DER)
    assert renewal_due_s(chain, NOW_S) == half_s
    assert renewal_due_s(chain, NOW_S + half_s + 1) == -1


def test_a_certificate_that_does_not_count_yet_is_due_unless_it_is_our_clock_that_is_behind():
    early = (issue_node_ca(ADMITTER, NODE_ID, NOW_S + 9 * DAY_S, chance), ADMITTER_DER)
    assert renewal_due_s(early, NOW_S) == 0.0
    assert renewal_due_s(early, NOW_S + 8 * DAY_S) > 0
    assert renewal_due_s(early, NOW_S - 9 * DAY_S) > 0, "its issuer's does not count either"
    assert renewal_due_s(early, 0.0) > 0
    assert renewal_due_s(early[:1], NOW_S) == 0.0, "a chain that was cut short"
    now = [counts_at(early, NOW_S + days * DAY_S) for days in (-9, 0, 8, 800)]
    assert now == [False, False, True, False]


@pytest.mark.parametrize("off_days", [-400, 500, 5000])
def test_a_certificate_that_covers_an_earlier_one_counts_whenever_that_does(off_days):
    clock_s = NOW_S + off_days * DAY_S
    covering = issue_node_ca(ADMITTER, NODE_ID, clock_s, chance, NODE_DER)
    assert begins_at_s(covering) <= begins_at_s(NODE_DER)
    assert expires_at_s(covering) >= expires_at_s(NODE_DER)
    assert counts_at((covering,), clock_s)
    later_s = NOW_S + NODE_CA_LIFE.total_seconds() / 2
    again = issue_node_ca(ADMITTER, NODE_ID, later_s, chance, covering)
    assert renewal_due_s((again, ADMITTER_DER), later_s) >= 0, "not due again at once"


@pytest.mark.parametrize("now_s", [0.0, NOW_S - 10 * 86400])
def test_a_leaf_is_issued_on_a_device_whose_clock_is_before_its_authority(now_s: float):
    early = issue_leaf(NODE, MESH, (NODE_DER, ADMITTER_DER), now_s, chance)
    found = x509.load_pem_x509_certificate(early.chain)
    assert found.not_valid_before_utc == node.not_valid_before_utc
    assert found.not_valid_after_utc == node.not_valid_before_utc + LEAF_LIFE


def test_every_leaf_has_a_key_and_a_serial_number_of_its_own():
    other = issue_leaf(NODE, MESH, (NODE_DER, ADMITTER_DER), NOW_S, chance)
    found = x509.load_pem_x509_certificate(other.chain)
    assert found.serial_number != leaf.serial_number
    assert other.private_key != LEAF.private_key


def test_a_chain_goes_through_pem_unchanged():
    assert from_pem(to_pem((NODE_DER, ADMITTER_DER))) == (NODE_DER, ADMITTER_DER)
    assert from_pem(LEAF.chain)[1:] == (NODE_DER, ADMITTER_DER)
    with pytest.raises(PeerError):
        from_pem(b"no certificate")


def test_a_leaf_hints_at_its_node_and_mesh():
    assert hints_in(from_pem(LEAF.chain)[0]) == (NODE_ID, MESH)
    for der in (NODE_DER, b"", b"no certificate"):
        with pytest.raises(PeerError):
            hints_in(der)


def test_the_same_hint_is_taken_from_the_subject_and_never_believed():
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []


@pytest.mark.parametrize(
    "name",
    [
        NODE_ID,
        f"{NODE_ID}.",
        f"{NODE_ID}.example.org",
        f"x.{NODE_ID}.{DOMAIN}",
        f"{NODE_ID}.x.{DOMAIN}",
        f"{NODE_ID[:-1]}.{DOMAIN}",
        f"{NODE_ID.upper()}.{DOMAIN}",
        f".{DOMAIN}",
        DOMAIN,
    ],
)
def test_a_name_outside_the_mesh_names_no_node(name: str):
    assert node_id_in(dns_name_of(NODE_ID)) == NODE_ID
    with pytest.raises(PeerError):
        node_id_in(name)


def test_no_certificate_is_issued_for_a_key_that_anybody_can_forge_with():
    with pytest.raises(PeerError):
        issue_node_ca(ADMITTER, node_id_of(bytes(32)), NOW_S, chance)
    with pytest.raises(PeerError):
        anchor(bytes(32), MESH)
