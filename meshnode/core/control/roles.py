"""Roles: that a key may command, and the admin's word by which a node hands them out.

Invariant: a role is never taken back by forgetting it here. What was once granted stays granted as
far as storing goes, or nodes that heard of it at different times would store different entries;
revocation is judged where somebody commands.
"""

from __future__ import annotations

from typing import Any

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.keys import Key, Signed, parse_public, verify
from meshnode.core.packing import typed, unpack_map
from meshnode.core.vocabulary import ACTIONS

NAME_CHARS_MAX = 64  # of one that is given; of one that others gave, as many are shown
INVITE = "invite"  # the signature type of an admin's word that a node may admit

ACTIONS_OF_ROLE: dict[str, frozenset[str]] = {
    "observer": frozenset({"read", "read_messages", "metrics"}),
    "operator": ACTIONS - {"admin"},
    "admin": ACTIONS,
}


class Authorization(msgspec.Struct, frozen=True):
    """An admin's signed word that one node may admit devices, and with which role."""

    mesh: str
    invite_id: bytes
    admitter: str
    role: str  # empty: node only
    uses: int
    issued_s: int
    expires_s: int
    signer: bytes


class Role(msgspec.Struct, frozen=True):
    """That a key may command."""

    subject: bytes
    role: str
    name: str
    issuer: bytes
    issued_s: int
    via: Signed | None  # the admin's word, when a node issued it

    def to_map(self) -> dict[str, Any]:
        """Return what an entry says beside its envelope."""
        return {
            "subject": self.subject,
            "role": self.role,
            "name": self.name,
            "via": None if self.via is None else self.via.to_list(),
        }


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


def role_from_map(value: dict[str, Any]) -> Role:
    """Decode a role; raises PeerError."""
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
    parse_public(role.subject)
    return role
