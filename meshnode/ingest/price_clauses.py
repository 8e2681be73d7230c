"""What names a list means, and which of very many such clauses is the first that means a name.

Invariant: `Clauses.first` finds what asking clause after clause would find (a test holds the two
together), in a time that hardly grows with the list: a member may make up any number of names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Clause(msgspec.Struct, frozen=True, omit_defaults=True):
    """Matches a name in lower case if any of its parts does; `all` has groups of which all must."""

    equals: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    all: tuple[tuple[Clause, ...], ...] = ()

    def why(self, name: str) -> str:
        """Say what of the clause matches a name; "" if nothing does."""
        if name in self.equals:
            return "its name"
        found = [f"begins with {part}" for part in self.starts_with if name.startswith(part)]
        found += [f"ends with {part}" for part in self.ends_with if name.endswith(part)]
        found += [f"contains {part}" for part in self.contains if part in name]
        found += [f"looks like {part}" for part in self.regex if re.search(part, name)]
        for group in self.all:
            each = [clause.why(name) for clause in group]
            if all(each):
                found.append(" and ".join(each))
        return found[0] if found else ""

    @property
    def is_indexed(self) -> bool:
        """Whether a name is looked up, not searched through."""
        return not (self.contains or self.regex or self.all)


class Clauses:
    """Clauses in order; `None` is one that matches nothing."""

    def __init__(self, clauses: Iterable[Clause | None]) -> None:
        self._names: dict[str, int] = {}
        self._begins: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._searched: list[tuple[int, Clause]] = []
        for place, clause in enumerate(clauses):
            if clause is None:
                continue
            for known, parts in (
                (self._names, clause.equals),
                (self._begins, clause.starts_with),
                (self._ends, clause.ends_with),
            ):
                for part in parts:
                    known.setdefault(part, place)
            if not clause.is_indexed:
                self._searched.append((place, clause))
        self._begin_chars = {len(part) for part in self._begins}
        self._end_chars = {len(part) for part in self._ends}

    def first(self, name: str) -> int | None:
        """Return the place of the first clause that matches a name; None if none does."""
        places = [self._names.get(name)]
        places += [self._begins.get(name[:chars]) for chars in self._begin_chars]
        places += [self._ends.get(name[max(0, len(name) - chars) :]) for chars in self._end_chars]
        best = min((place for place in places if place is not None), default=None)
        for place, clause in self._searched:
            if best is not None and place >= best:
                break
            if clause.why(name):
                return place
        return best
