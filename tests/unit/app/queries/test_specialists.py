"""Who can do something: live agents, the best first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from viewing import GENESIS, IDS, Viewer

from meshnode.app.queries.specialists import Specialists
from meshnode.client.connection.connection import ANSWER_BYTES_MAX
from meshnode.core.errors import UsageError
from meshnode.core.feeds.heads import Head
from meshnode.core.membership.members import NODE, ONLY_ROW, NodeRecord, node_to_row
from meshnode.core.sessions.registry import (
    REGISTRY,
    Birth,
    Place,
    Specialist,
    registry_key,
    registry_row,
)
from meshnode.core.sessions.sessions import State
from meshnode.core.tables.removals import REMOVALS, Dot, removal_key, removal_row
from meshnode.rpc import local
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from meshnode.core.ids import NodeId


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


def register(viewer: Viewer, number: int, agent: str, load: str = "", **told: str) -> None:
    entry = Specialist(agent, "docs", ({"load": load} if load else {}) | told)
    row = registry_row(entry, Birth(number, 1))
    viewer.put(number, REGISTRY, registry_key(entry.place), row)


def found(viewer: Viewer) -> list[tuple[str, str | None, NodeId]]:
    agents = Specialists(viewer.queries).find("docs")
    return [(agent.agent_id, agent.session_id, agent.node_id) for agent in agents]


def test_live_agents_with_a_specialization_are_found_wherever_they_are(viewer: Viewer):
    viewer.session(2, "s", agent_id="started", specializations=("docs",))
    viewer.session(2, "t", agent_id="other", specializations=("code",))
    register(viewer, 1, "registered")
    assert sorted(found(viewer)) == [("registered", None, IDS[1]), ("started", "s", IDS[2])]
    assert Specialists(viewer.queries).find("nothing") == []
    with pytest.raises(UsageError):
        Specialists(viewer.queries).find("")


def test_agents_that_have_gone_are_not_found(viewer: Viewer):
    viewer.session(2, "over", State.CLOSED, agent_id="over", specializations=("docs",))
    viewer.session(3, "away", agent_id="away", specializations=("docs",))
    register(viewer, 1, "over")
    register(viewer, 3, "nobody")
    assert found(viewer) == []


def test_an_agent_is_found_in_its_newest_live_session(viewer: Viewer):
    now_s = viewer.clock.wall_s()
    for name, age_s in (("old", 9), ("new", 1), ("older", 20)):
        viewer.session(
            1, name, agent_id="agent", specializations=("docs",), created_at_s=now_s - age_s
        )
    assert found(viewer) == [("agent", "new", IDS[1])]


def test_the_least_loaded_agent_comes_first_then_our_own(viewer: Viewer):
    for number, agent, load in (
        (1, "busy", "0.9"),
        (1, "unknown", ""),
        (0, "ours", ""),
        (2, "free", "0.1"),
        (2, "odd", "much"),
    ):
        register(viewer, number, agent, load)
    assert [agent for agent, _, _ in found(viewer)] == ["free", "ours", "odd", "unknown", "busy"]


def test_an_agent_that_is_back_is_found_again(viewer: Viewer):
    viewer.session(1, "one", agent_id="agent")
    register(viewer, 1, "agent", version="2")
    viewer.session(1, "one", State.CLOSED, agent_id="agent")
    assert found(viewer) == []
    viewer.session(2, "two", agent_id="agent")
    assert found(viewer) == [("agent", "two", IDS[2])]


def test_an_agent_that_lives_on_two_nodes_is_found_on_both_with_what_each_says(viewer: Viewer):
    for number, version in ((1, "1"), (2, "2")):
        viewer.session(number, f"s{number}", agent_id="agent", specializations=("docs",))
        register(viewer, number, "agent", version=version)
    agents = Specialists(viewer.queries).find("docs")
    told = {agent.node_id: agent.attributes["version"] for agent in agents}
    assert told == {IDS[1]: "1", IDS[2]: "2"}


def test_an_agent_that_waits_for_somebody_comes_after_those_that_are_ready(viewer: Viewer):
    for name, state in (("stuck", State.WAITING_PERMISSION), ("ready", State.IDLE)):
        viewer.session(0, name, state, agent_id=name, specializations=("docs",))
    register(viewer, 0, "stuck", "0")
    register(viewer, 1, "unsure")
    assert [agent for agent, _, _ in found(viewer)] == ["ready", "unsure", "stuck"]


def test_of_equally_loaded_agents_the_nearer_comes_first(viewer: Viewer):
    labels = [{"site": "x", "region": "r"}, {"region": "r"}, {"site": "x", "region": "r"}]
    for number, own in enumerate(labels):
        viewer.put(number, NODE, ONLY_ROW, node_to_row(NodeRecord(f"n{number}", labels=own)))
    for number, agent in ((1, "far"), (2, "near"), (0, "zero")):
        register(viewer, number, agent)
    assert [agent for agent, _, _ in found(viewer)] == ["zero", "near", "far"]


def test_an_entry_that_somebody_removes_is_not_found_though_its_owner_is_silent(viewer: Viewer):
    register(viewer, 2, "agent")
    place = Place("agent", "docs")
    dots = [Dot(IDS[2], Head(1, 3), Birth(2, 1))]
    viewer.put(1, REMOVALS, removal_key(place), removal_row(dots))
    assert found(viewer) == []


def test_all_entries_of_one_agent_or_of_all_are_listed_by_name(viewer: Viewer):
    viewer.session(2, "s", agent_id="started", specializations=("docs", "code"))
    viewer.session(2, "over", State.CLOSED, agent_id="over", specializations=("docs",))
    register(viewer, 1, "registered")

    def places(*wanted: str) -> list[tuple[str, str]]:
        found = Specialists(viewer.queries).entries(*wanted)
        return [(one.agent_id, one.specialization) for one in found]

    everything = [("registered", "docs"), ("started", "code"), ("started", "docs")]
    assert places() == everything
    assert places("", "started") == everything[1:]
    assert places("docs", "registered") == everything[:1]
    assert places("", "over") == []


def asked(viewer: Viewer, specialization: str = "docs") -> pb.FindAgentsResponse:
    request = pb.FindAgentsRequest(specialization=specialization)
    return local.find_agents(viewer.queries, request)


def test_who_asks_for_none_is_told_of_all_that_are_alive(viewer: Viewer):
    viewer.session(2, "s", agent_id="started", specializations=("docs", "code"))
    register(viewer, 1, "registered")
    named = [(agent.agent_id, agent.specialization) for agent in asked(viewer, "").agents]
    assert named == [("registered", "docs"), ("started", "code"), ("started", "docs")]


def test_who_registers_very_many_hides_nobody_and_the_best_stay_first(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
):
    for number in range(6):
        register(viewer, 1, f"flood{number}", load="0.0")
    register(viewer, 2, "mine", load="0.9")
    answer = asked(viewer)
    assert (len(answer.agents), answer.more) == (7, 0)
    monkeypatch.setattr(local, "AGENTS_SHOWN", 4)
    answer = asked(viewer)
    names = [agent.agent_id for agent in answer.agents]
    assert (names, answer.more) == (["flood0", "flood1", "flood2", "mine"], 3)


def test_however_much_is_said_of_each_the_answer_is_taken(viewer: Viewer):
    limit = GENESIS.limits.row_bytes_max
    told = {str(number): "x" * 1000 for number in range(15)}
    register(viewer, 1, "a" * 900, **told)
    viewer.session(2, "s", agent_id="b" * 15_000, specializations=("docs",))
    sizes = [agent.ByteSize() for agent in asked(viewer).agents]
    assert len(sizes) == 2
    assert min(sizes) > limit * 0.9
    assert sum(sizes) * local.AGENTS_SHOWN < ANSWER_BYTES_MAX
