"""The specialization registry of the whole mesh: an add-wins observed-remove map over all feeds.

Any node adds in its own feed, and takes out what it sees of others by naming it in its own feed.
The rules, with the histories that ask for them, are in docs/protocol/registry.md.

Invariants. An add that a removal names is never shown again, whatever way, order or epoch its
feed arrives in. An add that no removal names is shown: whoever registers anew while somebody
removes wins. A removal is dropped only on the word of the owner whose add it names, which that
gives only about histories it knows; nothing is dropped by time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from meshnode.core.effects import Report
from meshnode.core.errors import PeerError, RefusedError
from meshnode.core.headers import NOTHING, Head
from meshnode.core.registry import (
    REGISTRY,
    Birth,
    Registration,
    registration_from_row,
    registry_key,
    registry_row,
)
from meshnode.core.removals import (
    DOTS_MAX,
    REMOVALS,
    After,
    Answer,
    Dot,
    Removal,
    after_key,
    after_row,
    answer_key,
    answer_row,
    removal_key,
    removal_row,
    removals_from_row,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meshnode.core.feed import Change, Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.own_feed import OwnFeed
    from meshnode.core.registry import Place, Specialist
    from meshnode.core.removals import RemovalsRow
    from meshnode.core.tables import Tables

REGISTERED_MAX = 1000  # entries in one node's feed; more: RefusedError
REMOVALS_MAX = 1000  # entries of others being removed by one node; more: RefusedError
INHERITED_MAX = 10_000  # births of earlier starts; of more, removals may stay unanswered
ANSWERS_MAX = 1000  # removals of others being answered; more wait, and stay removals

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
        self._births = 0
        self._inherited: set[Birth] = set()

    # What is seen.

    def entries(self) -> list[tuple[NodeId, Registration]]:
        """Return every entry that is in force, with the node that wrote it."""
        return self.in_force(self._tables.registry())

    def in_force(
        self, found: Iterable[tuple[NodeId, Registration]]
    ) -> list[tuple[NodeId, Registration]]:
        """Return of these entries the ones that are in force."""
        hidden, removed = self.hidden(), self._removed()
        return [
            (origin, registration)
            for origin, registration in found
            if origin not in hidden
            and (origin, registration.entry.place, registration.birth) not in removed
        ]

    def hidden(self) -> set[NodeId]:
        """Return the origins whose feed is held less far than somebody's `after` asks for."""
        return {
            after.origin
            for _, after in self._tables.removals()
            if isinstance(after, After) and self._is_behind(after)
        }

    def _is_behind(self, after: After) -> bool:
        """Whether less of a feed is held than an `after` asks for.

        One of another mesh asks nothing: a home that changed meshes has signed both with one key.
        """
        return after.header.mesh == self._own.mesh_id and self._head(after.origin) < after.at

    def _removed(self) -> set[tuple[NodeId, Place, Birth]]:
        return {
            (dot.origin, removal.place, dot.birth)
            for _, removal in self._tables.removals()
            if isinstance(removal, Removal)
            for dot in removal.dots
        }

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
        count = len(list(self._own_rows(Removal)))
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
        hidden, removed = self.hidden(), self._removed()
        for origin, registration, row in found:
            if origin not in hidden and (origin, place, registration.birth) not in removed:
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
        """Do what a change asks of this node: delete, answer, drop, forget. It may write."""
        touches = {table for table, _ in change.rows} & {REGISTRY, REMOVALS}
        if change.origin == self._own.origin:
            renewed = change.header.first_seq == 1  # perhaps with rows that our disk had lost
            return self.tend_all() if touches or renewed else []
        if not touches and change.flush is not None:
            return []
        return self._tend(self._removals_of(change.origin), (change.origin,))

    def tend_all(self) -> list[Report]:
        """Do what is due for anybody."""
        self._inherit(self._own.rows.tables.get(REGISTRY, ()))
        return self._tend(self._all_removals(), tuple(self._replicas))

    def _tend(self, removals: Iterable[Removal], origins: Iterable[NodeId]) -> list[Report]:
        try:
            answers = len(list(self._own_rows(Answer)))
            for removal in list(removals):
                answers += self._answer(removal, answers)
            for removal in list(self._own_rows(Removal)):
                self._finish(removal, set(origins))
            for answer in list(self._own_rows(Answer)):
                self._forget_answered(answer)
        except RefusedError as error:  # our feed is full: what is not answered stays a removal
            return [Report("registry_not_tended", None, error.message)]
        return []

    def behind(self, change: Change) -> dict[NodeId, Head]:
        """Return the feeds that must be held further before their entries can be shown."""
        wanted: dict[NodeId, Head] = {}
        for table, key in change.rows if change.origin != self._own.origin else ():
            after = self._tables.removal(change.origin, key) if table == REMOVALS else None
            if isinstance(after, After) and self._is_behind(after):
                wanted[after.origin] = after.at
        wanted.pop(self._own.origin, None)
        return wanted

    def _answer(self, removal: Removal, answers: int) -> bool:
        """Delete our adds that somebody's removal names, and say of all we know that they are gone.

        An add whose history our disk has lost is not answered: a neighbour may still return it.
        That an add was of this entry is seen only of one that we delete, so made-up removals can
        take no more than half of the room. Returns whether that took one more row.
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
        has_room = before is not None or answers < ANSWERS_MAX // part
        if not gone or len(births) > DOTS_MAX // part or not has_room:
            return False
        self._own.write(REMOVALS, answer_key(removal.place), answer_row(births))
        return before is None

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

    def _finish(self, removal: Removal, origins: set[NodeId]) -> None:
        """Drop what owners have answered, remembering from where on it is gone for sure."""
        done = {
            dot for dot in removal.dots if dot.origin in origins and self._is_gone(dot, removal)
        }
        if not done:
            return
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

    def _named(self, place: Place) -> set[Birth]:
        """Return which births of ours anybody's removal of an entry names."""
        key = removal_key(place)
        removals = (self._tables.removal(origin, key) for origin in self._replicas)
        return {
            dot.birth
            for removal in removals
            if isinstance(removal, Removal)
            for dot in removal.dots
            if dot.origin == self._own.origin
        }

    # What feeds hold.

    def _removals_of(self, origin: NodeId) -> Iterator[Removal]:
        for row in self._tables.removals_of(origin):
            if isinstance(row, Removal):
                yield row

    def _all_removals(self) -> Iterator[Removal]:
        for origin in list(self._replicas):
            if origin != self._own.origin:
                yield from self._removals_of(origin)

    def _own_rows(self, kind: type[Kind]) -> Iterator[Kind]:
        for key in sorted(self._own.keys(REMOVALS)):
            row = self._own_row(key, kind)
            if row is not None:
                yield row

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
