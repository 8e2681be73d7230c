"""Of how many sessions groups are: each is one of its group, of several groups, and of all.

Invariant: a session that roll-ups have counted in a group is not among those seen there, so nobody
is one twice. Those counted have no names here, only the groups that they are in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from meshnode.app.pieces import chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from collections.abc import Set as AbstractSet

    from meshnode.app.cost.tally import GroupKey

    Groups = frozenset[GroupKey]


class Sessions:
    """Those of one query, as its rows and roll-ups show them."""

    def __init__(self) -> None:
        self._seen: defaultdict[GroupKey | None, set[int]] = defaultdict(set)  # None: of all groups
        self._counted: Counter[Groups] = Counter()  # by all the groups that they are in
        self._elsewhere: dict[int, Groups] = {}  # of those seen: where roll-ups have counted them

    def see(self, group: GroupKey, session: str) -> None:
        """Note the session of a row."""
        number = hash(session)
        self._seen[group].add(number)
        self._seen[None].add(number)

    def count(self, groups: Iterable[GroupKey], sessions: int) -> None:
        """Add sessions that are in all of these groups; negative: take them back."""
        if found := frozenset(groups):
            self._counted[found] += sessions

    def tell_apart(self, counted_at: Callable[[int], Groups]) -> Generator[None, None, None]:
        """Take out of the sessions that were seen those that are counted in the same group."""
        if not self._counted:
            return
        for some in chunks(list(self._seen[None])):
            for session in some:
                self._leave(session, counted_at(session))
            yield

    def _leave(self, session: int, groups: Groups) -> None:
        if groups:
            self._elsewhere[session] = groups
            for group in (*groups, None):
                self._seen.get(group, set()).discard(session)

    def by_group(self) -> Generator[None, None, Counter[GroupKey | None]]:
        """Return how many there are of each group, and of all: None."""
        found: Counter[GroupKey | None] = Counter()
        for seen in chunks(self._seen.items()):
            found.update({group: len(sessions) for group, sessions in seen})
            yield
        for some in chunks(self._counted.items()):
            for groups, sessions in some:
                for group in (*groups, None):
                    found[group] += sessions
            yield
        return found

    def among(self, groups: AbstractSet[GroupKey]) -> Generator[None, None, int]:
        """Return how many there are in any of these groups."""
        found = 0
        for counted in chunks(self._counted.items()):
            found += sum(number for theirs, number in counted if not groups.isdisjoint(theirs))
            yield
        seen: set[int] = set()
        for some in chunks(groups):
            seen.update(*(self._seen.get(group, ()) for group in some))
            yield
        for apart in chunks(self._elsewhere.items()):
            seen.difference_update(one for one, at in apart if not groups.isdisjoint(at))
            yield
        return found + len(seen)
