"""Tables for people: how wide each column is, what is cut or left out, and drawn or padded text.

Invariant: on a terminal a table is no wider than that, as far as what may give way does; the first
column and OUTCOME never are left out; and whatever is missing from it is said.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, TextIO

import msgspec

from session_mesh.output.escaping import cut, cut_inside, escape, width_of

ROWS_DRAWN_MAX = 200  # beyond, plain padding: drawing 10,000 rows takes seconds
COLUMN_CHARS_MIN = 8  # a column cut to less says nothing: it is left out instead
GAP_CHARS = 2  # between two columns
NOTHING = frozenset({"", "-", "–"})  # noqa: RUF001 - the marks for nothing in a cell
SAID_CHARS_MAX = 24  # of what every row says
KEPT = "OUTCOME"  # what became of an order: what one came for
COLOURS = {
    "alive": "green",
    "running": "green",
    "idle": "cyan",
    "waiting_permission": "yellow",
    "stalled": "yellow",
    "suspended": "yellow",
    "pending": "yellow",
    "unreachable": "red",
    "dead": "red",
    "revoked": "red",
    "failed": "red",
    "killed": "red",
    "✓": "green",
    "✗": "red",
}
Lines = tuple[str, ...]  # a line each: a newline inside one is spelled out


class Table(msgspec.Struct, frozen=True):
    """Columns and rows of words, for people."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "nothing to show"
    flexible: Sequence[str] | None = None  # may be cut, then left out, in this order; None: all
    spare: Sequence[str] = ()  # left out in this order, before those that are flexible alone
    numbers: Collection[str] = ()  # columns that end where their headings end
    readable: int = COLUMN_CHARS_MIN  # what is flexible is cut to less only without what is spare
    below: Lines = ()
    uncut: Collection[str] = ()  # of those that are flexible: rather left out, cut last of all


def write_table(table: Table, out: TextIO, width: int | None, *, colour: bool) -> str:
    """Write a table, as wide as a terminal at most if there is one; return what it lacks, or ""."""
    rows = [[escape(cell) for cell in row] for row in table.rows]
    whole = [max(map(width_of, column)) for column in zip(table.columns, *rows, strict=True)]
    if width is None:
        out.writelines(_padded(table, rows, whole))
        return ""
    widths = _Fitting(table, rows, width).widths(whole)
    shown = [_cut_column([row[place] for row in rows], at) for place, at in enumerate(widths)]
    rows_shown = list(zip(*shown, strict=True))
    if len(rows) <= ROWS_DRAWN_MAX:
        _draw(table, rows_shown, widths, out, width, colour=colour)
    else:
        out.writelines(_padded(table, rows_shown, widths))
    return _lacking(table, rows, whole, widths)


def _lacking(
    table: Table, rows: Sequence[Sequence[str]], whole: Sequence[int], widths: Sequence[int]
) -> str:
    """Name the columns that were cut or left out though they say something."""
    left_out, shortened = [], []
    for place, column in enumerate(table.columns):
        if not widths[place] and not _is_empty(rows, place):
            said = cut(rows[0][place], SAID_CHARS_MAX)
            alike = f" ({said} in every row)" if _is_alike(rows, place) else ""
            left_out.append(f"{column}{alike}")
        elif 0 < widths[place] < whole[place]:
            shortened.append(column)
    told = [f"no room for {', '.join(left_out)}"] if left_out else []
    told += [f"cut for want of room: {', '.join(shortened)}"] if shortened else []
    return f"{'; '.join(told)}: -o json or a wider terminal shows all" if told else ""


def _is_empty(rows: Sequence[Sequence[str]], place: int) -> bool:
    return all(row[place] in NOTHING for row in rows)


def _is_alike(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Whether a column says the same in every row, so that it tells none from another."""
    return len(rows) > 1 and all(row[place] == rows[0][place] for row in rows)


class _Fitting:
    """What gives way, in which order, until a table is no wider than a terminal."""

    def __init__(self, table: Table, rows: Sequence[Sequence[str]], width: int) -> None:
        self._rows, self._width, self._readable = rows, width, table.readable
        flexible = table.columns[::-1] if table.flexible is None else table.flexible
        kept = {table.columns[0], KEPT}
        early = [one for one in flexible if one not in table.uncut]
        self._flexible = self._alike_first(table, early)
        self._last = [table.columns.index(one) for one in flexible if one in table.uncut]
        self._spare = self._alike_first(table, [one for one in table.spare if one not in kept])
        self._leaving = self._alike_first(table, [one for one in flexible if one not in kept])

    def _alike_first(self, table: Table, names: Sequence[str]) -> list[int]:
        places = [table.columns.index(name) for name in names]
        return sorted(places, key=lambda place: not _is_alike(self._rows, place))

    def widths(self, whole: Sequence[int]) -> list[int]:
        """Return how wide each column is, 0 for one left out: empty, spare, flexible ones may."""
        widths = list(whole)
        if self._excess(widths) > 0:
            for place in range(len(widths)):
                if _is_empty(self._rows, place):
                    widths[place] = 0  # a heading alone says nothing
        widths = self._left_out(widths, self._spare, self._readable)
        widths = self._left_out(widths, self._leaving, COLUMN_CHARS_MIN)
        widths = self._cut(widths, COLUMN_CHARS_MIN)
        return self._cut(widths, COLUMN_CHARS_MIN, self._last)

    def _left_out(self, widths: list[int], places: Sequence[int], least: int) -> list[int]:
        """Leave out one after the other until the rest fits, cut to `least` if need be."""
        for place in places:
            if self._excess(self._cut(widths, least)) > 0:
                widths[place] = 0
        return widths

    def _cut(
        self, widths: Sequence[int], least: int, places: Sequence[int] | None = None
    ) -> list[int]:
        shown = list(widths)
        for place in self._flexible if places is None else places:
            excess = self._excess(shown)
            if excess > 0 and shown[place] > least:
                shown[place] = max(least, shown[place] - excess)
        return shown

    def _excess(self, widths: Sequence[int]) -> int:
        return sum(one + GAP_CHARS for one in widths if one) - GAP_CHARS - self._width


def _cut_column(cells: Sequence[str], width: int) -> list[str]:
    """Cut cells at their ends, or inside if that tells more apart, as names with numbers."""
    shown = [cut(cell, width) for cell in cells]
    if width <= 1 or len(set(shown)) == len(set(cells)):
        return shown
    inside = [cut_inside(cell, width) for cell in cells]
    return inside if len(set(inside)) > len(set(shown)) else shown


def _draw(
    table: Table,
    rows: Iterable[Sequence[str]],
    widths: Sequence[int],
    out: TextIO,
    room: int,
    *,
    colour: bool,
) -> None:
    from rich.console import Console  # noqa: PLC0415 - a list that is piped needs no rich
    from rich.table import Table as Drawn  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(
        file=out, width=room, no_color=not colour, force_terminal=colour, highlight=False
    )
    heading = "bold" if colour else ""
    # No padding behind the last column: a line wider than the terminal would wrap.
    drawn = Drawn(box=None, padding=(0, GAP_CHARS, 0, 0), pad_edge=False, header_style=heading)
    for column, width in zip(table.columns, widths, strict=True):
        if width:
            side: Literal["left", "right"] = "right" if column in table.numbers else "left"
            drawn.add_column(column, justify=side, no_wrap=True, min_width=width, max_width=width)
    for row in rows:
        cells = [
            Text(cell, style=COLOURS.get(cell, ""))
            for cell, width in zip(row, widths, strict=True)
            if width
        ]
        drawn.add_row(*cells)
    console.print(drawn, soft_wrap=True)


def _padded(table: Table, rows: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterable[str]:
    right = [column in table.numbers for column in table.columns]
    for row in (table.columns, *rows):
        shown = zip(row, widths, right, strict=True)
        cells = (_fill(cell, at, right=is_number) for cell, at, is_number in shown if at)
        yield "  ".join(cells).rstrip() + "\n"


def _fill(cell: str, width: int, *, right: bool) -> str:
    shown = cut(cell, width)
    gap = " " * (width - width_of(shown))
    return gap + shown if right else shown + gap
