"""Ed25519 keys (RFC 8032), signed values, and keys derived from others.

Invariant: public keys that let anybody forge (of small order, or not canonical) are refused
wherever bytes become a key, because the library under us accepts them. A signature covers its type,
so that one kind of value never passes for another.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshnode.core.errors import PeerError
from meshnode.core.packing import pack

if TYPE_CHECKING:
    from meshnode.core.ids import Chance

KEY_BYTES = 32
SIGNATURE_BYTES = 64
CHECKSUM_BYTES = 4

_P = 2**255 - 19
_SMALL_ORDER_YS = frozenset(
    {
        0,
        1,
        _P - 1,
        int.from_bytes(
            bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            "little",
        ),
        int.from_bytes(
            bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            "little",
        )
        & ((1 << 255) - 1),
    }
)


class Signed(msgspec.Struct, frozen=True):
    """A payload whose type, bytes and signature travel together and are never re-encoded."""

    type: str
    payload: bytes
    signature: bytes

    @property
    def hash(self) -> bytes:
        """32 bytes that name exactly this value."""
        return sha256(pack([self.type, self.payload, self.signature])).digest()

    def to_list(self) -> list[bytes]:
        """The two parts that a container of known type stores."""
        return [self.payload, self.signature]


class Key:
    """An Ed25519 private key; it signs, and never shows itself in a repr."""

    __slots__ = ("_private", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def new(cls, chance: Chance) -> Key:
        """Make a key from 32 random bytes."""
        return cls(chance(KEY_BYTES))

    def sign(self, kind: str, value: dict[str, Any]) -> Signed:
        """Sign a map under a type: the prefix keeps one type from passing for another."""
        payload = pack(value)
        return Signed(kind, payload, self._private.sign(_prefixed(kind, payload)))

    def __repr__(self) -> str:
        """Only the public half."""
        return f"Key({self.public.hex()[:16]}…)"


@lru_cache(maxsize=1 << 12)
def parse_public(raw: bytes) -> Ed25519PublicKey:
    """Turn 32 bytes into a key; raises PeerError for a point that would let one forge."""
    if len(raw) != KEY_BYTES:
        raise PeerError(f"a public key has 32 bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _P or y in _SMALL_ORDER_YS:
        raise PeerError("a public key of small order, or not canonical")
    return Ed25519PublicKey.from_public_bytes(raw)


def verify(signed: Signed, kind: str, public_key: bytes) -> None:
    """Raise PeerError unless the value is of this type and signed by this key."""
    if signed.type != kind:
        raise PeerError(f"expected a signed {kind}, got a {signed.type[:40]!r}")
    try:
        parse_public(public_key).verify(signed.signature, _prefixed(kind, signed.payload))
    except InvalidSignature as error:
        raise PeerError(f"the signature of a {kind} is wrong") from error


def key_id_of(public_key: bytes) -> str:
    """Name a key by 16 hexadecimal characters, for people and logs."""
    return sha256(public_key).hexdigest()[:16]


def derive_session_key(session_root: bytes, mesh_id: str, kid: bytes, generation: int) -> Key:
    """Derive a session key with HKDF-SHA256 (RFC 5869) from an operator's 32-byte session root."""
    salt = sha256(b"smesh/v1/hkdf-salt\0" + mesh_id.encode()).digest()
    info = b"smesh/v1/session-signing\0" + kid + generation.to_bytes(4, "big")
    return Key(HKDF(SHA256(), KEY_BYTES, salt, info).derive(session_root))


def encode_checked(body: bytes, label: bytes) -> str:
    """Encode bytes for people to copy: base64url with a checksum."""
    return (
        urlsafe_b64encode(body + sha256(label + body).digest()[:CHECKSUM_BYTES])
        .decode()
        .rstrip("=")
    )


def decode_checked(text: str, label: bytes) -> bytes:
    """Undo encode_checked; raises PeerError when a character is missing or wrong."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise PeerError("it is not complete") from error
    body = raw[:-CHECKSUM_BYTES]
    if encode_checked(body, label) != text:  # the text itself: base64 has bits that nobody reads
        raise PeerError("it is not complete, or a character is wrong")
    return body


def _prefixed(kind: str, payload: bytes) -> bytes:
    return b"smesh/v1/" + kind.encode() + b"\0" + payload
