"""Whoever fills the control set, those who may revoke have room in it, and the rest do not."""

from collections.abc import Callable

import pytest
from unit.core.ruling import (
    ADMIN,
    GENESIS,
    NOW_S,
    OPERATOR,
    ROOT,
    STRANGER,
    chance,
    made_by,
    ruled,
)

from meshnode.core.control import control as control_module
from meshnode.core.control import shares as shares_module
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Revoke, sign_entry
from meshnode.core.control.settings import Policy
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.keys import Key, Signed

OTHER_ADMIN = Key.new(chance)


def said(issuer: Key, body: Body, late_s: int = 0, life_s: int | None = None) -> Signed:
    issued_s = NOW_S + late_s
    expires_s = None if life_s is None else issued_s + life_s
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s)


def revoked_grant(issuer: Key, life_s: int = 3600) -> Signed:
    return said(issuer, Revoke("grant", chance(16)), life_s=life_s)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    """Ten entries: two for roots, three for revocations, two of them for one admin."""
    for name, count in (
        ("ENTRIES_MAX", 10),
        ("OF_ROOTS", 2),
        ("OF_ONE_ROOT", 2),
        ("OF_REVOCATIONS", 3),
        ("OF_ONE_ADMIN", 2),
    ):
        monkeypatch.setattr(shares_module, name, count)


def taken(control: ControlSet, make: Callable[[], Signed]) -> int:
    """Add until one is refused; return how many were taken."""
    for count in range(30):
        try:
            control.add(make(), NOW_S)
        except PeerError:
            return count
    raise AssertionError("there is no bound")


@pytest.fixture
def full() -> ControlSet:
    """Return a set that a thief of the admin's key has filled with roles and what those say."""
    control = ruled()
    control.add(made_by(ROOT, OTHER_ADMIN, "admin"), NOW_S)
    control.add(made_by(OTHER_ADMIN, OPERATOR, "operator"), NOW_S)
    taken(control, lambda: made_by(ADMIN, Key.new(chance), "operator"))
    return control


def test_a_full_set_takes_what_a_root_says_for_ever(full: ControlSet, monkeypatch):
    for name in ("OF_ROOTS", "OF_ONE_ROOT"):
        monkeypatch.setattr(shares_module, name, 7)
    new_root = Key.new(chance)
    for body in (
        Revoke("key", ADMIN.public),
        Revoke("node", STRANGER.public),
        RootKeys(2, (ROOT.public, new_root.public)),
        Admits(STRANGER.public, b"a certificate"),
    ):
        assert full.add(said(ROOT, body), NOW_S)
    assert full.add(made_by(ROOT, STRANGER, "admin"), NOW_S)
    assert full.role_of(ADMIN.public) == ""
    assert full.role_of(STRANGER.public) == "admin"


def test_a_full_set_takes_what_admins_revoke_and_of_each_only_so_much(full: ControlSet):
    assert taken(full, lambda: revoked_grant(ADMIN)) == 2, "more of one admin takes no place"
    assert full.add(said(OTHER_ADMIN, Revoke("key", OPERATOR.public)), NOW_S)
    assert full.role_of(OPERATOR.public) == ""
    with pytest.raises(PeerError, match="full"):
        full.add(revoked_grant(OTHER_ADMIN), NOW_S)


def test_a_full_set_takes_nothing_else_of_anybody_whom_a_thief_can_make(full: ControlSet):
    before = full.root()
    for entry in (
        made_by(ADMIN, STRANGER, "operator"),
        said(OPERATOR, Policy("p", {})),
        said(OPERATOR, Revoke("key", OPERATOR.public)),
        revoked_grant(OPERATOR),
        said(ROOT, Policy("p", {})),
    ):
        with pytest.raises(PeerError, match="full"):
            full.add(entry, NOW_S)
    assert full.root() == before


def test_what_makes_room_gives_a_full_set_its_place_and_goes_only_then(monkeypatch):
    monkeypatch.setattr(control_module, "ISSUED_BY_ADMIN_MAX", 1)
    control = ruled()
    grant = revoked_grant(ADMIN)
    control.add(grant, NOW_S)
    taken(control, lambda: made_by(ADMIN, Key.new(chance), "operator"))
    with pytest.raises(PeerError, match="full"):  # what it would push out had a place of its own
        control.add(said(ADMIN, Policy("p", {})), NOW_S)
    assert grant in control.entries()
    later = revoked_grant(ADMIN, life_s=7200)
    assert control.add(later, NOW_S)
    assert grant not in control.entries()
    assert later in control.entries()


def test_a_setting_of_a_full_set_can_be_changed(full: ControlSet):
    control = ruled()
    control.add(said(ADMIN, Policy("p", {"n": 1})), NOW_S)
    taken(control, lambda: made_by(ADMIN, Key.new(chance), "operator"))
    assert control.add(said(ADMIN, Policy("p", {"n": 2}), 1), NOW_S)


def test_what_expires_gives_its_place_back(full: ControlSet):
    assert taken(full, lambda: revoked_grant(ADMIN, life_s=60)) == 2
    full.expire(NOW_S + 60)
    assert taken(full, lambda: revoked_grant(ADMIN)) == 2


def test_what_is_beyond_a_share_counts_among_the_others():
    control = ruled()
    size = taken(control, lambda: made_by(ROOT, Key.new(chance), "operator"))
    assert size + 1 == 10 - 3, "all but what is kept for revocations"
    assert taken(control, lambda: revoked_grant(ADMIN)) == 2


def test_a_stolen_root_takes_no_place_by_which_another_exchanges_it(monkeypatch):
    monkeypatch.setattr(shares_module, "ENTRIES_MAX", 16)
    for name, count in (("OF_ROOTS", 8), ("OF_ONE_ROOT", 4)):
        monkeypatch.setattr(shares_module, name, count)
    stolen, control = Key.new(chance), ruled()
    control.add(said(ROOT, RootKeys(2, (ROOT.public, stolen.public))), NOW_S)
    assert taken(control, lambda: said(stolen, Revoke("node", Key.new(chance).public))) == 4 + 5
    assert control.add(said(ROOT, RootKeys(3, (ROOT.public,))), NOW_S)
    assert control.succession.present == (ROOT.public,)
    assert control.add(said(ROOT, Revoke("key", ADMIN.public)), NOW_S)
    assert control.role_of(ADMIN.public) == ""
