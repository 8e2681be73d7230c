"""`usage --follow`: the sessions of this machine's logs as they grow.

On a terminal a picture drawn over itself; else a line for each session that has changed, or with
`-o json` one document a line for each change. It ends at an interrupt, or at q on a terminal.
"""

import io
import json
import shutil
import time
from math import ceil
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.client.errors import UsageError
from session_mesh.arguments.options import stream_only
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.escaping import cut, escape
from session_mesh.output.render import Style, View, render
from session_mesh.output.screen import PICTURE_S, part, scrolled, taken
from session_mesh.output.tables import Table
from session_mesh.views.amounts import inexact, unpriced
from session_mesh.views.happenings import is_unread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.ledger.usage import Asked, Usage, Wanted

COLUMNS = ("SESSION", "MSGS", "INPUT", "CACHED", "OUTPUT", "USD")
SPARE = ("CACHED", "MSGS", "INPUT", "OUTPUT")  # left out on narrow terminals, in this order
NUMBERS = COLUMNS[1:]
TOTALS = 6  # lines below the table, the last line of the screen stays free
NOTES_MAX = 3  # on the screen
SESSIONS_MAX = 10_000  # told apart, the dearest; the rest is one sum
HEADING = 4  # lines above its rows


class Monitor:
    """Reads and shows until it is ended."""

    def __init__(
        self, call: Call, ledger: "Usage", sources: "Sequence[SourceConfig]", wanted: "Wanted"
    ) -> None:
        self._call = call
        self._ledger = ledger
        self._sources = sources
        self._wanted = wanted
        self._notes: dict[str, str] = {}  # what is to be known now, by what it is about
        self._asked: Asked | None = None

    def run(self, asked_at: "Callable[[float], Asked]", pause_s: float) -> int:
        """Show what there is and each change, looking again after a pause.

        `asked_at` has the question at a time, in seconds since 1970: its days move on with that.
        """
        stream_only(self._call.style)
        streams, style = self._call.streams, self._call.style
        if not streams.can_draw or style.format == "json" or style.quiet:
            return self._tell(asked_at, pause_s)
        with taken(streams.out) as screen:
            first = 0
            while True:
                value = self._look(asked_at)
                notes = list(self._notes.values())
                screen.draw(picture(value, self._call, notes, first))
                for _ in range(ceil(pause_s / PICTURE_S)):
                    if b"q" in (keys := screen.pressed()):
                        return 0
                    if keys:
                        first = scrolled(first, keys, _room(notes), len(value["groups"]))
                        screen.draw(picture(value, self._call, notes, first))

    def _tell(self, asked_at: "Callable[[float], Asked]", pause_s: float) -> int:
        told: dict[str, Any] = {}
        out, style = self._call.streams.out, self._call.style
        while True:
            noted = self._notes
            value = self._look(asked_at)
            for about in () if style.quiet else self._notes.keys() - noted.keys():
                self._call.streams.tell(self._notes[about])
            if value != told:
                if style.format == "json":
                    out.write(json.dumps(value, ensure_ascii=False) + "\n")
                else:
                    out.writelines(f"{escape(one)}\n" for one in changes(told, value, style))
                told = value
                out.flush()
            elif is_unread(out):
                raise BrokenPipeError
            time.sleep(pause_s)

    def _look(self, asked_at: "Callable[[float], Asked]") -> dict[str, Any]:
        details = [self._ledger.read(source).state.detail for source in self._sources]
        try:
            self._asked = replace(asked_at(self._call.now_s()), by=("session",), most=SESSIONS_MAX)
        except UsageError:  # its end is reached: what was asked last stays
            if self._asked is None:
                raise
        value = self._ledger.answer(self._wanted, self._asked)
        faults = [*self._ledger.faults, *(one for one in details if one != "ok")]
        self._notes = {fault: fault for fault in faults}
        self._notes |= {f"model {one['model']}": unpriced(one) for one in value["unpriced"]}
        self._notes |= {note: note for note in inexact(value)}
        return value


def changes(before: dict[str, Any], now: dict[str, Any], style: Style) -> "Iterator[str]":
    """Return a line for each session that has changed, and one for all; with -q names alone."""
    known = {group["key"]["session"]: group for group in before.get("groups", ())}
    for group in now["groups"]:
        name = group["key"]["session"]
        if known.get(name) != group:
            yield name if style.quiet else _line(name, group, group["usage"])
    if not style.quiet:
        yield _line("total", now, now["totals"])


def _line(name: str, counted: dict[str, Any], usage: dict[str, int]) -> str:
    parts = {"input": usage["input"], "cached": words.cached(usage), "output": usage["output"]}
    counts = [f"{word} {words.count(number)}" for word, number in parts.items()]
    return "  ".join(
        (name, f"msgs {words.count(counted['records'])}", *counts, words.usd(counted["cost_usd"]))
    )


def _room(notes: "Sequence[str]") -> int:
    """Return how many sessions the terminal shows beside notes."""
    return max(1, shutil.get_terminal_size().lines - TOTALS - HEADING - len(notes[:NOTES_MAX]))


def picture(
    value: dict[str, Any], call: Call, notes: "Sequence[str]" = (), first: int = 0
) -> list[str]:
    """Lay out the sessions, the dearest first, the totals and notes, in the lines of a terminal."""
    columns = shutil.get_terminal_size().columns
    groups = value["groups"]
    said = [cut(escape(note), columns) for note in notes[:NOTES_MAX]]
    room = _room(notes)
    first = max(0, min(first, len(groups) - room))
    groups = groups[first : first + room]
    places = words.places_of(group["cost_usd"] for group in groups)
    rows = [
        (
            group["key"]["session"],
            words.count(group["records"]),
            words.count(group["usage"]["input"]),
            words.count(words.cached(group["usage"])),
            words.count(group["usage"]["output"]),
            words.usd(group["cost_usd"], places),
        )
        for group in groups
    ]
    page = io.StringIO()
    render(
        View({}, Table(COLUMNS, rows, "no sessions yet", COLUMNS[:1], SPARE, NUMBERS)),
        replace(call.streams, out=page, err=io.StringIO(), width=columns),
    )
    totals = value["totals"]
    return [
        cut(f"sessions: {value['sessions']}; q ends", columns),
        "",
        *page.getvalue().splitlines(),
        cut(part(first, len(rows), value["sessions"]), columns),
        f"input   {words.count(totals['input'])} tokens",
        f"cached  {words.count(words.cached(totals))} tokens",
        f"output  {words.count(totals['output'])} tokens",
        f"cost    {words.usd(value['cost_usd'])}",
        *said,
    ]
