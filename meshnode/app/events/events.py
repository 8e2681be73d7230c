"""Events: what was added, changed or removed, in an order that can be resumed from any place.

Invariants. An event's seq is higher than every earlier one of this log, across restarts. Whoever
holds a position that `seq_at` knows misses nothing by reading on from there: it bears the random
word of the start that gave it out, and counts up to where that start is known to have come, so that
one given out after the copy was made that this database was restored from is not known. Each event
carries its whole object, so one that only retold a count (`quiet`) is let go when the next such one
comes. Within EVENTS_MAX, BYTES_MAX and KEPT_S the rest stays, however many such came after it;
before what was let go for these no position is known. Beyond, what one member has too much of goes
first: its rows may make so many events that nothing else would be left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.events.things import Change, FieldChange, Kind, Op, View, differences, identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EVENTS_MAX = 10_000
BYTES_MAX = 16 << 20  # of packed events
KEPT_S = 7 * 86400.0  # see Settling
OF_ONE_PART = 2  # of EVENTS_MAX and BYTES_MAX: of whoever has more, the oldest go first
THINNED = 256  # of those at once, unless the oldest of all is one
LET_GO_MAX = 4 * EVENTS_MAX  # whose rows a disk that takes nothing is to delete yet
LOG_CHARS, RUN_DIGITS, SEQ_DIGITS, WORD_CHARS = 8, 4, 12, 8  # of a position
STARTS_MAX = 256  # whose positions are known; those of the earliest are let go
SEQ_MAX = 16**SEQ_DIGITS - 1
_seq_of = attrgetter("seq")


class Event(msgspec.Struct, frozen=True):
    """A change in its place. It has a view, or is packed as it goes to disk, or both."""

    seq: int
    at_s: float
    kind: Kind
    op: Op
    names: tuple[str, ...] = ()  # ids and names that it concerns
    view: View | None = None
    changes: tuple[FieldChange, ...] = ()
    packed: bytes | None = None


class EventLog:
    """The newest events of one node. `log_id` names the database, `run` counts what was lost.

    `word` is of this start alone, so that no two branches of a restored database share it.
    """

    def __init__(self, log_id: str, run: int, word: str, held: Iterable[Event] = ()) -> None:
        self._head = f"{log_id}{run:0{RUN_DIGITS}x}"
        self._word = word
        self._reached: dict[str, int] = {}  # by the word of an earlier start: its last seq
        self._events: list[Event] = []  # by seq; those let go leave no place
        self._quiet: dict[tuple[str, ...], int] = {}  # the newest quiet change of each object
        self._let_go: deque[int] = deque(maxlen=LET_GO_MAX)
        self._bytes = 0
        self._counts = Counter[str]()  # of events, by whom they are about
        self._sizes = Counter[str]()  # in bytes
        self.last = 0  # the seq of the newest event, 0 before the first
        self.floor = 0  # positions below are unknown
        for event in held:
            self._reach(event.seq - 1)
            self._put(event)

    def begin_run(self, last: int, earlier: Mapping[str, int] | None, floor: int = 0) -> None:
        """Continue after everything up to `last`.

        Of what is from before, the positions of `earlier` starts are known, each from `floor` up to
        its last seq; with None there is something between that nobody can be told of.
        """
        self._reach(last)
        if earlier is None:
            self.floor = self.last
        else:
            self.floor = max(self.floor, floor)
            self._reached = dict(earlier)

    def starts(self) -> dict[str, int]:
        """Return up to which seq the positions of each start are known, this one the last."""
        known = [*self._reached.items(), (self._word, self.last)]
        return dict(known[-STARTS_MAX:])

    def append(self, change: Change, names: tuple[str, ...], at_s: float) -> Event:
        """Give a change its place."""
        changes = differences(change)
        event = Event(self.last + 1, at_s, change.kind, change.op, names, change.view, changes)
        if change.quiet and change.op is Op.CHANGED:
            identity = identity_of(change.kind, change.view)
            superseded = self._quiet.get(identity, 0)
            place = self._place(superseded)
            if place is not None:
                self._take_out(place)
            self._quiet[identity] = event.seq
        self._put(event)
        return event

    def trim(self, old_s: float) -> int:
        """Let go of what is too much or from before then; returns up to which seq all is gone."""
        before = len(self._events)
        while self._events and self._events[0].at_s < old_s:
            self._forget(0)
        while len(self._events) > EVENTS_MAX or self._bytes > BYTES_MAX:
            self._make_room()
        if len(self._events) < before and len(self._quiet) > EVENTS_MAX:
            held = {event.seq for event in self._events}
            self._quiet = {i: seq for i, seq in self._quiet.items() if seq in held}
        return self._events[0].seq - 1 if self._events else self.last

    def _too_much_of(self) -> str | None:
        """Return the member of which there is more than its part."""
        for held, most in ((self._counts, EVENTS_MAX), (self._sizes, BYTES_MAX)):
            owner = max(held, key=held.__getitem__)
            if held[owner] > most // OF_ONE_PART:
                return owner
        return None

    def _make_room(self) -> None:
        owner = self._too_much_of()
        if owner is None or _owner_of(self._events[0]) == owner:
            self._forget(0)
            return
        theirs = [place for place, one in enumerate(self._events) if _owner_of(one) == owner]
        for place in reversed(theirs[:THINNED]):
            self._forget(place)

    def _forget(self, place: int) -> None:
        """Let go of what nothing stands for: whoever has not seen it has missed it."""
        self.floor = max(self.floor, self._events[place].seq)
        self._take_out(place)

    def _take_out(self, place: int) -> None:
        event = self._events.pop(place)
        self._let_go.append(event.seq)
        self._weigh(event, -1)

    def _weigh(self, event: Event, sign: int) -> None:
        size, owner = len(event.packed or b"") * sign, _owner_of(event)
        self._bytes += size
        self._sizes[owner] += size
        self._counts[owner] += sign
        if not self._counts[owner]:
            del self._counts[owner], self._sizes[owner]

    def take_let_go(self) -> list[int]:
        """Return, once, the seqs of events that went though older ones may have stayed."""
        let_go = list(self._let_go)
        self._let_go.clear()
        return let_go

    def pack(self, event: Event, packed: bytes) -> None:
        """Keep an event as bytes, without the view that they were made from."""
        place = self._place(event.seq)
        if place is not None:
            self._weigh(self._events[place], -1)
            self._events[place] = replace(event, view=None, packed=packed)
            self._weigh(self._events[place], 1)

    def get(self, seq: int) -> Event | None:
        """Return an event that is still held."""
        place = self._place(seq)
        return None if place is None else self._events[place]

    def after(self, seq: int, limit: int) -> tuple[list[Event], int]:
        """Return the next events, at most `limit`, and the seq up to which they were looked for."""
        first = bisect_right(self._events, seq, key=_seq_of)
        found = self._events[first : first + limit]
        return found, found[-1].seq if len(found) == limit else max(seq, self.last)

    def position(self, seq: int) -> str:
        """Write a place as the text that is given out; texts sort as events do."""
        return f"{self._head}{seq:0{SEQ_DIGITS}x}{self._word}"

    def seq_at(self, position: str) -> int | None:
        """Read a position; None for one of another log, from before, or made up."""
        place, word = position[:-WORD_CHARS], position[-WORD_CHARS:]
        reached = self.last if word == self._word else self._reached.get(word, -1)
        try:
            seq = int(place[-SEQ_DIGITS:], 16)
        except ValueError:
            return None
        known = self.floor <= seq <= reached and place == f"{self._head}{seq:0{SEQ_DIGITS}x}"
        return seq if known else None

    def _reach(self, last: int) -> None:
        """Let the next event come after this seq."""
        if last > self.last:
            self.last = last
            if not self._events:
                self.floor = last

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._weigh(event, 1)
        self.last = event.seq

    def _place(self, seq: int) -> int | None:
        place = bisect_left(self._events, seq, key=_seq_of)
        is_held = place < len(self._events) and self._events[place].seq == seq
        return place if is_held else None


def _owner_of(event: Event) -> str:
    """Return the node that an event is about; a budget is nobody's."""
    return event.names[-1] if event.names and event.kind is not Kind.BUDGET else ""


def concerns(names: tuple[str, ...], about: str, prefix_chars_min: int) -> bool:
    """Whether one of the names is meant: exactly, by the start of an id, or as node/agent."""
    if about in names or (
        len(about) >= prefix_chars_min and any(name.startswith(about) for name in names)
    ):
        return True
    first, slash, rest = about.partition("/")  # of a namesake: name/start of its id, or with /agent
    return bool(slash) and all(concerns(names, one, prefix_chars_min) for one in (first, rest))
