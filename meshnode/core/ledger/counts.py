"""The counts of a counter in one integer, so that ledgers of millions of rows add up quickly.

Invariant: fields are wider than what any number of rows adds up to, so none runs into the next, and
taking away what was added leaves nothing. The decoders here take and refuse exactly what those of
`core/ledger/ledger.py` do; a test holds them together.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from meshnode.core.errors import PeerError
from meshnode.core.ledger.ledger import COUNT_MAX, SLOT_MAX, TEXT_CHARS_MAX, Buckets, Slot
from meshnode.core.ledger.ledger_rows import decode_key, decode_slot
from meshnode.core.ledger.marks import session_in, unmarked
from meshnode.core.packing import typed, unpack
from meshnode.core.periods import DAY_MAX, MONTH_MAX

FIELD_BITS = 96  # counts have 63, and no mesh has 2**33 rows
SLOTS, DAYS, MONTHS = 0, 2, 3  # kinds of counters, as the first element of their keys
_MASK = (1 << FIELD_BITS) - 1
_MOST = {SLOTS: SLOT_MAX, DAYS: DAY_MAX, MONTHS: MONTH_MAX}
_VALUES_MIN, _COUNTS_MIN, _FIELDS = 6, 7, 8
_FIELDS_OF = Struct("<" + _FIELDS * f"Q{FIELD_BITS // 8 - 8}x").pack


class Counter(NamedTuple):
    """Which counter a row is: its kind, and how many slots, days or months since 1970.

    Without its mark: what that tells apart, the texts of the rows tell, and the session.
    """

    kind: int
    session: str
    model: str
    tier: str
    number: int


class Weight(NamedTuple):
    """What a row counts, in one integer, and its texts."""

    counts: int
    agent: str
    owner: str
    project: str
    provider: str


def packed(slot: Slot) -> int:
    """Put the counts of a counter into one integer; those that are mostly zero come last."""
    usage = slot.usage
    return _packed(slot.records, usage.counts)


def _packed(records: int, counts: tuple[int, ...] | list[int]) -> int:
    sent, read, write_5m, write_1h, output, reasoning, searches = counts
    reasoning = min(reasoning, output)  # a part of it: or prices of sums were not sums of prices
    fields = _FIELDS_OF(records, sent, output, read, write_5m, reasoning, write_1h, searches)
    return int.from_bytes(fields, "little")


def unpacked(number: int) -> tuple[int, Buckets]:
    """Return records and token counts; each stays at COUNT_MAX."""
    records, usage = exactly(number)
    return min(records, COUNT_MAX), usage + Buckets()


def exactly(number: int) -> tuple[int, Buckets]:
    """Return records and token counts, however many."""
    found = []
    for _ in range(_FIELDS):
        found.append(number & _MASK)
        number >>= FIELD_BITS
    records, sent, output, read, write_5m, reasoning, write_1h, searches = found
    return records, Buckets(sent, read, write_5m, write_1h, output, reasoning, searches)


def counter_of(row: bytes) -> Counter | None:
    """Decode the key of a counter; None for any other row, also one that cannot be decoded."""
    try:
        kind, session, model, tier, number = decode_key(row)
    except ValueError:  # not what is written today
        return _counter_of_others(row)
    if number > _MOST.get(kind, -1):
        return None
    return Counter(kind, session_in(session, tier), model, unmarked(tier), number)


def _counter_of_others(row: bytes) -> Counter | None:
    try:
        kind, session, model, tier, number = unpack(row)
    except (PeerError, ValueError, TypeError):
        return None
    if type(kind) is not int or type(number) is not int or kind not in _MOST:
        return None
    if not 0 <= number <= _MOST[kind]:
        return None
    for text in (session, model, tier):
        if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
            return None
    return Counter(kind, session_in(session, tier), model, unmarked(tier), number)


def weight_of(row: bytes) -> Weight | None:
    """Decode the value of a counter; None for one that cannot be decoded."""
    try:
        records, counts, *texts = decode_slot(row)
    except ValueError:  # not what is written today
        return _weight_of_others(row)
    return Weight(_packed(records, counts), *texts)


def _weight_of_others(row: bytes) -> Weight | None:
    try:
        values: list[Any] = typed(unpack(row), list)
        records, counts, *texts = values[:_VALUES_MIN]
        numbers = (records, *typed(counts, list)[:_COUNTS_MIN])
        return Weight(_packed(records, numbers[1:]), *texts) if _fine(numbers, texts) else None
    except (PeerError, ValueError, TypeError, LookupError):
        return None


def _fine(numbers: tuple[object, ...], texts: list[object]) -> bool:
    for number in numbers:
        if type(number) is not int or not 0 <= number <= COUNT_MAX:
            return False
    for text in texts:
        if not isinstance(text, str) or len(text) > TEXT_CHARS_MAX:
            return False
    return len(numbers) == _FIELDS and len(texts) == _VALUES_MIN - 2
