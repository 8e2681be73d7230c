"""Roots are exchanged version by version, and what a removed one has said counts for nothing."""

from itertools import permutations
from random import Random

import pytest

from meshnode.core.control.control import ControlSet, NoAuthorityError
from meshnode.core.control.entries import Body, Revoke, entry_id_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.control.succession import ROOTS_MAX, Admits, RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.certificates import issue_admitter, issue_node_ca
from meshnode.core.membership.genesis import Genesis

chance = Random(11).randbytes
OLD, NEW, THIRD, THIEF, ADMIN, OPERATOR, NODE = (Key.new(chance) for _ in range(7))
GENESIS = Genesis((OLD.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
NOW_S = 1_790_000_000


def said(issuer: Key, body: Body, mesh_id: str = GENESIS.mesh_id) -> Signed:
    return sign_entry(issuer, mesh_id, body, chance, issued_s=NOW_S)


def roots(version: int, *keys: Key) -> RootKeys:
    return RootKeys(version, tuple(key.public for key in keys))


def gives(issuer: Key, subject: Key, role: str) -> Signed:
    value = Role(subject.public, role, "", issuer.public, NOW_S, None)
    return role_entry(issuer, GENESIS.mesh_id, value, chance)


def admits(root: Key, *, life_from_s: float = NOW_S) -> Admits:
    der = issue_admitter(root, GENESIS.mesh_id, NODE_ID, life_from_s, chance)
    return Admits(NODE.public, der)


def holding(*entries: Signed) -> ControlSet:
    control = ControlSet(GENESIS)
    refused = control.add_all(entries, NOW_S)
    assert refused == []
    return control


ADDED = said(OLD, roots(2, OLD, NEW))
RETIRED = said(NEW, roots(3, NEW))


def test_an_added_root_may_what_the_first_one_may_beside_it():
    control = holding(ADDED, gives(NEW, ADMIN, "admin"))
    assert control.succession.present == (OLD.public, NEW.public)
    assert [control.role_of(key.public) for key in (OLD, NEW, ADMIN)] == ["admin"] * 3


def test_a_retired_root_has_no_role_and_neither_has_whom_it_made():
    control = holding(gives(OLD, ADMIN, "admin"), gives(ADMIN, OPERATOR, "operator"), ADDED)
    assert control.role_of(OPERATOR.public) == "operator"
    control.add(RETIRED, NOW_S)
    assert [control.role_of(key.public) for key in (OLD, ADMIN, OPERATOR)] == ["", "", ""]
    control.add(gives(NEW, ADMIN, "admin"), NOW_S)
    assert [control.role_of(key.public) for key in (ADMIN, OPERATOR)] == ["admin", "operator"]


def test_two_exchanges_lead_to_the_same_roots_in_any_order():
    steps = (ADDED, RETIRED, said(NEW, roots(4, NEW, THIRD)), said(THIRD, roots(5, THIRD)))
    for order in permutations(steps):
        control = holding(*order)
        assert control.succession.present == (THIRD.public,)
        assert control.succession.removed == {OLD.public, NEW.public}


def test_a_version_is_waited_for():
    control = holding(said(OLD, roots(3, OLD, THIRD)))
    assert control.succession.present == (OLD.public,)
    control.add(said(OLD, roots(2, OLD, NEW)), NOW_S)
    assert control.succession.present == (OLD.public, THIRD.public)


def test_what_a_retired_root_exchanges_is_stored_and_not_followed():
    control = holding(ADDED, RETIRED)
    for theft in (roots(3, THIEF), roots(4, THIEF), roots(4, OLD, NEW)):
        assert control.add(said(OLD, theft), NOW_S), "stored by all alike"
    control.add(gives(THIEF, OPERATOR, "admin"), NOW_S)
    assert control.succession.present == (NEW.public,)
    assert control.role_of(THIEF.public) == control.role_of(OPERATOR.public) == ""


def test_a_root_that_was_removed_is_never_taken_back():
    control = holding(ADDED, RETIRED, said(NEW, roots(4, NEW, OLD)))
    assert control.succession.present == (NEW.public,)
    assert control.succession.version == 3


def test_of_two_exchanges_of_one_version_the_first_heard_is_followed_after_a_restart_too():
    theft = said(OLD, roots(3, THIEF))
    control = holding(ADDED, RETIRED, theft)
    followed = control.succession.followed
    assert followed == [entry_id_of(ADDED), entry_id_of(RETIRED)]
    again = ControlSet(GENESIS)
    again.succession.follow(followed)
    again.add_all((theft, ADDED, RETIRED), NOW_S)
    assert again.succession.present in {(NEW.public,), (THIEF.public,)}
    assert again.succession.present == (NEW.public,)


def test_what_a_removed_root_has_revoked_counts_no_more_and_what_comes_later_neither():
    revoke = Revoke("key", OPERATOR.public)
    control = holding(gives(OLD, ADMIN, "admin"), said(OLD, revoke), ADDED)
    control.add(gives(NEW, OPERATOR, "operator"), NOW_S)
    assert control.role_of(OPERATOR.public) == ""
    control.add(RETIRED, NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"
    control.add(said(OLD, revoke), NOW_S)
    control.add(said(OLD, Revoke("node", NODE.public)), NOW_S)
    assert control.role_of(OPERATOR.public) == "operator"
    assert list(control.revocations.nodes) == []


def test_whom_a_removed_root_calls_a_root_takes_out_nobody_and_is_not_kept_from_being():
    control = holding(ADDED, RETIRED, gives(NEW, ADMIN, "admin"))
    control.add(said(OLD, roots(1000, THIEF, OPERATOR)), NOW_S)
    control.add(said(THIEF, Revoke("key", ADMIN.public)), NOW_S)
    assert control.role_of(ADMIN.public) == "admin"
    control.add(gives(NEW, OPERATOR, "admin"), NOW_S)
    control.add(said(NEW, Revoke("key", OPERATOR.public)), NOW_S)
    assert control.role_of(OPERATOR.public) == ""


def test_a_grants_revocation_by_a_removed_root_expires_like_any_other():
    word = sign_entry(
        OLD,
        GENESIS.mesh_id,
        Revoke("grant", bytes(16)),
        chance,
        issued_s=NOW_S,
        expires_s=NOW_S + 9,
    )
    control = holding(word, ADDED, RETIRED)
    control.expire(NOW_S + 10)
    assert control.take_dropped() == (entry_id_of(word),)


@pytest.mark.parametrize("issuer", [ADMIN, OPERATOR, NEW, THIEF])
def test_only_a_root_exchanges_roots_and_makes_admitters(issuer):
    control = holding(gives(OLD, ADMIN, "admin"), gives(OLD, OPERATOR, "operator"))
    for body in (roots(2, OLD, THIEF), admits(issuer)):
        with pytest.raises(NoAuthorityError):
            control.add(said(issuer, body), NOW_S)
    assert control.succession.present == (OLD.public,)
    assert list(control.succession.admitters()) == []


@pytest.mark.parametrize(
    "body",
    [
        RootKeys(1, (NEW.public,)),
        RootKeys(-1, (NEW.public,)),
        RootKeys(1 << 40, (NEW.public,)),
        RootKeys(2, ()),
        RootKeys(2, (NEW.public, NEW.public)),
        RootKeys(2, tuple(Key.new(chance).public for _ in range(ROOTS_MAX + 1))),
        RootKeys(2, (bytes(32),)),
        RootKeys(2, (b"short",)),
        Admits(bytes(32), b"x"),
        Admits(NODE.public, b""),
        Admits(NODE.public, bytes(3000)),
    ],
)
def test_what_names_no_roots_and_no_admitter_is_refused(body):
    control = holding()
    with pytest.raises(PeerError):
        control.add(said(OLD, body), NOW_S)
    assert control.entries() == []


def test_a_node_admits_by_the_word_of_a_present_root_the_oldest_one_first():
    old, new = said(OLD, admits(OLD)), said(NEW, admits(NEW))
    control = holding(old, ADDED, new)
    roots_view = control.succession
    assert roots_view.certificate_of(NODE_ID) == admits_in(old, control)
    assert roots_view.certificate_of(NODE_ID, NEW.public) == admits_in(new, control)
    control.add(RETIRED, NOW_S)
    assert roots_view.certificate_of(NODE_ID) == admits_in(new, control)
    assert list(roots_view.admitters()) == [NODE_ID]


def admits_in(signed: Signed, control: ControlSet) -> bytes:
    return control._held[entry_id_of(signed)].body.certificate


def test_of_one_roots_words_the_one_that_lasts_longest_counts():
    late, early = said(OLD, admits(OLD, life_from_s=NOW_S + 9)), said(OLD, admits(OLD))
    control = holding(late, early)
    assert control.succession.certificate_of(NODE_ID) == admits_in(late, control)


@pytest.mark.parametrize(
    "certificate",
    [
        issue_admitter(THIEF, GENESIS.mesh_id, NODE_ID, NOW_S, chance),
        issue_admitter(OLD, GENESIS.mesh_id, node_id_of(THIEF.public), NOW_S, chance),
        issue_node_ca(OLD, NODE_ID, NOW_S, chance),
        b"no certificate",
    ],
    ids=["of another issuer", "of another node", "of a node", "none"],
)
def test_a_certificate_that_is_no_roots_word_for_this_node_lets_nobody_admit(certificate):
    control = holding(said(OLD, Admits(NODE.public, certificate)))
    assert control.succession.certificate_of(NODE_ID) is None
    assert list(control.succession.admitters()) == []
