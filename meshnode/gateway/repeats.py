"""Orders that callers may send again: each is the same command then, byte for byte, and acts once.

Invariants: who repeats an id with other words is refused; what one key has ordered is nothing that
another can ask for. At most COMMANDS_MAX commands of BYTES_MAX together are kept, the oldest go
first, and nothing outlives this process: what is forgotten is signed anew, and its owner, whose
journal knows the id, calls that a conflict instead of acting twice.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from meshnode.client.orders import command_id_of
from meshnode.core.errors import ConflictError, UsageError
from meshnode.gateway.problems import Problem, off

if TYPE_CHECKING:
    from starlette.requests import Request

    from meshnode.app.bearers import Bearer
    from meshnode.client.targets import Target
    from meshnode.core.keys import Signed

COMMANDS_MAX = 4096
BYTES_MAX = 4 << 20
COMMAND_ID_BYTES = 16
HEADER = "Idempotency-Key"  # draft-ietf-httpapi-idempotency-key-header
WORD = "[A-Za-z0-9._~:+/=-]{1,128}"
_WORD = re.compile(f'"{WORD}"|{WORD}')
_PREFIX = b"smesh/http/idempotency-key\0"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants, in the caller's own words: a repetition has the same."""

    target: Target
    action: str
    args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kept:
    wish: Wish
    command: Signed

    @property
    def size(self) -> int:
        return len(self.command.payload) + len(self.command.signature)


class Repeats:
    """The commands that were signed here for callers who may ask again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bytes], _Kept] = OrderedDict()
        self._bytes = 0

    def known(self, bearer: Bearer, command_id: bytes, wish: Wish) -> Signed | None:
        """Return the command that this key has ordered under this id; raises ConflictError."""
        kept = self._kept.get((bearer.key_id, command_id))
        if kept is not None and kept.wish != wish:
            raise ConflictError("this command id has ordered something else", "take another id")
        return kept.command if kept else None

    def keep(self, bearer: Bearer, command_id: bytes, wish: Wish, command: Signed) -> None:
        """Keep a command before it is sent."""
        self.drop(bearer, command_id)
        self._kept[bearer.key_id, command_id] = kept = _Kept(wish, command)
        self._bytes += kept.size
        while len(self._kept) > COMMANDS_MAX or self._bytes > BYTES_MAX:
            self._drop(next(iter(self._kept)))

    def drop(self, bearer: Bearer, command_id: bytes) -> None:
        """Forget a command that nobody was given the id of before it was answered."""
        self._drop((bearer.key_id, command_id))

    def _drop(self, name: tuple[str, bytes]) -> None:
        if (gone := self._kept.pop(name, None)) is not None:
            self._bytes -= gone.size


def id_given(request: Request, bearer: Bearer, command_id: str) -> bytes:
    """Return the id that a caller gives an order, by field or header; empty if none.

    The word of a header counts for who holds the first grant of the key: keys that were renewed
    mean the same by it, and nobody else can take it first. Raises Problem 400.
    """
    words = request.headers.getlist(HEADER)
    if not words:
        return _parsed(command_id) if command_id else b""
    if command_id or len(words) > 1:
        raise off("command_id", f"one id is enough: the field or one {HEADER}")
    if not _WORD.fullmatch(words[0]):
        raise Problem(
            400,
            "usage",
            f"{HEADER}: it should be 1 to 128 letters, digits or ._~:+/=-, quoted or not",
            "a UUID is a good one",
            {"field": HEADER},
        )
    family = bearer.key.chain[0].hash
    return sha256(_PREFIX + family + words[0].strip('"').encode()).digest()[:COMMAND_ID_BYTES]


def _parsed(text: str) -> bytes:
    try:
        return command_id_of(text)
    except UsageError:
        raise off(
            "command_id",
            f"{text[:60]!r} is none: it has 16 bytes in base32, 26 characters",
            f"repeat the one of an earlier answer, or send any word as {HEADER}",
        ) from None
