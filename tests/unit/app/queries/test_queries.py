"""What the mesh looks like from one node: filtered, sorted, paged, and with its coverage."""

import pytest
from viewing import GENESIS, IDS, Viewer, chance

from meshnode.app.queries.listing import ENDED_LATELY_S, FILTERS, PAGE, PAGE_MAX, page_of
from meshnode.app.queries.queries import MISSING_MAX
from meshnode.app.queries.views import Selection
from meshnode.core.errors import ConflictError, NotFoundError, UsageError
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import Buckets
from meshnode.core.links.liveness import DEAD_AFTER_S, MemberState
from meshnode.core.membership.members import (
    NODE,
    ONLY_ROW,
    NodeRecord,
    node_to_row,
)
from meshnode.core.sessions.sessions import SESSIONS, State


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


def test_an_answer_says_whom_it_could_not_hear(viewer: Viewer):
    coverage = viewer.queries.coverage()
    assert (coverage.nodes_known, coverage.nodes_heard) == (4, 3)
    (missing,) = coverage.missing
    assert (missing.node_name, missing.state) == ("away", MemberState.UNREACHABLE)
    assert missing.observed_at_s == viewer.clock.wall_s() - 60  # as its last header says
    assert coverage.oldest_s == 60
    viewer.clock.now_s += DEAD_AFTER_S
    viewer.judge()
    (missing,) = viewer.queries.coverage().missing
    assert missing.state is MemberState.DEAD


def test_a_member_that_was_lost_was_observed_until_then(viewer: Viewer):
    lost_s = viewer.clock.wall_s() + 5
    viewer.clock.now_s = lost_s
    viewer.mesh.unlinked(IDS[1], "reset", viewer.clock.steady_s())
    viewer.judge()
    viewer.clock.now_s += 10
    coverage = viewer.queries.coverage()
    assert coverage.nodes_heard == 1
    assert {m.node_name: m.observed_at_s for m in coverage.missing} == {
        "linked": lost_s,
        "beyond": lost_s,
        "away": lost_s - 65,
    }


def test_a_member_that_left_is_not_missed_and_one_that_is_down_is(viewer: Viewer):
    viewer.put(3, NODE, ONLY_ROW, node_to_row(NodeRecord("away", standing="left")))
    viewer.put(2, NODE, ONLY_ROW, node_to_row(NodeRecord("beyond", standing="down")))
    viewer.judge()
    coverage = viewer.queries.coverage()
    assert [(m.node_name, m.state) for m in coverage.missing] == [("beyond", MemberState.DOWN)]
    assert (coverage.nodes_known, coverage.nodes_heard) == (4, 3)


def test_of_many_missing_some_are_named_and_the_rest_counted(viewer: Viewer):
    for number in range(MISSING_MAX + 5):
        key = Key.new(chance)
        feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
        feed.write(NODE, ONLY_ROW, node_to_row(NodeRecord(f"gone{number}")))
        feed.flush(1.0)
        viewer.mesh.replication.replicas[feed.origin] = feed
    viewer.judge()
    coverage = viewer.queries.coverage()
    assert len(coverage.missing) == MISSING_MAX
    assert coverage.missing_more == 6
    assert coverage.nodes_known - coverage.nodes_heard == MISSING_MAX + 6


def test_a_session_of_a_member_that_cannot_be_heard_is_unreachable_and_keeps_its_row(
    viewer: Viewer,
):
    viewer.session(3, "there", title="work")
    viewer.session(3, "over", State.CLOSED)
    viewer.session(2, "here")
    views, _ = page_of(viewer.queries, Selection())
    found = {view.record.session_id: view for view in views}
    there = found["there"]
    assert (there.state, there.alive, there.active) == (State.UNREACHABLE, False, False)
    assert (there.record.state, there.record.title) == (State.RUNNING, "work")
    assert there.observed_at_s == viewer.clock.wall_s() - 60
    assert found["over"].state is State.CLOSED
    assert (found["here"].state, found["here"].alive) == (State.RUNNING, True)
    assert found["here"].observed_at_s == viewer.clock.wall_s()


FOUND = {
    "": {"run", "idle", "wait", "rest", "new", "away", "fail", "kill", "exp", "shut"},
    "alive": {"run", "idle", "wait", "rest", "new"},
    "active": {"run", "wait"},
    "idle": {"idle"},
    "waiting": {"wait"},
    "suspended": {"rest"},
    "unreachable": {"away"},
    "ended": {"fail", "kill", "exp", "shut", "old"},
    "failed": {"fail", "exp"},
    "killed": {"kill"},
    "closed": {"shut", "old"},
    "all": {"run", "idle", "wait", "rest", "new", "away", "fail", "kill", "exp", "shut", "old"},
}


@pytest.mark.parametrize("name", ["", *FILTERS])
def test_a_filter_lists_what_its_name_says(viewer: Viewer, name: str):
    states = {
        "run": State.RUNNING,
        "idle": State.IDLE,
        "wait": State.WAITING_PERMISSION,
        "rest": State.SUSPENDED,
        "new": State.PENDING,
        "fail": State.FAILED,
        "kill": State.KILLED,
        "exp": State.EXPIRED,
        "shut": State.CLOSED,
    }
    for session, state in states.items():
        viewer.session(1, session, state)
    viewer.session(3, "away")
    long_ago_s = viewer.clock.wall_s() - ENDED_LATELY_S - 1
    viewer.session(1, "old", State.CLOSED, ended_at_s=long_ago_s)
    assert set(viewer.listed(filter=name)) == FOUND[name]


def test_sessions_are_chosen_by_everything_about_them(viewer: Viewer):
    viewer.session(1, "a" * 26, owner="ann", specializations=("docs",), labels={"team": "x"})
    viewer.session(2, "b" * 26, owner="bob", specializations=("docs", "code"))
    for selection, expected in (
        ({"owner": "ann"}, "a"),
        ({"node": "beyond"}, "b"),
        ({"node": IDS[2]}, "b"),
        ({"node": IDS[1][:8]}, "a"),
        ({"specialization": "docs"}, "ab"),
        ({"specialization": "code"}, "b"),
        ({"agent_id": "agent-" + "a" * 26}, "a"),
        ({"session_id": "b" * 26}, "b"),
        ({"session_id": "b" * 8}, "b"),
        ({"session_id": "b" * 7}, ""),
        ({"labels": {"team": "x"}}, "a"),
        ({"labels": {"team": "y"}}, ""),
        ({"owner": "ann", "specialization": "code"}, ""),
    ):
        assert sorted(name[0] for name in viewer.listed(**selection)) == list(expected)


def test_sessions_are_sorted_the_largest_first_and_always_alike(viewer: Viewer):
    now_s = viewer.clock.wall_s()
    for place, name in enumerate(["c", "a", "b"]):
        viewer.session(1, name, last_activity_s=now_s - place, created_at_s=now_s - 9 + place)
    viewer.session(2, "z", last_activity_s=now_s, created_at_s=now_s - 9)
    viewer.spend(1, "a", 10)
    viewer.spend(1, "b", 2_000_000)
    viewer.spend(1, "c", 50_000_000, "free")
    assert viewer.listed() == ["c", "z", "a", "b"]
    assert viewer.listed(sort="updated") == ["c", "z", "a", "b"]
    assert viewer.listed(sort="created") == ["b", "a", "c", "z"]
    assert viewer.listed(sort="tokens") == ["c", "b", "a", "z"]
    assert viewer.listed(sort="cost")[0] == "b"


def test_who_has_not_ended_comes_first_on_every_page(viewer: Viewer):
    now_s = viewer.clock.wall_s()
    viewer.session(1, "done", State.CLOSED, last_activity_s=now_s)
    viewer.session(1, "over", State.KILLED, last_activity_s=now_s - 5)
    viewer.session(1, "busy", last_activity_s=now_s - 60)
    viewer.session(3, "away", last_activity_s=now_s - 90)  # unreachable, and perhaps at work
    assert viewer.listed() == ["busy", "away", "done", "over"]
    first, place = page_of(viewer.queries, Selection(limit=1))
    viewer.session(1, "busy", State.CLOSED, last_activity_s=now_s + 1)  # told, and moved
    second, place = page_of(viewer.queries, Selection(limit=2, next=place))
    rest, _ = page_of(viewer.queries, Selection(next=place))
    pages = [[view.record.session_id for view in page] for page in (first, second, rest)]
    assert pages == [["busy"], ["away", "busy"], ["done", "over"]]
    assert viewer.listed(sort="created")[0] != "busy"


def test_pages_cover_everything_once(viewer: Viewer):
    names = {viewer.session(1, f"s{number:03}") for number in range(25)}
    for limit in (1, 7, 25, 26):
        found: list[str] = []
        place = ""
        while True:
            views, place = page_of(viewer.queries, Selection(limit=limit, next=place))
            assert len(views) <= limit
            found += [view.record.session_id for view in views]
            if not place:
                break
        assert sorted(found) == sorted(names)


@pytest.mark.parametrize("sort", ["updated", "created", "cost", "tokens"])
def test_pages_pass_over_none_and_repeat_none_that_stays_where_it_is(viewer: Viewer, sort: str):
    now_s = viewer.clock.wall_s()
    names = [f"s{number}" for number in range(6)]
    for place, name in enumerate(names):
        viewer.session(1, name, last_activity_s=now_s - place, created_at_s=now_s - place)
        viewer.spend(1, name, 90 - place)
    first, place = page_of(viewer.queries, Selection(sort=sort, limit=2))
    viewer.put(1, SESSIONS, b"s1", None)  # one that was told is gone,
    moved = {"last_activity_s": now_s + 9, "created_at_s": now_s - 5}
    viewer.session(1, "s5", **moved)  # the last one is first now, but where order is for ever,
    viewer.spend(1, "s5", 99)
    viewer.session(1, "new", last_activity_s=now_s + 9, created_at_s=now_s + 9)  # and one is new
    viewer.spend(1, "new", 99)
    rest, following = page_of(viewer.queries, Selection(sort=sort, next=place))
    assert [view.record.session_id for view in first] == names[:2]
    ids = [view.record.session_id for view in rest]
    assert ids == (names[2:] if sort == "created" else names[2:5])
    assert following == ""


def test_pages_go_on_whatever_a_session_is_called(viewer: Viewer):
    names = ["\u00e9" * 40, "x" * 100, "", "\x00"]
    for place, name in enumerate(names):
        viewer.session(1, name, last_activity_s=viewer.clock.wall_s() - place)
    views, place = page_of(viewer.queries, Selection(limit=1, filter="all"))
    found = [view.record.session_id for view in views]
    while place:
        views, place = page_of(viewer.queries, Selection(limit=1, filter="all", next=place))
        found += [view.record.session_id for view in views]
    assert sorted(found) == sorted(names)


def test_a_page_has_two_hundred_unless_told_otherwise(viewer: Viewer):
    for number in range(PAGE + 1):
        viewer.session(1, f"s{number:03}")
    views, place = page_of(viewer.queries, Selection())
    assert (len(views), bool(place)) == (PAGE, True)
    assert len(page_of(viewer.queries, Selection(next=place))[0]) == 1


@pytest.mark.parametrize(
    "selection",
    [
        Selection(filter="nice"),
        Selection(sort="colour"),
        Selection(limit=PAGE_MAX + 1),
        Selection(next="x"),
        Selection(next="-1"),
        Selection(next="\u0663"),  # an Arabic digit
        Selection(next="9" * 10),
        Selection(next="9" * 17),
        Selection(next="a" * 16 + "ff"),
        Selection(next="a" * 100_000),
    ],
)
def test_a_selection_that_makes_no_sense_is_the_users_fault(viewer: Viewer, selection: Selection):
    with pytest.raises(UsageError):
        page_of(viewer.queries, selection)


def test_a_session_shows_what_it_has_spent_and_its_newest_model(viewer: Viewer):
    viewer.session(1, "a", model="started-with")
    viewer.session(1, "b", model="started-with")
    viewer.spend(1, "a", 1_000_000, "old", slot=4)
    viewer.spend(1, "a", 2_000_000, "new", slot=6)
    viewer.spend(2, "a", 1, "free", slot=5)
    views, _ = page_of(viewer.queries, Selection())
    one, other = sorted(views, key=lambda view: view.record.session_id)
    assert (one.usage.input, one.cost_nusd, one.model) == (3_000_001, 3_000_000, "new")
    assert (other.usage, other.cost_nusd, other.model) == (Buckets(), None, None)
    viewer.spend(1, "a", 1_000_000, "main", slot=6)
    viewer.spend(2, "a", 1_500_000, "main", slot=6)
    viewer.spend(1, "a", 1, "young", slot=6)
    (one,) = page_of(viewer.queries, Selection(session_id="a"))[0]
    assert one.model == "main", "of one half hour that with most tokens, wherever they are counted"


def test_members_are_listed_ourselves_first(viewer: Viewer):
    viewer.session(1, "a")
    viewer.session(1, "b", State.CLOSED)
    views = viewer.queries.nodes({})
    assert [view.name for view in views] == ["me", "away", "beyond", "linked"]
    me, away, beyond, linked = views
    assert me.is_self
    assert (linked.sessions, beyond.sessions) == (1, 0)
    assert linked.links == tuple(sorted((IDS[0], IDS[2])))
    assert (away.state, beyond.state) == (MemberState.UNREACHABLE, MemberState.ALIVE)
    assert [view.name for view in viewer.queries.nodes({"room": "a"})] == ["me", "beyond"]
    assert viewer.queries.nodes({"room": "c"}) == []


def test_a_member_is_found_by_name_id_or_prefix(viewer: Viewer):
    for name in ("beyond", IDS[2], IDS[2][:8]):
        assert viewer.queries.node_named(name) == IDS[2]
    for name in ("nobody", IDS[2][:7], ""):
        with pytest.raises(NotFoundError):
            viewer.queries.node_named(name)
    viewer.put(1, NODE, ONLY_ROW, node_to_row(NodeRecord("beyond")))
    with pytest.raises(ConflictError):
        viewer.queries.node_named("beyond")
    viewer.put(1, NODE, ONLY_ROW, node_to_row(NodeRecord(IDS[2][:8])))
    with pytest.raises(ConflictError, match="fits 2 nodes") as raised:
        viewer.queries.node_named(IDS[2][:8])
    assert raised.value.hint == (
        f"say which, by its whole id: {IDS[1]} ({IDS[2][:8]}), {IDS[2]} (beyond)"
    )
    assert viewer.queries.node_named(IDS[2]) == IDS[2]
    viewer.put(1, NODE, ONLY_ROW, node_to_row(NodeRecord("beyond")))
    assert viewer.queries.node_named(f"beyond/{IDS[2][:8]}") == IDS[2]
    for name in (f"beyond/{IDS[2][:7]}", f"me/{IDS[2][:8]}", "beyond/"):
        with pytest.raises(NotFoundError):
            viewer.queries.node_named(name)


def test_a_row_that_cannot_be_read_hides_no_other(viewer: Viewer):
    viewer.session(1, "good")
    viewer.put(1, SESSIONS, b"bad", b"\xc1")
    viewer.put(2, NODE, ONLY_ROW, b"\xc1")
    assert viewer.listed() == ["good"]
    assert [view.name for view in viewer.queries.nodes({})] == ["me", "away", "linked"]
    assert viewer.mesh.tables.unreadable == 2
