"""What reaches a terminal, a pipe and a script."""

import csv
import io
import json
from importlib import import_module

import pytest
import yaml

from session_mesh.output.escaping import cut, escape, width_of
from session_mesh.output.render import (
    Failure,
    Listing,
    Streams,
    Style,
    View,
    render,
    render_failure,
)
from session_mesh.output.tables import Table
from session_mesh.output.words import age, coverage_notes, described, tokens, tokens_by_kind

EVIL = "a\x1b[31mred\x07\r\n\u202egnp.exe\u2066\x9b2J\x7f\u200b"
COVERAGE = {
    "nodes_known": 3,
    "nodes_heard": 2,
    "oldest_s": 4.0,
    "missing": [{"node_name": "berta", "state": "unreachable", "observed_at": "T"}],
    "missing_more": 0,
}


def streams(**changes) -> Streams:
    return Streams(out=io.StringIO(), err=io.StringIO(), **changes)


def shown(view: View, style: Style | None = None, **changes) -> tuple[str, str]:
    to = streams(**changes)
    render(view, to, style)
    return to.out.getvalue(), to.err.getvalue()


def view(*rows: tuple[str, ...], **changes) -> View:
    fields = {
        "value": {"things": [{"name": row[0], "state": row[1]} for row in rows]},
        "human": Table(("NAME", "STATE"), rows),
        "records": "things",
        "ids": [row[0] for row in rows],
    }
    return View(**fields | changes)


def test_escaping_leaves_nothing_that_acts():
    escaped = escape(EVIL)
    assert escaped.isprintable()
    assert "\\u001b[31mred\\u0007\\u000d\\u000a\\u202e" in escaped


@pytest.mark.parametrize("text", ["", "plain", "ümläut 漢字 ½", "no\u00a0break", "\\u001b"])
def test_escaping_leaves_what_prints(text):
    assert escape(text) == text


def test_escaping_spells_what_lies_beyond_16_bits_as_json_does():
    assert json.loads(f'"{escape(chr(0xE0001))}"') == "\U000e0001"


@pytest.mark.parametrize("style", [Style("table"), Style("json"), Style("yaml"), Style("csv")])
@pytest.mark.parametrize("human", ["text", "table"])
def test_no_format_lets_a_word_act_on_a_terminal(style, human):
    table = Table(("NAME",), [(EVIL,)])
    one = View(
        value={"things": [{"name": EVIL}]},
        human=EVIL if human == "text" else table,
        records="things",
        notes=[EVIL],
    )
    out, err = shown(one, style, out_is_terminal=True, err_is_terminal=True)
    for character in (out + err).replace("\n", ""):
        assert character.isprintable()


def test_ids_are_escaped_too():
    out, _ = shown(view((EVIL, "")), Style(quiet=True), out_is_terminal=True)
    assert out.count("\n") == 1
    assert "\x1b" not in out


def test_json_stands_alone_on_stdout_and_round_trips():
    out, err = shown(view((EVIL, "ok"), notes=["a note"]), Style("json"))
    assert json.loads(out) == {"things": [{"name": EVIL, "state": "ok"}]}
    assert err == ""


def test_json_on_a_terminal_round_trips_as_well():
    out, _ = shown(view((EVIL, "ok")), Style("json"), out_is_terminal=True)
    assert json.loads(out)["things"][0]["name"] == EVIL


def test_what_is_internal_is_in_no_output():
    one = View(
        value={"sessions": [{"session_id": "a", "session_epoch": 1}], "journal_generation": 2},
        human="",
        records="sessions",
    )
    for style in (Style("json"), Style("yaml"), Style("csv")):
        out, _ = shown(one, style)
        assert "epoch" not in out
        assert "generation" not in out


def test_yaml_keeps_texts_texts():
    out, _ = shown(View(value={"id": "0123", "flag": "no", "none": None}, human=""), Style("yaml"))
    assert yaml.safe_load(out) == {"id": "0123", "flag": "no", "none": None}


def test_notes_are_told_unless_the_output_has_them():
    one = view(("a", "b"), notes=["not all"])
    told = {form: shown(one, Style(form))[1] for form in ("table", "csv", "json", "yaml")}
    assert told == {"table": "not all\n", "csv": "not all\n", "json": "", "yaml": ""}


@pytest.mark.parametrize(
    ("width", "heads"),
    [(40, "NAME IN OUT USD"), (38, "NAME IN OUT USD"), (37, "NAME OUT USD"), (20, "NAME USD")],
)
def test_spare_figures_are_left_out_whole_before_what_they_are_of(width: int, heads: str):
    rows = [("a-long-name-of-a-model", "123456789", "1234567890", "$1.00"), ("b", "1", "2", "-")]
    table = Table(("NAME", "IN", "OUT", "USD"), rows, flexible=("NAME",), spare=("IN", "OUT"))
    out, _ = shown(View({}, table), out_is_terminal=True, width=width)
    assert out.splitlines()[0].split() == heads.split()
    assert all(width_of(row) <= width for row in out.splitlines())
    assert "$1.00" in out
    assert out.splitlines()[2].startswith("b")


def test_csv_has_a_column_for_each_field_of_nested_values():
    value = {
        "sessions": [
            {"id": "a,b", "usage": {"input": 1}, "specs": ["x", "y"], "labels": {"k": "v"}},
            {"id": 'q"', "usage": {"input": 2}, "specs": [], "labels": {}, "alive": True},
        ]
    }
    out, _ = shown(View(value=value, human="", records="sessions"), Style("csv"))
    first, second = csv.DictReader(io.StringIO(out))
    assert first == {
        "id": "a,b",
        "usage.input": "1",
        "specs": "x;y",
        "labels": '{"k": "v"}',
        "alive": "",
    }
    assert (second["id"], second["alive"]) == ('q"', "true")


def test_quiet_prints_ids_alone():
    out, err = shown(view(("a", "x"), ("b", "y")), Style(quiet=True))
    assert (out, err) == ("a\nb\n", "")


def test_a_piped_table_is_plain_and_whole():
    name = "n" * 300
    out, _ = shown(view((name, "alive"), ("b", "dead")), width=40)
    lines = out.splitlines()
    assert lines[0].split() == ["NAME", "STATE"]
    assert lines[1] == f"{name}  alive"
    assert "\x1b" not in out


@pytest.mark.parametrize("rows", [3, 250])
def test_a_table_fits_the_terminal(rows):
    many = [("n" * 100, "漢" * 30) for _ in range(rows)]
    out, _ = shown(view(*many), out_is_terminal=True, width=40)
    lines = out.splitlines()
    assert len(lines) == rows + 1
    assert max(width_of(line) for line in lines) <= 40  # blanks beyond the edge wrap as well


def test_a_column_of_nothing_gives_way_before_words_are_cut():
    table = Table(("NAME", "STATE", "LABELS"), [("n" * 20, "alive", "")])
    narrow, _ = shown(View(value={}, human=table), out_is_terminal=True, width=28)
    assert "LABELS" not in narrow
    assert "n" * 20 in narrow
    assert "LABELS" in shown(View(value={}, human=table), out_is_terminal=True, width=40)[0]


def test_what_is_left_out_for_want_of_room_is_named_and_what_stays_gets_its_room():
    table = Table(
        ("NODE", "VERSION", "HEARD", "ID"),
        [("first (this)", "12.34.56", "-", "abcdefghij"), ("b", "12.34.56", "", "bcdefghijk")],
        flexible=("VERSION", "NODE"),
    )
    narrow, told = shown(View(value={}, human=table), out_is_terminal=True, width=26)
    assert narrow.splitlines()[0].split() == ["NODE", "ID"]
    assert "first (this)  abcdefghij" in narrow
    assert (
        told
        == "no room for VERSION (12.34.56 in every row): -o json or a wider terminal shows all\n"
    )
    assert shown(View(value={}, human=table))[1] == ""


NARROW = {  # at so many columns, what one came for is there
    ("views.sessions", 60): {"SESSION", "AGENT", "NODE", "STATE"},
    ("commands.operator", 60): {"NAME", "ROLE", "STATE", "KEY ID"},
    ("commands.budget", 80): {"BUDGET", "FOR", "SPENT", "STATE", "HELD"},
    ("commands.audit", 80): {"SEQ", "AT", "KIND", "AGENT", "KEY"},
    ("commands.audit", 60): {"SEQ", "AT", "KIND", "AGENT"},
    ("commands.orders", 80): {"ORDER", "STATE", "ENDS", "WHAT BECAME OF IT"},
}
CELLS = {
    "SESSION": "7h4kq2v6xm",
    "AGENT": "nightly-builder",
    "NODE": "berta",
    "STATE": "unreachable",
    "SPECS": "build,test",
    "TOKENS": "41.2k",
    "COST": "$0.3180",
    "TITLE": "nightly build",
    "NAME": "(invited, joined at berta)",
    "ROLE": "operator",
    "GIVEN BY": "anna",
    "KEY ID": "3b6a27bcceb6a42d",
    "BUDGET": "team",
    "FOR": "owner olga",
    "SPENT": "$20.1800",
    "LIMIT": "20.5usd",
    "HELD": "berta/builder, anna/builder",
    "ENDS": "agent builder, started by 2026-11-20T09:30Z",
    "AT": "2026-11-20 09:30:15",
    "KIND": "command_executed",
    "KEY": "3b6a27bc",
    "OUTCOME": "",
    "DETAIL": "process 4711 and what it had started",
    "ORDER": "4xk2m7qabc",
    "EXPIRES": "2026-11-21 09:30Z",
    "WHAT BECAME OF IT": "berta/builder: applied (2 processes gone)",
}


@pytest.mark.parametrize(("name", "width"), NARROW)
def test_what_one_came_for_stays_on_a_narrow_terminal(name: str, width: int):
    verb = import_module(f"session_mesh.{name}")
    row = [CELLS.get(column, "5%") for column in verb.COLUMNS]
    readable = getattr(verb, "READABLE", 8)
    table = Table(verb.COLUMNS, [row], "", verb.FLEXIBLE, verb.SPARE, (), readable)
    out, told = shown(View({}, table), out_is_terminal=True, width=width)
    heads = {column for column in verb.COLUMNS if f" {column} " in f" {out.splitlines()[0]} "}
    assert heads >= NARROW[name, width], out
    assert "OUTCOME" not in out + told  # says nothing here, so it is not missed
    assert all(width_of(line) <= width for line in out.splitlines())


def test_colour_is_only_where_it_was_allowed():
    assert "\x1b[" in shown(view(("a", "alive")), out_is_terminal=True, colour=True)[0]
    assert "\x1b" not in shown(view(("a", "alive")), out_is_terminal=True)[0]


def test_markup_of_others_is_not_obeyed():
    out, _ = shown(view(("[red]x[/red]", "alive")), out_is_terminal=True, colour=True)
    assert "[red]x[/red]" in out


def test_an_empty_table_says_so_on_stderr():
    out, err = shown(view())
    assert out == ""
    assert err == "nothing to show\n"


def test_the_exit_code_is_the_views():
    assert render(View({}, "", exit_code=8), streams()) == 8


def test_an_error_is_a_message_and_a_hint_on_stderr():
    to = streams()
    assert render_failure(Failure("conflict", "it is so", "do that", 7), to, Style()) == 7
    assert to.err.getvalue() == "error: it is so\nhint: do that\n"
    assert to.out.getvalue() == ""


def test_an_error_in_json_is_one_object_on_stderr():
    to = streams()
    render_failure(Failure("conflict", EVIL, "", 7), to, Style("json"))
    error = {"code": "conflict", "message": EVIL, "hint": ""}
    assert json.loads(to.err.getvalue()) == {"error": error}
    assert "\x1b" not in to.err.getvalue()


def test_an_error_cannot_forge_a_second_line():
    to = streams()
    render_failure(Failure("failed", "one\nhint: rm -rf", ""), to, Style())
    assert to.err.getvalue().count("\n") == 1


def test_full_coverage_needs_no_word_and_partial_names_who_is_missing():
    assert coverage_notes(COVERAGE | {"nodes_heard": 3}) == []
    assert coverage_notes(COVERAGE) == ["2 of 3 nodes heard; missing: berta (unreachable since T)"]
    assert "and 4 more" in coverage_notes(COVERAGE | {"missing_more": 4})[0]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0k"),
        (12_345, "12.3k"),
        (999_999, "1.0M"),
        (10**15, "1000.0T"),
    ],
)
def test_tokens_are_shortened(count, text):
    assert tokens(count) == text


def test_ages_are_in_their_largest_unit():
    now_s = 1_795_132_800.0
    assert age("2026-11-19T23:59:30Z", now_s) == "30s"
    assert age("2026-11-18T00:00:00Z", now_s) == "2d"
    assert age("2026-11-21T00:00:00Z", now_s) == "0s"
    assert age(None, now_s) == "-"


def test_cutting_counts_columns_and_not_characters():
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("abc", 3) == "abc"
    assert cut("abc", 0) == ""


def listing() -> View:
    words = "home  " + "long words " * 12 + EVIL
    return View(value={}, human=Listing([("✓", words), ("✗", "bad"), ("", "fix: good")], indent=6))


def test_a_listing_is_wrapped_on_a_terminal_and_never_cut():
    out, _ = shown(listing(), out_is_terminal=True, width=40)
    assert max(map(len, out.splitlines())) <= 42
    assert "".join(out.split()) == "".join(shown(listing())[0].split())
    assert all(line.startswith(" " * 8) for line in out.splitlines()[1:4])
    assert "\x1b" not in out


def test_only_marks_of_a_listing_are_coloured_and_only_where_colour_is_wanted():
    out, _ = shown(listing(), out_is_terminal=True, colour=True)
    assert out.count("\x1b[") == 4
    assert "\x1b[31m✗\x1b[0m bad\n" in out
    assert "\n  fix: good\n" in out


def test_marks_are_spelled_out_where_a_stream_cannot_carry_them():
    raw = io.BytesIO()
    to = Streams(out=io.TextIOWrapper(raw, encoding="ascii"), err=io.StringIO())
    assert render(View(value={}, human=Listing([("✓", "good"), ("✗", "bad")])), to) == 0
    assert raw.getvalue() == b"+ good\nx bad\n"


@pytest.mark.parametrize(
    ("columns", "flexible", "spare"),
    [
        (one.COLUMNS, one.FLEXIBLE, one.SPARE)
        for one in map(
            import_module, ("session_mesh.commands.budget", "session_mesh.views.sessions")
        )
    ],
)
@pytest.mark.parametrize("width", [48, 60, 80])
def test_budgets_and_sessions_are_named_on_any_terminal(columns, flexible, spare, width: int):
    table = Table(columns, [("9 columns",) * len(columns)], "", flexible, spare)
    out, _ = shown(View({}, table), out_is_terminal=True, width=width)
    assert out.startswith(columns[0])
    assert all(width_of(row) <= width for row in out.splitlines())


def test_values_are_laid_out_as_people_say_them():
    fields = [("removed", True), ("kept", False), ("roots", ["a", "b"]), ("none", []), ("n", 0)]
    assert described(fields) == ("removed  yes", "kept     no", "roots    a, b", "n        0")


def test_tokens_by_kind_add_up():
    used = {"input": 3_500, "cache_read": 50_000, "cache_write_5m": 9_000, "cache_write_1h": 1_000}
    used |= {"output": 10_750, "reasoning": 700, "total": 74_250}
    assert (
        tokens_by_kind(used)
        == "74,250 (input 3,500, cache read 50,000, cache write 10,000, output 10,750)"
    )
