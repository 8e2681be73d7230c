"""Messages to frames and back, each once: equal bytes mean equal values, and are verified once.

Invariant: what comes out is what wire/links.py makes of it, whatever was asked before; the memory
of what was done is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from meshnode.core.errors import PeerError
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.links import message_from_wire, message_to_wire

if TYPE_CHECKING:
    from meshnode.core.feeds.messages import Message

KEPT_BYTES_MAX = 32 << 20  # in each of two generations; then the older one is forgotten
ENTRY_BYTES = 500


class Frames:
    """Encodes and decodes."""

    def __init__(self, mesh_id: str) -> None:
        self._mesh_id = mesh_id
        self._messages: dict[bytes, Message | PeerError | None] = {}
        self._older: dict[bytes, Message | PeerError | None] = {}
        self._kept_bytes = 0
        self._encoded: dict[int, tuple[Message, bytes]] = {}  # the message keeps its id from reuse
        self._encoded_bytes = 0

    def encoded(self, message: Message) -> bytes:
        """Encode a message; the same object, which goes to many neighbours, once."""
        kept = self._encoded.get(id(message))
        if kept is not None:
            return kept[1]
        frame: bytes = message_to_wire(message).SerializeToString()
        self._encoded_bytes += len(frame) + ENTRY_BYTES
        if self._encoded_bytes > KEPT_BYTES_MAX:
            self._encoded.clear()
            self._encoded_bytes = len(frame)
        self._encoded[id(message)] = (message, frame)
        return frame

    def decoded(self, frame: bytes) -> Message | None:
        """Decode a frame; raises PeerError, or ValueError if the bytes are no frame at all."""
        if frame in self._messages:
            message = self._messages[frame]
        else:
            message = self._older[frame] if frame in self._older else self._decode(frame)
            self._messages[frame] = message
            self._kept_bytes += len(frame) + ENTRY_BYTES
            if self._kept_bytes > KEPT_BYTES_MAX:
                self._older, self._messages, self._kept_bytes = self._messages, {}, 0
        if isinstance(message, PeerError):
            raise message
        return message

    def _decode(self, frame: bytes) -> Message | PeerError | None:
        try:
            return message_from_wire(pb.Frame.FromString(frame), self._mesh_id)
        except PeerError as error:
            return error
        except DecodeError as error:
            raise ValueError("bytes that are no frame") from error
