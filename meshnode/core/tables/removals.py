"""The rows of the `removals` table: how an entry of the registry is taken out of another's feed.

Three kinds, told apart by the first item of their key. A *removal* names the adds that its writer
saw of an entry. An *answer* is the word of an add's owner that it is gone. An *after* remembers how
far the feed of an owner was when removals of its adds could be dropped, by a header that the owner
has signed: who holds less of that feed may still hold what was removed. What is done with them is
decided in `roster`.

Invariant: every row is bounded, and its bytes are the same for the same meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import FLUSH, Header, parse_header, verify_header
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed
from meshnode.core.packing import pack, typed, unpack
from meshnode.core.sessions.registry import (
    REGISTRY,
    Birth,
    Place,
    birth_from,
    birth_to_list,
    place_from,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

REMOVALS = "removals"
DOTS_MAX = 64  # adds of one entry in a removal, and births in an answer; more: RefusedError
REMOVAL, ANSWER, AFTER = 0, 1, 2
REMOVAL_KEYS, ANSWER_KEYS, AFTER_KEYS = b"\x93\x00", b"\x93\x01", b"\x92\x02"  # how they begin
Kind = TypeVar("Kind")


class Dot(msgspec.Struct, frozen=True, order=True):
    """An add that was seen: in whose feed, written where, and which registration."""

    origin: NodeId
    at: Head
    birth: Birth


class Removal(msgspec.Struct, frozen=True):
    """Adds of one entry that are to go."""

    place: Place
    dots: frozenset[Dot]


class Answer(msgspec.Struct, frozen=True):
    """Adds of one entry that the writer's own feed held, and never will again."""

    place: Place
    births: frozenset[Birth]


class After(msgspec.Struct, frozen=True):
    """What was removed of an origin's entries is gone for sure from here on.

    The origin has signed this header: a position alone, far ahead of what it will ever write, would
    let any member hide all its entries for ever.
    """

    header: Header

    @property
    def origin(self) -> NodeId:
        """Whose entries."""
        return self.header.origin

    @property
    def at(self) -> Head:
        """How far its feed must be held."""
        return self.header.head


RemovalsRow = Removal | Answer | After


def removal_key(place: Place) -> bytes:
    """Return the key of a removal."""
    return pack([REMOVAL, place.agent_id, place.specialization])


def removal_row(dots: Iterable[Dot]) -> bytes:
    """Encode the adds that a removal names."""
    return pack(
        [[dot.origin, dot.at.epoch, dot.at.seq, *birth_to_list(dot.birth)] for dot in sorted(dots)]
    )


def answer_key(place: Place) -> bytes:
    """Return the key of an answer."""
    return pack([ANSWER, place.agent_id, place.specialization])


def answer_row(births: Iterable[Birth]) -> bytes:
    """Encode the adds that are gone."""
    return pack([birth_to_list(birth) for birth in sorted(births)])


def after_key(origin: NodeId) -> bytes:
    """Return the key of what is remembered about an origin."""
    return pack([AFTER, origin])


def after_row(header: Header) -> bytes:
    """Encode how far the origin's feed was."""
    if header.signed is None:
        raise ValueError("only a signed header says how far a feed was")
    return pack(header.signed.to_list())


def removals_from_row(key: bytes, row: bytes) -> RemovalsRow | None:
    """Decode a row; None for a kind of a later version; raises PeerError."""
    try:
        kind, *names = typed(unpack(key), list)
        parts = typed(unpack(row), list)
        match kind:
            case 0:
                removal = Removal(place_from(names), frozenset(map(_dot_from, _bounded(parts))))
                return _spelled(key, removal_key(removal.place), removal)
            case 1:
                answer = Answer(place_from(names), frozenset(map(birth_from, _bounded(parts))))
                return _spelled(key, answer_key(answer.place), answer)
            case 2:
                after = After(_header_from(*parts))
                return _spelled(key, after_key(after.origin), after)
            case _:
                return None
    except (TypeError, ValueError) as error:
        raise PeerError("a removals row is malformed") from error


def _spelled(key: bytes, wanted: bytes, row: Kind) -> Kind:
    """Refuse a second spelling of a key, under which others would look in vain."""
    if key != wanted:
        raise ValueError("a key in another spelling")
    return row


def _bounded(parts: list[object]) -> list[object]:
    if len(parts) > DOTS_MAX:
        raise ValueError("too many adds")
    return parts


def _dot_from(parts: object) -> Dot:
    origin, epoch, seq, *birth = typed(parts, list)
    return Dot(NodeId(typed(origin, str)), _head_from(epoch, seq), birth_from(birth))


def _header_from(payload: object, signature: object) -> Header:
    header = parse_header(Signed(FLUSH, typed(payload, bytes), typed(signature, bytes)))
    verify_header(header, header.mesh)  # whether it is ours is for the reader to say
    return header


def _head_from(epoch: object, seq: object) -> Head:
    head = Head(typed(epoch, int), typed(seq, int))
    if not (0 < head.epoch < 1 << 63 and 0 < head.seq < 1 << 63):
        raise ValueError("a position out of range")
    return head


def places_in(table: str, key: bytes) -> set[Place]:
    """Return which entry a row of any feed is about, if its key says so."""
    is_entry = table == REGISTRY
    if not is_entry and not (table == REMOVALS and key.startswith((REMOVAL_KEYS, ANSWER_KEYS))):
        return set()
    try:
        names = typed(unpack(key), list)
        return {place_from(names if is_entry else names[1:])}
    except (PeerError, TypeError, ValueError):
        return set()
