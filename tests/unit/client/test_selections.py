"""The sessions that a configuration selects: read, kept in the home, and asked for."""

import pytest

from meshnode.app.queries import listing
from meshnode.client import selections
from meshnode.client.documents import parse_document
from meshnode.client.home import Home
from meshnode.client.targets.targets import FILTERS, Selection
from meshnode.core.errors import UsageError

SEED = """
sessions:
  - id: 123
  - filter: alive
"""


def listed_as(session_id, agent_id, last_activity, ended_at=None):
    return {
        "session_id": session_id,
        "agent_id": agent_id,
        "last_activity": last_activity,
        "ended_at": ended_at,
    }


def chosen(text):
    return selections.chosen_in(parse_document(text.encode(), "c.yaml").map("it"))


def test_what_users_have_in_their_files_is_read():
    one, other = chosen(SEED)
    assert (one.id, other.selection) == ("123", Selection(filter="alive"))
    assert chosen("spec: data-analysis") == (
        selections.Chosen(Selection(specialization="data-analysis")),
    )
    (both,) = chosen("spec: s\nsessions: [{filter: idle}]")
    assert both.selection == Selection(filter="idle", specialization="s")
    assert chosen("node: n") is None
    assert chosen("sessions: {max: 3}") is None
    assert chosen("sessions: []") == ()


@pytest.mark.parametrize(
    "text",
    [
        "sessions: [7]",
        "sessions: [{}]",
        "sessions: [{ids: 1}]",
        "sessions: [{filter: sleeping}]",
        "sessions: alive",
        "spec: [a]",
        "spec: 'a,b'",
        "sessions: [{spec: 'a,b'}]",
        "sessions: [" + "{id: 1}," * 65 + "]",
    ],
)
def test_what_is_off_is_named_with_its_line(text):
    with pytest.raises(UsageError, match=r"c\.yaml:1: "):
        chosen(text)


def test_each_session_is_listed_once_and_the_entry_that_chose_it_gives_no_place(tmp_path):
    tmp_path.chmod(0o700)
    home = Home(tmp_path / "home")
    assert selections.kept(home) == ()
    selections.keep(home, SEED.encode())
    assert home.selection.stat().st_mode & 0o777 == 0o600
    by_agent = [listed_as("x", "123", "2026-11-20T08:00:00Z")]
    asked = []

    def ask(selection, limit):
        asked.append((selection, limit))
        others = [listed_as("y", "b", "2026-11-20T08:00:00.5Z")]
        others.append(listed_as("z", "c", "2026-11-20T08:00:01Z", "2026-11-20T08:00:01Z"))
        return {"sessions": by_agent if selection.agent_id else others + by_agent, "coverage": 1}

    listed = selections.list_chosen(selections.kept(home), ask, "updated", 5)
    assert [one["session_id"] for one in listed["sessions"]] == ["y", "x", "z"]
    assert listed["coverage"] == 1
    assert asked[0] == (Selection(filter="all", agent_id="123", sort="updated"), 5)


def test_a_session_id_is_asked_for_as_one_too():
    whole = "a" * 26
    (one,) = chosen(f"sessions: [{{id: {whole}}}]")
    asked = []

    def ask(selection, _limit):
        asked.append(selection.session_id or selection.agent_id)
        return {"sessions": [], "coverage": None}

    selections.list_chosen([one], ask, "updated", None)
    assert asked == [whole, whole]


def test_every_filter_of_a_node_may_be_chosen():
    assert set(FILTERS) == set(listing.FILTERS)
    for name in FILTERS:
        (one,) = chosen(f"sessions: [{{filter: {name}}}]")
        assert one.selection.filter == name


@pytest.mark.parametrize("sort", ["updated", "created", "cost", "tokens"])
def test_what_several_entries_choose_is_sorted_before_it_is_cut(sort):
    def session(name, rank):
        return {
            "session_id": name,
            "agent_id": name,
            "last_activity": f"2026-11-20T08:00:{rank:02}Z",
            "ended_at": None,
            "created_at": f"2026-11-{rank:02}T08:00:00.123Z",
            "cost_usd": None if rank == 1 else f"{rank}.01",
            "usage": {"total": rank},
        }

    held = {
        one["agent_id"]: one
        for one in (session("b", 10), session("a", 1), session("c", 30), session("d", 10))
    }
    chosen_ = chosen("sessions: [{id: b}, {id: a}, {id: c}, {id: d}]")

    def ask(selection, limit):
        return {"sessions": [held[selection.agent_id]][:limit], "coverage": None}

    listed = selections.list_chosen(chosen_, ask, sort, 3)
    assert [one["session_id"] for one in listed["sessions"]] == ["c", "b", "d"]
