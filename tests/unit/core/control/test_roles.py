"""Roles, and where they come from."""

import pytest
from unit.core.ruling import (
    ADMIN,
    ADMITTER,
    GENESIS,
    NOW_S,
    OPERATOR,
    ROOT,
    STRANGER,
    chance,
    made_by,
    ruled,
    word,
)

from meshnode.core.control.control import ENTRY_BYTES_MAX, ControlSet
from meshnode.core.control.entries import (
    CONTROL,
)
from meshnode.core.control.roles import authorization_from_signed
from meshnode.core.errors import PeerError
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import unpack_map


@pytest.fixture
def control() -> ControlSet:
    return ruled()


def test_the_root_is_an_admin_without_any_entry():
    assert ControlSet(GENESIS).role_of(ROOT.public) == "admin"
    assert ControlSet(GENESIS).role_of(ADMIN.public) == ""


def test_a_role_comes_from_the_root_through_an_admins_invite_to_an_operator(control: ControlSet):
    assert control.role_of(ADMIN.public) == "admin"
    assert control.add(made_by(ADMITTER, OPERATOR, "operator", word()), NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"


def test_an_entry_waits_until_its_authority_is_known():
    late = ControlSet(GENESIS)
    early = made_by(ADMITTER, OPERATOR, "operator", word())
    with pytest.raises(PeerError):
        late.add(early, NOW_S)
    assert late.add(made_by(ROOT, ADMIN, "admin"), NOW_S)
    assert late.add(early, NOW_S), "offered again, as a reconciliation does"
    assert late.role_of(OPERATOR.public) == "operator"


def test_an_admin_gives_roles_directly_but_makes_no_admins(control: ControlSet):
    control.add(made_by(ADMIN, OPERATOR, "observer"), NOW_S)
    assert control.role_of(OPERATOR.public) == "observer"
    with pytest.raises(PeerError):
        control.add(made_by(ADMIN, STRANGER, "admin"), NOW_S)
    assert control.role_of(STRANGER.public) == ""


def test_the_strongest_role_counts(control: ControlSet):
    control.add(made_by(ADMIN, OPERATOR, "observer"), NOW_S)
    control.add(made_by(ADMIN, OPERATOR, "operator"), NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(made_by(ADMITTER, OPERATOR, "operator"), id="an admitter without a word"),
        pytest.param(made_by(STRANGER, OPERATOR, "operator", word()), id="another admitter"),
        pytest.param(made_by(ADMITTER, OPERATOR, "operator", word(STRANGER)), id="no admin's word"),
        pytest.param(
            made_by(ADMITTER, OPERATOR, "operator", word(expires_s=NOW_S - 1)), id="issued too late"
        ),
        pytest.param(
            made_by(ADMITTER, OPERATOR, "operator", word(role="observer")), id="another role"
        ),
        pytest.param(made_by(ADMITTER, OPERATOR, "operator", word(mesh="m")), id="another mesh"),
        pytest.param(
            made_by(ADMITTER, OPERATOR, "admin", word(role="admin")), id="an admin by invite"
        ),
        pytest.param(
            made_by(ADMITTER, OPERATOR, "operator", Signed("invite", word().payload, bytes(64))),
            id="a forged word",
        ),
        pytest.param(
            made_by(ADMITTER, OPERATOR, "operator", Signed("invite", b"\xc0", bytes(64))),
            id="a word that is none",
        ),
        pytest.param(made_by(OPERATOR, OPERATOR, "operator"), id="given to oneself"),
    ],
)
def test_a_role_without_a_way_to_the_root_is_refused(control: ControlSet, entry: Signed):
    before = control.summary.root()
    with pytest.raises(PeerError):
        control.add(entry, NOW_S)
    assert control.summary.root() == before
    assert control.role_of(OPERATOR.public) == ""


def test_a_word_signed_by_one_key_does_not_pass_for_anothers():
    genuine = word(STRANGER)
    claimed = authorization_from_signed(genuine)
    assert claimed.signer == STRANGER.public
    forged = STRANGER.sign("invite", {**_fields(genuine), "signer": ADMIN.public})
    with pytest.raises(PeerError):
        authorization_from_signed(forged)


def _fields(signed: Signed) -> dict:
    return unpack_map(signed.payload)


def test_a_ring_of_roles_has_no_beginning():
    control = ControlSet(GENESIS)
    for entry in (
        made_by(STRANGER, OPERATOR, "operator"),
        made_by(OPERATOR, STRANGER, "operator"),
        made_by(OPERATOR, OPERATOR, "admin"),
    ):
        with pytest.raises(PeerError):
            control.add(entry, NOW_S)
    assert control.role_of(OPERATOR.public) == ""
    assert control.role_of(STRANGER.public) == ""


def test_an_entry_is_stored_once_and_changes_the_root(control: ControlSet):
    before = control.summary.root()
    entry = made_by(ADMIN, OPERATOR, "operator")
    assert control.add(entry, NOW_S)
    assert not control.add(entry, NOW_S)
    assert control.summary.root() != before
    assert len(control.entries()) == 2


def test_equal_sets_have_equal_roots_in_any_order():
    entries = [made_by(ROOT, Key.new(chance), "operator") for _ in range(5)]
    one, other = ControlSet(GENESIS), ControlSet(GENESIS)
    for entry in entries:
        one.add(entry, NOW_S)
    for entry in reversed(entries):
        other.add(entry, NOW_S)
    assert one.summary.root() == other.summary.root()
    assert one.summary.root() != ControlSet(GENESIS).summary.root()


def test_an_entry_of_a_kind_of_a_newer_version_is_kept_if_its_signer_has_a_role(
    control: ControlSet,
):
    entries = {
        key: key.sign(
            CONTROL,
            {"mesh": GENESIS.mesh_id, "kind": "of tomorrow", "issuer": key.public, "x": [1, {}]},
        )
        for key in (ADMIN, STRANGER)
    }
    assert control.add(entries[ADMIN], NOW_S)
    assert control.get(entries[ADMIN].hash[:16]) == entries[ADMIN]
    with pytest.raises(PeerError):
        control.add(entries[STRANGER], NOW_S)


def entry_with(**fields: object) -> Signed:
    value = _fields(made_by(ROOT, OPERATOR, "operator"))
    return ROOT.sign(CONTROL, {**value, **fields})


@pytest.mark.parametrize(
    "entry",
    [
        entry_with(mesh="another"),
        entry_with(issuer=None),
        entry_with(issuer=STRANGER.public),
        entry_with(issuer=bytes(32)),
        entry_with(role="emperor"),
        entry_with(role=["operator"]),
        entry_with(subject=1 << 40),
        entry_with(issued="now"),
        entry_with(via=7),
        entry_with(via=[b"one"]),
        entry_with(via=[b"1", b"2", b"3"]),
        entry_with(via=[1 << 40, 1 << 40]),
        entry_with(name="n" * ENTRY_BYTES_MAX),
        Signed("grant", made_by(ROOT, OPERATOR, "operator").payload, bytes(64)),
        Signed(CONTROL, b"\xc1", bytes(64)),
    ],
)
def test_an_entry_that_cannot_be_stored_is_refused_and_changes_nothing(entry: Signed):
    control = ControlSet(GENESIS)
    before = control.summary.root()
    with pytest.raises(PeerError):
        control.add(entry, NOW_S)
    assert control.summary.root() == before
    assert control.entries() == []


@pytest.mark.parametrize(
    "fields",
    [{"invite_id": 1 << 40}, {"uses": "1"}, {"expires_s": None}, {"role": 5}, {"mesh": b"m"}],
)
def test_a_word_of_wrong_types_is_refused(fields: dict):
    with pytest.raises(PeerError):
        authorization_from_signed(word(**fields))


def test_entries_from_a_disk_are_all_taken_whatever_their_order():
    admin, operator = made_by(ROOT, ADMIN, "admin"), made_by(ADMITTER, OPERATOR, "operator", word())
    for order in ([admin, operator], [operator, admin]):
        control = ControlSet(GENESIS)
        control.add_all([*order, made_by(STRANGER, STRANGER, "operator")], NOW_S)
        assert control.role_of(OPERATOR.public) == "operator"
        assert len(control.entries()) == 2
