"""The rows of the `ledger` table: slots and diagnostics as bytes, as they are kept and published.

Invariant: any bytes decode to a value or raise PeerError; equal values give the same bytes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, assert_never

import msgspec
from msgspec.structs import astuple

from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId
from meshnode.core.ledger.ledger import (
    COUNT_MAX,
    SLOT_MAX,
    TEXT_CHARS_MAX,
    Buckets,
    Diagnostics,
    DiagnosticsKey,
    LedgerKey,
    Slot,
    SlotKey,
    cut,
)
from meshnode.core.packing import pack_lists, unpack
from meshnode.core.periods import DAY_MAX, MONTH_MAX, DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.ledger.ledger import CounterKey

_KINDS = 4  # of keys: slots, readers, days, months
_REPLACED = 4  # of a key that names a node; versions before it pass it over
_COUNTERS: dict[int, tuple[type[CounterKey], int]] = {
    0: (SlotKey, SLOT_MAX),
    2: (DayKey, DAY_MAX),
    3: (MonthKey, MONTH_MAX),
}
_OF_FIVE = pack_lists([0] * 5)[:1]  # how a list of so many begins
_BUCKETS = len(Buckets.__struct_fields__)
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
_Counts = tuple[_Count, _Count, _Count, _Count, _Count, _Count, _Count]
# Quick, of what is written today; ValueError says nothing about the rest.
decode_key = msgspec.msgpack.Decoder(tuple[int, _Text, _Text, _Text, _Count]).decode
decode_slot = msgspec.msgpack.Decoder(tuple[_Count, _Counts, _Text, _Text, _Text, _Text]).decode


def key_to_row(key: LedgerKey) -> bytes:
    """Encode a key of the `ledger` table; its first element tells the kinds apart."""
    match key:
        case DiagnosticsKey(source, path_hash):
            return pack_lists([1, source, path_hash])
        case SlotKey(session, model, tier, slot):
            return pack_lists([0, session, model, tier, slot])
        case DayKey(session, model, tier, day):
            return pack_lists([2, session, model, tier, day])
        case MonthKey(session, model, tier, month):
            return pack_lists([3, session, model, tier, month])
        case _:
            assert_never(key)


def keys_begin(session: str) -> list[bytes]:
    """Return how the keys of a session's counters begin, and no others do."""
    return [_OF_FIVE + pack_lists([kind, session])[1:] for kind in _COUNTERS]


def key_from_row(row: bytes) -> LedgerKey | None:
    """Decode a key; None is a kind of a later version, to be passed over. Raises PeerError."""
    try:
        kind, session, model, tier, number = decode_key(row)
    except ValueError:  # not what is written today
        return _key_of_others(row)
    made = _COUNTERS.get(kind)
    if made is None or number > made[1]:
        return _key_of_others(row)
    return made[0](session, model, tier, number)


def _key_of_others(row: bytes) -> LedgerKey | None:
    match _list(row, 1):
        case [0, session, model, tier, slot]:
            return SlotKey(_text(session), _text(model), _text(tier), _number(slot, SLOT_MAX))
        case [1, source, path_hash]:
            return DiagnosticsKey(_text(source), _text(path_hash))
        case [2, session, model, tier, day]:
            return DayKey(_text(session), _text(model), _text(tier), _number(day, DAY_MAX))
        case [3, session, model, tier, month]:
            return MonthKey(_text(session), _text(model), _text(tier), _number(month, MONTH_MAX))
        case [int() as kind, *_] if kind >= _KINDS:
            return None
        case _:
            raise PeerError("not a ledger key")


def replaced_to_row(node: NodeId) -> bytes:
    """Encode a key that says whose ledger is left out of this one: of a node that is replaced."""
    return pack_lists([_REPLACED, node])


def replaced_in(keys: Iterable[bytes]) -> list[NodeId]:
    """Return the nodes that such keys name, among any others."""
    begin = pack_lists([_REPLACED, ""])[:2]
    found = []
    for key in keys:
        if key.startswith(begin):
            with suppress(PeerError):
                found.append(NodeId(_text(_list(key, 2)[1])))
    return found


def value_to_row(value: Slot | Diagnostics) -> bytes:
    """Encode a value of the `ledger` table."""
    return slot_to_row(value) if isinstance(value, Slot) else diagnostics_to_row(value)


def slot_to_row(slot: Slot) -> bytes:
    """Encode a slot."""
    texts = [cut(text) for text in (slot.agent, slot.owner, slot.project, slot.provider)]
    return pack_lists([slot.records, slot.usage.counts, *texts])


def slot_from_row(row: bytes) -> Slot:
    """Decode a slot; raises PeerError. Elements that a later version appends are passed over."""
    try:
        number, sums, *said = decode_slot(row)
    except ValueError:  # not what is written today
        return _slot_of_others(row)
    return Slot(number, Buckets(*sums), *said)


def _slot_of_others(row: bytes) -> Slot:
    match _list(row, 6):
        case [records, [*counts], agent, owner, project, provider, *_] if len(counts) >= _BUCKETS:
            usage = Buckets(*(_number(count) for count in counts[:_BUCKETS]))
            texts = (_text(text) for text in (agent, owner, project, provider))
            return Slot(_number(records), usage, *texts)
        case _:
            raise PeerError("not a ledger slot")


def diagnostics_to_row(diagnostics: Diagnostics) -> bytes:
    """Encode diagnostics."""
    return pack_lists(list(astuple(diagnostics)))


def diagnostics_from_row(row: bytes) -> Diagnostics:
    """Decode diagnostics; raises PeerError."""
    counts = _list(row, len(Diagnostics.__struct_fields__))
    return Diagnostics(*(_number(count) for count in counts[: len(Diagnostics.__struct_fields__)]))


def _list(row: bytes, least: int) -> list[Any]:
    values = unpack(row)
    if not isinstance(values, list) or len(values) < least:
        raise PeerError("a ledger row is no list, or a short one")
    return values


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX:
        raise PeerError("a ledger text is no text, or too long")
    return value


def _number(value: object, most: int = COUNT_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:  # a bool is no count
        raise PeerError("a ledger count is no count")
    return value
