"""Joining: the invite that travels between people, and the proofs that travel over TLS.

Invariant: the secret of an invite never travels; both sides prove to know it over the exact bytes
they exchanged. No key is trusted because it came first: the invite names the mesh's root.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any

import msgspec

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ids import MeshId, NodeId, b32, node_id_of, unb32
from meshnode.core.keys import Key, Signed, decode_checked, encode_checked, parse_public, verify
from meshnode.core.packing import pack, typed, unpack, unpack_map

INVITE_PREFIX = "smj1_"
INVITE_TEXT_CHARS_MAX = 2048
ADDRESSES_MAX = 4
SECRET_BYTES = 16
INVITE_ID_BYTES = 16
JOIN = "join"
OPERATOR = "join-operator"


class Invite(msgspec.Struct, frozen=True):
    """Everything a device needs to find and trust the mesh that invites it."""

    root_key: bytes
    mesh_id: MeshId
    admitter: NodeId
    invite_id: bytes
    secret: bytes
    expires_s: int
    addresses: tuple[str, ...]
    commands: bool  # whether the joiner gets a role, and so needs an operator key

    def to_text(self) -> str:
        """Encode as `smj1_…`."""
        body = pack(
            [
                1,
                self.root_key,
                unb32(self.mesh_id),
                unb32(self.admitter),
                self.invite_id,
                self.secret,
                self.expires_s,
                list(self.addresses[:ADDRESSES_MAX]),
                self.commands,
            ]
        )
        return INVITE_PREFIX + encode_checked(body, b"smj1")


def invite_from_text(text: str) -> Invite:
    """Decode `smj1_…`; raises UsageError with a sentence that never repeats the secret."""
    hint = "copy the whole line that session-mesh invite printed"
    text = text.strip()
    if not text.startswith(INVITE_PREFIX) or len(text) > INVITE_TEXT_CHARS_MAX:
        raise UsageError(f"not an invite: it should begin with {INVITE_PREFIX}", hint)
    try:
        body = decode_checked(text.removeprefix(INVITE_PREFIX), b"smj1")
        version, root_key, mesh, admitter, invite_id, secret, expires, addresses, commands = unpack(
            body
        )
        if version != 1:
            raise PeerError("made by a newer version")
        parse_public(root_key)
        parse_public(admitter)
        return Invite(
            root_key,
            MeshId(b32(mesh)),
            node_id_of(admitter),
            typed(invite_id, bytes),
            typed(secret, bytes),
            typed(expires, int),
            tuple(typed(address, str) for address in typed(addresses, list)),
            typed(commands, bool),
        )
    except (PeerError, ValueError, TypeError) as error:
        raise UsageError(f"not an invite: {error}", hint) from None


class Application(msgspec.Struct, frozen=True):
    """What a device asks: to be a member under this key, and perhaps to command with that one."""

    mesh_id: str
    invite_id: bytes
    node_key: bytes
    name: str
    operator_key: bytes | None
    replaces: str = ""  # the name or id of a node whose place it takes


def apply_with(
    node: Key, operator: Key | None, invite: Invite, name: str, nonce: bytes, replaces: str = ""
) -> Signed:
    """Sign an application with every key it names."""
    claim = None
    if operator is not None:
        value = {"mesh": invite.mesh_id, "node": node.public, "operator": operator.public}
        claim = operator.sign(OPERATOR, value).to_list()
    return node.sign(
        JOIN,
        {
            "mesh": invite.mesh_id,
            "invite": invite.invite_id,
            "node": node.public,
            "name": name,
            "nonce": nonce,
            "operator": claim,
            **({"replaces": replaces} if replaces else {}),
        },
    )


def application_from_signed(signed: Signed) -> Application:
    """Verify every signature and decode; raises PeerError."""
    value = unpack_map(signed.payload)
    try:
        application = Application(
            mesh_id=typed(value["mesh"], str),
            invite_id=typed(value["invite"], bytes),
            node_key=typed(value["node"], bytes),
            name=typed(value["name"], str),
            operator_key=_operator_in(value),
            replaces=typed(value.get("replaces", ""), str),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"not an application: {error}") from error
    verify(signed, JOIN, application.node_key)
    return application


def _operator_in(value: dict[str, Any]) -> bytes | None:
    if value["operator"] is None:
        return None
    claim = Signed(OPERATOR, *(typed(part, bytes) for part in value["operator"]))
    named = unpack_map(claim.payload)
    operator_key: bytes = typed(named["operator"], bytes)
    verify(claim, OPERATOR, operator_key)
    if named["node"] != value["node"] or named["mesh"] != value["mesh"]:
        raise PeerError("an operator key that was signed for another device")
    return operator_key


def join_proof(secret: bytes, admitter: NodeId, application: bytes) -> bytes:
    """Prove that the applicant knows the secret: HMAC-SHA-256 (RFC 2104), 32 bytes."""
    return hmac.digest(secret, b"smesh/v1/join\0" + admitter.encode() + application, "sha256")


def admit_proof(secret: bytes, application: bytes, response: list[Any]) -> bytes:
    """Prove that the admitter knows the secret, over all it answered."""
    transcript = b"smesh/v1/admit\0" + sha256(application).digest() + pack(response)
    return hmac.digest(secret, transcript, "sha256")


def same(mine: bytes, theirs: bytes) -> bool:
    """Compare proofs in constant time."""
    return hmac.compare_digest(mine, theirs)
