"""What every reader of usage logs gives: records, where it is now, and what it left out, and why.

Invariant: a reader never raises for what it finds on disk, and reads on from any place it gave, so
whoever keeps records and places together counts each response once. No prompt text leaves a reader,
unless it is made to bring rounds.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from meshnode.core.ledger.ledger import Batch, Diagnostics, StoredReader
from meshnode.ingest.lenient import file_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from meshnode.core.ledger.ledger import DiagnosticsKey, LedgerRow, Round, UsageRecord

    ParseLine = Callable[[bytes, str, str, int], "UsageRecord | Skipped"]
    """Turns a line, its file's path and fingerprint and its offset there into a record."""
    ParseRound = Callable[[bytes, "UsageRecord"], "Round"]
    """Turns a line that is a record into what was said."""

FINE = "ok"  # the detail of a reading with which nothing is wrong
LINE_BYTES_MAX = 1 << 20  # longer: skipped and counted as unparsable
STATE_BYTES_MAX = 1 << 16  # of what a parser carries from line to line; larger: begun anew
REMARKS_MAX = 100  # kept of one reading, the first; the counts are of all


class Reason(StrEnum):
    """Why a line is no record."""

    NOT_A_CALL = "not_a_call"  # not counted as anything: logs are full of such lines
    NO_USAGE = "no_usage"
    UNPARSABLE = "unparsable"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"


class SourceConfig(msgspec.Struct, frozen=True):
    """A log to follow; with `session_key` only that session is counted, `messages` are texts."""

    source: str
    path: str
    session_key: str | None = None
    refresh_interval_s: float = 1.0
    messages: bool = False  # keep what was said, here and nowhere else

    def state(self, records: int, detail: str) -> SourceState:
        """Say how far it is read; its path is told as text, whatever bytes it is made of."""
        return SourceState(self.source, file_text(self.path), records, detail)


class SourceState(msgspec.Struct, frozen=True):
    """How far a log is read: records counted since ever, and "ok" or what is wrong."""

    source: str
    path: str
    records: int
    detail: str


class Skipped(msgspec.Struct, frozen=True):
    """A line that is not counted; `session` is None where the line does not tell."""

    reason: Reason
    session: str | None = None


class Remark(msgspec.Struct, frozen=True):
    """Where something was left out: the byte at which its line begins, and why."""

    file: str
    offset: int
    reason: Reason


class Reading(msgspec.Struct, frozen=True):
    """What one call read: the batch is to be kept whole, or not at all."""

    batch: Batch
    more: bool
    detail: str
    remarks: tuple[Remark, ...] = ()


class Reader(Protocol):
    """Reads one source on, from the places it is given. Blocking: use a thread."""

    @property
    def key(self) -> DiagnosticsKey:
        """What the reader's places and counts are kept under."""

    def read(self, places: Mapping[bytes, bytes], bytes_max: int) -> Reading:
        """Read on from all places it ever gave, none for the start: about bytes_max at most.

        `detail` of the answer is "ok" or a sentence that says what is wrong.
        """

    def close(self) -> None:
        """Let go of all files; waits for a `read` in another thread to end."""


class Findings(msgspec.Struct):
    """What a reading has found so far."""

    records: list[UsageRecord] = msgspec.field(default_factory=list)
    rounds: list[Round] = msgspec.field(default_factory=list)
    skipped: Counter[Reason] = msgspec.field(default_factory=Counter)
    remarks: list[Remark] = msgspec.field(default_factory=list)
    superseded: list[str] = msgspec.field(default_factory=list)  # see `Batch`

    def skip(self, reason: Reason, file: str, offset: int) -> None:
        """Leave a line out, and remember why and where."""
        if reason is Reason.NOT_A_CALL:
            return
        self.skipped[reason] += 1
        if len(self.remarks) < REMARKS_MAX and reason is not Reason.DUPLICATE:
            self.remarks.append(Remark(file, offset, reason))

    def diagnostics(self, partial_tail_bytes: int) -> Diagnostics:
        """Count what was left out."""
        return Diagnostics(
            requests_without_usage=self.skipped[Reason.NO_USAGE],
            duplicates_ignored=self.skipped[Reason.DUPLICATE],
            quarantined=self.skipped[Reason.QUARANTINED],
            unparsable_lines=self.skipped[Reason.UNPARSABLE],
            partial_tail_bytes=partial_tail_bytes,
        )


class OutdatedError(Exception):
    """An older version of a parser has missed in a file what is needed to go on with it."""


class Parser(Protocol):
    """Reads the lines of one file, in their order."""

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines (each ends with a newline) that begin at an offset of the file."""

    def state(self) -> bytes:
        """Return what to go on with after a restart, at most STATE_BYTES_MAX bytes."""


def unmarked(chunk: bytes, offset: int) -> tuple[bytes, int]:
    """Return a piece of a file, and where it begins, without a mark of the byte order before it."""
    if offset == 0 and chunk.startswith(BOM_UTF8):
        return chunk[len(BOM_UTF8) :], len(BOM_UTF8)
    return chunk, offset


class LineParser:
    """Reads a file whose lines each stand for themselves."""

    def __init__(self, parse: ParseLine, file: str, fingerprint: str = "") -> None:
        self._parse = parse
        self._file = file
        self._fingerprint = fingerprint

    def take(self, chunk: bytes, offset: int, findings: Findings) -> None:
        """Read whole lines. See `Parser`."""
        for line in chunk.split(b"\n")[:-1]:
            found = self._parse(line, self._file, self._fingerprint, offset)
            if isinstance(found, Skipped):
                findings.skip(found.reason, self._file, offset)
            else:
                findings.records.append(found)
            offset += len(line) + 1

    def state(self) -> bytes:
        """Return nothing: a line stands for itself."""
        return b""


def together(
    readings: Iterable[Reading], most: int, records_min: int, is_ready: Callable[[], bool]
) -> Iterator[Reading]:
    """Join at most so many readings into one, fewer once they have so many records.

    Each that is kept writes to places all over the ledger's indexes: few large ones cost less. But
    nobody waits for the next one while there are some to keep, so `is_ready` is asked before.
    What was wrong first is said by all that follow.
    """
    held: list[Reading] = []
    detail = FINE
    for reading in readings:
        held.append(reading)
        is_full = len(held) == most or sum(len(one.batch.records) for one in held) >= records_min
        if is_full or not (reading.more and is_ready()):
            found = joined(held)
            detail = found.detail if detail == FINE else detail
            yield found if found.detail == detail else replace(found, detail=detail)
            held = []


def joined(readings: Sequence[Reading]) -> Reading:
    """Return readings that follow one another as if they were one."""
    if len(readings) == 1:
        return readings[0]
    last = readings[-1]
    batches = [one.batch for one in readings]
    counts = sum((one.diagnostics for one in batches), Diagnostics())
    tail_bytes = last.batch.diagnostics.partial_tail_bytes
    all_charged = all(len(one.charges) == len(one.records) for one in batches)
    batch = replace(
        last.batch,
        places={file: place for one in batches for file, place in one.places.items()},
        records=[record for one in batches for record in one.records],
        charges=[charge for one in batches for charge in one.charges] if all_charged else (),
        diagnostics=replace(counts, partial_tail_bytes=tail_bytes),
        rounds=[told for one in batches for told in one.rounds],
        superseded=[key for one in batches for key in one.superseded],
    )
    remarks = tuple(remark for one in readings for remark in one.remarks)
    troubles = [one.detail for one in readings if one.detail != FINE]
    return Reading(batch, last.more, troubles[0] if troubles else FINE, remarks)


def is_news(batch: Batch, stored: StoredReader) -> bool:
    """Tell whether a reading found anything that is worth a transaction."""
    tail_bytes = stored.diagnostics.partial_tail_bytes
    counted = batch.diagnostics != Diagnostics(partial_tail_bytes=tail_bytes)
    return bool(batch.places or batch.records) or counted


def moved_on(stored: StoredReader, batch: Batch, rows: Sequence[LedgerRow]) -> StoredReader:
    """Return what is on disk about a reader once a batch is kept and has changed these rows."""
    ours = (value for key, value in rows if key == batch.key)
    counted = (value for value in ours if isinstance(value, Diagnostics))
    return StoredReader(places_after(stored.places, batch), next(counted, stored.diagnostics))


def places_after(places: Mapping[bytes, bytes], batch: Batch) -> dict[bytes, bytes]:
    """Return where files are left once a batch is kept."""
    return {file: place for file, place in {**places, **batch.places}.items() if place}
