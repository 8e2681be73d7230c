"""What gives way in a table that a terminal has no room for, and what is said of it."""

import io
from importlib import import_module
from itertools import permutations

import pytest
from rich.cells import cell_len

from session_mesh.output.escaping import cut, cut_inside, width_of
from session_mesh.output.render import Streams, View, render
from session_mesh.output.tables import Table
from session_mesh.views.amounts import table_of

WORKERS = [f"build-worker-north-{number:02}" for number in range(12)]
OF_WHOM = ("views.sessions", "orders.orders", "commands.nodes")  # modules with COLUMNS


def shown(table: Table, width: int) -> tuple[list[str], str]:
    streams = Streams(io.StringIO(), io.StringIO(), out_is_terminal=True, width=width)
    render(View({}, table), streams)
    lines = streams.out.getvalue().splitlines()
    assert all(width_of(line) <= width for line in lines), lines
    return lines, streams.err.getvalue()


def of_verb(name: str, **cells: str) -> Table:
    verb = import_module(f"session_mesh.{name}")
    rows = [
        [worker if column in {"AGENT", "NODE"} else cells.get(column, "same") for column in columns]
        for worker in WORKERS
        for columns in [verb.COLUMNS]
    ]
    readable = getattr(verb, "READABLE", 8)
    return Table(verb.COLUMNS, rows, "", verb.FLEXIBLE, verb.SPARE, (), readable)


def test_a_column_that_says_the_same_in_every_row_gives_way_first():
    rows = [(worker, "a-machine-with-a-name", str(n)) for n, worker in enumerate(WORKERS)]
    table = Table(("AGENT", "NODE", "N"), rows, flexible=("AGENT", "NODE"))
    lines, told = shown(table, 36)
    assert [line.split()[0] for line in lines[1:]] == WORKERS
    assert "a-machin…" in lines[1]
    assert told == "cut for want of room: NODE: -o json or a wider terminal shows all\n"
    lines, told = shown(table, 20)
    assert lines[0].split() == ["AGENT", "N"]
    assert told.startswith("no room for NODE (a-machine-with-a-name in every row); cut ")


def test_of_one_row_nothing_is_alike():
    table = Table(("AGENT", "NODE"), [("a" * 20, "n" * 20)], flexible=("AGENT", "NODE"))
    assert shown(table, 30)[0][1].split() == ["aaaaaaa…", "n" * 20]


@pytest.mark.parametrize("width", range(10, 24))
def test_names_that_end_apart_stay_apart(width: int):
    lines, _ = shown(Table(("AGENT",), [(worker,) for worker in WORKERS]), width)
    cells = [line.strip() for line in lines[1:]]
    assert len(set(cells)) == len(WORKERS), cells
    assert all(cell.startswith("buil") and cell[-2:].isdigit() for cell in cells)


def test_names_that_begin_apart_are_cut_at_their_ends():
    lines, _ = shown(Table(("AGENT",), [("claude-sonnet-4-5-x",), ("gpt-5-of-the-day-x",)]), 12)
    assert [line.strip() for line in lines[1:]] == ["claude-sonn…", "gpt-5-of-th…"]


def test_what_is_cut_inside_has_both_its_ends_and_the_width_of_its_column():
    assert cut_inside("build-worker-07", 11) == "build…er-07"
    assert cut_inside("build-worker-07", 15) == "build-worker-07"
    assert cut_inside("漢字漢字漢字", 7) == "漢字…字"
    assert cut_inside("abc", 1) == "…"
    for width in range(1, 20):
        assert width_of(cut_inside("漢a字b漢c字d漢e", width)) <= width


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *((name, at) for name in OF_WHOM for at in (30, 40, 60, 80)),
        *(("commands.audit", at) for at in (50, 60, 80, 120)),  # a moment has no shorter form
    ],
)
def test_the_first_column_and_the_outcome_stay_however_narrow(name: str, width: int):
    table = of_verb(name)
    lines, _ = shown(table, width)
    heads = lines[0].split()
    assert heads[0] == table.columns[0]
    assert ("OUTCOME" in heads) == ("OUTCOME" in table.columns)


@pytest.mark.parametrize("width", [60, 80])
def test_who_it_is_can_be_told_from_the_others(width: int):
    for name in OF_WHOM:
        table = of_verb(name, ADDRESS="1.2.3.4:7", DETAIL="a long story that " * 4, TITLE="t" * 40)
        lines, _ = shown(table, width)
        assert len(set(lines[1:])) == len(WORKERS), lines


def test_nodes_are_named_before_their_addresses_are_shown_and_an_address_is_never_cut():
    address = "[2001:db8:1111:2222:3333:4444:5555:6666]:7707"
    lines, told = shown(of_verb("commands.nodes", ADDRESS=address), 40)
    assert lines[0].split()[0] == "NODE"
    assert "2001" not in lines[1]
    assert f"ADDRESS ({address[:23]}… in every row)" in told
    assert address in shown(of_verb("commands.nodes", ADDRESS=address), 80)[0][1]


def test_what_is_cut_is_said_as_what_is_left_out_is():
    table = of_verb(
        "commands.audit", DETAIL="signed with a key of somebody, through another node" * 2
    )
    lines, told = shown(table, 120)
    assert "DETAIL" in lines[0]
    assert told == "cut for want of room: DETAIL: -o json or a wider terminal shows all\n"


def spent_by(*by: str) -> Table:
    keys = {"model": "claude-opus-4-8-of-the-day", "project": "/srv/ada/a-project-with-a-name"}
    moments = {"month": "2026-{:02}", "week": "2026-W{:02}", "day": "2026-{:02}-03"}
    moments["hour"] = "2026-{:02}-03T10:00+01:00"
    nothing = dict.fromkeys(("input", "cache_read", "cache_write_5m", "cache_write_1h"), 10**6)
    usage = nothing | {"output": 10**6, "reasoning": 0, "total": 10**7}
    groups = [
        {
            "key": {name: (keys | moments)[name].format(number) for name in by},
            "usage": usage,
            "cost_usd": "1234.5",
        }
        for number in (8, 9, 10, 11)
    ]
    return table_of({"groups": groups, "totals": usage, "cost_usd": "4938"}, by)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_moment_is_never_cut(width: int):
    lines, _ = shown(spent_by("day", "model", "project"), width)
    days = [f"2026-{month:02}-03" for month in (8, 9, 10, 11)]
    assert [line.split()[0] for line in lines[1:5]] == days


@pytest.mark.parametrize("by", list(permutations(("month", "week", "day", "hour", "model"), 2)))
def test_a_moment_that_there_is_no_room_for_is_left_out(by: tuple[str, str]):
    for width in (40, 50, 60):
        lines, told = shown(spent_by(*by), width)
        assert lines[0].split()[0] == by[0].upper()
        assert (by[1].upper() in lines[0].split()) == (f"no room for {by[1].upper()}" not in told)


def test_what_both_ways_of_cutting_leave_alike_is_cut_at_its_end():
    rows = [(f"the-same-{one}-of-each",) for one in "abc"]
    lines, _ = shown(Table(("NAME",), rows), 11)
    assert [line.strip() for line in lines[1:]] == ["the-same-a…", "the-same-b…", "the-same-c…"]
    rows = [(f"a-beginning-{one}-and-an-end",) for one in "abc"]
    lines, _ = shown(Table(("NAME",), rows), 11)
    assert [line.strip() for line in lines[1:]] == ["a-beginnin…"] * 3


@pytest.mark.parametrize("title", ["⚠️ warn", "✔️ done ✔️ done", "1️⃣ step", "❤️❤️ party", "☕️"])
def test_a_picture_is_as_wide_as_it_is_drawn(title: str):
    assert width_of(title) == cell_len(title)
    lines, told = shown(Table(("AGENT", "TITLE"), [("a", title), ("bb", "x")]), 80)
    assert title in lines[1]
    assert told == ""
    for width in range(1, width_of(title)):
        assert width_of(cut(title, width)) <= width
        assert width_of(cut_inside(title, width)) <= width
