"""What agents have used: records, and the cumulative slots that a node publishes about them.

Invariant: a slot only grows, has one writer, and is a function of the set of records in it, so no
order of reading or merging changes a total. Any bytes decode to a value or raise PeerError.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.errors import PeerError
from meshnode.core.packing import pack, unpack
from meshnode.core.periods import DAY_MAX, MONTH_MAX, DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LEDGER = "ledger"  # the table, in every node's feed
SLOT_S = 1800  # slots of 30 minutes cut exact local days in every zone but those on :15 or :45
SLOT_MAX = 140_000_000  # about the year 9955: any slot up to here is a date in any zone
TEXT_CHARS_MAX = 256  # longer: cut when we write, PeerError when we read
COUNT_MAX = (1 << 63) - 1  # larger sums stay here: one hostile row must not spoil every answer
STANDARD = "standard"  # the service tier that providers bill unless told otherwise
CONTEXT_STEPS_TOKENS = (
    *(32_000, 100_000, 128_000, 199_999, 200_000),
    *(256_000, 272_000, 512_000, 524_288),
)
"""Prompts longer than a step may cost more per token; a test holds this against the price list."""


class Buckets(msgspec.Struct, frozen=True):  # ten times quicker to make than a frozen dataclass
    """Disjoint token counts; reasoning is a part of output, web_search counts searches."""

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_search: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return min(self.prompt + self.output, COUNT_MAX)

    @property
    def counts(self) -> tuple[int, ...]:
        """All buckets, in their order."""
        return (
            self.input,
            self.cache_read,
            self.cache_write_5m,
            self.cache_write_1h,
            self.output,
            self.reasoning,
            self.web_search,
        )

    @property
    def prompt(self) -> int:
        """All tokens sent, cached or not."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    def __add__(self, other: Buckets) -> Buckets:
        """Add bucket by bucket; a sum stays at COUNT_MAX, so adding is still associative."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Buckets(*[min(mine + theirs, COUNT_MAX) for mine, theirs in pairs])

    def __sub__(self, other: Buckets) -> Buckets:
        """Take away what was added before, bucket by bucket; what is not there stays at 0."""
        pairs = zip(self.counts, other.counts, strict=True)
        return Buckets(*[max(mine - theirs, 0) for mine, theirs in pairs])


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One provider response, counted once by its `idem_key`. Unknown texts are empty.

    Logs tell of one response several times: the line of the highest `rank` is the one that counts.
    """

    idem_key: str
    source: str
    at_s: float  # when the log says, seconds since 1970, UTC
    session: str
    project: str
    agent: str
    owner: str
    model: str  # as logged
    provider: str
    tier: str  # from tier_of
    usage: Buckets
    flags: tuple[str, ...] = ()
    rank: int = 0
    file: str = ""  # where it was read, and at which byte: never leaves this node
    offset: int = 0


@dataclass(frozen=True, slots=True, order=True)
class SlotKey:
    """Which counter: `slot` is the number of half hours since 1970, UTC."""

    session: str
    model: str
    tier: str
    slot: int

    @property
    def start_s(self) -> int:
        """Where the slot begins, seconds since 1970."""
        return self.slot * SLOT_S

    @property
    def end_s(self) -> int:
        """Where the next slot begins, seconds since 1970."""
        return self.start_s + SLOT_S


@dataclass(frozen=True, slots=True)
class Slot:
    """What was used in a slot since ever. Of differing texts the smallest stays, in any order."""

    records: int
    usage: Buckets
    agent: str = ""
    owner: str = ""
    project: str = ""
    provider: str = ""


@dataclass(frozen=True, slots=True, order=True)
class DiagnosticsKey:
    """Which reader: `path_hash` stands for its file and filter, so that no path is published."""

    source: str
    path_hash: str


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What one reader counted since ever, and what it read but did not count."""

    records: int = 0
    requests_without_usage: int = 0
    duplicates_ignored: int = 0
    quarantined: int = 0
    unparsable_lines: int = 0
    partial_tail_bytes: int = 0
    incomplete: int = 0

    def __add__(self, other: Diagnostics) -> Diagnostics:
        """Add field by field: of two readers, or of two nodes."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Diagnostics(*(min(mine + theirs, COUNT_MAX) for mine, theirs in pairs))


@dataclass(frozen=True, slots=True)
class Batch:
    """What one reading found, to be kept whole or not at all.

    `places` are the files whose place has moved, by a name the reader gave them (at most 32 bytes);
    a place is the reader's own business, and b"" forgets it. The counts of `diagnostics` are what
    this reading adds, its `partial_tail_bytes` is what it found.
    """

    key: DiagnosticsKey
    path: str
    places: Mapping[bytes, bytes]
    records: Sequence[UsageRecord]
    diagnostics: Diagnostics


@dataclass(frozen=True, slots=True)
class StoredReader:
    """What is on disk about a reader: the place of each file it has read, and its counts."""

    places: Mapping[bytes, bytes]
    diagnostics: Diagnostics


CounterKey = SlotKey | DayKey | MonthKey
LedgerKey = CounterKey | DiagnosticsKey
LedgerRow = tuple[CounterKey, Slot] | tuple[DiagnosticsKey, Diagnostics]
_KINDS: dict[type, int] = {SlotKey: 0, DiagnosticsKey: 1, DayKey: 2, MonthKey: 3}


class Slots:
    """Cumulative slots, folded from records. The caller keeps duplicates out."""

    def __init__(self, slots: Mapping[SlotKey, Slot] | None = None) -> None:
        self._slots = dict(slots or {})

    def fold(self, records: Iterable[UsageRecord]) -> list[tuple[SlotKey, Slot]]:
        """Count the records; return the slots that changed, by key."""
        return self.correct((), records)

    def correct(
        self, wrong: Iterable[UsageRecord], right: Iterable[UsageRecord]
    ) -> list[tuple[SlotKey, Slot]]:
        """Take back records that were counted, count others; return what changed, by key.

        A slot that nothing is left of stays, with zeros: what was published is not forgotten.
        """
        changed: set[SlotKey] = set()
        for record in wrong:
            key = slot_key_of(record)
            changed.add(key)
            self._slots[key] = _shrunk(self._slots[key], record)
        for key, added in _added_up(right):
            changed.add(key)
            self.add(key, added)
        return [(key, self._slots[key]) for key in sorted(changed)]

    def add(self, key: SlotKey, added: Slot) -> None:
        """Count what is already added up."""
        self._slots[key] = grown(self._slots.get(key), added)

    def __iter__(self) -> Iterator[tuple[SlotKey, Slot]]:
        return iter(self._slots.items())


def cut(text: str) -> str:
    """Return a text that fits a row: whole characters, at most TEXT_CHARS_MAX of them."""
    if text.isascii():  # the quick way, and nearly always the way
        return text[:TEXT_CHARS_MAX]
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def tier_of(service: str, prompt_tokens: int) -> str:
    """Name what a request is billed as, such as `standard`, `batch` or `standard>200000`.

    The length of a prompt belongs to one request and is lost in a sum; so it is in the key.
    """
    step = max((step for step in CONTEXT_STEPS_TOKENS if prompt_tokens > step), default=0)
    name = cut(service.strip().lower().replace(">", ""))[:64]
    name = STANDARD if name in ("", "auto", "default") else name
    return f"{name}>{step}" if step else name


def tier_parts(tier: str) -> tuple[str, int]:
    """Return the service tier, and how many tokens the prompt exceeds."""
    name, _, step = tier.partition(">")
    return name, int(step) if step.isascii() and step.isdigit() and len(step) <= 12 else 0  # noqa: PLR2004 - beyond any prompt


def slot_number(at_s: float) -> int:
    """Return the slot that a time falls into."""
    return int(at_s // SLOT_S)


def slot_key_of(record: UsageRecord) -> SlotKey:
    """Return the counter that a record belongs to."""
    return SlotKey(
        cut(record.session), cut(record.model), cut(record.tier), slot_number(record.at_s)
    )


def key_to_row(key: LedgerKey) -> bytes:
    """Encode a key of the `ledger` table; its first element tells the kinds apart."""
    return pack([_KINDS[type(key)], *astuple(key)])


def key_from_row(row: bytes) -> LedgerKey | None:
    """Decode a key; None is a kind of a later version, to be passed over. Raises PeerError."""
    match _list(row, 1):
        case [0, session, model, tier, slot]:
            return SlotKey(_text(session), _text(model), _text(tier), _number(slot, SLOT_MAX))
        case [1, source, path_hash]:
            return DiagnosticsKey(_text(source), _text(path_hash))
        case [2, session, model, tier, day]:
            return DayKey(_text(session), _text(model), _text(tier), _number(day, DAY_MAX))
        case [3, session, model, tier, month]:
            return MonthKey(_text(session), _text(model), _text(tier), _number(month, MONTH_MAX))
        case [int() as kind, *_] if kind >= len(_KINDS):
            return None
        case _:
            raise PeerError("not a ledger key")


def value_to_row(value: Slot | Diagnostics) -> bytes:
    """Encode a value of the `ledger` table."""
    return slot_to_row(value) if isinstance(value, Slot) else diagnostics_to_row(value)


def slot_to_row(slot: Slot) -> bytes:
    """Encode a slot."""
    texts = [cut(text) for text in (slot.agent, slot.owner, slot.project, slot.provider)]
    return pack([slot.records, list(slot.usage.counts), *texts])


def slot_from_row(row: bytes) -> Slot:
    """Decode a slot; raises PeerError. Elements that a later version appends are passed over."""
    match _list(row, 6):
        case [records, [*counts], agent, owner, project, provider, *_] if len(counts) >= _BUCKETS:
            usage = Buckets(*(_number(count) for count in counts[:_BUCKETS]))
            texts = (_text(text) for text in (agent, owner, project, provider))
            return Slot(_number(records), usage, *texts)
        case _:
            raise PeerError("not a ledger slot")


def diagnostics_to_row(diagnostics: Diagnostics) -> bytes:
    """Encode diagnostics."""
    return pack(list(astuple(diagnostics)))


def diagnostics_from_row(row: bytes) -> Diagnostics:
    """Decode diagnostics; raises PeerError."""
    counts = _list(row, len(fields(Diagnostics)))
    return Diagnostics(*(_number(count) for count in counts[: len(fields(Diagnostics))]))


_BUCKETS = len(Buckets.__struct_fields__)


def merged(one: Slot, other: Slot) -> Slot:
    """Join what two readings of the same logs have counted: of each count the larger."""
    pairs = zip(one.usage.counts, other.usage.counts, strict=True)
    return Slot(
        max(one.records, other.records),
        Buckets(*(max(mine, theirs) for mine, theirs in pairs)),
        _smaller(one.agent, other.agent),
        _smaller(one.owner, other.owner),
        _smaller(one.project, other.project),
        _smaller(one.provider, other.provider),
    )


def merged_row(table: str, key: bytes, ours: bytes, theirs: bytes) -> bytes:
    """Join a row of ours with what a history of ours says that our disk has lost.

    Slots are counted anew from what is left of the logs; every other row is as we say it now.
    """
    if table != LEDGER:
        return ours
    try:
        if not isinstance(key_from_row(key), SlotKey):
            return ours
        return slot_to_row(merged(slot_from_row(ours), slot_from_row(theirs)))
    except PeerError:
        return ours


def _added_up(records: Iterable[UsageRecord]) -> Iterator[tuple[SlotKey, Slot]]:
    """Add up what goes to one slot and says the same of itself: logs tell of thousands at once."""
    sums: dict[tuple[SlotKey, str, str, str, str], list[int]] = {}
    for record in records:
        texts = (record.agent, record.owner, record.project, record.provider)
        counts = sums.setdefault((slot_key_of(record), *texts), [0] * (_BUCKETS + 1))
        counts[0] += 1
        for index, count in enumerate(record.usage.counts, 1):
            counts[index] += count
    for (key, *said), (number, *added) in sums.items():
        yield key, Slot(number, Buckets(*added), *said)


def grown(slot: Slot | None, added: Slot) -> Slot:
    """Add two counters; of differing texts the smaller stays."""
    slot = slot or Slot(0, Buckets())
    return Slot(
        min(slot.records + added.records, COUNT_MAX),
        slot.usage + added.usage,
        _smaller(slot.agent, added.agent),
        _smaller(slot.owner, added.owner),
        _smaller(slot.project, added.project),
        _smaller(slot.provider, added.provider),
    )


def _shrunk(slot: Slot, record: UsageRecord) -> Slot:
    return replace(slot, records=max(slot.records - 1, 0), usage=slot.usage - record.usage)


def _smaller(one: str, other: str) -> str:
    other = cut(other)
    return min(one, other) if one and other else one or other


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
