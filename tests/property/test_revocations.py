"""What is revoked follows from the set of entries; it takes away, and spares what it lists."""

from dataclasses import dataclass
from itertools import pairwise, permutations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.core.ruling import NOW_S, asked

from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Body, Forget, Revoke, role_entry, sign_entry
from meshnode.core.control.grants import Grant
from meshnode.core.control.roles import ACTIONS_OF_ROLE, Authorization, Role, authorize
from meshnode.core.errors import NotAuthenticatedError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis

chance = Random(87).randbytes
NAMES = ("root", "ada", "bob", "carl", "dora", "eve", "node", "device", "session", "child")
KEYS = dict(zip(NAMES, (Key.new(chance) for _ in NAMES), strict=True))
GENESIS = Genesis((KEYS["root"].public,), 1, "test", bytes(16))
GRANT_IDS = {name: chance(16) for name in ("session", "child")}


def key(name: str) -> bytes:
    return KEYS[name].public


def role(issuer: str, subject: str, name: str, via: Signed | None = None) -> Signed:
    value = Role(key(subject), name, "", key(issuer), NOW_S, via)
    return role_entry(KEYS[issuer], GENESIS.mesh_id, value, chance)


def said(issuer: str, body: Body, expires_s: int | None = None) -> Signed:
    return sign_entry(
        KEYS[issuer], GENESIS.mesh_id, body, chance, issued_s=NOW_S, expires_s=expires_s
    )


def revoke(issuer: str, what: str, name: str, *survivors: str) -> Signed:
    if what == "grant":
        return said(issuer, Revoke(what, GRANT_IDS[name]), NOW_S + 3600)
    return said(issuer, Revoke(what, key(name), tuple(map(key, survivors))))


def word(signer: str) -> Signed:
    value = Authorization(
        GENESIS.mesh_id, bytes(16), node_id_of(key("node")), "operator", 1, NOW_S, NOW_S + 60, b""
    )
    return authorize(KEYS[signer], value)


def forget(issuer: str, seq: int) -> Signed:
    zero = bytes(32)
    header = Header(
        GENESIS.mesh_id, node_id_of(key("device")), 1, 1, seq, seq, zero, zero, float(seq)
    )
    return said(issuer, Forget(sign_header(KEYS["device"], header)))


def grant(issuer: str, subject: str) -> Grant:
    return Grant(GENESIS.mesh_id, key(issuer), key(subject), ("steer",), 0, 1, GRANT_IDS[subject])


ROLES = [
    role("root", "ada", "admin"),
    role("root", "bob", "admin"),
    role("ada", "bob", "observer"),
    role("bob", "ada", "observer"),
    role("ada", "carl", "operator"),
    role("bob", "carl", "operator"),
    role("ada", "dora", "operator"),
    role("node", "eve", "operator", word("ada")),
]
CHAINS = {
    f"{first} grants": [grant(first, "session"), grant("session", "child")][:size]
    for first in ("ada", "carl", "dora", "eve")
    for size in (1, 2)
}
FIRST = [  # at most one of an issuer about a name
    revoke("root", "key", "ada", "carl", "eve"),
    revoke("root", "key", "bob"),
    revoke("ada", "key", "bob", "carl"),
    revoke("bob", "key", "ada", "carl"),
    revoke("ada", "key", "carl", "session", "carl"),
    revoke("bob", "key", "carl", "session"),
    revoke("carl", "key", "carl", "session"),
    revoke("dora", "key", "dora"),
    revoke("root", "key", "session"),
    revoke("root", "key", "root"),
    revoke("root", "node", "node", "eve"),
    revoke("ada", "node", "node"),
    revoke("ada", "node", "device"),
    revoke("root", "node", "device", "eve"),
    revoke("dora", "grant", "session"),
    revoke("carl", "grant", "child"),
]
MORE = [  # of an issuer and a name that is there already
    revoke("root", "key", "ada", "dora"),
    revoke("ada", "key", "carl", "child"),
    revoke("carl", "key", "carl", "child"),
    revoke("root", "node", "node", "device"),
]
FORGETS = [forget("carl", 5), forget("dora", 9), forget("ada", 3)]
RANKS = ["", "observer", "operator", "admin"]


@dataclass(frozen=True)
class View:
    """What can be done, whatever is asked."""

    ranks: tuple[int, ...]  # of keys, then of chains
    members: tuple[bool, ...]
    forgotten: tuple[object, ...]

    def within(self, other: "View") -> bool:
        pairs = zip((*self.ranks, *self.members), (*other.ranks, *other.members), strict=True)
        return all(mine <= theirs for mine, theirs in pairs)


def rank_behind(control: ControlSet, chain: list[Grant]) -> int:
    try:
        return RANKS.index(control.role_behind(chain))
    except NotAuthenticatedError:
        return 0


def view(entries: list[Signed]) -> View:
    control = ControlSet(GENESIS)
    assert control.add_all(entries, NOW_S) == []
    return view_of(control)


def view_of(control: ControlSet) -> View:
    revoked = control.revocations
    return View(
        (
            *(RANKS.index(control.role_of(key(name))) for name in NAMES),
            *(rank_behind(control, chain) for chain in CHAINS.values()),
        ),
        (
            *(not revoked.has_node(key("node"), admits=admits) for admits in (True, False)),
            *(not revoked.has_node(key("device"), admits=admits) for admits in (True, False)),
            *(not revoked.cuts_off(key("node"), key(name)) for name in ("device", "eve")),
        ),
        tuple(sorted(control.forgotten.items())),
    )


@settings(max_examples=60)
@given(st.permutations([*ROLES, *FIRST, *MORE, *FORGETS]), st.integers(0, 31))
def test_what_counts_is_a_function_of_the_set_and_not_of_the_order(order: list[Signed], size: int):
    heard = order[:size]
    one, other = ControlSet(GENESIS), ControlSet(GENESIS)
    assert {entry.hash for entry in one.add_all(heard, NOW_S)} == {
        entry.hash for entry in other.add_all(sorted(heard, key=lambda one: one.hash), NOW_S)
    }
    assert view_of(one) == view_of(other) == view_of(asked(ControlSet(GENESIS), heard, view_of))


@settings(max_examples=60)
@given(st.permutations(FIRST))
def test_no_first_revocation_of_an_issuer_gives_anybody_anything(order: list[Signed]):
    control = ControlSet(GENESIS)
    control.add_all(ROLES, NOW_S)
    before = view_of(control)
    for entry in order:
        control.add(entry, NOW_S)
        after = view_of(control)
        assert after.within(before)
        before = after


@settings(max_examples=60)
@given(
    st.sets(st.sampled_from(["bob", "carl", "dora", "eve"])),
    st.sets(st.sampled_from(["bob", "carl", "dora", "eve"])),
)
def test_exactly_those_stay_whom_every_revocation_lists(first: set[str], more: set[str]):
    roles = [entry for entry in ROLES if entry not in {ROLES[3], ROLES[5]}]
    revoked = [revoke("root", "key", "ada", *first), revoke("root", "key", "ada", *more)]
    control = ControlSet(GENESIS)
    control.add_all([*roles, *revoked], NOW_S)
    for name in ("carl", "dora", "eve"):
        stays = name in first | more
        assert control.role_of(key(name)) == ("operator" if stays else "")
    assert control.role_of(key("bob")) == "admin", "that role was the root's"
    assert control.role_of(key("ada")) == ""


def test_no_admin_puts_out_another_in_whatever_order_it_says_so():
    """Who gives an admin some role may revoke that, and not what the root gave."""
    mutual = [revoke("ada", "key", "bob", "carl"), revoke("bob", "key", "ada", "carl")]
    for order in permutations([*ROLES[:4], *mutual]):
        control = ControlSet(GENESIS)
        assert control.add_all(order, NOW_S) == []
        assert control.role_of(key("ada")) == control.role_of(key("bob")) == "admin"


def test_what_a_stolen_admins_key_revoked_of_another_admin_takes_nobody_out_before_or_after():
    made = [*ROLES[:2], ROLES[4], forget("carl", 5)]
    stolen = [role("bob", "ada", "observer"), revoke("bob", "key", "ada")]
    for order in (made + stolen, stolen + made, [*made[:2], *stolen, *made[2:]]):
        control = ControlSet(GENESIS)
        assert control.add_all(order, NOW_S) == []
        for root_says in ([], [revoke("root", "key", "bob")]):
            assert control.add_all(root_says, NOW_S) == []
            assert control.role_of(key("ada")) == "admin"
            assert control.role_of(key("carl")) == "operator"
            assert control.forgotten[node_id_of(key("device"))].seq == 5
        assert control.role_of(key("bob")) == ""


def test_an_admin_is_out_by_the_roots_word_or_its_own():
    for by in ("root", "ada"):
        control = ControlSet(GENESIS)
        control.add_all([*ROLES, revoke(by, "key", "ada")], NOW_S)
        assert control.role_of(key("ada")) == ""


def test_an_operator_that_was_revoked_and_is_an_admin_by_the_root_is_one_for_roots_to_revoke():
    """Only the root can say both, and the command line refuses to."""
    entries = [*ROLES[:2], role("ada", "dora", "operator"), revoke("ada", "key", "dora")]
    made, forgot = role("root", "dora", "admin"), forget("dora", 9)
    for order in ([*entries, forgot, made], [made, forgot, *entries]):
        control = ControlSet(GENESIS)
        assert control.add_all(order, NOW_S) == []
        assert control.role_of(key("dora")) == "admin"
        assert control.forgotten[node_id_of(key("device"))].seq == 9


def test_a_revocation_outlives_its_signer_and_what_it_spared_does_not():
    roles = [*ROLES[:2], ROLES[4]]
    chain = [grant("carl", "session")]
    spared = [*roles, revoke("ada", "key", "carl", "session")]
    held = ControlSet(GENESIS)
    held.add_all(spared, NOW_S)
    assert held.role_of(key("carl")) == ""
    assert held.role_behind(chain) == "operator"
    held.add_all([revoke("root", "key", "ada", "carl", "session")], NOW_S)
    assert held.role_of(key("carl")) == ""
    assert rank_behind(held, chain) == 0


def test_what_a_revoked_key_has_forgotten_is_shown_again():
    assert dict(view([*ROLES, *FORGETS]).forgotten)[node_id_of(key("device"))].seq == 9
    control = ControlSet(GENESIS)
    control.add_all([*ROLES, *FORGETS], NOW_S)
    control.take_reconsidered()
    control.add_all([revoke("dora", "key", "dora")], NOW_S)
    assert control.take_reconsidered() == {node_id_of(key("device"))}
    assert control.forgotten[node_id_of(key("device"))].seq == 5


def test_every_role_can_do_something_the_one_before_cannot():
    actions = [ACTIONS_OF_ROLE.get(name, frozenset()) for name in RANKS]
    assert all(less < more for less, more in pairwise(actions))
