"""How events read, and what the live table shows of them."""

import csv
import io
import json

import pytest
import yaml

from session_mesh import call
from session_mesh.main import main
from session_mesh.output.render import Streams
from session_mesh.views.happenings import id_of, line
from session_mesh.views.live import Board

NOW_S = 1_795_132_800.0
AT = "2026-11-20T00:00:00.000Z"
USAGE = {"total": 1234}


def session(agent: str, state: str = "running", **changes) -> dict:
    return {
        "session_id": f"{agent}-23456789",
        "agent_id": agent,
        "node_id": "a" * 52,
        "node_name": "anna",
        "state": state,
        "alive": state == "running",
        "specializations": [],
        "usage": USAGE,
        "cost_usd": None,
        "last_activity": AT,
        "ended_at": None if state == "running" else AT,
        "title": None,
        "session_epoch": 7,
    } | changes


def event(kind: str, op: str, thing: dict | None = None, **fields) -> dict:
    named = {"position": "p", "at": AT, "kind": kind, "op": op, "object": thing, "changes": []}
    return named | fields


CHANGES = [{"field": "state", "before": "running", "after": "killed"}]
NODE = {"node_id": "a" * 52, "name": "anna", "state": "alive"}
AGENT = {
    "agent_id": "x",
    "node_name": "anna",
    "specialization": "maps",
    "attributes": {"load": "1"},
}
COST = {
    "key": {"session": "abcdefghijklmn", "node": "anna", "model": "m"},
    "usage": USAGE,
    "cost_usd": "0.5",
}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (
            event("session", "added", session("x")),
            "session  added     x on anna (x-23456789)  running",
        ),
        (event("session", "changed", session("x"), changes=CHANGES), "state running → killed"),
        (event("node", "added", NODE), "node     added     anna  alive"),
        (event("agent", "added", AGENT), "agent    added     x on anna: maps  load=1"),
        (event("cost", "changed", COST), "abcdefghij on anna: m  1,234 tokens, $0.5000 so far"),
        (event("watch", "lagged"), "all over again"),
    ],
)
def test_an_event_reads_as_when_who_and_what(told, words):
    assert line(told).startswith("2026-11-20 00:00:00Z  ")
    assert words in line(told)


def test_every_event_has_the_id_of_what_it_is_about():
    told = [event("session", "added", session("x")), event("node", "added", NODE)]
    told += [event("agent", "added", AGENT), event("cost", "added", COST), event("watch", "reset")]
    assert [id_of(one) for one in told] == ["x-23456789", "a" * 52, "x", "abcdefghijklmn", ""]


def test_the_table_shows_what_lives_first_and_what_ended_lately_and_fits():
    board = Board()
    board.take(event("node", "snapshot", NODE))
    for number in range(30):
        board.take(event("session", "added", session(f"s{number:02}")))
    board.take(event("session", "changed", session("s00", "killed")))
    summary, table, rest = board.picture(NOW_S + 5, 14)
    assert summary == "sessions alive: 29, nodes heard: 1 of 1; q ends"
    assert (len(table.rows), rest) == (10, "1 to 10 of 30; arrows, space and b show the others")
    _, whole, rest = board.picture(NOW_S + 5, 100)
    assert (len(whole.rows), whole.rows[-1][1], rest) == (30, "s00", "")
    pages = []
    for keys in (b" ", b"\x1b[B", b" ", b"x", b"b\x1b[A", b"bb"):
        board.scroll(keys, NOW_S + 5, 14)
        pages.append(board.picture(NOW_S + 5, 14)[2].partition(";")[0])
    assert pages == [
        *("11 to 20 of 30", "12 to 21 of 30", "21 to 30 of 30", "21 to 30 of 30"),
        *("10 to 19 of 30", "1 to 10 of 30"),
    ]
    board.scroll(b"   ", NOW_S + 5, 14)
    assert len(board.picture(NOW_S + 601, 100)[1].rows) == 29, "all, where there is room for all"
    board.take(event("session", "removed", session("s01")))
    board.take(event("node", "removed", NODE))
    assert board.picture(NOW_S, 3)[0].startswith("sessions alive: 28, nodes heard: 0 of 0")
    board.miss(True)
    assert board.picture(NOW_S, 3)[0].startswith("the node does not answer; this is how it was: ")
    board.miss(False)
    assert board.picture(NOW_S, 3)[0].startswith("sessions alive: 28")
    board.take(event("watch", "lagged"))
    assert board.picture(NOW_S, 100)[1].rows == []


class Mesh:
    """A mesh that tells what it was given and ends."""

    def __init__(self, told: list[dict]) -> None:
        self.told = told

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def events(self, wanted=None, since=None):
        return {"events": self.told, "position": "last"}

    def watch(self, wanted=None, position="", absent=None):
        yield from self.told if not position else []


@pytest.fixture
def run(monkeypatch):
    def call_it(told: list[dict], *words: str, streams: Streams | None = None) -> str:
        monkeypatch.setattr(call.Call, "mesh", lambda _: Mesh(told))
        streams = streams or Streams(io.StringIO(), io.StringIO())
        assert main(words, streams) == 0, streams.err.getvalue()
        return streams.out.getvalue()

    return call_it


EVIL = event("session", "added", session("x\x1b[2J"))


@pytest.mark.parametrize("verb", ["watch", "events"])
def test_words_of_others_cannot_move_the_cursor(run, verb):
    assert "\\u001b[2J" in run([EVIL], verb)
    assert "\x1b" not in run([EVIL], verb) + run([EVIL], verb, "-o", "json")


@pytest.mark.parametrize("words", [("watch",), ("events",), ("events", "--follow")])
def test_json_is_a_document_a_line_without_what_is_internal(run, words):
    told = run([EVIL, event("watch", "complete")], *words, "-o", "json").splitlines()
    assert [json.loads(one)["op"] for one in told] == ["added", "complete"]
    assert "session_epoch" not in json.loads(told[0])["object"]


def test_an_event_has_the_same_fields_in_every_format(run):
    told = [event("session", "added", session("x", session_start=8))]
    one = json.loads(run(told, "events", "-o", "json"))
    assert yaml.safe_load(run(told, "events", "-o", "yaml")) == {"events": [one]}
    (row,) = csv.DictReader(io.StringIO(run(told, "events", "-o", "csv")))
    columns = {name.removeprefix("object.").partition(".")[0] for name in row}
    assert columns == {*one, *one["object"]} - {"object"}


def test_of_costs_is_said_whose_time_they_have(run):
    streams = Streams(io.StringIO(), io.StringIO())
    run([event("cost", "changed", COST)], "events", streams=streams)
    assert "when this node saw them" in streams.err.getvalue()
    assert "cost --by hour" in streams.err.getvalue()
    streams = Streams(io.StringIO(), io.StringIO())
    run([event("node", "added", NODE)], "events", streams=streams)
    assert streams.err.getvalue() == ""


def test_ids_alone_are_printed_when_only_they_are_asked_for(run):
    told = [event("session", "added", session("x")), event("session", "changed", session("x"))]
    assert run(told, "events", "-q") == "x-23456789\n"
    assert run(told, "watch", "-q") == "x-23456789\n" * 2
