"""Words of other members, of agents and of founders, aimed at whoever reads them on a terminal."""

import csv
import io
import json

import pytest
from msgspec.structs import replace

from meshnode.core.errors import PeerError
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, genesis_from_bytes
from session_mesh.commands.logs import _Documents, _Text
from session_mesh.output.render import (
    Failure,
    Listing,
    Streams,
    Style,
    View,
    render,
    render_failure,
)
from session_mesh.output.screen import Screen
from session_mesh.output.tables import Table
from session_mesh.views import happenings
from session_mesh.views.live import Board, _picture

ESC = "\x1b]0;owned\x07\x1b[2J\x9b31m"
BIDI = "\u202egnp.exe\u2066"
HIDDEN = ["adm\u200bin", "adm\u3164in", "adm\u034fin", "adm\U000e0041in", "adm\ufe00in"]
TOWER = "a" + "\u0321" * 200
EVIL = [ESC, BIDI, *HIDDEN, TOWER, "two\nlines\r\n", "\ud800 alone", "\x00\x7f\x85"]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


class Terminal(io.TextIOWrapper):
    """A stream with bytes below it, as stdout is."""

    def __init__(self):
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def written(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


def streams(*, terminal=True) -> Streams:
    return Streams(
        Terminal(), Terminal(), out_is_terminal=terminal, err_is_terminal=terminal, width=200
    )


def acts(written: bytes) -> list[str]:
    """Return the characters that would do something, of our own making newlines aside."""
    return [one for one in written.decode().replace("\n", "") if not one.isprintable()]


@pytest.mark.parametrize("word", EVIL, ids=ascii)
@pytest.mark.parametrize(
    "style", [*map(Style, ("table", "json", "yaml", "csv")), Style("table", True)]
)
def test_no_word_acts_on_a_terminal_in_any_format(style, word):
    to = streams()
    table = Table(("NAME",), [(word,)])
    view = View({"things": [{"name": word}]}, table, records="things", ids=[word], notes=[word])
    render(view, to, style)
    assert acts(to.out.written() + to.err.written()) == []
    assert to.out.written(), "it is shown all the same"


@pytest.mark.parametrize("human", ["it said {}", ("it said {}", "and {}"), Listing([("", "{}")])])
def test_no_word_begins_a_line_of_its_own(human):
    forged = "done\nall is well\r\nvery\u2028well\x85indeed"
    match human:
        case str():
            human, lines = human.format(forged), 1
        case tuple():
            human, lines = tuple(line.format(forged) for line in human), 2
        case _:
            human, lines = Listing([("", forged)]), 1
    for terminal in (True, False):
        to = streams(terminal=terminal)
        render(View({}, human), to)
        assert len(to.out.written().decode().splitlines()) == lines


@pytest.mark.parametrize("name", HIDDEN, ids=ascii)
def test_two_names_that_differ_never_look_alike(name):
    to = streams()
    render(View({}, Table(("NAME",), [(name,), ("admin",)])), to)
    _, first, second = to.out.written().decode().splitlines()
    assert first.strip() != second.strip() == "admin"
    assert "\\u" in first


def test_a_tower_of_marks_stays_on_its_line():
    to = streams()
    render(View({}, TOWER), to)
    assert to.out.written().decode().count("\u0321") <= 4


@pytest.mark.parametrize("word", EVIL, ids=ascii)
def test_what_a_peer_says_of_its_failure_is_one_line(word):
    to = streams()
    failure = Failure("peer", f"it said {word}", f"hint {word}", details=f"details {word}")
    assert render_failure(failure, to, Style()) == 1
    shown = to.err.written()
    coloured = shown.replace(b"\x1b[31m", b"").replace(b"\x1b[0m", b"")
    assert acts(coloured) == []
    assert coloured.startswith(b"error: it said ")
    assert coloured.split(b"\nhint: ")[0].count(b"\n") == 0


@pytest.mark.parametrize("cell", FORMULAS, ids=ascii)
def test_a_spreadsheet_computes_nothing_that_others_wrote(cell):
    to = streams(terminal=False)
    record = {"title": cell, "specs": [cell, "b"], "usage": {"total": -1}, "cost_usd": "0.5"}
    render(View({"things": [record]}, "", records="things"), to, Style("csv"))
    (row,) = csv.DictReader(io.StringIO(to.out.written().decode(), newline=""))
    cell = cell.replace("\r", "\\u000d")  # or a reader would begin a row there
    assert (row["title"], row["specs"]) == (f"'{cell}", f"'{cell};b")
    assert (row["usage.total"], row["cost_usd"]) == ("-1", "0.5"), "numbers stay numbers"


@pytest.mark.parametrize("form", ["json", "csv", "yaml", "table"])
def test_a_lone_surrogate_does_not_cost_the_answer(form):
    to = streams(terminal=False)
    rows = [{"name": "\udcff"}, {"name": "next"}]
    view = View({"things": rows}, Table(("NAME",), [(row["name"],) for row in rows]), "things")
    assert render(view, to, Style(form)) == 0
    assert b"next" in to.out.written()
    if form == "json":
        assert json.loads(to.out.written())["things"][0]["name"] == "\udcff"


def event(kind: str, thing: dict) -> dict:
    when = "2026-11-20T08:00:00Z"
    return {
        "position": "1",
        "at": when,
        "kind": kind,
        "op": "added",
        "object": thing,
        "changes": [],
    }


@pytest.mark.parametrize("style", [Style(), Style("json"), Style(quiet=True)])
@pytest.mark.parametrize("word", EVIL, ids=ascii)
def test_no_event_acts_on_a_terminal(style, word):
    to = streams()
    words = {
        "agent_id": word,
        "node_name": word,
        "specialization": word,
        "attributes": {word: word},
    }
    happenings.tell(event("agent", words), to, style)
    happenings.tell(event("node", {"node_id": word, "name": word, "state": word}), to, style)
    assert acts(to.out.written()) == []
    assert to.out.written().count(b"\n") == 2


@pytest.mark.parametrize("word", EVIL, ids=ascii)
def test_the_table_that_follows_the_mesh_is_drawn_by_nobody_else(word):
    to = streams()
    board = Board()
    board.take(event("session", session(word)))
    call = type("Call", (), {"streams": replace(to, width=120)})()
    Screen(call.streams.out).draw(_picture(board, call, 1.8e9))
    for ours in ("\x1b[H", "\x1b[K", "\x1b[J"):
        assert ours.encode() in to.out.written()
    ours_aside = to.out.written()
    for one in (b"\x1b[H", b"\x1b[K", b"\x1b[J"):
        ours_aside = ours_aside.replace(one, b"")
    assert acts(ours_aside) == []


def session(word: str) -> dict:
    when = "2026-11-20T08:00:00Z"
    texts = dict.fromkeys(("agent_id", "title", "owner", "node_name", "model", "end_reason"), word)
    return texts | {
        "session_id": "s" * 26,
        "node_id": "n" * 52,
        "state": "running",
        "alive": True,
        "created_at": when,
        "last_activity": when,
        "observed_at": None,
        "ended_at": None,
        "specializations": [word],
        "usage": {"total": 1},
        "cost_usd": None,
        "labels": {word: word},
    }


def test_an_agents_output_acts_on_a_terminal_only_where_that_was_asked_for():
    raw = b"\x1b[31mred\x1b[0m \x9b\xff line\n\ttab \xe2\x80\xae end\n"
    safe, asked, piped = streams(), streams(), streams(terminal=False)
    escaping = _Text(safe, raw=False)
    for piece in (raw[:3], raw[3:40], raw[40:]):
        escaping.write(piece)
    _Text(asked, raw=True).write(raw)
    _Text(piped, raw=False).write(raw)
    assert acts(safe.out.written().replace(b"\t", b"")) == []
    assert b"\\u001b[31mred" in safe.out.written()
    assert asked.out.written() == piped.out.written() == raw


def test_followed_output_as_documents_acts_on_no_terminal_and_is_bounded():
    raw = b"\x1b[31mred\x1b[0m \x9b\xff line\n" + b"x" * 200_000
    told = streams()
    documents = _Documents(told)
    for start in range(0, len(raw), 1000):
        documents.write(raw[start : start + 1000], start)
    documents.end()
    assert acts(told.out.written()) == []
    lines = [json.loads(line) for line in told.out.written().splitlines()]
    assert [one["position"] for one in lines] == [0, *range(lines[1]["position"], len(raw), 65536)]
    assert "".join(one["output"] for one in lines) == raw.decode(errors="replace")


@pytest.mark.parametrize("name", [ESC, BIDI, "x" * 65, "two\nlines"], ids=ascii)
def test_a_mesh_whose_name_acts_on_a_terminal_is_none(name):
    root = Key(bytes(32)).public
    honest = Genesis((root,), 1, "mesh", bytes(16))
    assert genesis_from_bytes(honest.to_bytes()) == honest
    with pytest.raises(PeerError, match="name"):
        genesis_from_bytes(replace(honest, name=name).to_bytes())
