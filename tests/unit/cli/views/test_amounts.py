"""How sums read: what is missing is said, numbers end below one another, names stay names."""

import io

import pytest
from unit.cli.doubles import BUCKETS, SESSION, cost_group

from meshnode.app.cost import cutting, tally
from meshnode.client.errors import NotFoundError, UsageError
from session_mesh.main import main
from session_mesh.output.render import Streams
from session_mesh.views.amounts import BLOCK, GROUPINGS, MOST_MAX, TO_PRICE, groupings

NOTHING = {"records": 0, "groups": [], "unpriced": [], "totals": BUCKETS, "cost_usd": "0"}
LARGE = BUCKETS | {"input": 123_456, "total": 1_234_567}


@pytest.fixture
def answer(mesh, monkeypatch):
    """What the mesh answers, to be changed."""
    changes = {}
    cost = mesh.cost
    monkeypatch.setattr(mesh, "cost", lambda *asked, **of: cost(*asked, **of) | changes)
    return changes


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (("--session", "abcdefgh"), "nothing is counted of session 'abcdefghijklmnopqrstuvwxyz': "),
        (("--since", "2030-01-01"), "2030-01-01T00:00Z is still to come"),
        (("--since", "2026-01-01"), ""),
    ],
)
def test_an_answer_of_nothing_says_why(run, answer, words, note):
    answer |= NOTHING
    code, out, err = run("cost", *words)
    assert (code, out.split()[-1]) == (0, "$0.0000")
    assert err.startswith(note)
    assert bool(err) == bool(note)


@pytest.mark.parametrize("word", ["abcdefghij", "builder", "anna/builder"])
def test_spending_is_asked_of_a_session_under_any_of_its_names(run, mesh, monkeypatch, word):
    told = {"records": 3, "groups": [cost_group("session", "abcdefghijklmnopqrstuvwxyz")]}
    cost, of_it = mesh.cost, []

    def counted(*asked, of=None, **_):
        session = (of or asked[5])[1]
        of_it.append(session)
        return cost(*asked[:5]) | (told if SESSION["session_id"] == session else NOTHING)

    monkeypatch.setattr(mesh, "cost", counted)
    code, out, err = run("cost", "--session", word)
    assert (code, of_it) == (0, [word, SESSION["session_id"]])
    assert out.split()[-1] == "$1.2500"
    assert (f"{word!r} is session abc" in err) is (word != "abcdefghij")


def test_a_session_that_nobody_knows_has_no_sum(run, mesh, answer, monkeypatch):
    def unknown(target):
        raise NotFoundError(f"no session or agent {str(target)!r}")

    answer |= NOTHING
    monkeypatch.setattr(mesh, "resolve", unknown)
    code, out, err = run("cost", "--session", "nope")
    assert (code, out) == (3, "")
    assert "no session or agent 'nope'" in err


def test_prices_that_are_left_out_are_told_with_every_sum(run, answer):
    answer |= {"unpriced": [], "price_source": "prices.yaml@1 (2 left out, see prices explain); x"}
    for verb in ("cost", "stats-model", "stats-date"):
        assert run(verb)[2] == (
            "prices: prices.yaml@1 (2 left out, see prices explain); "
            "what they were for costs what the next list says\n"
        )
    answer |= {"price_source": "prices.yaml@1; shipped@2"}
    assert run("cost")[2] == ""


@pytest.mark.parametrize("by", ["month", "week"])
def test_groups_of_a_time_come_oldest_first(run, answer, by):
    names = ["2026-11", "2026-12", "2027-01"]
    answer["groups"] = [cost_group(by, name) for name in (names[1], names[2], names[0])]
    assert run("cost", "--by", by, "-q")[1].split() == names


def test_the_group_that_others_are_joined_in_comes_last_and_is_no_name(run, answer):
    names = ["2026-11", "2027-01", "(2 more)"]
    answer["groups"] = [cost_group("month", names[one]) for one in (1, 0, 2)]
    answer["groups_more"] = 2
    out, err = run("cost", "--by", "month")[1:]
    assert [line.split("  ")[0] for line in out.splitlines()[1:4]] == names
    assert "the others are one group: (2 more)\n" in err
    assert run("cost", "--by", "month", "-q")[1].split() == names[:2]


def test_groupings_are_those_that_a_node_knows():
    assert (GROUPINGS, BLOCK) == (cutting.BY, cutting.BLOCK)
    assert tally.MOST_MAX == MOST_MAX


def test_several_groupings_are_named_apart_or_together():
    assert groupings(["model", "day, node", "day"]) == ("model", "day", "node")
    for wrong in ("day,", ",", "day,modl"):
        with pytest.raises(UsageError, match="cannot group by"):
            groupings([wrong])


def test_the_mesh_has_no_blocks(run):
    code, out, err = run("cost", "--by", "block")
    assert (code, out) == (2, "")
    assert "blocks are of one plan, and the mesh may have many" in err
    assert "usage --by block" in err


def test_an_owner_that_nobody_knows_is_a_dash_in_tables_alone(run, answer):
    answer["groups"] = [cost_group("owner", "")]
    assert run("cost", "--by", "owner")[1].splitlines()[1].startswith("-  ")
    assert '"owner": ""' in run("cost", "--by", "owner", "-o", "json")[1]


def test_quiet_names_groups_alone_and_leaves_notes_out(run, answer):
    assert run("cost")[2] != ""
    assert run("cost", "--by", "model", "-q") == (0, "m\n", "")
    assert run("stats-model", "-q") == (0, "m\n", "")
    assert run("stats-date", "-q") == (0, "2026-11-19\n2026-11-20\n", "")


@pytest.mark.parametrize("on_terminal", [False, True])
def test_numbers_end_below_one_another(answer, on_terminal):
    answer["groups"] = [cost_group("model", "m") | {"usage": LARGE}]
    streams = Streams(io.StringIO(), io.StringIO(), out_is_terminal=on_terminal)
    assert main(["cost", "--by", "model"], streams) == 0
    lines = streams.out.getvalue().splitlines()
    assert lines[0].split() == ["MODEL", "INPUT", "CACHED", "OUTPUT", "TOKENS", "USD"]
    assert len({len(line.rstrip()) for line in lines}) == 1
    ends = {
        line.index(word) + len(word)
        for line, word in zip(lines, ("INPUT", "123,456"), strict=False)
    }
    assert len(ends) == 1


@pytest.mark.parametrize(("usd", "shown"), [("0.000075", 6), ("0.02", 4)])
def test_money_of_one_column_has_its_points_below_one_another(answer, usd, shown):
    cheap, dear = (cost_group("model", name) for name in ("cheap", "dear"))
    answer["groups"] = [dear | {"cost_usd": "1234.5"}, cheap | {"cost_usd": usd}]
    for words in (["cost", "--by", "model"], ["stats-model"]):
        streams = Streams(io.StringIO(), io.StringIO())
        assert main(words, streams) == 0
        lines = streams.out.getvalue().splitlines()[1:]
        assert {len(line.rpartition(".")[2]) for line in lines} == {shown}
        assert "$1,234.5" in lines[0]


def test_names_are_readable_before_columns_are_kept(answer):
    names = ["claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"]
    answer["groups"] = [cost_group("model", name) | {"usage": LARGE} for name in names]
    streams = Streams(io.StringIO(), io.StringIO(), out_is_terminal=True, width=60)
    assert main(["stats-model"], streams) == 0
    out = streams.out.getvalue()
    assert "CACHED" not in out
    assert "claude-sonnet-4-5" in out
    assert "claude-haiku-4-5" in out


def test_a_day_that_ends_where_it_begins_is_told_that_until_leaves_it_out(run):
    code, _, err = run("cost", "--since", "2026-11-20", "--until", "2026-11-20")
    assert code == 2
    assert "a day given to --until is left out: name the one after it" in err


def test_models_without_a_price_are_named_with_what_to_do_many_in_one(run, answer):
    answer["unpriced"] = [{"model": f"m{n}", "records": 1, "total": n} for n in range(12)]
    notes = run("cost")[2].splitlines()
    assert notes[0] == "no price known for m0: 0 tokens are not in the money"
    assert notes[9].startswith("no price known for m9: ")
    assert notes[10] == f"nor for 2 more models: 21 tokens; {TO_PRICE} MODEL, of each"


def test_the_only_model_without_a_price_says_what_to_do(run, answer):
    answer["unpriced"] = [{"model": "m x", "records": 1, "total": 9999}]
    said = "no price known for m x: 9,999 tokens are not in the money"
    assert run("cost")[2].splitlines()[0] == f"{said}; {TO_PRICE} 'm x'"


def test_the_hour_that_the_clocks_repeat_comes_twice_in_its_order(run, answer):
    hours = [f"2026-10-25T0{hour}:00" for hour in ("1:00+02", "2:00+02", "2:00+01", "3:00+01")]
    answer["groups"] = [cost_group("hour", hour) for hour in sorted(hours)]
    shown = run("cost", "--by", "hour", "--tz", "Europe/Berlin")[1].splitlines()
    assert [line.split()[0] for line in shown[1:-1]] == hours
