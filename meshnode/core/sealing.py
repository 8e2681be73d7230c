"""What travels along links is sealed: HPKE (RFC 9180), base mode, X25519, HKDF-SHA256, ChaCha20.

Invariant: what is sealed to a key is read by its holder only, and only under the very words
(`about`) it was sealed under; anything else is a PeerError, whatever was changed on the way.

A node's key is derived from its identity, so there is no file to lose. A key that passes with each
start would hide what a relay recorded from a later thief of the node's home, who finds the same
sessions on its disk.

The library draws the ephemeral key of each sealing by itself, so sealed bytes are the one thing
here that is no function of the arguments. Nothing is decided by them but by their length.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshnode.core.errors import PeerError

if TYPE_CHECKING:
    from meshnode.core.keys import Key

KEY_BYTES = 32
SEALED_BYTES_MORE = 48  # than what is inside: the ephemeral key and the tag
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class SealingKey:
    """An X25519 private key; it opens what was sealed to it, and never shows itself in a repr."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def of_node(cls, key: Key, mesh_id: str) -> SealingKey:
        """Derive a node's sealing key from its identity with HKDF-SHA256 (RFC 5869)."""
        salt = sha256(b"smesh/v1/hkdf-salt\0" + mesh_id.encode()).digest()
        return cls(HKDF(SHA256(), KEY_BYTES, salt, b"smesh/v1/node-sealing\0").derive(key.seed))

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Return what was sealed; raises PeerError unless it is whole and about this."""
        try:
            return _SUITE.decrypt(sealed, self._private, about)
        except (InvalidTag, ValueError) as error:
            raise PeerError("what is sealed does not open: changed, or not for this") from error

    def __repr__(self) -> str:
        """Only the public half."""
        return f"SealingKey({self.public.hex()[:16]}…)"


def seal(public_key: bytes, message: bytes, about: bytes) -> bytes:
    """Seal to a key; raises PeerError for bytes that are no key, or one that hides nothing."""
    try:
        return _SUITE.encrypt(message, _parsed(public_key), about)
    except ValueError as error:  # of small order: anybody would know the shared secret
        raise PeerError("a sealing key of 32 bytes that is none") from error


@lru_cache(maxsize=1 << 10)
def _parsed(public_key: bytes) -> X25519PublicKey:
    return X25519PublicKey.from_public_bytes(public_key)
