"""A table of sessions that follows the mesh, drawn over itself on a terminal.

Invariant: a mesh that talks faster than a terminal draws costs skipped pictures, never skipped
changes.
"""

import io
import shutil
from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from meshnode.client.durations import seconds_of
from meshnode.client.targets.nodes import names_apart
from session_mesh.call import Call
from session_mesh.output.arriving import QUEUE_MAX, Arriving
from session_mesh.output.escaping import cut
from session_mesh.output.render import View, render
from session_mesh.output.screen import part, scrolled, taken
from session_mesh.output.tables import Table
from session_mesh.views.sessions import table_of

CLOCK_S = 1.0  # ages grow although nothing changes
ENDED_S = 600.0  # sessions that ended earlier are not shown
FRAME_LINES = 4  # the summary, the heading, what is left out, the last line stays free


class Board:
    """What the table shows: sessions and members, as events have told."""

    def __init__(self) -> None:
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.is_old = False  # the node is away, and this is how it was
        self._first = 0  # of the rows: which is shown first

    def miss(self, absent: bool) -> None:  # noqa: FBT001 - what a watch tells
        """Note that the node is away, or back."""
        self.is_old = absent

    def take(self, event: dict[str, Any]) -> None:
        """Take an event."""
        thing = event["object"]
        if event["op"] in {"reset", "lagged"}:
            self.sessions, self.nodes = {}, {}
        elif event["kind"] == "session":
            _put(self.sessions, (thing["node_id"], thing["session_id"]), event)
        elif event["kind"] == "node":
            _put(self.nodes, thing["node_id"], event)

    def scroll(self, keys: bytes, now_s: float, lines: int) -> None:
        """Show other rows, as the keys say that were pressed."""
        rows = len(self._recent(now_s))
        self._first = scrolled(self._first, keys, _room(lines), rows)

    def _recent(self, now_s: float) -> list[dict[str, Any]]:
        recent = [one for one in self.sessions.values() if _is_recent(one, now_s)]
        recent.sort(key=lambda one: (bool(one["ended_at"]), _reversed(one["last_activity"])))
        return recent

    def picture(self, now_s: float, lines: int) -> tuple[str, Table, str]:
        """Return a summary, the table in so many lines, and which part of it that is."""
        recent, room = self._recent(now_s), _room(lines)
        first = max(0, min(self._first, len(recent) - room))
        names = names_apart({one["node_id"]: one["name"] for one in self.nodes.values()})
        names = {one["node_id"]: one["node_name"] for one in recent} | names
        shown = recent[first : first + room]
        heard = sum(node["state"] in {"alive", "left", "revoked"} for node in self.nodes.values())
        alive = sum(one["alive"] for one in recent)
        summary = f"sessions alive: {alive}, nodes heard: {heard} of {len(self.nodes)}; q ends"
        if self.is_old:
            summary = f"the node does not answer; this is how it was: {summary}"
        table = table_of(shown, names, now_s, "no sessions")
        return summary, table, part(first, len(shown), len(recent))


def show(events: Iterator[dict[str, Any]], board: Board, call: Call) -> int:
    """Draw until q; an interrupt and what ends the stream are raised."""
    arriving = Arriving(events)
    if (first := arriving.next()) is not None:  # an error comes before the screen is taken
        board.take(first)
    drawn_at_s = 0.0
    with taken(call.streams.out) as screen:
        while True:
            changed = _drain(arriving, board)
            now_s = call.now_s()
            if changed or not 0 <= now_s - drawn_at_s < CLOCK_S:
                screen.draw(_picture(board, call, now_s))
                drawn_at_s = now_s
            keys = screen.pressed()
            if b"q" in keys:
                return 0
            if keys:
                board.scroll(keys, call.now_s(), shutil.get_terminal_size().lines)
                drawn_at_s = 0.0


def _picture(board: Board, call: Call, now_s: float) -> list[str]:
    columns, lines = shutil.get_terminal_size()
    summary, table, rest = board.picture(now_s, lines)
    page = io.StringIO()
    if table.rows:
        streams = replace(call.streams, out=page, err=io.StringIO(), width=columns)
        render(View({}, table), streams)
    return [cut(summary, columns), *(page.getvalue().splitlines() or [table.empty]), rest]


def _drain(arriving: Arriving[dict[str, Any]], board: Board) -> bool:
    count = 0
    while count < QUEUE_MAX and (event := arriving.next(0)) is not None:
        board.take(event)
        count += 1
    return count > 0


def _put(board: dict[Any, dict[str, Any]], key: object, event: dict[str, Any]) -> None:
    if event["op"] == "removed":
        board.pop(key, None)
    else:
        board[key] = event["object"]


def _room(lines: int) -> int:
    """Return how many rows a terminal of so many lines shows."""
    return max(1, lines - FRAME_LINES)


def _is_recent(session: dict[str, Any], now_s: float) -> bool:
    ended = session["ended_at"]
    return not ended or seconds_of(ended) >= now_s - ENDED_S


def _reversed(moment: str) -> float:
    return -seconds_of(moment)
