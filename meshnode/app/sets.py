"""Sets found by a key, of which no empty one is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Key = TypeVar("Key")
One = TypeVar("One")


class Sets(Generic[Key, One]):
    """A set for each key that has one."""

    def __init__(self) -> None:
        self._sets: dict[Key, set[One]] = {}

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._sets)

    def of(self, key: Key) -> AbstractSet[One]:
        """Return what is under a key; not to be kept, since it may change."""
        return self._sets.get(key) or frozenset()

    def put(self, key: Key, one: One, *, there: bool) -> None:
        """Enter one under a key, or take it out."""
        if there:
            self._sets.setdefault(key, set()).add(one)
        elif key in self._sets:
            self._sets[key].discard(one)
            if not self._sets[key]:
                del self._sets[key]

    def pop(self, key: Key) -> AbstractSet[One]:
        """Take out all that is under a key, and return it."""
        return self._sets.pop(key, None) or frozenset()
