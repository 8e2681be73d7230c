"""A table of sessions that follows the mesh, drawn over itself on a terminal.

Invariant: the terminal is left as it was found, whatever ends the table; a mesh that talks faster
than a terminal draws costs skipped pictures, never skipped changes.
"""

import io
import os
import select
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TextIO

from meshnode.client.durations import seconds_of
from meshnode.client.nodes import names_apart
from session_mesh.arriving import QUEUE_MAX, Arriving
from session_mesh.call import Call
from session_mesh.commands.list import COLUMNS, FLEXIBLE, SPARE, row_of
from session_mesh.escaping import cut
from session_mesh.render import Table, View, render

PICTURE_S = 0.2  # between two pictures
CLOCK_S = 1.0  # ages grow although nothing changes
ENDED_S = 600.0  # sessions that ended earlier are not shown
FRAME_LINES = 4  # the summary, the heading, what is left out, the last line stays free
# The other screen, no cursor, and no wrapping: what is too wide is cut, and rows stay rows.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class Board:
    """What the table shows: sessions and members, as events have told."""

    def __init__(self) -> None:
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.is_old = False  # the node is away, and this is how it was

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

    def picture(self, now_s: float, lines: int) -> tuple[str, Table, str]:
        """Return a summary, the table in so many lines, and what it leaves out."""
        recent = [one for one in self.sessions.values() if _is_recent(one, now_s)]
        recent.sort(key=lambda one: (not one["alive"], _reversed(one["last_activity"])))
        room = max(1, lines - FRAME_LINES)
        names = names_apart({one["node_id"]: one["name"] for one in self.nodes.values()})
        names = {one["node_id"]: one["node_name"] for one in recent} | names
        rows = [row_of(one, names, now_s) for one in recent[:room]]
        heard = sum(node["state"] in {"alive", "left", "revoked"} for node in self.nodes.values())
        alive = sum(one["alive"] for one in recent)
        summary = f"sessions alive: {alive}, nodes heard: {heard} of {len(self.nodes)}; q ends"
        if self.is_old:
            summary = f"the node does not answer; this is how it was: {summary}"
        left_out = len(recent) - len(rows)
        table = Table(COLUMNS, rows, "no sessions", FLEXIBLE, SPARE)
        return summary, table, f"and {left_out} more" if left_out > 0 else ""


def show(events: Iterator[dict[str, Any]], board: Board, call: Call) -> int:
    """Draw until q; an interrupt and what ends the stream are raised."""
    arriving = Arriving(events)
    if (first := arriving.next()) is not None:  # an error comes before the screen is taken
        board.take(first)
    drawn_at_s = 0.0
    with screen(call.streams.out), keys() as keyboard:
        while True:
            changed = _drain(arriving, board)
            now_s = call.now_s()
            if changed or not 0 <= now_s - drawn_at_s < CLOCK_S:
                _draw(board, call, now_s)
                drawn_at_s = now_s
            if pressed_q(keyboard):
                return 0


def _draw(board: Board, call: Call, now_s: float) -> None:
    columns, lines = shutil.get_terminal_size()
    summary, table, rest = board.picture(now_s, lines)
    page = io.StringIO()
    if table.rows:
        streams = replace(call.streams, out=page, err=io.StringIO(), width=columns)
        render(View({}, table), streams)
    draw(call, [cut(summary, columns), *(page.getvalue().splitlines() or [table.empty]), rest])


def draw(call: Call, body: Sequence[str]) -> None:
    """Draw lines over what is on the screen; those that do not fit are left out."""
    # Cleared first: behind a line as wide as the terminal, its last character would go too.
    lines = shutil.get_terminal_size().lines
    text = "\n".join(CLEAR_LINE + one for one in body[: max(1, lines - 1)])
    call.streams.out.write(HOME + text + BELOW)
    call.streams.out.flush()


def _drain(arriving: Arriving[dict[str, Any]], board: Board) -> bool:
    count = 0
    while count < QUEUE_MAX and (event := arriving.next(0)) is not None:
        board.take(event)
        count += 1
    return count > 0


@contextmanager
def screen(out: TextIO) -> Iterator[None]:
    """Take the terminal's other screen, and give it back."""
    out.write(ENTER)
    try:
        yield
    finally:
        out.write(LEAVE)
        out.flush()


@contextmanager
def keys() -> Iterator[int | None]:
    """Let single keys through, where there is a keyboard; Ctrl-C stays an interrupt."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios  # noqa: PLC0415 - only where there is a terminal
    import tty  # noqa: PLC0415 - as above

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def pressed_q(keyboard: int | None) -> bool:
    """Wait until the next picture is due or a key is pressed; tell whether it was q."""
    readable, _, _ = select.select([] if keyboard is None else [keyboard], [], [], PICTURE_S)
    return bool(readable) and keyboard is not None and b"q" in os.read(keyboard, 64)


def _put(board: dict[Any, dict[str, Any]], key: object, event: dict[str, Any]) -> None:
    if event["op"] == "removed":
        board.pop(key, None)
    else:
        board[key] = event["object"]


def _is_recent(session: dict[str, Any], now_s: float) -> bool:
    ended = session["ended_at"]
    return not ended or seconds_of(ended) >= now_s - ENDED_S


def _reversed(moment: str) -> float:
    return -seconds_of(moment)
