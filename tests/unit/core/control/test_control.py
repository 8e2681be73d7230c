"""Who may say what to the whole mesh, how much of it is kept, and for how long."""

import pytest
from unit.core.ruling import (
    ADMIN,
    ADMITTER,
    GENESIS,
    NODE,
    NODE_ID,
    NOW_S,
    OBSERVER,
    OPERATOR,
    ROOT,
    STRANGER,
    chance,
    made_by,
    ruled,
    word,
)

from meshnode.core.control import control as control_module
from meshnode.core.control import shares as shares_module
from meshnode.core.control.control import ControlSet, NoAuthorityError, NoRoomError
from meshnode.core.control.entries import (
    CONTROL,
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    entry_id_of,
    sign_entry,
)
from meshnode.core.control.roles import INVITE, Role
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.control.succession import RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import unpack_map


@pytest.fixture
def control() -> ControlSet:
    return ruled()


def said(issuer: Key, body: Body, issued_s: int = NOW_S, life_s: int | None = None) -> Signed:
    expires_s = None if life_s is None else issued_s + life_s
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s)


def head_of(seq: int) -> Header:
    zero = bytes(32)
    return sign_header(
        NODE, Header(GENESIS.mesh_id, NODE_ID, 1, 1, seq, seq, zero, zero, float(NOW_S))
    )


@pytest.fixture
def peopled(control: ControlSet) -> ControlSet:
    """The root, an admin, the operator that it made, and an observer that the root made."""
    control.add(made_by(ADMIN, OPERATOR, "operator"), NOW_S)
    control.add(made_by(ROOT, OBSERVER, "observer"), NOW_S)
    return control


ORDER = StandingKill(agent="a")
MAY = {
    "an operator orders": (OPERATOR, ORDER, 60),
    "an admin orders": (ADMIN, ORDER, 60),
    "an operator cancels": (OPERATOR, Cancel(bytes(16)), 60),
    "an operator sets a policy": (OPERATOR, Policy("p", {"a": 1}), None),
    "an admin sets a budget": (ADMIN, Budget("b", Terms(1, "tokens", "day", "kill")), None),
    "an operator forgets a node": (OPERATOR, Forget(head_of(1)), None),
    "the root revokes a node": (ROOT, Revoke("node", NODE.public), None),
    "the root revokes whomever it likes": (ROOT, Revoke("key", STRANGER.public), None),
    "an admin revokes whom it made": (ADMIN, Revoke("key", OPERATOR.public), None),
    "an admin revokes a node": (ADMIN, Revoke("node", NODE.public), None),
    "a key revokes itself": (OBSERVER, Revoke("key", OBSERVER.public), None),
    "a key revokes a grant": (OBSERVER, Revoke("grant", bytes(16)), 60),
}
MAY_NOT = {
    "an observer orders": (OBSERVER, ORDER, 60),
    "an observer sets a policy": (OBSERVER, Policy("p", {}), None),
    "a stranger cancels": (STRANGER, Cancel(bytes(16)), 60),
    "a stranger forgets": (STRANGER, Forget(head_of(1)), None),
    "a node forgets another": (NODE, Forget(head_of(1)), None),
    "an operator revokes a node": (OPERATOR, Revoke("node", NODE.public), None),
    "an admin revokes whom another made": (ADMIN, Revoke("key", OBSERVER.public), None),
    "an operator revokes its admin": (OPERATOR, Revoke("key", ADMIN.public), None),
    "a stranger revokes itself": (STRANGER, Revoke("key", STRANGER.public), None),
    "a stranger revokes a grant": (STRANGER, Revoke("grant", bytes(16)), 60),
}


@pytest.mark.parametrize(("issuer", "body", "life_s"), MAY.values(), ids=MAY)
def test_whoever_may_say_it_is_heard(
    peopled: ControlSet, issuer: Key, body: Body, life_s: int | None
):
    assert peopled.add(said(issuer, body, life_s=life_s), NOW_S)


@pytest.mark.parametrize(("issuer", "body", "life_s"), MAY_NOT.values(), ids=MAY_NOT)
def test_whoever_may_not_say_it_is_refused(
    peopled: ControlSet, issuer: Key, body: Body, life_s: int | None
):
    before = peopled.root()
    with pytest.raises(NoAuthorityError):
        peopled.add(said(issuer, body, life_s=life_s), NOW_S)
    assert peopled.root() == before


def test_an_admin_revokes_also_whom_its_invite_let_in(control: ControlSet):
    control.add(made_by(ADMITTER, OPERATOR, "operator", word()), NOW_S)
    assert control.add(said(ADMIN, Revoke("key", OPERATOR.public)), NOW_S)


def test_an_entry_goes_when_it_expires_and_does_not_come_back(peopled: ControlSet):
    entry = said(OPERATOR, ORDER, life_s=60)
    before = peopled.root()
    assert peopled.add(entry, NOW_S)
    peopled.expire(NOW_S + 59.9)
    assert peopled.get(entry_id_of(entry)) == entry
    peopled.expire(NOW_S + 60)
    assert peopled.take_dropped() == (entry_id_of(entry),)
    assert not peopled.add(entry, NOW_S + 60)
    assert peopled.root() == before
    assert peopled.cut_s == NOW_S + 60


def test_the_newest_of_a_name_replaces_those_of_the_same_issuer(peopled: ControlSet):
    old, new = (said(OPERATOR, Policy("p", {"n": n}), NOW_S + n) for n in (1, 2))
    others = [said(OPERATOR, Policy("q", {})), said(ADMIN, Policy("p", {}))]
    for entry in (*others, new):
        assert peopled.add(entry, NOW_S)
    assert not peopled.add(old, NOW_S), "it came late"
    gone = said(OPERATOR, Policy("p", None), NOW_S + 3)
    assert peopled.add(gone, NOW_S)
    assert peopled.take_dropped() == (entry_id_of(new),)
    assert all(entry in peopled.entries() for entry in (gone, *others))


def test_one_issuer_fills_its_own_share_only(peopled: ControlSet, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control_module, "ISSUED_MAX", 3)
    orders = [said(OPERATOR, ORDER, life_s=60 + n) for n in range(5)]
    other = said(ADMIN, ORDER, life_s=10)
    for entry in (other, *orders):
        assert peopled.add(entry, NOW_S)
    assert not peopled.add(orders[0], NOW_S), "earlier than all that are kept"
    assert [entry for entry in peopled.entries() if entry in orders] == orders[2:]
    assert other in peopled.entries()


def test_an_entry_of_our_own_pushes_nothing_out(
    peopled: ControlSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control_module, "ISSUED_MAX", 1)
    first = said(OPERATOR, Policy("p", {}), NOW_S)
    peopled.add(first, NOW_S, ours=True)
    with pytest.raises(NoRoomError, match="issued 1 "):
        peopled.add(said(OPERATOR, ORDER, life_s=5), NOW_S, ours=True)
    assert peopled.add(said(OPERATOR, Policy("p", None), NOW_S + 1), NOW_S, ours=True), "replaced"


def test_roles_have_a_bound_and_none_of_them_makes_room(
    control: ControlSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shares_module, "ROLES_MAX", 1)
    control.add(made_by(ADMIN, OPERATOR, "operator"), NOW_S)
    with pytest.raises(PeerError, match="roles"):
        control.add(made_by(ADMIN, OBSERVER, "observer"), NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"


def test_what_is_revoked_stays_so_whatever_else_a_thief_of_that_key_issues(
    peopled: ControlSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control_module, "ISSUED_BY_ADMIN_MAX", 1)
    monkeypatch.setattr(shares_module, "REVOKED_BY_ADMIN_MAX", 1)
    assert peopled.add(said(ADMIN, Revoke("key", OPERATOR.public)), NOW_S)
    for late_s in range(1, 4):
        peopled.add(said(ADMIN, Policy(f"p{late_s}", {}), NOW_S + late_s), NOW_S)
    with pytest.raises(PeerError, match="more than 1 revocations"):
        peopled.add(said(ADMIN, Revoke("node", NODE.public)), NOW_S)
    assert peopled.role_of(OPERATOR.public) == ""


def test_who_is_no_admin_revokes_itself_a_few_times_only(
    peopled: ControlSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shares_module, "REVOKED_MAX", 1)
    assert peopled.add(said(OPERATOR, Revoke("key", OPERATOR.public)), NOW_S)
    with pytest.raises(PeerError, match="more than 1 revocations"):
        peopled.add(said(OPERATOR, Revoke("key", OPERATOR.public)), NOW_S)


def test_of_several_forgettings_the_highest_head_counts(peopled: ControlSet):
    for issuer, seq, highest in ((ADMIN, 5, 5), (OPERATOR, 9, 9), (ADMIN, 7, 9)):
        assert peopled.add(said(issuer, Forget(head_of(seq))), NOW_S)
        assert peopled.forgotten == {NODE_ID: Head(1, highest)}
        assert peopled.take_reconsidered() == ({NODE_ID} if seq == highest else set())


def test_what_makes_room_hides_nothing_any_more(
    peopled: ControlSet, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(control_module, "ISSUED_MAX", 1)
    peopled.add(said(OPERATOR, Forget(head_of(9))), NOW_S)
    peopled.take_reconsidered()
    peopled.add(said(OPERATOR, Policy("p", {}), NOW_S + 1), NOW_S)
    assert peopled.take_reconsidered() == {NODE_ID}
    assert peopled.forgotten.get(NODE_ID, NOTHING) == NOTHING


def test_a_role_does_not_expire_whatever_it_says(control: ControlSet):
    value = unpack_map(made_by(ADMIN, OPERATOR, "operator").payload)
    assert control.add(ADMIN.sign(CONTROL, {**value, "expires": 5}), NOW_S)
    control.expire(NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"


def test_the_root_at_a_cut_leaves_out_what_has_expired_by_then(peopled: ControlSet):
    before = peopled.root()
    peopled.add(said(OPERATOR, ORDER, life_s=60), NOW_S)
    later = said(OPERATOR, ORDER, life_s=90)
    peopled.add(later, NOW_S)
    assert peopled.root(NOW_S + 90) == before
    peopled.expire(NOW_S + 60)
    assert peopled.root(NOW_S + 60) == peopled.root() != before


def test_what_a_neighbour_asks_about_a_cut_is_remembered_until_the_set_changes(peopled):
    first = [peopled.root(NOW_S + late_s) for late_s in range(0, 1000, 10)]
    assert len(peopled._roots) <= control_module.ROOTS_MAX
    assert [peopled.root(NOW_S + late_s) for late_s in range(0, 1000, 10)] == first
    peopled.expire(NOW_S + 500)
    again = peopled.root(NOW_S + 990)
    peopled._roots.clear()
    assert again == peopled.root(NOW_S + 990)


def test_a_role_by_an_invite_that_cannot_be_read_is_nobodys(control: ControlSet):
    control.add(said(ROOT, RootKeys(2, (Key.new(chance).public,))), NOW_S)
    unreadable = Signed(INVITE, b"\x80", bytes(64))  # as whoever stole a removed root may make it
    role = Role(OBSERVER.public, "operator", "oleg", ROOT.public, 100, unreadable)
    assert control.add(said(ROOT, role), NOW_S), "who has another version of the roots holds it"
    assert control.role_of(OBSERVER.public) == ""
