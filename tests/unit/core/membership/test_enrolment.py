"""Invites as text, applications, and the proofs that a secret is known."""

import string
from random import Random

import pytest

from meshnode.core.errors import MeshError, PeerError, UsageError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed, encode_checked
from meshnode.core.membership.enrolment import (
    ADDRESSES_MAX,
    INVITE_PREFIX,
    JOIN,
    OPERATOR,
    Invite,
    admit_proof,
    application_from_signed,
    apply_with,
    invite_from_text,
    join_proof,
    same,
)
from meshnode.core.membership.genesis import Genesis
from meshnode.core.packing import pack, unpack_map

chance = Random(8).randbytes
ROOT, ADMITTER, NODE, USER, THIEF = (Key.new(chance) for _ in range(5))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
INVITE = Invite(
    ROOT.public,
    GENESIS.mesh_id,
    node_id_of(ADMITTER.public),
    chance(16),
    chance(16),
    1_790_000_000,
    ("a:1", "[::1]:2"),
    commands=True,
)
TEXT = INVITE.to_text()


def test_an_invite_comes_back_from_its_text_spaces_around_it_included():
    assert TEXT.startswith(INVITE_PREFIX)
    assert invite_from_text(f"  {TEXT}\n") == INVITE


def test_an_invite_names_no_more_addresses_than_fit():
    many = Invite(**{**fields_of(INVITE), "addresses": tuple(f"a:{n}" for n in range(9))})
    assert len(invite_from_text(many.to_text()).addresses) == ADDRESSES_MAX


def fields_of(invite: Invite) -> dict:
    return {name: getattr(invite, name) for name in Invite.__slots__}


@pytest.mark.parametrize("place", range(len(TEXT)))
def test_every_flipped_character_of_an_invite_is_refused(place: int):
    letters = string.ascii_letters + string.digits + "-_+/= "
    for letter in letters.replace(TEXT[place], ""):
        with pytest.raises(UsageError):
            invite_from_text(TEXT[:place] + letter + TEXT[place + 1 :])


@pytest.mark.parametrize("size", range(len(TEXT)))
def test_half_an_invite_is_refused_without_repeating_it(size: int):
    with pytest.raises(UsageError) as caught:
        invite_from_text(TEXT[:size])
    assert TEXT[10:30] not in caught.value.message + caught.value.hint


def invite_text(*parts: object) -> str:
    return INVITE_PREFIX + encode_checked(pack(list(parts)), b"smj1")


GOOD = (1, ROOT.public, bytes(32), ADMITTER.public, bytes(16), bytes(16), 9, ["a:1"], True)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2),
        (1, bytes(32)),
        (1, "text"),
        (2, "text"),
        (3, ROOT.public[:31]),
        (4, 1 << 40),
        (5, (1 << 64) - 1),
        (6, float("inf")),
        (6, "soon"),
        (7, 5),
        (7, "a:1"),
        (7, [1]),
        (8, None),
    ],
)
def test_an_invite_whose_checksum_is_right_and_whose_parts_are_not_is_refused(
    place: int, value: object
):
    assert invite_from_text(invite_text(*GOOD)).expires_s == 9
    with pytest.raises(UsageError):
        invite_from_text(invite_text(*GOOD[:place], value, *GOOD[place + 1 :]))


def test_an_application_says_who_applies_and_with_which_operator():
    application = application_from_signed(apply_with(NODE, USER, INVITE, "laptop", bytes(8)))
    assert application.node_key == NODE.public
    assert application.operator_key == USER.public
    assert (application.mesh_id, application.name) == (GENESIS.mesh_id, "laptop")
    assert application.invite_id == INVITE.invite_id
    without = application_from_signed(apply_with(NODE, None, INVITE, "laptop", bytes(8)))
    assert without.operator_key is None


def changed(signer: Key, **fields: object) -> Signed:
    value = unpack_map(apply_with(NODE, USER, INVITE, "laptop", bytes(8)).payload)
    return signer.sign(JOIN, {**value, **fields})


def claim_by(key: Key, **fields: object) -> list[bytes]:
    value = {"mesh": GENESIS.mesh_id, "node": NODE.public, "operator": USER.public}
    return key.sign(OPERATOR, {**value, **fields}).to_list()


@pytest.mark.parametrize(
    "signed",
    [
        pytest.param(changed(THIEF, node=THIEF.public), id="a claim made for another device"),
        pytest.param(changed(NODE, operator=claim_by(THIEF)), id="a claim signed by another"),
        pytest.param(changed(NODE, operator=claim_by(USER, mesh="m")), id="a claim for a mesh"),
        pytest.param(changed(NODE, operator=claim_by(USER, node=b"x")), id="a claim for a node"),
        pytest.param(changed(THIEF), id="signed by another than it names"),
        pytest.param(changed(NODE, node=bytes(32)), id="a key that anybody can forge with"),
        pytest.param(changed(NODE, operator=[b"one"]), id="half a claim"),
        pytest.param(changed(NODE, operator=[1, 2]), id="a claim of numbers"),
        pytest.param(changed(NODE, operator=5), id="a claim that is none"),
        pytest.param(changed(NODE, operator=[pack({}), bytes(64)]), id="an empty claim"),
        pytest.param(changed(NODE, name=None), id="no name"),
        pytest.param(changed(NODE, invite=1 << 40), id="an invite that is a number"),
        pytest.param(NODE.sign("grant", {"mesh": "m"}), id="another type"),
        pytest.param(Signed(JOIN, b"\xc1", bytes(64)), id="no map"),
    ],
)
def test_an_application_that_proves_less_than_it_says_is_refused(signed: Signed):
    with pytest.raises(PeerError):
        application_from_signed(signed)


def test_a_proof_is_good_for_one_secret_one_admitter_and_one_application():
    admitter, application = INVITE.admitter, b"application"
    proof = join_proof(INVITE.secret, admitter, application)
    assert same(proof, join_proof(INVITE.secret, admitter, application))
    for other in (
        join_proof(bytes(16), admitter, application),
        join_proof(INVITE.secret, node_id_of(THIEF.public), application),
        join_proof(INVITE.secret, admitter, b"another"),
        admit_proof(INVITE.secret, application, []),
    ):
        assert not same(proof, other)


def test_an_answer_is_proved_with_everything_in_it():
    response = [b"genesis", [b"ca", b"admitter"], [], ["a:1"], 5.0]
    proof = admit_proof(INVITE.secret, b"application", response)
    assert proof == admit_proof(INVITE.secret, b"application", list(response))
    for place in range(len(response)):
        other = [*response[:place], b"other", *response[place + 1 :]]
        assert admit_proof(INVITE.secret, b"application", other) != proof


def test_what_is_no_invite_says_so_in_the_users_words():
    with pytest.raises(MeshError, match="smj1_"):
        invite_from_text("hello")
