"""The control set: signed entries that every node stores and no feed owns. Today: roles.

Invariant: an entry is stored once its author's authority is known here, which only ever grows from
the root's own entries; an entry that comes too early is refused and offered again by the next
reconciliation. So all nodes end with the same set, and nobody without a role can fill it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshnode.core.errors import PeerError
from meshnode.core.grants import ACTIONS
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import typed, unpack_map
from meshnode.core.summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.genesis import Genesis
    from meshnode.core.ids import Chance

CONTROL = "control"  # the signature type of entries
INVITE = "invite"  # the signature type of an admin's word that a node may admit
ENTRY_BYTES_MAX = 4096
ENTRIES_MAX = 50_000  # more: PeerError to the sender, the link is kept
ENTRY_ID_BYTES = 16
ROOT_BYTES = 16

ACTIONS_OF_ROLE: dict[str, frozenset[str]] = {
    "observer": frozenset({"read", "read_messages", "metrics"}),
    "operator": ACTIONS - {"admin"},
    "admin": ACTIONS,
}


@dataclass(frozen=True, slots=True)
class Authorization:
    """An admin's signed word that one node may admit devices, and with which role."""

    mesh: str
    invite_id: bytes
    admitter: str
    role: str  # empty: node only
    uses: int
    issued_s: int
    expires_s: int
    signer: bytes


@dataclass(frozen=True, slots=True)
class Role:
    """That a key may command."""

    subject: bytes
    role: str
    name: str
    issuer: bytes
    issued_s: int
    via: Signed | None  # the admin's word, when a node issued it


def authorize(admin: Key, value: Authorization) -> Signed:
    """Sign an admin's word."""
    return admin.sign(
        INVITE,
        {
            "mesh": value.mesh,
            "id": value.invite_id,
            "admitter": value.admitter,
            "role": value.role,
            "uses": value.uses,
            "issued": value.issued_s,
            "expires": value.expires_s,
            "signer": admin.public,
        },
    )


def authorization_from_signed(signed: Signed) -> Authorization:
    """Decode and check the signature, not the signer's role; raises PeerError."""
    value = unpack_map(signed.payload)
    try:
        parsed = Authorization(
            mesh=typed(value["mesh"], str),
            invite_id=typed(value["id"], bytes),
            admitter=typed(value["admitter"], str),
            role=typed(value["role"], str),
            uses=typed(value["uses"], int),
            issued_s=typed(value["issued"], int),
            expires_s=typed(value["expires"], int),
            signer=typed(value["signer"], bytes),
        )
    except (KeyError, TypeError) as error:
        raise PeerError(f"not an invite authorization: {error}") from error
    verify(signed, INVITE, parsed.signer)
    return parsed


def role_entry(issuer: Key, mesh_id: str, role: Role, chance: Chance) -> Signed:
    """Sign a role."""
    return issuer.sign(
        CONTROL,
        {
            "mesh": mesh_id,
            "kind": "role",
            "id": chance(ENTRY_ID_BYTES),
            "subject": role.subject,
            "role": role.role,
            "name": role.name,
            "issuer": issuer.public,
            "issued": role.issued_s,
            "via": None if role.via is None else role.via.to_list(),
        },
    )


class ControlSet:
    """All entries heard, and the roles that follow from them."""

    def __init__(self, genesis: Genesis) -> None:
        self._mesh_id = genesis.mesh_id
        self._root_keys = frozenset(genesis.root_keys)
        self._entries: dict[bytes, Signed] = {}
        self._roles: dict[bytes, list[Role]] = {}
        self.summary: Summary[bytes] = Summary(bytes)  # of entry ids: equal on equal sets

    def add(self, signed: Signed) -> bool:
        """Store an entry; False if it is known. Raises PeerError if it cannot be stored."""
        entry_id = entry_id_of(signed)
        if entry_id in self._entries:
            return False
        if len(signed.payload) > ENTRY_BYTES_MAX:
            raise PeerError("a control entry is larger than 4 KiB")
        if len(self._entries) >= ENTRIES_MAX:
            raise PeerError(f"more than {ENTRIES_MAX} control entries")
        value = unpack_map(signed.payload)
        issuer = value.get("issuer")
        if value.get("mesh") != self._mesh_id or not isinstance(issuer, bytes):
            raise PeerError("a control entry of another mesh, or without an issuer")
        verify(signed, CONTROL, issuer)
        if value.get("kind") == "role":
            role = _role_from(value)
            if not self._stands(role):
                raise PeerError("a role from somebody who may not give it, as far as is known here")
            self._roles.setdefault(role.subject, []).append(role)
        elif not self.role_of(issuer):
            raise PeerError("a control entry from somebody who has no role")
        self._entries[entry_id] = signed  # kinds of newer versions are kept and passed on
        self.summary.add(entry_id)
        return True

    def add_all(self, entries: Iterable[Signed]) -> None:
        """Store what can be stored, in whatever order it comes; the rest proves nothing here."""
        waiting = list(entries)
        while waiting:
            refused = []
            for entry in waiting:
                try:
                    self.add(entry)
                except PeerError:
                    refused.append(entry)
            if len(refused) == len(waiting):
                return
            waiting = refused

    def get(self, entry_id: bytes) -> Signed | None:
        """Return one entry."""
        return self._entries.get(entry_id)

    def entries(self) -> list[Signed]:
        """Return all entries."""
        return list(self._entries.values())

    def role_of(self, public_key: bytes) -> str:
        """Return the strongest role of a key, or the empty string."""
        if public_key in self._root_keys:
            return "admin"
        held = {role.role for role in self._roles.get(public_key, ())}
        return next((name for name in ("admin", "operator", "observer") if name in held), "")

    def _stands(self, role: Role) -> bool:
        if role.issuer in self._root_keys:
            return True
        if role.role == "admin":
            return False  # only the root makes admins, so there is no ring of admins to follow
        if role.via is None:
            return self._is_admin(role.issuer)
        return self._stands_by_invite(role, role.via)

    def _stands_by_invite(self, role: Role, via: Signed) -> bool:
        try:
            word = authorization_from_signed(via)
        except PeerError:
            return False
        return (
            word.mesh == self._mesh_id
            and word.role == role.role
            and word.admitter == node_id_of(role.issuer)
            and role.issued_s <= word.expires_s
            and self._is_admin(word.signer)
        )

    def _is_admin(self, public_key: bytes) -> bool:
        """Whether a key is the root's, or an admin's by the root: one step, so never a ring."""
        return public_key in self._root_keys or any(
            role.role == "admin" and role.issuer in self._root_keys
            for role in self._roles.get(public_key, ())
        )


def entry_id_of(signed: Signed) -> bytes:
    """16 bytes that name an entry, signature included: two signers never collide."""
    return signed.hash[:ENTRY_ID_BYTES]


def _role_from(value: dict[str, object]) -> Role:
    try:
        via = value["via"]
        role = Role(
            subject=typed(value["subject"], bytes),
            role=typed(value["role"], str),
            name=typed(value["name"], str),
            issuer=typed(value["issuer"], bytes),
            issued_s=typed(value["issued"], int),
            via=None
            if via is None
            else Signed(INVITE, *(typed(p, bytes) for p in typed(via, list))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"not a role: {error}") from error
    if role.role not in ACTIONS_OF_ROLE:
        raise PeerError(f"no such role: {role.role[:40]!r}")
    return role
