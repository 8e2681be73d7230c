"""The specialization registry of the whole mesh: an add-wins observed-remove map over all feeds.

Any node adds in its own feed, and takes out what it sees of others by naming it in its own feed.
The rules, with the histories that ask for them, are in docs/protocol/registry.md.

Invariants. An add that a removal names is never shown again, whatever way, order or epoch its
feed arrives in. An add that no removal names is shown: whoever registers anew while somebody
removes wins. A removal is dropped only on the word of the owner whose add it names, which that
gives only about histories it knows; nothing is dropped by time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

from meshnode.core.effects import Report
from meshnode.core.errors import PeerError, RefusedError
from meshnode.core.feeds.heads import NOTHING, Head
from meshnode.core.sessions.registry import (
    REGISTRY,
    Birth,
    Registration,
    registration_from_row,
    registry_key,
    registry_row,
)
from meshnode.core.tables.named import Named
from meshnode.core.tables.removals import (
    ANSWER_KEYS,
    DOTS_MAX,
    REMOVAL_KEYS,
    REMOVALS,
    After,
    Answer,
    Dot,
    Removal,
    after_key,
    after_row,
    answer_key,
    answer_row,
    places_in,
    removal_key,
    removal_row,
    removals_from_row,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.core.feeds.feed import Change, Replica
    from meshnode.core.feeds.own_feed import OwnFeed
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.registry import Place, Specialist
    from meshnode.core.tables.removals import RemovalsRow
    from meshnode.core.tables.tables import Tables

REGISTERED_MAX = 1000  # entries in one node's feed; more: RefusedError
REMOVALS_MAX = 1000  # entries of others being removed by one node; more: RefusedError
INHERITED_MAX = 10_000  # births of earlier starts; of more, removals may stay unanswered
ANSWERS_MAX = 1000  # removals of others being answered; more wait, and stay removals
RETRIED_MAX = 64  # of those that wait, whenever something is tended
POSTPONED_MAX = 10_000  # entries that wait so; more do until the next start

Kind = TypeVar("Kind", Removal, Answer)
Write = tuple[str, bytes, bytes | None]  # table, key, value


class Roster:
    """The registry as one node sees and writes it. Writes go into its own feed, to be flushed."""

    def __init__(
        self, tables: Tables, replicas: Mapping[NodeId, Replica], own: OwnFeed, boot: int
    ) -> None:
        self._tables = tables
        self._replicas = replicas
        self._own = own
        self._boot = boot
        self._index = Named(tables, replicas)
        self._births = 0
        self._inherited: set[Birth] = set()
        self._answers = 0  # of ours, while something is tended
        self._postponed: OrderedDict[Place, None] = OrderedDict()  # what had no room

    # What is seen.

    def entries(self) -> list[tuple[NodeId, Registration]]:
        """Return every entry that is in force, with the node that wrote it."""
        self._index.catch_up()
        return self.in_force(
            (origin, held)
            for origin in self._replicas
            for key in self._index.entries_of(origin)
            if (held := self._tables.registration(origin, key)) is not None
        )

    def in_force(
        self, found: Iterable[tuple[NodeId, Registration]]
    ) -> list[tuple[NodeId, Registration]]:
        """Return of these entries the ones that are in force."""
        hidden = self.hidden()
        return [
            (origin, registration)
            for origin, registration in found
            if origin not in hidden
            and self._is_shown(origin, registration.entry.place, registration.birth)
        ]

    def hidden(self) -> set[NodeId]:
        """Return the origins whose feed is held less far than somebody's `after` asks for."""
        self._index.catch_up()
        return {after.origin for after in self._index.afters() if self._is_behind(after)}

    def _is_behind(self, after: After) -> bool:
        """Whether less of a feed is held than an `after` asks for.

        One of another mesh asks nothing: a home that changed meshes has signed both with one key.
        """
        return after.header.mesh == self._own.mesh_id and self._head(after.origin) < after.at

    def _is_shown(self, origin: NodeId, place: Place, birth: Birth) -> bool:
        is_read = self._index.is_read(origin, place)
        return is_read and not self._is_removed(origin, place, birth)

    def _is_removed(self, origin: NodeId, place: Place, birth: Birth) -> bool:
        return any(
            (dot.origin, dot.birth) == (origin, birth)
            for _, removal in self._index.at(place)
            for dot in removal.dots
        )

    def _head(self, origin: NodeId) -> Head:
        replica = self._replicas.get(origin)
        return NOTHING if replica is None else replica.head

    # What users change.

    def add(self, entry: Specialist) -> list[Write]:
        """Register an agent in place of whatever is seen of this entry; returns what was written.

        Raises RefusedError, having changed nothing, for an entry or a removal too many.
        """
        key = registry_key(entry.place)
        own = self._own.keys(REGISTRY)
        if key not in own and len(own) >= REGISTERED_MAX:
            raise RefusedError(f"this node has registered {REGISTERED_MAX} specializations")
        row = registry_row(entry, self._new_birth(entry.place))
        return self._written([*self._removal_of_others(entry.place), (REGISTRY, key, row)])

    def remove(self, place: Place) -> list[Write]:
        """Take out every add of an entry that is seen; returns what was written, nothing if none.

        Raises RefusedError, having changed nothing, for a removal too many.
        """
        writes = self._removal_of_others(place)
        key = registry_key(place)
        if self._own.latest(REGISTRY, key) is not None:
            writes.append((REGISTRY, key, None))
        return self._written(writes)

    def _new_birth(self, place: Place) -> Birth:
        """Return a birth that nobody has named: boots are public, and numbers are counted up."""
        self._index.catch_up()
        named = self._named(place)
        while True:
            self._births += 1
            birth = Birth(self._boot, self._births)
            if birth not in named:
                return birth

    def _removal_of_others(self, place: Place) -> list[Write]:
        seen = set(self._dots_of_others(place))
        if not seen:
            return []
        key = removal_key(place)
        before = self._own_row(key, Removal)
        dots = seen if before is None else seen | before.dots
        count = self._count_own(REMOVAL_KEYS)
        if (before is None and count >= REMOVALS_MAX) or len(dots) > DOTS_MAX:
            raise RefusedError(
                "too many removals wait for nodes that are away",
                "session-mesh nodes shows them; remove it on their side, or once they are back",
            )
        return [(REMOVALS, key, removal_row(dots))]

    def _dots_of_others(self, place: Place) -> Iterator[Dot]:
        """Return the adds by others of one entry that are in force; no other entry is looked at."""
        key = registry_key(place)
        found = [
            (origin, registration, row)
            for origin, replica in self._replicas.items()
            if origin != self._own.origin
            and (row := replica.rows.get(REGISTRY, key)) is not None
            and (registration := self._tables.registration(origin, key)) is not None
        ]
        if not found:
            return
        hidden = self.hidden()
        for origin, registration, row in found:
            if origin not in hidden and self._is_shown(origin, place, registration.birth):
                yield Dot(origin, Head(row.epoch, row.seq), registration.birth)

    def _written(self, writes: list[Write]) -> list[Write]:
        """Write all or, raising RefusedError, nothing."""
        before = [(table, key, self._own.latest(table, key)) for table, key, _ in writes]
        try:
            for write in writes:
                self._own.write(*write)
        except RefusedError:
            for write in before:
                self._own.write(*write)
            raise
        return writes

    # What is due for others, and for what others have done.

    def tend(self, change: Change) -> list[Report]:
        """Do what a change asks of this node: delete, answer, drop, forget. It may write.

        Only the entries that it writes about are looked at: a member's feed may be full of others.
        """
        places = self._index.take(change)
        if change.origin == self._own.origin:
            if change.header.first_seq == 1:  # perhaps with rows that our disk had lost
                return self.tend_all()
            self._inherit(key for table, key in change.rows if table == REGISTRY)
        if change.flush is None:
            removed = self._index.places_of(self._own.origin)
            return self._tend(places | {one for one in removed if self._names(change.origin, one)})
        if not {table for table, _ in change.rows} & {REGISTRY, REMOVALS}:
            return []
        return self._tend(places.union(*(places_in(table, key) for table, key in change.rows)))

    def tend_all(self) -> list[Report]:
        """Do what is due for anybody."""
        self._index.catch_up()
        self._inherit(self._own.rows.tables.get(REGISTRY, ()))
        ours = (places_in(REMOVALS, key) for key in self._own.keys(REMOVALS))
        return self._tend(self._index.places().union(*ours))

    def _tend(self, places: Iterable[Place]) -> list[Report]:
        self._answers = self._count_own(ANSWER_KEYS)
        report = ""
        for place in self._due(places):
            try:
                is_done = self._tend_to(place)
            except RefusedError as error:  # our feed is full: what is not answered stays a removal
                is_done, report = False, error.message
            if not is_done and len(self._postponed) < POSTPONED_MAX:
                self._postponed[place] = None
        return [Report("registry_not_tended", None, report)] if report else []

    def _due(self, places: Iterable[Place]) -> list[Place]:
        """Return these, and some that have waited longest."""
        due = sorted(places)
        for place in due:
            self._postponed.pop(place, None)
        for _ in range(min(RETRIED_MAX, len(self._postponed))):
            due.append(self._postponed.popitem(last=False)[0])
        return due

    def _tend_to(self, place: Place) -> bool:
        """Do what is due about one entry; returns whether nothing has to wait."""
        others = [one for origin, one in self._index.at(place) if origin != self._own.origin]
        done = [self._answer(removal) for removal in others]
        removal = self._own_row(removal_key(place), Removal)
        if removal is not None:
            done.append(self._finish(removal))
        answer = self._own_row(answer_key(place), Answer)
        if answer is not None:
            self._forget_answered(answer)
        return all(done)

    def behind(self, change: Change) -> dict[NodeId, Head]:
        """Return the feeds that must be held further before their entries can be shown."""
        wanted: dict[NodeId, Head] = {}
        for table, key in change.rows if change.origin != self._own.origin else ():
            after = self._tables.removal(change.origin, key) if table == REMOVALS else None
            if isinstance(after, After) and self._is_behind(after):
                wanted[after.origin] = after.at
        wanted.pop(self._own.origin, None)
        return wanted

    def _answer(self, removal: Removal) -> bool:
        """Delete our adds that somebody's removal names, and say of all we know that they are gone.

        An add whose history our disk has lost is not answered: a neighbour may still return it.
        That an add was of this entry is seen only of one that we delete, so made-up removals can
        take no more than half of the room. Returns whether there was room.
        """
        named = {dot for dot in removal.dots if dot.origin == self._own.origin}
        present = self._own_birth(removal.place)
        gone = {dot.birth for dot in named if dot.birth == present or self._has_held(dot)}
        before = self._own_row(answer_key(removal.place), Answer)
        births = gone if before is None else gone | before.births
        part = 2
        if present in gone:
            self._own.write(REGISTRY, registry_key(removal.place), None)
            part = 1
        has_room = before is not None or self._answers < ANSWERS_MAX // part
        if not gone or len(births) > DOTS_MAX // part or not has_room:
            return not gone
        self._own.write(REMOVALS, answer_key(removal.place), answer_row(births))
        self._answers += before is None
        return True

    def _has_held(self, dot: Dot) -> bool:
        """Whether an add is of the history that this feed continues, and will never be again."""
        if dot.birth.boot == self._boot:
            return dot.birth.number <= self._births
        return dot.birth in self._inherited or dot.at <= self._own.restored

    def _inherit(self, keys: Iterable[bytes]) -> None:
        """Remember which births of earlier starts this feed has held in this one."""
        for key in keys:
            held = self._tables.registration(self._own.origin, key)
            if len(self._inherited) < INHERITED_MAX and held and held.birth.boot != self._boot:
                self._inherited.add(held.birth)

    def _finish(self, removal: Removal) -> bool:
        """Drop what owners have answered, remembering from where on it is gone for sure.

        Returns whether nothing waits only for more of a feed, whose rows may say nothing of this.
        """
        done = {dot for dot in removal.dots if self._is_gone(dot, removal)}
        is_done = not any(self._head(dot.origin) < dot.at for dot in removal.dots - done)
        if not done:
            return is_done
        left = removal.dots - done
        writes: list[Write] = []
        for origin in {dot.origin for dot in done}:
            after = self._decoded(after_key(origin))
            header = self._replicas[origin].header
            if header and (not isinstance(after, After) or after.at < header.head):
                writes.append((REMOVALS, after_key(origin), after_row(header)))
        # Last: if they need two flushes, nobody shall see the removal gone and no `after` yet.
        row = removal_row(left) if left else None
        self._written([*writes, (REMOVALS, removal_key(removal.place), row)])
        return is_done

    def _is_gone(self, dot: Dot, removal: Removal) -> bool:
        answer = self._tables.removal(dot.origin, answer_key(removal.place))
        answered = isinstance(answer, Answer) and dot.birth in answer.births
        held = self._tables.registration(dot.origin, registry_key(removal.place))
        present = held is not None and held.birth == dot.birth
        return answered and not present and self._head(dot.origin) >= dot.at

    def _forget_answered(self, answer: Answer) -> None:
        """Keep an answer for as long as somebody's removal names what it is about."""
        left = answer.births & self._named(answer.place)
        if left != answer.births:
            row = answer_row(left) if left else None
            self._own.write(REMOVALS, answer_key(answer.place), row)
            self._answers -= row is None

    def _named(self, place: Place) -> set[Birth]:
        """Return which births of ours anybody's removal of an entry names."""
        return {
            dot.birth
            for _, removal in self._index.at(place)
            for dot in removal.dots
            if dot.origin == self._own.origin
        }

    def _names(self, origin: NodeId, place: Place) -> bool:
        """Whether our removal of an entry names an add of this node."""
        removal = self._own_row(removal_key(place), Removal)
        return removal is not None and any(dot.origin == origin for dot in removal.dots)

    # What our feed holds.

    def _count_own(self, kind: bytes) -> int:
        return sum(key.startswith(kind) for key in self._own.keys(REMOVALS))

    def _own_row(self, key: bytes, kind: type[Kind]) -> Kind | None:
        row = self._decoded(key)
        return row if isinstance(row, kind) else None

    def _decoded(self, key: bytes) -> RemovalsRow | None:
        """Return a row of ours as it will be once it is flushed; what is out is read only once."""
        if not self._own.is_pending(REMOVALS, key):
            held = self._own.rows.get(REMOVALS, key)
            return None if held is None else self._tables.removal_in(key, held)
        row = self._own.latest(REMOVALS, key)
        try:
            return None if row is None else removals_from_row(key, row)
        except PeerError:
            return None  # of a later version of ours

    def _own_birth(self, place: Place) -> Birth | None:
        key = registry_key(place)
        row = self._own.latest(REGISTRY, key)
        try:
            return None if row is None else registration_from_row(key, row).birth
        except PeerError:
            return None  # as above
