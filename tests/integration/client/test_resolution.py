"""Whom a target means: an id, a prefix of one, an agent, or an agent of a node."""

import pytest
from integration.client.service import NODE_IDS, session

from meshnode.client.targets.nodes import node_id_in
from meshnode.client.targets.targets import AmbiguousError, Target
from meshnode.core.errors import (
    ConflictError,
    NotFoundError,
)
from meshnode.core.ids import session_id_of
from meshnode.gateway.problems import problem_of


def test_a_session_is_found_by_its_id_by_a_prefix_and_by_its_agent(mesh, service):
    service.sessions = [session("builder"), session("tester", "berta")]
    wanted = service.sessions[1]
    for target in (
        Target(wanted.session_id),
        Target(wanted.session_id[:8]),
        Target("tester"),
        Target("berta/tester"),
        Target(agent_id="tester"),
        Target(session_id=wanted.session_id),
    ):
        assert mesh.resolve(target)["session_id"] == wanted.session_id


def test_a_member_that_copies_the_row_of_another_is_not_taken_for_it(mesh, service):
    own = session("builder")
    own.session_id = session_id_of(own.node_id, own.session_epoch)
    copy = session("builder", "berta", session_id=own.session_id)
    for listed in ([own, copy], [copy, own]):
        service.sessions = listed
        for word in (own.session_id, own.session_id[:8], "builder"):
            assert mesh.resolve(Target(word))["node_id"] == own.node_id


def test_of_two_rows_with_one_id_that_nobody_proves_both_are_named(mesh, service):
    one = session("builder")
    service.sessions = [one, session("builder", "berta", session_id=one.session_id)]
    with pytest.raises(ConflictError, match="fits 2 sessions"):
        mesh.resolve(Target(one.session_id))


def test_a_prefix_of_seven_characters_is_none(mesh, service):
    service.sessions = [session("builder")]
    with pytest.raises(NotFoundError):
        mesh.resolve(Target(service.sessions[0].session_id[:7]))


def test_agent_ids_match_exactly(mesh, service):
    service.sessions = [session("83")]
    with pytest.raises(NotFoundError):
        mesh.resolve(Target("083"))


@pytest.mark.parametrize("ended", [(False, False), (False, True), (True, False), (True, True)])
def test_a_name_that_is_how_another_sessions_id_begins_is_not_guessed(mesh, service, ended):
    victim = session("victim", session_id="refactor" + "a" * 18, ended=ended[0])
    namesake = session("refactor", "berta", ended=ended[1])
    service.sessions = [namesake, victim, session("refactor", ended=True)]
    with pytest.raises(AmbiguousError, match="fits 2 sessions") as raised:
        mesh.resolve(Target("refactor"))
    for said in ("anna/victim", victim.session_id, "berta/refactor", namesake.session_id):
        assert said in raised.value.message
    assert "--session refactor or --agent-id refactor" in raised.value.hint
    assert mesh.resolve(Target(session_id="refactor"))["agent_id"] == "victim"
    assert mesh.resolve(Target(agent_id="refactor"))["node_name"] == "berta"
    assert mesh.resolve(Target("berta/refactor"))["node_name"] == "berta"


def test_a_whole_session_id_is_never_an_agents_name(mesh, service):
    victim = session("victim", ended=True)
    service.sessions = [session(victim.session_id, "berta"), victim]
    assert mesh.resolve(Target(victim.session_id))["agent_id"] == "victim"


def test_an_agent_may_be_called_as_its_own_sessions_id_begins(mesh, service):
    service.sessions = [session("refactor", session_id="refactor" + "a" * 18)]
    assert mesh.resolve(Target("refactor"))["agent_id"] == "refactor"


def test_an_agent_id_with_a_slash_is_found_before_it_is_taken_apart(mesh, service):
    service.sessions = [session("berta/x"), session("x", "berta")]
    assert mesh.resolve(Target("berta/x"))["agent_id"] == "berta/x"


def test_the_live_session_of_an_agent_comes_before_its_ended_ones(mesh, service):
    live = session("builder")
    service.sessions = [session("builder", ended=True), live, session("builder", ended=True)]
    assert mesh.resolve(Target("builder"))["session_id"] == live.session_id


def test_of_ended_sessions_the_last_is_meant(mesh, service):
    last = session("builder", ended=True, ended_at="2026-11-20T09:00:00.000Z")
    service.sessions = [session("builder", ended=True), last, session("builder", ended=True)]
    assert mesh.resolve(Target("builder"))["session_id"] == last.session_id


def test_an_agent_live_twice_is_a_conflict_that_lists_the_candidates(mesh, service):
    service.sessions = [session("builder"), session("builder", "berta")]
    with pytest.raises(ConflictError, match=r"anna/builder.*berta/builder") as raised:
        mesh.steer(Target("builder"), message="hello")
    assert raised.value.exit_code == 7
    assert raised.value.hint == "say which: node/agent, or a session id"
    assert service.commands == []
    assert mesh.resolve(Target("builder", node="berta"))["node_name"] == "berta"


def test_an_agent_live_twice_on_one_node_is_told_apart_by_session_id_alone(mesh, service):
    service.sessions = [session("builder"), session("builder"), session("builder", "berta")]
    for word in ("builder", "anna/builder"):
        with pytest.raises(AmbiguousError) as raised:
            mesh.resolve(Target(word))
        assert raised.value.hint == "say which: a session id"
        assert "node" not in problem_of(raised.value).hint


def test_candidates_on_namesakes_are_named_apart(mesh, service):
    service.sessions = [session("x"), session("x", "berta", node_name="anna")]
    with pytest.raises(AmbiguousError, match=f"anna/{NODE_IDS['berta'][:8]}/x") as raised:
        mesh.resolve(Target("x"))
    assert "node/agent" in raised.value.hint
    assert problem_of(raised.value).hint.startswith("say which: node, or session_id")


def test_an_unknown_name_is_not_found_and_the_nearest_is_offered(mesh, service):
    service.sessions = [session("builder")]
    with pytest.raises(NotFoundError) as raised:
        mesh.resolve(Target("bilder"))
    assert raised.value.hint == 'did you mean "builder"?'


def test_nodes_are_found_by_name_by_id_and_by_prefix(mesh):
    berta = NODE_IDS["berta"]
    words = ("berta", berta, berta[:8], f"berta/{berta[:8]}")
    assert [mesh.node_id_of(name) for name in words] == [berta] * 4
    for name in ("carla", f"anna/{berta[:8]}", f"berta/{berta[:7]}"):
        with pytest.raises(NotFoundError):
            mesh.node_id_of(name)


def test_a_node_that_is_called_as_anothers_id_begins_is_not_taken_for_it():
    anna, berta = NODE_IDS["anna"], NODE_IDS["berta"]
    short = anna[:10]
    nodes = [{"node_id": anna, "name": "anna"}, {"node_id": berta, "name": short}]
    with pytest.raises(ConflictError, match="fits 2 nodes") as raised:
        node_id_in(nodes, short)
    assert f"whole id: {anna} (anna), {berta} ({short})" in raised.value.hint
    assert [node_id_in(nodes, word) for word in (anna, "anna", anna[:11])] == [anna] * 3
    assert [node_id_in(nodes, word) for word in (berta, berta[:8])] == [berta] * 2


def test_a_whole_node_id_is_never_a_name():
    anna, berta = NODE_IDS["anna"], NODE_IDS["berta"]
    nodes = [{"node_id": berta, "name": anna}, {"node_id": anna, "name": "anna"}]
    assert node_id_in(nodes, anna) == anna


def test_a_namesakes_agent_is_found_by_the_name_that_tables_give_its_node(mesh, service):
    service.sessions = [session("x", "berta"), session("x/y", "berta")]
    node = f"berta/{NODE_IDS['berta'][:8]}"
    for agent in ("x", "x/y"):
        assert mesh.resolve(Target(f"{node}/{agent}"))["agent_id"] == agent
        assert mesh.resolve(Target(f"berta/{agent}"))["agent_id"] == agent
