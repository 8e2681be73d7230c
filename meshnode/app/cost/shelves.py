"""What one owner has used, apart by whose it was, in cells; and the sessions that are in them.

A part is what one agent has used for one owner on one project. An owner that tells of more than
PARTS_MAX such has the others together in one part, whose rows must be read to tell them apart.

Invariants. A row is in one part, and which follows from its texts and the shelf. The totals of a
shelf are the sums of its parts. No cell, part or pattern is there without a row.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId
    from meshnode.core.ledger.counts import Weight
    from meshnode.core.ledger.ledger import Diagnostics

PARTS_MAX = 1024  # of one owner, some 1 KiB each; whose rows come then is told by reading them
_ROWS_BITS = 20


class Whose(NamedTuple):
    """For whom rows were counted, as they say themselves; empty where they do not."""

    agent: str
    owner: str
    project: str


class Shape:
    """The cells of a session in one part: one object for all sessions in the same."""

    __slots__ = ("cells", "held", "sessions")

    def __init__(self, cells: tuple[int, ...]) -> None:
        self.cells = cells
        self.held = 0  # by patterns
        self.sessions = 0  # of owners that are counted


class Pattern:
    """The same with the number of rows in each cell."""

    __slots__ = ("cells", "held", "shape")

    def __init__(self, cells: tuple[int, ...], shape: Shape) -> None:
        self.cells = cells  # each with the number of its rows
        self.shape = shape
        self.held = 0  # by sessions, also of owners that are being counted


class Patterns:
    """All patterns that sessions have."""

    def __init__(self) -> None:
        self.shapes: dict[tuple[int, ...], Shape] = {}
        self._patterns: dict[tuple[int, ...], Pattern] = {}

    def moved(self, pattern: Pattern | None, number: int, by: int) -> Pattern | None:
        """Return the pattern with one row more or less in a cell, held; None if no row is left."""
        cells = _with(pattern, number, by)
        after = self._held(cells) if cells else None
        if pattern is not None:
            self.release(pattern)
        return after

    def release(self, pattern: Pattern) -> None:
        """Let go of a pattern that a session had."""
        pattern.held -= 1
        if pattern.held:
            return
        del self._patterns[pattern.cells]
        pattern.shape.held -= 1
        if not pattern.shape.held:
            del self.shapes[pattern.shape.cells]

    def _held(self, cells: tuple[int, ...]) -> Pattern:
        pattern = self._patterns.get(cells)
        if pattern is None:
            numbers = tuple([cell >> _ROWS_BITS for cell in cells])
            shape = self.shapes.get(numbers)
            if shape is None:
                shape = self.shapes[numbers] = Shape(numbers)
            shape.held += 1
            pattern = self._patterns[cells] = Pattern(cells, shape)
        pattern.held += 1
        return pattern


class Cell:
    """What the rows in one cell of a part add up to (core/ledger/counts.py), and their keys.

    Of `keys` some may be gone, and some may stand twice.
    """

    __slots__ = ("counts", "keys", "rows")

    def __init__(self) -> None:
        self.counts = 0
        self.rows = 0
        self.keys: list[bytes] = []


class Part:
    """What of an owner's rows is for the same agent, owner and project; None: for very many."""

    __slots__ = ("cells", "origin", "sessions", "whose")

    def __init__(self, origin: NodeId, whose: Whose | None) -> None:
        self.origin = origin
        self.whose = whose
        self.cells: dict[int, Cell] = {}
        self.sessions: dict[int, Pattern] = {}  # by the hash of the session


class Shelf:
    """What one owner has used."""

    def __init__(self, origin: NodeId) -> None:
        self.origin = origin
        self.parts: dict[Whose | None, Part] = {}
        self.totals: dict[int, int] = {}  # of all parts, by the number of the cell
        self.diagnostics: dict[bytes, Diagnostics] = {}
        self.buckets = 0  # of the ledger, counted so far
        self.moves = 0  # of what rows say, to others
        self._crowd: Counter[int] = Counter()  # rows in the part of very many, by hash of whose

    def part_of(self, weight: Weight) -> Part | None:
        """Return the part that a counted row is in; None for one that is not counted."""
        whose = whose_of(weight)
        part = self.parts.get(whose)
        if part is None and hash(whose) in self._crowd:
            return self.parts[None]
        return part

    def put(self, weight: Weight, by: int) -> Part:
        """Return the part of a row that comes, or with -1 goes."""
        whose = whose_of(weight)
        part = self.parts.get(whose)
        if part is not None:
            return part
        if hash(whose) not in self._crowd and len(self.parts) - (None in self.parts) < PARTS_MAX:
            part = self.parts[whose] = Part(self.origin, whose)
            return part
        # Who is in the crowd stays there until the last row is gone, though there be room again.
        self._crowd[hash(whose)] += by
        if not self._crowd[hash(whose)]:
            del self._crowd[hash(whose)]
        part = self.parts.get(None)
        if part is None:
            part = self.parts[None] = Part(self.origin, None)
        return part


def added_to(totals: dict[int, int], number: int, counts: int) -> None:
    """Add to a sum, of which there is none while it is zero."""
    total = totals.get(number, 0) + counts
    if total:
        totals[number] = total
    else:
        totals.pop(number, None)


def whose_of(weight: Weight) -> Whose:
    """Return for whom a row says that it was counted."""
    return Whose(weight.agent, weight.owner, weight.project)


def _with(pattern: Pattern | None, number: int, by: int) -> tuple[int, ...]:
    """Return the cells of a session with one row more or less in one of them."""
    cells = pattern.cells if pattern else ()
    for place, cell in enumerate(cells):
        if cell >> _ROWS_BITS == number:
            rows = (cell & ((1 << _ROWS_BITS) - 1)) + by
            same = (number << _ROWS_BITS | rows,) if rows else ()
            return cells[:place] + same + cells[place + 1 :]
    return tuple(sorted((*cells, number << _ROWS_BITS | by)))
