"""The header of a flush: what a feed's owner signs, and what any relay is measured against.

Invariant: whether a header is accepted depends only on its bytes and on its mesh.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec
from msgspec.structs import replace

from meshnode.core.errors import PeerError
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import unpack_map

FLUSH = "flush"  # the signature type of headers
HASH_BYTES = 32
HEADER_BYTES_MAX = 4096  # ten times what is written today; larger: PeerError


class Header(msgspec.Struct, frozen=True):
    """What the owner signs about a flush. `at_s` is its own clock, for people only.

    `left` is the boot of the process over whose history this epoch was opened; 0 for none.
    """

    mesh: str
    origin: NodeId
    epoch: int
    boot: int
    first_seq: int
    last_seq: int
    delta_hash: bytes
    state_hash: bytes
    at_s: float
    left: int = 0
    signed: Signed | None = None

    @property
    def head(self) -> Head:
        """The position after this flush."""
        return Head(self.epoch, self.last_seq)


_HEADER_FIELDS: dict[str, tuple[type, ...]] = {
    "mesh": (str,),
    "origin": (str,),
    "epoch": (int,),
    "boot": (int,),
    "first": (int,),
    "last": (int,),
    "delta": (bytes,),
    "state": (bytes,),
    "at": (int, float),
}


def sign_header(key: Key, header: Header) -> Header:
    """Return the header with its signature."""
    value: dict[str, Any] = {
        "mesh": header.mesh,
        "origin": header.origin,
        "epoch": header.epoch,
        "boot": header.boot,
        "first": header.first_seq,
        "last": header.last_seq,
        "delta": header.delta_hash,
        "state": header.state_hash,
        "at": header.at_s,
        **({"left": header.left} if header.left else {}),
    }
    return replace(header, signed=key.sign(FLUSH, value))


def header_from_signed(signed: Signed, mesh_id: str) -> Header:
    """Decode and verify a header; raises PeerError."""
    header = parse_header(signed)
    verify_header(header, mesh_id)
    return header


def verify_header(header: Header, mesh_id: str) -> None:
    """Raise PeerError unless the owner of the feed has signed this header, for this mesh."""
    if header.mesh != mesh_id:
        raise PeerError("a flush of another mesh")
    if header.signed is None:
        raise PeerError("a flush header without a signature")
    verify(header.signed, FLUSH, node_key_of(header.origin))


def parse_header(signed: Signed) -> Header:
    """Decode a header, unverified; raises PeerError."""
    if len(signed.payload) > HEADER_BYTES_MAX:
        raise PeerError("a flush header is larger than 4 KiB")
    value = unpack_map(signed.payload)
    for name, kinds in _HEADER_FIELDS.items():
        if type(value.get(name)) not in kinds:
            raise PeerError(f"a flush header without a proper {name}")
    if type(value.get("left", 0)) is not int:
        raise PeerError("a flush header without a proper left")
    header = Header(
        value["mesh"],
        NodeId(value["origin"]),
        value["epoch"],
        value["boot"],
        value["first"],
        value["last"],
        value["delta"],
        value["state"],
        value["at"],
        value.get("left", 0),
        signed,
    )
    if not (0 < header.epoch < 1 << 63 and 0 < header.first_seq < 1 << 63):
        raise PeerError("a flush header whose epoch or seq is out of range")
    if not (0 <= header.boot < 1 << 64 and 0 <= header.left < 1 << 64 and isfinite(header.at_s)):
        raise PeerError("a flush header whose boot or time is out of range")
    if header.last_seq >= 1 << 63 or header.last_seq < header.first_seq:
        raise PeerError("a flush header whose seqs do not fit")
    return header
