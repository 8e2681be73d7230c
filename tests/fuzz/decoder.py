"""What a decoder is to a fuzzer: a function of bytes, what it likes, and how it may refuse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from meshnode.core.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Decoder:
    """`refuses`: the errors that are answers; whatever else is raised is a crash."""

    decode: Callable[[bytes], object]
    valid: tuple[bytes, ...]
    refuses: tuple[type[Exception], ...] = (MeshError, DecodeError)
    packed: bool = False  # MessagePack, so that values may be put in any place of it
    accepts: bool = field(default=True)  # what is valid is a value, not merely no crash

    def outcome(self, raw: bytes) -> str:
        """Decode; return what came of it in a few words, and let what is no answer through."""
        try:
            value = self.decode(raw)
        except self.refuses as error:
            said = re.sub(r"'.*'|[0-9]+", "#", str(error))
            return f"{type(error).__name__}: {said[:60]}"
        return value if isinstance(value, str) and len(value) < 200 else "value"
