"""Protobuf messages as the plain values that the contract's JSON is made of.

Invariant: every field is there under its own name; what is optional and absent is None, integers
stay integers at any size, a message that is not marked optional is always a map.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from meshnode.v1.signed_pb2 import Signed as SignedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from meshnode.core.keys import Signed

    Read = Callable[[Any], Any]


def to_plain(message: Message) -> dict[str, Any]:
    """Turn a message into maps, lists, texts and numbers; bytes become base64."""
    return {name: read(message) for name, read in _readers(message.DESCRIPTOR)}


def to_wire(signed: Signed) -> SignedMessage:
    """Put a signed value into the message that carries it."""
    return SignedMessage(type=signed.type, payload=signed.payload, signature=signed.signature)


@cache
def _readers(descriptor: Descriptor) -> tuple[tuple[str, Read], ...]:
    """How each field of a kind of message is read, worked out once: lists have 10,000 of them."""
    return tuple((field.name, _reader(field)) for field in descriptor.fields)


def _reader(field: FieldDescriptor) -> Read:
    get = attrgetter(field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return _read_map(get, kind.fields_by_name["value"])
    value = _value_reader(field)
    if field.is_repeated:
        return lambda message: (
            list(get(message)) if value is None else list(map(value, get(message)))
        )
    plain = get if value is None else lambda message: value(get(message))
    return _read_optional(field.name, plain) if _is_optional(field) else plain


def _value_reader(field: FieldDescriptor) -> Read | None:
    if field.message_type is not None:
        return to_plain
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda raw: b64encode(raw).decode()
    return None


def _read_map(get: Read, field: FieldDescriptor) -> Read:
    value = _value_reader(field)
    if value is None:
        return lambda message: dict(get(message))
    return lambda message: {str(key): value(item) for key, item in get(message).items()}


def _read_optional(name: str, plain: Read) -> Read:
    return lambda message: plain(message) if message.HasField(name) else None


def _is_optional(field: FieldDescriptor) -> bool:
    # A field marked `optional` sits alone in a oneof that the compiler makes; one of a written
    # oneof may be absent too.
    return field.containing_oneof is not None
