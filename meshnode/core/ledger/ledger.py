"""What agents have used: records, and the cumulative slots that a node publishes about them.

Invariant: a slot only grows, has one writer, and is a function of the set of records in it, so no
order of reading or merging changes a total. Any bytes decode to a value or raise PeerError.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import astuple

from meshnode.core.ledger.marks import FOLDED, GATEWAYS, MARK, fitting, mark_of, marked
from meshnode.core.periods import DayKey, MonthKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meshnode.core.ledger.charges import Charge
    from meshnode.core.ledger.rounds import Texts

LEDGER = "ledger"  # the table, in every node's feed
SLOT_S = 1800  # slots of 30 minutes cut exact local days in every zone but those on :15 or :45
SLOT_MAX = 140_000_000  # about the year 9955: any slot up to here is a date in any zone
TEXT_CHARS_MAX = 256  # longer: cut when we write, PeerError when we read
COUNT_MAX = (1 << 63) - 1  # larger sums stay here: one hostile row must not spoil every answer
INCOMPLETE = "incomplete"  # a flag: the log never told the end, so the output may be short


_values = msgspec.structs.astuple


# Structs are quicker to make than frozen dataclasses, and a million of them pass between processes.
class Buckets(msgspec.Struct, frozen=True, gc=False, array_like=True):
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
        return min(self.uncapped, COUNT_MAX)

    @property
    def uncapped(self) -> int:
        """All tokens, however many: sums of these compare as what they are sums of."""
        return self.prompt + self.output

    @property
    def counts(self) -> tuple[int, ...]:
        """All buckets, in their order."""
        return _values(self)

    @property
    def by_name(self) -> dict[str, int]:
        """All buckets by their names, and their total."""
        return {**msgspec.structs.asdict(self), "total": self.total}

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


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False, array_like=True):
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
    formerly: str = ""  # a key that older versions may have counted it by


class SlotKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Which counter: `slot` is the number of half hours since 1970, UTC. Tiers may have marks."""

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


class Slot(msgspec.Struct, frozen=True, gc=False):
    """What was used in a slot since ever. Of differing texts the smallest stays, in any order."""

    records: int
    usage: Buckets
    agent: str = ""
    owner: str = ""
    project: str = ""
    provider: str = ""


_NOTHING = Slot(0, Buckets())


class DiagnosticsKey(msgspec.Struct, frozen=True, order=True):
    """Which reader: `path_hash` stands for its file and filter, so that no path is published."""

    source: str
    path_hash: str


class Diagnostics(msgspec.Struct, frozen=True):
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


class Round(msgspec.Struct, frozen=True):
    """What was said in a line of a log, and the record that it makes."""

    record: UsageRecord
    texts: Texts


class Batch(msgspec.Struct, frozen=True):
    """What one reading found, to be kept whole or not at all.

    `places`: where files were left, by the reader's name of each, at most 32 bytes; b"" forgets it.
    The counts of `diagnostics` are what this reading adds, less than nothing where a document that
    was written anew is less wrong; `partial_tail_bytes` is what it found.
    `superseded`: keys of responses that count by other keys, whoever tells of them.
    `began`: the places it began from, so that nothing is left out twice where two read the same
    logs; None adds in any case.
    """

    key: DiagnosticsKey
    path: str
    places: Mapping[bytes, bytes]
    records: Sequence[UsageRecord]
    diagnostics: Diagnostics
    rounds: Sequence[Round] = ()  # where they are asked for
    began: Mapping[bytes, bytes] | None = None
    charges: Sequence[Charge] = ()  # of the records, in their order, where they are known already
    superseded: Sequence[str] = ()


class StoredReader(msgspec.Struct, frozen=True):
    """What is on disk about a reader: the place of each file it has read, and its counts."""

    places: Mapping[bytes, bytes]
    diagnostics: Diagnostics


Said = tuple[str, str, str, str, str, str, str, str]
"""What decides, with its time, where a record is counted: session, model, tier and source, and for
whom: agent, owner, project and provider."""
Counters = tuple[tuple[str, str, str], tuple[str, str, str, str]]
"""The texts of counters that differ in their slots alone: of their keys, and whose they are."""
CounterKey = SlotKey | DayKey | MonthKey
Added = tuple[SlotKey, "Slot"]
"""What some records add up to."""
LedgerKey = CounterKey | DiagnosticsKey
LedgerRow = tuple[CounterKey, Slot] | tuple[DiagnosticsKey, Diagnostics]


class Slots:
    """Cumulative slots, folded from records. The caller keeps duplicates out.

    `places`: which counters the records of some slots are in, where it is not the slot's own alone:
    what comes is added to the first.
    """

    def __init__(
        self,
        slots: Mapping[CounterKey, Slot] | None = None,
        places: Mapping[SlotKey, Sequence[CounterKey]] | None = None,
    ) -> None:
        self._slots = dict(slots or {})
        self._places = places or {}

    def correct(
        self, wrong: Iterable[Added], right: Iterable[Added]
    ) -> list[tuple[CounterKey, Slot]]:
        """Take back what was counted, count what is right; return what changed, by key.

        A slot that nothing is left of stays, with zeros: what was published is not forgotten. What
        both say of a slot stays where it is counted, which nothing tells if there are two places.
        """
        changed: set[CounterKey] = set()
        less: dict[SlotKey, Slot] = {}
        for slot, taken in wrong:
            less[slot] = grown(less.get(slot), taken)
        for slot, added in right:
            rest = added
            if slot in less:
                both = _common(less[slot], added)
                less[slot], rest = _shrunk(less[slot], both), _shrunk(added, both)
            key = self._places_of(slot)[0]
            changed.add(key)
            self.add(key, rest)
        for slot, taken in less.items():
            changed.update(self._take_off(slot, taken))
        return [(key, self._slots[key]) for key in sorted(changed, key=_by_time)]

    def _take_off(self, slot: SlotKey, less: Slot) -> Iterator[CounterKey]:
        """Take back what was counted: what the first place has not comes off the next.

        So each has at most what was used by those whose it is, and the sum of all is exact.
        """
        for key in self._places_of(slot):
            held = self._slots.get(key)
            part = _NOTHING if held is None else _common(held, less)
            if held is not None and part != _NOTHING:
                self._slots[key], less = _shrunk(held, part), _shrunk(less, part)
                yield key

    def add(self, key: CounterKey, added: Slot) -> None:
        """Count what is already added up, as a row may say it."""
        held = self._slots.get(key)
        self._slots[key] = added if held is None else grown(held, added)

    def _places_of(self, key: SlotKey) -> Sequence[CounterKey]:
        return self._places.get(key, (key,))

    def __iter__(self) -> Iterator[tuple[CounterKey, Slot]]:
        return iter(self._slots.items())


def _by_time(key: CounterKey) -> tuple[str, str, str, int, int]:
    return key.session, key.model, key.tier, key.start_s, key.end_s


def cut(text: str) -> str:
    """Return a text that fits a row: whole characters, at most TEXT_CHARS_MAX of them."""
    if text.isascii():  # the quick way, and nearly always the way
        return text[:TEXT_CHARS_MAX]
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def slot_number(at_s: float) -> int:
    """Return the slot that a time falls into."""
    return int(at_s // SLOT_S)


def slot_key_of(record: UsageRecord) -> SlotKey:
    """Return the counter that a record belongs to."""
    texts, _ = counters_of(_said_of(record))
    return SlotKey(*texts, slot_number(record.at_s))


def counters_of(said: Said) -> Counters:
    """Return where what says the same of itself is counted, whenever it was."""
    together = "".join(said)
    if len(together) > TEXT_CHARS_MAX or not together.isascii():  # rarely: else nothing is cut
        said = _cut(said)
    session, model, tier, source, agent, owner, project, provider = said
    if source in GATEWAYS and MARK not in tier:  # an older version let services have one
        tier = marked(tier, mark_of(agent, owner, project, provider))
    if session == FOLDED:
        session = session.strip("()")
    return fitting(session, model, cut(tier)), (agent, owner, project, provider)


def _cut(said: Said) -> Said:
    session, model, tier, source, agent, owner, project, provider = said
    whose = cut(agent), cut(owner), cut(project), cut(provider)
    return (cut(session), cut(model), tier, source, *whose)


def _said_of(one: UsageRecord) -> Said:
    whose = (one.agent, one.owner, one.project, one.provider)
    return (one.session, one.model, one.tier, one.source, *whose)


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


def added_up(records: Iterable[UsageRecord]) -> list[Added]:
    """Add up what goes to one slot and says the same of itself."""
    told: defaultdict[tuple[Said, int], list[tuple[int, ...]]] = defaultdict(list)
    for one in records:
        told[_said_of(one), slot_number(one.at_s)].append(one.usage.counts)
    return [
        added(counters_of(said), slot, len(counts), bucketwise(counts))
        for (said, slot), counts in told.items()
    ]


def added(counters: Counters, slot: int, records: int, usage: Buckets) -> Added:
    """Return what some records of one slot, all counted in these counters, add to it."""
    texts, whose = counters
    return SlotKey(*texts, slot), Slot(records, usage, *whose)


def bucketwise(counts: Iterable[tuple[int, ...]]) -> Buckets:
    """Add up the counts of buckets, at least of one; a sum stays at COUNT_MAX."""
    sums = [*map(sum, zip(*counts, strict=True))]
    if max(sums) > COUNT_MAX:
        sums = [min(one, COUNT_MAX) for one in sums]
    return Buckets(*sums)


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


def _shrunk(slot: Slot, less: Slot) -> Slot:
    return msgspec.structs.replace(
        slot, records=max(slot.records - less.records, 0), usage=slot.usage - less.usage
    )


def _common(one: Slot, other: Slot) -> Slot:
    """Return of each count the smaller."""
    pairs = zip(one.usage.counts, other.usage.counts, strict=True)
    usage = Buckets(*(min(mine, theirs) for mine, theirs in pairs))
    return Slot(min(one.records, other.records), usage)


def _smaller(one: str, other: str) -> str:
    other = cut(other)
    return min(one, other) if one and other else one or other
