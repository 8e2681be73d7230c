"""Whatever an admin signs as an entry of the control set, it is taken or refused by name."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import (
    CONTROL,
    Body,
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    role_entry,
    sign_entry,
)
from meshnode.core.control.roles import Role
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.control.succession import Admits, RootKeys
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis
from meshnode.core.packing import unpack_map

chance = Random(76).randbytes
ROOT, ADMIN, NODE = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
ROLE = role_entry(
    ROOT, GENESIS.mesh_id, Role(ADMIN.public, "admin", "", ROOT.public, 5, None), chance
)
HEADER = sign_header(NODE, Header(GENESIS.mesh_id, NODE_ID, 1, 1, 1, 1, bytes(32), bytes(32), 1.0))
BODIES: dict[str, tuple[Body, int | None]] = {
    "role": (Role(NODE.public, "operator", "", ADMIN.public, 5, None), None),
    "revoke": (Revoke("grant", bytes(16)), 9),
    "order": (StandingKill(agent="a", node=NODE_ID), 9),
    "cancel": (Cancel(bytes(16)), 9),
    "policy": (Policy("p", {"a": 1, "b": True, "c": "d"}), None),
    "budget": (Budget("b", Terms(5, "tokens", "day", "kill")), None),
    "forget": (Forget(HEADER), None),
    "roots": (RootKeys(2, (ROOT.public, NODE.public)), None),
    "admitter": (Admits(NODE.public, b"a certificate"), None),
}
SIGNERS = dict.fromkeys(BODIES, ADMIN) | {"roots": ROOT, "admitter": ROOT}


def signed(kind: str) -> dict[str, Any]:
    body, expires_s = BODIES[kind]
    entry = sign_entry(
        SIGNERS[kind], GENESIS.mesh_id, body, chance, issued_s=5, expires_s=expires_s
    )
    return unpack_map(entry.payload)


ENTRIES = {kind: signed(kind) for kind in BODIES}
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=33)
)
odds = st.recursive(
    leaves,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=4), parts),
    max_leaves=6,
)


def taken(value: dict[str, Any], signer: Key) -> bool:
    """Sign it, whatever it is, and let a set take it; True if it is held."""
    control = ControlSet(GENESIS)
    control.add(ROLE, 0.0)
    before = control.root()
    try:
        added = control.add(signer.sign(CONTROL, value), 0.0)
    except PeerError:
        added = False
    assert (control.root() != before) is added
    assert len(control.entries()) == 1 + added
    return added


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_proper_entry_is_taken(kind: str):
    assert taken(ENTRIES[kind], SIGNERS[kind])


@settings(max_examples=100)
@pytest.mark.parametrize("kind", ENTRIES)
@given(data=st.data())
def test_an_entry_with_any_field_replaced_is_taken_or_refused_whole(kind: str, data: st.DataObject):
    value = dict(ENTRIES[kind])
    for name in data.draw(st.sets(st.sampled_from(sorted(value)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            value[name] = data.draw(odds)
        else:
            del value[name]
    taken(value, SIGNERS[kind])
