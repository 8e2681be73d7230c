"""A mesh whose root has made an admin, and the keys of those who come to have a say in it."""

from collections.abc import Callable, Sequence
from random import Random

from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import role_entry
from meshnode.core.control.roles import Authorization, Role, authorize
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis

chance = Random(5).randbytes
ROOT, ADMIN, ADMITTER, OPERATOR, STRANGER, OBSERVER, NODE = (Key.new(chance) for _ in range(7))
NODE_ID = node_id_of(NODE.public)
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NOW_S = 1_790_000_000


def made_by(
    issuer: Key, subject: Key, role: str, via: Signed | None = None, issued_s: int = NOW_S
) -> Signed:
    value = Role(subject.public, role, "somebody", issuer.public, issued_s, via)
    return role_entry(issuer, GENESIS.mesh_id, value, chance)


def word(signer: Key = ADMIN, **fields: object) -> Signed:
    values: dict = {
        "mesh": GENESIS.mesh_id,
        "invite_id": bytes(16),
        "admitter": node_id_of(ADMITTER.public),
        "role": "operator",
        "uses": 1,
        "issued_s": NOW_S,
        "expires_s": NOW_S + 3600,
        "signer": b"",
    }
    return authorize(signer, Authorization(**{**values, **fields}))


def ruled() -> ControlSet:
    """Return what the mesh holds when only the admin was made."""
    held = ControlSet(GENESIS)
    held.add(made_by(ROOT, ADMIN, "admin"), NOW_S)
    return held


def asked(
    control: ControlSet, entries: Sequence[Signed], view: Callable[[ControlSet], object]
) -> ControlSet:
    """Return the set when it took all that it takes, asked for the view after each try."""
    count = -1
    while len(control.entries()) > count:
        count = len(control.entries())
        for entry in entries:
            control.add_all([entry], NOW_S)
            view(control)
    return control
