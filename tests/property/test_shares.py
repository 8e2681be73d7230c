"""At its bound the control set hears who revokes, and what one node holds another can take."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.ruling import GENESIS, NOW_S, ROOT, made_by

from meshnode.core.control import shares as shares_module
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Revoke, entry_id_of, sign_entry
from meshnode.core.control.settings import Policy
from meshnode.core.control.succession import RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.keys import Key, Signed

chance = Random(72).randbytes
ADMINS = [Key.new(chance) for _ in range(3)]
OPERATORS = [Key.new(chance) for _ in range(3)]
STOLEN, BY_STOLEN, PROMOTED = (Key.new(chance) for _ in range(3))


def said(issuer: Key, body: Body, late_s: int = 0, life_s: int | None = None) -> Signed:
    issued_s = NOW_S + late_s
    expires_s = None if life_s is None else issued_s + life_s
    return sign_entry(issuer, GENESIS.mesh_id, body, chance, issued_s=issued_s, expires_s=expires_s)


MADE = [
    *(made_by(ROOT, admin, "admin") for admin in ADMINS),
    *(made_by(ADMINS[0], operator, "operator") for operator in OPERATORS),
]
BY_ROOT = [said(ROOT, Revoke("key", Key.new(chance).public)) for _ in range(2)]
BY_ADMINS = [
    said(admin, Revoke("grant", chance(16)), life_s=3600 + late_s)
    for late_s, admin in enumerate(ADMINS)
]
FLOOD = [
    *(said(ADMINS[0], Revoke("node", Key.new(chance).public)) for _ in range(6)),
    *(made_by(ADMINS[0], Key.new(chance), "operator") for _ in range(6)),
    *(said(one, Policy(f"p{n}", {}), n) for n in range(4) for one in OPERATORS),
    *(said(one, Revoke("key", one.public)) for one in OPERATORS),
]
EXCHANGES = [
    said(ROOT, RootKeys(2, (ROOT.public, STOLEN.public))),
    said(ROOT, RootKeys(3, (ROOT.public,))),
]
GIVEN = [
    made_by(ADMINS[0], PROMOTED, "operator"),
    made_by(ROOT, PROMOTED, "admin"),
    made_by(STOLEN, BY_STOLEN, "admin"),
]
BY_THEM = [
    *(said(STOLEN, Revoke("node", Key.new(chance).public)) for _ in range(9)),
    *(said(BY_STOLEN, Revoke("node", Key.new(chance).public)) for _ in range(3)),
    *(said(PROMOTED, Revoke("grant", chance(16)), life_s=3600) for _ in range(3)),
]
POOL = [*BY_ROOT, *BY_ADMINS, *FLOOD, *EXCHANGES, *GIVEN, *BY_THEM]
SIZE = 39


@contextmanager
def bounded() -> Iterator[None]:
    """Let a set have 13 entries beside 16 of roots, 8 of each, and 10 of admins, 2 of each."""
    sizes = {"OF_ROOTS": 16, "OF_ONE_ROOT": 8, "OF_REVOCATIONS": 10, "OF_ONE_ADMIN": 2}
    sizes["ENTRIES_MAX"] = SIZE
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(shares_module, name, size)
        yield


def hearing(entries: list[Signed]) -> ControlSet:
    control = ControlSet(GENESIS)
    control.add_all(MADE, NOW_S)
    control.add_all(entries, NOW_S)
    return control


def offered(entries: list[Signed]) -> ControlSet:
    """Return a set to which a neighbour offers these again and again, always in this order."""
    control = ControlSet(GENESIS)
    before = -1
    while len(control.entries()) > before:
        before = len(control.entries())
        for entry in entries:
            with suppress(PeerError):
                control.add(entry, NOW_S)
    return control


def answers(control: ControlSet) -> list[object]:
    keys = [ROOT, STOLEN, *ADMINS, *OPERATORS, PROMOTED, BY_STOLEN]
    roles = [control.role_of(key.public) for key in keys]
    return [roles, control.succession.present, set(control.revocations.nodes)]


def ids(entries: list[Signed]) -> set[bytes]:
    return {entry_id_of(entry) for entry in entries}


@settings(max_examples=40)
@given(st.permutations(POOL))
def test_whatever_comes_first_the_root_and_every_admin_are_heard(order: list[Signed]):
    with bounded():
        held = hearing(order)
    assert ids(BY_ROOT) <= ids(held.entries())
    assert ids(BY_ADMINS[1:]) <= ids(held.entries())
    assert len(held.entries()) <= SIZE


@settings(max_examples=40)
@given(st.permutations(POOL), st.randoms(use_true_random=False))
def test_what_one_node_holds_at_the_bound_fits_into_any_other_in_any_order(
    order: list[Signed], random: Random
):
    with bounded():
        first = hearing(order)
        held = first.entries()
        shuffled = random.sample(held, len(held))
        anew = ControlSet(GENESIS)
        assert anew.add_all(shuffled, NOW_S) == []
        other = offered(shuffled)
        needed = [*MADE, *EXCHANGES, *GIVEN]
        some = [entry for entry in shuffled if entry in needed or random.random() < 0.5]
        assert ids(offered(some).entries()) == ids(some)
    assert ids(anew.entries()) == ids(other.entries()) == ids(held)
    assert answers(anew) == answers(other) == answers(first)


@settings(max_examples=40)
@given(st.permutations(POOL), st.permutations(POOL))
def test_who_were_flooded_in_other_orders_agree_on_who_may_do_what(
    one: list[Signed], other: list[Signed]
):
    """What is kept apart is the same everywhere, so that is what is judged by."""
    with bounded():
        first, second = hearing(one), hearing(other)
        for source, target in ((first, second), (second, first)):
            target.add_all(source.entries(), NOW_S)
    apart = ids([*BY_ROOT, *BY_ADMINS[1:]])
    assert ids(first.entries()) & apart == ids(second.entries()) & apart == apart
