"""How a question about cost cuts the ledger: what it selects, and into which groups.

Invariant: a counter is in one group, the one of its beginning, and counts whole if any of its time
was asked for; where that is more than was asked for, `exact` has become false, and `notes` say why.
What is left of an old day or month is never said to be of a part of it: it stands under its day or
month, in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from meshnode.core.errors import UsageError
from meshnode.core.ledger.counts import DAYS, MONTHS, SLOTS
from meshnode.core.ledger.ledger import SLOT_S

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    from meshnode.app.cost.tally import Combination
    from meshnode.core.ids import NodeId

TIMES = ("month", "week", "day", "hour")
BY = ("model", *TIMES, "node", "owner", "agent", "session", "project", "tier")
BLOCK = "block"  # of five hours (app/cost/blocks.py): of one machine's usage, not of the mesh
OF_WHOSE = frozenset({"owner", "agent", "project"})  # what a session may know better than a log
OF_CELLS = OF_WHOSE | {"model", "month", "week", "day", "node", "tier"}  # that roll-ups know
_OF_TEXTS = OF_WHOSE | {"node", "session"}
_FINER = {DAYS: frozenset({"hour"}), MONTHS: frozenset({"week", "day", "hour"})}
_PERIODS = {SLOTS: "half hours", DAYS: "UTC days", MONTHS: "UTC months"}
_HALVED = "not exact to the hour or day: half hours of UTC do not fit those of {zone}"
_SLOTS = "half hours count whole: this is what was used {}"
_CUT = "up to {until} only {0} are known: one that is asked for in part counts whole"
_WHOLE = "up to {until} only {0} are known: each stands under its own name"
_UTC = "up to {until} only {0} are known: they are not those of {zone}"


class CostQuery(msgspec.Struct, frozen=True):
    """What to select and how to group. Slots that overlap [since_s, until_s) count whole."""

    by: tuple[str, ...] = ()
    since_s: float | None = None
    until_s: float | None = None
    tz: str = "UTC"
    prices_at_s: float | None = None  # at the prices of that time; None: each slot at its own
    node_id: NodeId | None = None  # of one owner only
    session: str = ""  # of one session only
    most: int = 0  # groups shown, the dearest, the rest as one; 0: too many are refused
    blocks: Mapping[int, int] | None = None  # where that of each slot begins; None: of no blocks


class Span(NamedTuple):
    """The time of a counter, or of a cell: its kind (core/ledger/counts.py), seconds since 1970."""

    kind: int
    start_s: int
    end_s: int


class Texts(NamedTuple):
    """What a row says of itself, besides its counts."""

    node_id: str
    session: str
    agent: str
    owner: str
    project: str


class Cutting:
    """One query, understood; raises UsageError for an unknown grouping or time zone."""

    def __init__(self, query: CostQuery) -> None:
        self.query = query
        self.by = tuple(dict.fromkeys(query.by))
        for word in self.by:
            if word != BLOCK or query.blocks is None:
                check_grouping(word)
        self.is_by_texts = not _OF_TEXTS.isdisjoint(self.by)
        self.zone = zone_named(query.tz)
        self._by_time = tuple(word for word in (*TIMES, BLOCK) if word in self.by)
        self._since_s = float("-inf") if query.since_s is None else query.since_s
        self._until_s = float("inf") if query.until_s is None else query.until_s
        self._times: dict[Span, dict[str, str]] = {}  # their names, of each span that was noted
        self._doubts: dict[tuple[str, int], int] = {}  # by kind: until when, seconds since 1970
        self._ends_s: dict[str, int] = {}  # of slots counted whole that lie partly outside

    @property
    def exact(self) -> bool:
        """Whether all counters are within what was asked for."""
        return not self._doubts and not self._ends_s

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the answer is coarser than the question, in sentences."""
        ends = [f"{word} {moment(at_s, UTC)}" for word, at_s in sorted(self._ends_s.items())]
        found = [_SLOTS.format(" ".join(ends))] if ends else []
        for (doubt, kind), end_s in sorted(self._doubts.items()):
            last = datetime.fromtimestamp(end_s - 1, UTC)
            until = last.strftime("%Y-%m" if kind == MONTHS else "%Y-%m-%d")
            found.append(doubt.format(_PERIODS[kind], until=until, zone=self.query.tz))
        return tuple(found)

    def selects(self, span: Span) -> bool:
        """Whether any of that time was asked for."""
        return span.end_s > self._since_s and span.start_s < self._until_s

    def is_whole(self, cell: Span) -> bool:
        """Whether all rows of a selected cell are selected for sure, and in one group of time."""
        if cell.kind != SLOTS:
            return True  # it has one counter a session
        within = cell.start_s >= self._since_s and cell.end_s <= self._until_s
        return within and self._is_in_one(cell)

    def key(self, what: Combination, span: Span, texts: Texts) -> tuple[str, ...]:
        """Return the group of a selected row or cell, and note whether it is exactly there."""
        times = self._times.get(span)
        if times is None:
            self._note(span)
            times = self._times[span] = {word: self._time(word, span) for word in self._by_time}
        parts: list[str] = []
        for word in self.by:
            match word:
                case "model":
                    parts.append(what.model.lower())
                case "tier":
                    parts.append(what.tier)
                case "node":
                    parts.append(texts.node_id)
                case _ if word in times:
                    parts.append(times[word])
                case _:
                    parts.append(getattr(texts, word))
        return tuple(parts)

    def _time(self, word: str, span: Span) -> str:
        if word == BLOCK and self.query.blocks is not None:
            return moment(self.query.blocks[span.start_s // SLOT_S], self.zone)
        if span.kind == MONTHS:
            word = "month"
        elif span.kind == DAYS and word == "hour":
            word = "day"
        zone = self.zone if span.kind == SLOTS else UTC
        return _NAMES[word](datetime.fromtimestamp(span.start_s, zone))

    def _note(self, span: Span) -> None:
        if span.kind == SLOTS:
            self._note_slots(span)
            return
        if span.start_s < self._since_s or span.end_s > self._until_s:
            self._doubt(_CUT, span)
        if _FINER[span.kind].intersection(self._by_time):
            self._doubt(_WHOLE, span)
        elif not self._is_in_one(span):
            self._doubt(_UTC, span)

    def _note_slots(self, span: Span) -> None:
        if span.start_s < self._since_s:
            self._ends_s["from"] = span.start_s
        if span.end_s > self._until_s:
            self._ends_s["until"] = span.end_s
        if not self._is_in_one(span):
            self._doubt(_HALVED, span)

    def _is_in_one(self, span: Span) -> bool:
        """Whether that time, of a UTC day or less or of a month, is in one group of the zone's."""
        if self.zone is UTC or not self._by_time:
            return True
        first = datetime.fromtimestamp(span.start_s, self.zone)
        last = datetime.fromtimestamp(span.end_s - 1, self.zone)
        names = [_NAMES[word] for word in self._by_time if word != BLOCK]
        return all(name(first) == name(last) for name in names)

    def _doubt(self, doubt: str, span: Span) -> None:
        place = (doubt, span.kind)
        self._doubts[place] = max(self._doubts.get(place, 0), span.end_s)


def check_grouping(word: str) -> None:
    """Raise UsageError for a word that a mesh's cost is not grouped by."""
    if word in BY:
        return
    if word == BLOCK:
        hint = "session-mesh usage --by block has those of its machine"
        raise UsageError("blocks are of one plan, and the mesh may have many", hint)
    from difflib import get_close_matches  # noqa: PLC0415 - for who has misspelt something

    near = get_close_matches(word.lower(), BY, n=1, cutoff=0.5)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"cannot group by {word[:60]!r}{meant}", f"use one of {', '.join(BY)}")


def zone_named(name: str) -> tzinfo:
    """Return the time zone of an IANA name; raises UsageError.

    UTC itself for an empty one and for its other names, such as Etc/UTC: what is kept fits that.
    """
    if name in ("", "UTC"):
        return UTC
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - a node is rarely asked for one

    try:
        zone = ZoneInfo(name)
    except (OSError, ValueError, LookupError) as error:
        hint = "use an IANA name such as Europe/Berlin, or UTC"
        raise UsageError(f"no such time zone: {name[:60]!r}", hint) from error
    return UTC if zone.utcoffset(None) == timedelta() else zone  # None has one where all have


def moment(at_s: float, zone: tzinfo) -> str:
    """Name a minute with its offset, as `2026-11-16T14:00+01:00`, or `Z` in UTC."""
    return _minute_of(datetime.fromtimestamp(at_s, zone))


def _month(at: datetime) -> str:
    return f"{at:%Y-%m}"


def _week(at: datetime) -> str:
    """Name an ISO week by its Monday."""
    return f"{at - timedelta(days=at.weekday()):%Y-%m-%d}"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _hour(at: datetime) -> str:
    # With its offset, or the hour that a change of the clocks repeats would be one of two hours.
    return _minute_of(at.replace(minute=0, second=0))


def _minute_of(at: datetime) -> str:
    return at.isoformat(timespec="minutes").replace("+00:00", "Z")


_NAMES: Final = {"month": _month, "week": _week, "day": _day, "hour": _hour}
