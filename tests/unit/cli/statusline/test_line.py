"""The line of a status line: it fits, it is one line, and what is not known is not in it."""

import re

import pytest

from session_mesh.output.escaping import width_of
from session_mesh.statusline.line import UNREAD, WIDTH, composed, money, said, transcript_in

DOCUMENT = {
    "session_id": "s1",
    "model": {"id": "claude-opus-4-6", "display_name": "Opus 4.6"},
    "cost": {"total_cost_usd": 1.234},
    "context_window": {
        "context_window_size": 200_000,
        "used_percentage": 21,
        "current_usage": {
            "input_tokens": 500,
            "output_tokens": 9,
            "cache_creation_input_tokens": 2000,
            "cache_read_input_tokens": 40_000,
        },
    },
}
TODAY = {"cost_usd": "4.5", "unpriced": False}
MESH = {"cost_usd": "12.3", "unpriced": False, "nodes_heard": 3, "nodes_known": 3}
KNOWN = {"usage_read": True, "today": TODAY, "mesh_today": MESH, "alive_sessions": 3}
WARNED = {"name": "team", "state": "warned", "percent": 85, "held": 0}
HELD = {"name": "crawlers", "state": "exceeded", "percent": 104, "held": 2}


def line(document=DOCUMENT, colour=False, **known):
    return composed(said(document) | known, colour=colour)


def test_all_that_is_known_stands_in_one_line():
    told = "Opus 4.6 | $1.23 session | $4.50 today | mesh $12.30, 3 alive | ctx 42.5k 21%"
    assert line(**KNOWN) == told
    assert line(**KNOWN | {"more_alive": True}) == told.replace("3 alive", "3+ alive")


@pytest.mark.parametrize("document", [{}, {"model": 1, "cost": [], "context_window": None}])
def test_what_is_unknown_is_left_out(document):
    assert line(document) == "Claude Code"
    assert line(document, usage_read=False) == f"Claude Code | {UNREAD}"


@pytest.mark.parametrize("word", ["a\0b", "\ud800", "", "x" * 5000, 7, None])
def test_an_id_or_a_path_that_cannot_be_one_is_none(word):
    assert said({"session_id": word})["session_id"] is None
    assert transcript_in({"transcript_path": word}) is None


@pytest.mark.parametrize("usd", [True, "1", -1, float("nan"), float("inf"), 1e300, None, [1]])
def test_a_cost_that_cannot_be_one_is_none(usd):
    assert said({"cost": {"total_cost_usd": usd}})["session_cost_usd"] is None


@pytest.mark.parametrize("count", [10**400, -5, "7", None, True])
def test_tokens_that_cannot_be_are_none(count):
    window = {"current_usage": {"input_tokens": count}, "context_window_size": count}
    assert said({"context_window": window})["context"] == dict.fromkeys(
        ("tokens", "size", "percent")
    )


def test_a_percentage_is_worked_out_where_it_is_not_said():
    window = DOCUMENT["context_window"] | {"used_percentage": None}
    assert said({"context_window": window})["context"] == {
        "tokens": 42_500,
        "size": 200_000,
        "percent": 21.2,
    }


def test_a_context_without_counts_is_told_once_it_is_large():
    assert line({"exceeds_200k_tokens": True}) == "Claude Code | ctx >200k"
    assert line({"exceeds_200k_tokens": "yes"}) == "Claude Code"


@pytest.mark.parametrize(
    ("percent", "code"),
    [(0, "32"), (49.9, "32"), (50, "33"), (79.9, "33"), (80, "31"), (130, "31")],
)
def test_the_context_is_green_then_yellow_then_red(percent, code):
    shown = line({"context_window": {"used_percentage": percent}}, colour=True)
    assert shown == f"Claude Code | \x1b[{code}mctx {percent:.0f}%\x1b[0m"


@pytest.mark.parametrize(
    ("budgets", "told", "code"),
    [
        ([], "", ""),
        ([WARNED], " | team 85%", "33"),
        ([HELD, WARNED], " | crawlers 104%, 2 held +1", "31"),
        ([WARNED | {"held": 1}], " | team 85%, 1 held", "31"),
    ],
)
def test_a_budget_is_told_when_it_presses(budgets, told, code):
    assert line({}, budgets=budgets) == f"Claude Code{told}"
    assert re.findall(r"\x1b\[(3\d)m", line({}, colour=True, budgets=budgets)) == [code] * bool(
        code
    )


def test_a_sum_says_what_is_missing_from_it():
    partial = MESH | {"nodes_heard": 2, "unpriced": True}
    shown = line(
        {}, colour=True, usage_read=True, today=TODAY | {"unpriced": True}, mesh_today=partial
    )
    assert shown == "Claude Code | $4.50+ today | \x1b[33mmesh $12.30+ of 2/3\x1b[0m"
    assert line({}, today=TODAY | {"cost_usd": None, "unpriced": True}) == "Claude Code | $?+ today"


@pytest.mark.parametrize(
    ("usd", "told"),
    [("0", "$0.00"), ("0.0042", "$0.0042"), ("0.01", "$0.01"), ("1234.5", "$1234.50")],
)
def test_money_is_told_in_cents(usd, told):
    assert money(usd) == told


@pytest.mark.parametrize("name", ["Opus 4.6", "o" * 4000, "模型" * 30, "\u0301" * 500])
@pytest.mark.parametrize("budget", ["team", "b" * 200, "予算" * 50])
@pytest.mark.parametrize("usd", [1.0, 999_999_999.0])
def test_whatever_the_words_it_fits_in_one_line(name, budget, usd):
    document = DOCUMENT | {"model": {"display_name": name}, "cost": {"total_cost_usd": usd}}
    known = KNOWN | {"budgets": [HELD | {"name": budget}], "today": TODAY | {"cost_usd": str(usd)}}
    plain, coloured = line(document, **known), line(document, colour=True, **known)
    assert width_of(plain) <= WIDTH
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "a\x07", "a\u202eb", "a\ud800b", "a\x9bb"])
def test_words_of_others_move_nothing(name):
    shown = line({"model": {"display_name": name}}, budgets=[WARNED | {"name": name}])
    assert shown.isprintable()
    shown.encode()


def test_a_full_line_gives_up_what_matters_least():
    document = DOCUMENT | {"model": {"display_name": "Opus 4.6 (1M context)"}}
    told = "Opus 4.6 | $1.23 session | $4.50 today | mesh $12.30, 3 alive | ctx 21%"
    assert line(document, **KNOWN) == told
    told = "Opus 4.6 | $1.23 | $4.50 today | mesh $12.30 | crawlers 104%, 2 held | ctx 21%"
    assert line(document, **KNOWN, budgets=[HELD]) == told
