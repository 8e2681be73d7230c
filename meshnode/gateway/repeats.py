"""Orders that callers may send again: each is the same command then, byte for byte, and acts once.

Invariants: who repeats an id with other words is refused; what one key has ordered is nothing that
another can ask for. At most COMMANDS_MAX commands of BYTES_MAX together are kept; beyond, the
oldest goes of whoever holds most, so nobody pushes out what others have ordered, with however many
keys made of one; and what an id was given for goes last. Nothing outlives this process: what is
forgotten is signed anew, and its owner, whose journal knows the id, calls that a conflict instead
of acting twice. No journal knows of a kill of what had ended already, so that answer is kept
instead: it must not end who follows.
"""

from __future__ import annotations

import re
from collections import Counter
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.commands.orders import command_id_of
from meshnode.core.errors import ConflictError, UsageError
from meshnode.core.keys import Signed
from meshnode.gateway.problems import Problem, off

if TYPE_CHECKING:
    from starlette.requests import Request

    from meshnode.app.commands.bearers import Bearer
    from meshnode.client.targets.targets import Target

    Outcome = dict[str, Any]
    _Name = tuple[str, bytes]  # of a key, and of its command
    _Held = dict["_Worth", dict[_Name, "_Kept"]]  # what goes first is first

COMMANDS_MAX = 4096
BYTES_MAX = 4 << 20
COMMAND_ID_BYTES = 16
HEADER = "Idempotency-Key"  # draft-ietf-httpapi-idempotency-key-header
WORD = "[A-Za-z0-9._~:+/=-]{1,128}"
_WORD = re.compile(f'"{WORD}"|{WORD}')
_PREFIX = b"smesh/http/idempotency-key\0"


class Wish(msgspec.Struct, frozen=True):
    """What a caller wants, in the caller's own words: a repetition has the same."""

    target: Target
    action: str
    args: dict[str, Any]


class _Worth(IntEnum):
    """In which order things go of what a caller holds: who has given an id counts on it."""

    TOLD = 0  # what became of it, or that there was nothing to do, under an id that was made here
    SENT = 1  # under such an id: should the answer fail to come, its caller is told to ask again
    GIVEN = 2


class _Kept(msgspec.Struct, frozen=True):
    wish: Wish
    said: Signed | Outcome
    is_given: bool

    @property
    def worth(self) -> _Worth:
        if self.is_given:
            return _Worth.GIVEN
        return _Worth.SENT if isinstance(self.said, Signed) else _Worth.TOLD

    @property
    def size(self) -> int:
        """How many bytes it takes of the room, at least its place among COMMANDS_MAX."""
        took = 0  # an outcome is smaller than such a place
        if isinstance(self.said, Signed):
            took = len(self.said.payload) + len(self.said.signature)
        return max(took, BYTES_MAX // COMMANDS_MAX)


class Repeats:
    """What was signed here for callers who may ask again, or told them when nothing had to be."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Held] = {}  # by family
        self._bytes: Counter[bytes] = Counter()

    def known(self, bearer: Bearer, command_id: bytes, wish: Wish) -> Signed | Outcome | None:
        """Return the command that this key has ordered under this id, or what it was told.

        Raises ConflictError if that was something else.
        """
        theirs = self._kept.get(family_of(bearer), {})
        name = bearer.key_id, command_id
        kept = next((held[name] for held in theirs.values() if name in held), None)
        if kept is not None and kept.wish != wish:
            raise ConflictError("this command id has ordered something else", "take another id")
        return kept.said if kept else None

    def keep(
        self,
        bearer: Bearer,
        command_id: bytes,
        wish: Wish,
        said: Signed | Outcome,
        *,
        is_given: bool,
    ) -> None:
        """Keep a command before it is sent, or an outcome before it is told.

        `is_given`: the caller has chosen its id, and did not get one of ours.
        """
        self.drop(bearer, command_id)
        family = family_of(bearer)
        kept = _Kept(wish, said, is_given)
        theirs = self._kept.setdefault(family, {worth: {} for worth in _Worth})
        theirs[kept.worth][bearer.key_id, command_id] = kept
        self._bytes[family] += kept.size
        while self._bytes.total() > BYTES_MAX:
            most = max(self._bytes, key=self._bytes.__getitem__)
            least = next(filter(None, self._kept[most].values()))
            self._drop(most, next(iter(least)))

    def answered(self, bearer: Bearer, command_id: bytes) -> None:
        """Note that a caller knows what became of a command; it goes first if its id is ours."""
        name = bearer.key_id, command_id
        theirs = self._kept.get(family_of(bearer), {})
        if (kept := theirs.get(_Worth.SENT, {}).pop(name, None)) is not None:
            theirs[_Worth.TOLD][name] = kept

    def drop(self, bearer: Bearer, command_id: bytes) -> None:
        """Forget a command that was not carried out."""
        self._drop(family_of(bearer), (bearer.key_id, command_id))

    def _drop(self, family: bytes, name: _Name) -> None:
        theirs = self._kept.get(family, {})
        for held in theirs.values():
            if (gone := held.pop(name, None)) is not None:
                self._bytes[family] -= gone.size
        if not any(theirs.values()):
            self._kept.pop(family, None)
            self._bytes.pop(family, None)


def family_of(bearer: Bearer) -> bytes:
    """Name the first grant of a key, which all keys that are made of it share."""
    return bearer.key.chain[0].hash


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
    word = words[0].strip('"').encode()
    return sha256(_PREFIX + family_of(bearer) + word).digest()[:COMMAND_ID_BYTES]


def _parsed(text: str) -> bytes:
    try:
        return command_id_of(text)
    except UsageError:
        raise off(
            "command_id",
            f"{text[:60]!r} is none: it has 16 bytes in base32, 26 characters",
            f"repeat the one of an earlier answer, or send any word as {HEADER}",
        ) from None
