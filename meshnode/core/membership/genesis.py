"""The record a mesh is made from. Its SHA-256 is the mesh id, so nothing in it can ever change."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.ids import MeshId, b32
from meshnode.core.keys import parse_public
from meshnode.core.packing import pack, typed, unpack_map

NAME_CHARS_MAX = 64


class Limits(msgspec.Struct, frozen=True):
    """Part of the genesis, so that acceptance depends only on bytes, and is the same everywhere."""

    rows_max: int = 20_000  # of one feed
    row_bytes_max: int = 16 << 10
    flush_bytes_max: int = 256 << 10
    feed_bytes_max: int = 32 << 20  # keys and values of one feed: what a snapshot may hold


class Genesis(msgspec.Struct, frozen=True):
    """Root keys, how many of them must agree, and a name for people."""

    root_keys: tuple[bytes, ...]
    threshold: int
    name: str
    nonce: bytes
    limits: Limits = Limits()

    def to_bytes(self) -> bytes:
        """Canonical MessagePack."""
        limits = self.limits
        return pack(
            {
                "v": 1,
                "roots": list(self.root_keys),
                "threshold": self.threshold,
                "name": self.name,
                "nonce": self.nonce,
                "limits": [
                    limits.rows_max,
                    limits.row_bytes_max,
                    limits.flush_bytes_max,
                    limits.feed_bytes_max,
                ],
            }
        )

    @property
    def mesh_id(self) -> MeshId:
        """52 characters of lower-case base32."""
        return MeshId(b32(sha256(self.to_bytes()).digest()))


def genesis_from_bytes(packed: bytes) -> Genesis:
    """Decode a genesis record; raises PeerError."""
    value = unpack_map(packed)
    try:
        genesis = Genesis(
            root_keys=tuple(typed(value["roots"], list)),
            threshold=typed(value["threshold"], int),
            name=typed(value["name"], str),
            nonce=typed(value["nonce"], bytes),
            limits=Limits(*(typed(limit, int) for limit in value["limits"])),
        )
        for key in genesis.root_keys:
            parse_public(key)
    except (KeyError, TypeError, ValueError) as error:
        raise PeerError(f"not a genesis record: {error}") from error
    if not genesis.name.isprintable() or len(genesis.name) > NAME_CHARS_MAX:
        raise PeerError("not a genesis record: the name of the mesh is none")
    if not genesis.root_keys or genesis.to_bytes() != packed:
        raise PeerError("not a genesis record: it is not canonical, or has no root key")
    return genesis
