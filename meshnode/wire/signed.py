"""Signed values on the wire."""

from __future__ import annotations

from meshnode.core.errors import PeerError
from meshnode.core.keys import SIGNATURE_BYTES, Signed
from meshnode.v1 import signed_pb2 as pb


def signed_to_wire(signed: Signed) -> pb.Signed:
    """Encode."""
    return pb.Signed(type=signed.type, payload=signed.payload, signature=signed.signature)


def signed_from_wire(message: pb.Signed) -> Signed:
    """Decode; raises PeerError if a part is missing."""
    if not message.type or not message.payload or len(message.signature) != SIGNATURE_BYTES:
        raise PeerError("a signed value without a type, a payload or a signature")
    return Signed(message.type, message.payload, message.signature)
