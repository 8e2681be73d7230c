"""What each kind of control entry says, and what is none."""

from random import Random

import pytest

from meshnode.core.control.control import ENTRY_BYTES_MAX
from meshnode.core.control.entries import (
    CANCEL_LIFE_S_MAX,
    CONTROL,
    ENTRY_ID_BYTES,
    NEVER_S,
    ORDER_LIFE_S_MAX,
    SURVIVORS_MAX,
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    entry_from_signed,
    sign_entry,
)
from meshnode.core.control.grants import GRANT_TTL_S_MAX
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import unpack_map

chance = Random(72).randbytes
KEY, NODE, STRANGER = (Key.new(chance) for _ in range(3))
MESH, NOW_S = "m" * 52, 1_790_000_000
NODE_ID = node_id_of(NODE.public)
ORDER = StandingKill("s", 7, "a", "spec", NODE_ID, force=True, grace_s=0)
TERMS = Terms(20_000_000_000, "nusd", "day", "kill", 90, "olga", "a", "review", "p")


def header(key: Key = NODE, mesh: str = MESH) -> Header:
    zero = bytes(32)
    return sign_header(
        key, Header(mesh, node_id_of(NODE.public), 2, 1, 4, 6, zero, zero, float(NOW_S))
    )


BODIES = [
    pytest.param(Revoke("key", KEY.public, (NODE.public, STRANGER.public)), None, id="revoke"),
    pytest.param(Revoke("node", NODE.public), None, id="revoke a node"),
    pytest.param(Revoke("grant", bytes(16)), GRANT_TTL_S_MAX, id="revoke a grant"),
    pytest.param(ORDER, ORDER_LIFE_S_MAX, id="order"),
    pytest.param(StandingKill(specialization="crawler"), 60, id="order by specialization"),
    pytest.param(Cancel(bytes(ENTRY_ID_BYTES)), CANCEL_LIFE_S_MAX, id="cancel"),
    pytest.param(Policy("p", {"a": 1, "b": True, "c": "x"}), None, id="policy"),
    pytest.param(Policy("p", None), None, id="a policy deleted"),
    pytest.param(Budget("b", TERMS), None, id="budget"),
    pytest.param(Budget("b", None), None, id="a budget deleted"),
    pytest.param(Forget(header()), None, id="forget"),
]


def signed(body: Body, life_s: int | None = None) -> Signed:
    expires_s = None if life_s is None else NOW_S + life_s
    return sign_entry(KEY, MESH, body, chance, issued_s=NOW_S, expires_s=expires_s)


@pytest.mark.parametrize(("body", "life_s"), BODIES)
def test_what_was_signed_is_what_is_read(body: Body, life_s: int | None):
    entry = entry_from_signed(signed(body, life_s), MESH)
    assert entry.body == body
    assert (entry.issuer, entry.issued_s) == (KEY.public, NOW_S)
    assert entry.expires_s == (NEVER_S if life_s is None else NOW_S + life_s)
    assert entry.slot == (body.name if isinstance(body, Policy | Budget) else "")


def test_a_forgotten_head_is_the_one_that_its_node_signed():
    forget = Forget(header())
    assert (forget.node, forget.head) == (NODE_ID, Head(2, 6))


def test_as_many_survivors_as_allowed_fit_into_an_entry():
    survivors = tuple(chance(32) for _ in range(SURVIVORS_MAX))
    assert len(signed(Revoke("key", KEY.public, survivors)).payload) <= ENTRY_BYTES_MAX


def bent(body: Body, life_s: int | None = None, **fields: object) -> Signed:
    value = {**unpack_map(signed(body, life_s).payload), **fields}
    return KEY.sign(CONTROL, {key: one for key, one in value.items() if one is not ...})


REVOKE = Revoke("key", KEY.public)
POLICY = Policy("p", {})
BUDGET = Budget("b", TERMS)
MAPPED = BUDGET.to_map()["terms"]
MISFITS = {
    "an expiry that is none": bent(POLICY, expires="soon"),
    "a time before 1970": bent(POLICY, issued=-1),
    "a time beyond all": bent(POLICY, issued=1 << 60),
    "a kind that is no text": bent(POLICY, kind=5),
    "a kind without end": bent(POLICY, kind="k" * 65),
    "a slot of another kind": bent(Forget(header()), slot="p"),
    "a policy in another slot": bent(POLICY, slot="q"),
    "a policy in no slot": bent(POLICY, slot=...),
    "a policy that expires": bent(POLICY, expires=NOW_S + 5),
    "a policy without a name": bent(POLICY, name="", slot=""),
    "a policy of lists": bent(POLICY, settings={"a": []}),
    "a policy of many": bent(POLICY, settings={str(n): n for n in range(33)}),
    "a policy with a long text": bent(POLICY, settings={"a": "x" * 257}),
    "a budget without a limit": bent(BUDGET, terms={**MAPPED, "limit": 0}),
    "a budget in shells": bent(BUDGET, terms={**MAPPED, "unit": "shells"}),
    "a budget a week": bent(BUDGET, terms={**MAPPED, "per": "week"}),
    "a budget that warns late": bent(BUDGET, terms={**MAPPED, "warn": 101}),
    "a budget with no consequence": bent(BUDGET, terms={**MAPPED, "then": "weep"}),
    "a budget of nothing": bent(BUDGET, terms=[]),
    "a key of another size": bent(REVOKE, name=bytes(31)),
    "a grant that is a key": bent(REVOKE, what="grant"),
    "a revocation of the weather": bent(REVOKE, what="weather"),
    "a key that is revoked for a while": bent(REVOKE, expires=NOW_S + 5),
    "a grant that is revoked for ever": bent(Revoke("grant", bytes(16))),
    "a grant with survivors": bent(Revoke("grant", bytes(16)), 5, survivors=[KEY.public]),
    "survivors that are no keys": bent(REVOKE, survivors=[b"x"]),
    "too many survivors": bent(REVOKE, survivors=[bytes(32)] * (SURVIVORS_MAX + 1)),
    "an order for ever": bent(ORDER),
    "an order for too long": bent(ORDER, ORDER_LIFE_S_MAX + 1),
    "an order for nobody": bent(ORDER, 5, session="", epoch=0, agent="", spec="", node=""),
    "a session without its epoch": bent(ORDER, 5, epoch=0),
    "an epoch without its session": bent(ORDER, 5, session=""),
    "an epoch out of range": bent(ORDER, 5, epoch=-1),
    "an order for what is no node": bent(ORDER, 5, node="berta"),
    "a grace without end": bent(ORDER, 5, grace=61),
    "a force that is a number": bent(ORDER, 5, force=1),
    "a cancel for ever": bent(Cancel(bytes(16))),
    "a cancel of nothing": bent(Cancel(bytes(16)), 5, order=b""),
    "a head that nobody signed": bent(Forget(header()), head=[b"", b""]),
    "a head of three parts": bent(Forget(header()), head=[b"", b"", b""]),
    "a head that another signed": signed(Forget(header(STRANGER))),
    "a head of another mesh": signed(Forget(header(mesh="another"))),
    "a forgetting that expires": bent(Forget(header()), expires=NOW_S + 5),
    "an entry of another mesh": bent(POLICY, mesh="another"),
    "an issuer that is no key": bent(POLICY, issuer=bytes(32)),
}


@pytest.mark.parametrize("entry", MISFITS.values(), ids=MISFITS)
def test_what_is_no_entry_is_refused(entry: Signed):
    with pytest.raises(PeerError):
        entry_from_signed(entry, MESH)


def test_a_kind_of_a_newer_version_is_read_as_far_as_its_envelope():
    entry = entry_from_signed(bent(POLICY, kind="moon", slot="x", expires=NOW_S + 5), MESH)
    assert (entry.body, entry.slot, entry.expires_s) == (None, "x", NOW_S + 5)


def test_fields_of_a_newer_version_are_passed_over():
    assert entry_from_signed(bent(POLICY, colour="red"), MESH).body == POLICY
