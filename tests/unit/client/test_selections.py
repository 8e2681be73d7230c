"""The sessions that a configuration selects: read, kept in the home, and asked for."""

import pytest

from meshnode.client import selections
from meshnode.client.documents import parse_document
from meshnode.client.home import Home
from meshnode.client.targets import Selection
from meshnode.core.errors import UsageError

SEED = """
sessions:
  - id: 123
  - filter: alive
"""


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
        "sessions: [" + "{id: 1}," * 65 + "]",
    ],
)
def test_what_is_off_is_named_with_its_line(text):
    with pytest.raises(UsageError, match=r"c\.yaml:1: "):
        chosen(text)


def test_each_session_is_listed_once_in_the_order_of_the_entries(tmp_path):
    tmp_path.chmod(0o700)
    home = Home(tmp_path / "home")
    assert selections.kept(home) == ()
    selections.keep(home, SEED.encode())
    assert home.selection.stat().st_mode & 0o777 == 0o600
    by_agent = [{"session_id": "x", "agent_id": "123"}]
    asked = []

    def ask(selection, limit):
        asked.append((selection, limit))
        others = [{"session_id": "y", "agent_id": "b"}]
        return {"sessions": by_agent if selection.agent_id else others + by_agent, "coverage": 1}

    listed = selections.list_chosen(selections.kept(home), ask, "updated", 5)
    assert [one["session_id"] for one in listed["sessions"]] == ["x", "y"]
    assert listed["coverage"] == 1
    assert asked[0] == (Selection(filter="all", agent_id="123", sort="updated"), 5)


def test_a_session_id_is_asked_for_as_one_too():
    whole = "a" * 26
    (one,) = chosen(f"sessions: [{{id: {whole}}}]")
    asked = []

    def ask(selection, _limit):
        asked.append(selection.session_id or selection.agent_id)
        return {"sessions": [], "coverage": None}

    selections.list_chosen([one], ask, "", None)
    assert asked == [whole, whole]
