"""What is given out as changed adds up to what the queries answer, and nothing is said twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.app.seen import ACTS, IDS, OnePrice, Seen, act, kinds_and_ops

from meshnode.app.cost import spending
from meshnode.app.cost.cost import CostGroup
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.events.changes import Changes
from meshnode.app.events.things import Kind, Op
from meshnode.app.queries.sweeps import PIECE
from meshnode.app.queries.views import SessionView
from meshnode.core.commands.audit import AUDIT
from meshnode.core.effects import Announce
from meshnode.core.links.liveness import MemberState
from meshnode.core.membership.members import LINKS, NODE, ONLY_ROW, LinksRecord, links_to_row
from meshnode.core.sessions.sessions import SESSIONS, State


@pytest.fixture
def seen() -> Seen:
    return Seen()


def other_marks(first: int) -> LinksRecord:
    return LinksRecord(frozenset(b"%08d" % number for number in range(first, first + 64)))


def test_links_to_nobody_known_are_kept_for_as_long_as_they_are_said(seen):
    before = len(seen.changes._awaited)
    for first in range(0, 6400, 64):
        seen.put(1, LINKS, ONLY_ROW, links_to_row(other_marks(first)))
        seen.settle()
        assert len(seen.changes._awaited) <= before + 64
    seen.put(1, NODE, ONLY_ROW, None)
    seen.settle()
    assert len(seen.changes._awaited) <= before


def looks_at_sessions(seen, monkeypatch) -> list:
    looked = []
    session = type(seen.changes._queries).session
    monkeypatch.setattr(
        type(seen.changes._queries),
        "session",
        lambda self, owner, record: looked.append(record) or session(self, owner, record),
    )
    return looked


def test_all_sessions_of_a_member_that_has_many_change_a_piece_at_a_time(seen, monkeypatch):
    count = 3 * PIECE
    for number in range(count):
        seen.session(1, f"s{number}")
    seen.settle()
    looked = looks_at_sessions(seen, monkeypatch)
    before = len(seen.given)
    for turn in range(20):
        seen.name(1, f"name{turn}")
        seen.take(seen.changes.settle())
        assert len(looked) <= (turn + 1) * PIECE
    assert not seen.changes.busy, "it can wait"
    while seen.changes.waiting:
        seen.take(seen.changes.settle())
    names = {view.node_name for view in seen.model.values() if isinstance(view, SessionView)}
    assert names == {"name19"}
    told = [one.view.name for one in seen.given[before:] if one.kind is Kind.NODE and not one.quiet]
    assert told == [f"name{turn}" for turn in range(20)], "of the member itself at once"


def test_a_whole_feed_with_many_sessions_is_looked_at_a_piece_at_a_time(seen, monkeypatch):
    for number in range(2 * PIECE):
        seen.session(1, f"s{number}")
    seen.settle()
    looked = looks_at_sessions(seen, monkeypatch)
    seen.replace(1)
    assert looked == []
    seen.take(seen.changes.settle())
    assert len(looked) == PIECE


def test_a_session_is_added_changed_and_removed_once_each(seen):
    before = len(seen.given)
    seen.session(1, "alpha")
    seen.session(1, "alpha", State.CLOSED)
    seen.put(1, SESSIONS, b"alpha", None)
    told = [one for one in seen.given[before:] if one.kind is Kind.SESSION]
    assert [one.op for one in told] == [Op.ADDED, Op.CHANGED, Op.REMOVED]
    assert (told[1].before.state, told[1].view.state) == (State.RUNNING, State.CLOSED)


def test_nothing_is_said_of_a_row_that_was_written_anew_with_the_same_meaning(seen):
    seen.session(1, "alpha")
    seen.register(1, "smith", "docs")
    seen.settle()
    before = len(seen.given)
    for table, key in ((SESSIONS, b"alpha"), (NODE, ONLY_ROW), (LINKS, ONLY_ROW)):
        seen.rewrite(1, table, key)
    assert seen.settle() == []
    assert seen.given[before:] == []


def test_sessions_of_a_member_that_cannot_be_reached_change_at_once_and_back(seen):
    seen.session(2, "alpha")
    before = len(seen.given)
    seen.links({(0, 1)})
    told = [one for one in seen.given[before:] if not one.quiet]
    assert kinds_and_ops(told) == [("node", "changed"), ("session", "changed")]
    assert told[1].view.state is State.UNREACHABLE
    seen.links({(0, 1), (1, 2)})
    assert seen.given[-1].view.state is State.RUNNING


def test_sessions_change_too_where_their_member_is_looked_at_before_the_news_of_it(
    seen, monkeypatch
):
    seen.session(2, "alpha")  # so that its node is to be looked at, too
    late = []
    with monkeypatch.context() as patch:
        patch.setattr(seen.changes, "take", lambda news: late.append(news) or [])
        seen.links({(0, 1)})
    before = len(seen.given)
    seen.settle()
    for news in late:
        seen.take(seen.changes.take(news))
    told = [one for one in seen.given[before:] if not one.quiet]
    assert kinds_and_ops(told) == [("node", "changed"), ("session", "changed")]
    assert told[1].view.state is State.UNREACHABLE


def test_a_row_of_one_member_makes_nobody_look_at_the_rows_of_others(seen):
    seen.session(2, "alpha")
    seen.settle()
    looked = []
    rows = seen.mesh.replication.replicas[IDS[2]].rows
    get = rows.get
    rows.get = lambda table, key: looked.append((table, key)) or get(table, key)
    seen.changes.take(Announce(IDS[1], [(SESSIONS, b"none")]))
    assert looked == []


def test_the_head_of_an_audit_log_makes_nobody_read_the_registry(seen):
    seen.register(1, "smith", "docs")
    seen.settle()
    read = []
    entries = seen.mesh.roster.entries
    seen.mesh.roster.entries = lambda: read.append("entries") or entries()
    seen.take(seen.changes.take(Announce(IDS[1], [(AUDIT, ONLY_ROW)])))
    seen.settle()
    assert read == []
    seen.register(2, "jones", "docs")
    seen.settle()
    assert read == ["entries"]


def test_costs_are_told_as_totals_and_only_while_somebody_follows(seen):
    seen.session(1, "alpha")
    seen.spend(1, "alpha", 100)
    assert [one for one in seen.settle() if one.kind is Kind.COST] == []
    seen.follow()
    seen.spend(1, "alpha", 300)
    seen.spend(1, "alpha", 50, "free")
    told = [one for one in seen.settle() if one.kind in {Kind.COST, Kind.SESSION}]
    costs = {one.view.key["model"]: one.view for one in told if isinstance(one.view, CostGroup)}
    assert (costs["m"].usage.total, costs["m"].cost_nusd) == (300, 300)
    assert (costs["free"].usage.total, costs["free"].cost_nusd) == (50, None)
    (session,) = [one.view for one in told if one.kind is Kind.SESSION]
    assert (session.usage.total, session.cost_nusd) == (350, 300)
    assert all(one.quiet for one in told)


def test_of_several_models_in_one_slot_a_session_has_the_one_with_most_tokens(seen):
    seen.session(1, "alpha")
    seen.follow()
    for number, model, tokens in ((1, "main", 60), (2, "main", 60), (1, "small", 100)):
        seen.spend(number, "alpha", tokens, model)
    told = seen.settle()
    (session,) = [one.view for one in told if one.kind is Kind.SESSION]
    assert session.model == "main"


def test_what_was_spent_while_nobody_followed_is_told_to_the_next_who_does(seen):
    seen.session(1, "alpha")
    seen.follow()
    seen.spend(1, "alpha", 100)
    seen.settle()
    seen.changes.spending.stop()
    seen.spend(1, "alpha", 300)
    seen.settle()
    seen.session(1, "alpha", State.IDLE)
    told = seen.catch_up(stay=True)
    assert [one.view.usage.total for one in told] == [300, 300]
    seen.changes.spending.stop()
    assert seen.catch_up(stay=True) == []


def test_what_is_noted_while_nobody_follows_has_a_bound(seen, monkeypatch):
    monkeypatch.setattr(spending, "PENDING_MAX", 4)
    seen.follow()
    seen.stop()
    for number in range(12):
        seen.spend(1 + number % 2, f"s{number}", number + 1)
        assert len(seen.changes.spending._pending) <= 4
    assert seen.changes.spending.pending() is None
    told = seen.catch_up(stay=True)
    assert sorted(one.view.usage.total for one in told) == list(range(1, 13))
    assert seen.changes.spending.pending() == []


def test_who_looks_at_one_change_leaves_others_to_those_who_come_later(seen):
    for name in ("alpha", "beta"):
        seen.spend(1, name, 5)
    seen.catch_up(stay=False)
    seen.spend(1, "alpha", 9)
    seen.begin_to_follow(False)
    seen.step(2)  # it is known by now what is to be told
    seen.spend(1, "beta", 7)
    seen.replace(2)
    before = len(seen.given)
    seen.step(99)
    assert [one.view.usage.total for one in seen.given[before:]] == [9]
    assert [one.view.usage.total for one in seen.catch_up(stay=True)] == [7]


def test_sessions_that_are_gone_are_not_remembered_for_those_who_watch_later(seen):
    seen.session(1, "stays")
    for number in range(9):
        seen.session(1, f"s{number}")
        seen.delete(1, f"s{number}")
    assert seen.changes._doubted == {(IDS[1], "stays"): None}


def test_a_member_that_comes_and_goes_makes_nobody_look_at_what_it_has_spent(seen):
    seen.spend(2, "alpha", 1)
    seen.follow()
    seen.links({(0, 1)})
    assert not seen.changes.spending.in_doubt
    seen.name(2, "other")
    assert [one.view.key["node"] for one in seen.settle() if one.kind is Kind.COST] == ["other"]


def test_members_in_the_states_they_were_left_in_are_no_news_when_they_are_still(seen):
    seen.session(2, "alpha")
    seen.settle()
    states = seen.changes.states()
    restarted = Changes(seen.mesh, OnePrice(), seen.clock)
    restarted.begin(states)
    assert restarted.begin() == []
    seen.links({(0, 1)})
    told = [one for one in restarted.begin() if not one.quiet]
    assert kinds_and_ops(told) == [("node", "changed"), ("session", "changed")]


def test_held_states_stay_while_rows_are_told_as_ever(seen):
    seen.session(2, "alpha")
    seen.settle()
    seen.changes.hold_states()
    before, states = len(seen.given), seen.changes.states()
    seen.links({(0, 1)})
    seen.session(2, "alpha", State.CLOSED)
    seen.settle()
    told = [one for one in seen.given[before:] if not one.quiet and one.kind is not Kind.AGENT]
    assert [(one.kind, one.view.state) for one in told if one.kind is Kind.SESSION] == [
        (Kind.SESSION, State.CLOSED)
    ]
    assert seen.changes.states() == states


def test_a_member_first_heard_of_while_states_are_held_is_in_the_one_it_is_in(monkeypatch):
    seen = Seen()
    *others, late = seen.mesh.tables.origins()
    with monkeypatch.context() as patched:
        patched.setattr(type(seen.mesh.tables), "origins", lambda _: others)
        seen.changes.hold_states()
    seen.changes.look([late])
    state = seen.mesh.liveness.state(late)
    assert seen.changes.states()[late] is state is not MemberState.DEAD


@pytest.mark.parametrize("left", [{}, {IDS[1]: MemberState.ALIVE}])
def test_a_member_that_is_not_in_the_states_left_was_dead_when_this_node_stopped(seen, left):
    seen.changes.begin(left)
    dead = dict.fromkeys(seen.mesh.tables.origins(), MemberState.DEAD)
    assert seen.changes.states() == dead | left


@pytest.mark.property
@settings(max_examples=150)
@given(st.lists(ACTS, max_size=25))
def test_changes_in_order_add_up_to_what_the_queries_answer(acts):
    seen = Seen()
    seen.follow()
    for what in acts:
        act(seen, what)
    seen.follow()
    seen.settle()
    shown = seen.shown()
    assert {i: view for i, view in shown.items() if i[0] is not Kind.COST} == seen.afresh()
    told = {i: view for i, view in seen.model.items() if i[0] is not Kind.COST}
    assert told == seen.afresh()
    costs = {i: view for i, view in seen.model.items() if i[0] is Kind.COST}
    assert costs == {i: view for i, view in shown.items() if i[0] is Kind.COST}
    groups = [view.usage.total for view in costs.values()]
    assert sum(groups) == seen.queries.cost(CostQuery()).totals.total
    assert seen.settle() == []
