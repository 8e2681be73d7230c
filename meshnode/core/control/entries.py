"""The entries of the control set: an envelope that every version reads, and what each kind says.

Invariant: decoding is total: any signed map is an entry of a known kind, one of a newer version
(its body is None), or a PeerError. When an entry expires and what it replaces is said by the
envelope alone, so that versions which do not know a kind keep the same entries of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.control.grants import GRANT_ID_BYTES, GRANT_TTL_S_MAX
from meshnode.core.control.roles import Role, role_from_map
from meshnode.core.control.settings import Budget, Policy, budget_from_map, policy_from_map, text
from meshnode.core.control.succession import Admits, RootKeys, admits_from_map, root_keys_from_map
from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import FLUSH, Header, header_from_signed
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import KEY_BYTES, Key, Signed, parse_public
from meshnode.core.packing import typed, unpack_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import Chance

CONTROL = "control"  # the signature type of entries
ENTRY_ID_BYTES = 16
KIND_CHARS_MAX = 64
SLOT_CHARS_MAX = 128
SURVIVORS_MAX = 96  # in one entry; those of several revocations of a key by one issuer add up
SKEW_S = 86400  # what must outlive something does so by a day: no clock is further off
ORDER_LIFE_S_MAX = 7 * 86400
CANCEL_LIFE_S_MAX = ORDER_LIFE_S_MAX + SKEW_S
GRACE_S_MAX = 60
NEVER_S = 1 << 62  # an expiry that does not come
TIME_S_MAX = 1 << 53


class Revoke(msgspec.Struct, frozen=True):
    """That a key, a node or a grant counts for nothing, from whatever time on it was used."""

    what: str  # key, node or grant
    name: bytes  # the public key, of 32 bytes, or the id of the grant, of 16
    survivors: tuple[bytes, ...] = ()  # public keys that it admitted or granted, and that stay

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {"what": self.what, "name": self.name, "survivors": list(self.survivors)}


class StandingKill(msgspec.Struct, frozen=True):
    """An order to kill whatever fits, whenever its owner is heard again. Empty fits anything."""

    session: str = ""
    epoch: int = 0  # of the session's start; given with `session` only
    agent: str = ""
    specialization: str = ""
    node: str = ""
    force: bool = False
    grace_s: int = 5

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {
            "session": self.session,
            "epoch": self.epoch,
            "agent": self.agent,
            "spec": self.specialization,
            "node": self.node,
            "force": self.force,
            "grace": self.grace_s,
        }


class Cancel(msgspec.Struct, frozen=True):
    """That an order is taken back; it counts if the order's issuer or an admin says so."""

    order: bytes  # the id of its entry

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {"order": self.order}


class Forget(msgspec.Struct, frozen=True):
    """That a node's rows up to a head which it has signed itself are hidden, for ever.

    The signature is why nobody can hide what a node has yet to say.
    """

    header: Header

    @property
    def node(self) -> NodeId:
        """Whose rows."""
        return self.header.origin

    @property
    def head(self) -> Head:
        """The last write that is hidden."""
        return self.header.head

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        if self.header.signed is None:
            raise ValueError("only a signed head can be forgotten")
        return {"head": self.header.signed.to_list()}


Body = Role | Revoke | StandingKill | Cancel | Policy | Budget | Forget | RootKeys | Admits
KINDS: dict[type, str] = {
    Role: "role",
    Revoke: "revoke",
    StandingKill: "order",
    Cancel: "cancel",
    Policy: "policy",
    Budget: "budget",
    Forget: "forget",
    RootKeys: "roots",
    Admits: "admitter",
}


class Entry(msgspec.Struct, frozen=True):
    """A decoded entry. `expires_s` is NEVER_S for what stands for ever."""

    kind: str
    issuer: bytes
    issued_s: int
    expires_s: int
    slot: str  # a later entry of the same issuer, kind and slot replaces it; empty: none does
    body: Body | None  # None: of a newer version


def sign_entry(
    issuer: Key,
    mesh_id: str,
    body: Body,
    chance: Chance,
    *,
    issued_s: int,
    expires_s: int | None = None,
) -> Signed:
    """Sign an entry; what stands for ever has no `expires_s`."""
    return issuer.sign(
        CONTROL,
        {
            "mesh": mesh_id,
            "kind": KINDS[type(body)],
            "id": chance(ENTRY_ID_BYTES),
            "issuer": issuer.public,
            "issued": issued_s,
            **({} if expires_s is None else {"expires": expires_s}),
            **({"slot": body.name} if isinstance(body, Policy | Budget) else {}),
            **body.to_map(),
        },
    )


def role_entry(issuer: Key, mesh_id: str, role: Role, chance: Chance) -> Signed:
    """Sign a role."""
    return sign_entry(issuer, mesh_id, role, chance, issued_s=role.issued_s)


def entry_from_signed(signed: Signed, mesh_id: str) -> Entry:
    """Decode an entry, its signature unverified; raises PeerError."""
    value = unpack_map(signed.payload)
    if value.get("mesh") != mesh_id:
        raise PeerError("a control entry of another mesh")
    try:
        kind = text(value["kind"], KIND_CHARS_MAX)
        issuer = typed(value["issuer"], bytes)
        issued_s = _time(value.get("issued", 0))
        expires_s = NEVER_S if value.get("expires") is None else _time(value["expires"])
        slot = text(value.get("slot", ""), SLOT_CHARS_MAX)
        parse_public(issuer)
        decode = _DECODERS.get(kind)
        body = None if decode is None else decode(value, mesh_id)
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"not a control entry: {error}") from error
    if isinstance(body, Role):
        expires_s = NEVER_S  # what it has allowed to be stored must stay allowed
    entry = Entry(kind, issuer, issued_s, expires_s, slot, body)
    _check_life(entry)
    return entry


def entry_id_of(signed: Signed) -> bytes:
    """16 bytes that name an entry, signature included: two signers never collide."""
    return signed.hash[:ENTRY_ID_BYTES]


def is_of(signed: Signed, *kinds: type) -> bool:
    """Whether an entry says that it is of one of these kinds; nothing of it is checked."""
    try:
        said = unpack_map(signed.payload).get("kind")
    except PeerError:
        return False
    return said in [KINDS[kind] for kind in kinds]


def _check_life(entry: Entry) -> None:
    """Raise PeerError for an expiry, or a slot, that its kind does not have."""
    life_s = entry.expires_s - entry.issued_s
    match entry.body:
        case StandingKill():
            fits = life_s <= ORDER_LIFE_S_MAX
        case Cancel():
            fits = life_s <= CANCEL_LIFE_S_MAX
        case Revoke(what="grant"):
            fits = life_s <= GRANT_TTL_S_MAX + SKEW_S
        case None:
            fits = True
        case _:
            fits = entry.expires_s == NEVER_S
    named = entry.body.name if isinstance(entry.body, Policy | Budget) else ""
    if not fits or (entry.body is not None and entry.slot != named):
        raise PeerError(f"a control entry of kind {entry.kind} with an expiry or slot not its own")


def _revoke_from_map(value: dict[str, Any], _mesh_id: str) -> Revoke:
    what, name = typed(value["what"], str), typed(value["name"], bytes)
    survivors = tuple(typed(key, bytes) for key in typed(value["survivors"], list))
    sizes = {"key": KEY_BYTES, "node": KEY_BYTES, "grant": GRANT_ID_BYTES}
    if len(name) != sizes.get(what) or len(survivors) > SURVIVORS_MAX:
        raise PeerError("a revocation of nothing that there is, or with too many survivors")
    if any(len(key) != KEY_BYTES for key in survivors) or (what == "grant" and survivors):
        raise PeerError("a revocation with survivors that are no keys")
    return Revoke(what, name, survivors)


def _order_from_map(value: dict[str, Any], _mesh_id: str) -> StandingKill:
    order = StandingKill(
        session=text(value["session"]),
        epoch=typed(value["epoch"], int),
        agent=text(value["agent"]),
        specialization=text(value["spec"]),
        node=text(value["node"]),
        force=typed(value["force"], bool),
        grace_s=typed(value["grace"], int),
    )
    if not (order.session or order.agent or order.specialization or order.node):
        raise PeerError("an order that names nobody")
    if bool(order.epoch) != bool(order.session) or not 0 <= order.epoch < 1 << 64:
        raise PeerError("an order names a session with its epoch, or neither")
    if not 0 <= order.grace_s <= GRACE_S_MAX:
        raise PeerError(f"a grace lasts 0 to {GRACE_S_MAX} s")
    if order.node:
        node_key_of(order.node)
    return order


def _cancel_from_map(value: dict[str, Any], _mesh_id: str) -> Cancel:
    order = typed(value["order"], bytes)
    if len(order) != ENTRY_ID_BYTES:
        raise PeerError("a cancel that names no order")
    return Cancel(order)


def _forget_from_map(value: dict[str, Any], mesh_id: str) -> Forget:
    payload, signature = (typed(part, bytes) for part in typed(value["head"], list))
    return Forget(header_from_signed(Signed(FLUSH, payload, signature), mesh_id))


def _time(value: object) -> int:
    time_s: int = typed(value, int)
    if not 0 <= time_s < TIME_S_MAX:
        raise ValueError("a time out of range")
    return time_s


_DECODERS: dict[str, Callable[[dict[str, Any], str], Body]] = {
    "role": lambda value, _: role_from_map(value),
    "revoke": _revoke_from_map,
    "order": _order_from_map,
    "cancel": _cancel_from_map,
    "policy": lambda value, _: policy_from_map(value),
    "budget": lambda value, _: budget_from_map(value),
    "forget": _forget_from_map,
    "roots": lambda value, _: root_keys_from_map(value),
    "admitter": lambda value, _: admits_from_map(value),
}
