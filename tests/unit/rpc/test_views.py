import pytest
from msgspec.structs import replace

from meshnode.app.cost.cost import CostAnswer, CostGroup
from meshnode.app.cost.cutting import CostQuery
from meshnode.app.queries.views import (
    AgentView,
    Coverage,
    Missing,
    NodeView,
    SessionView,
    Source,
    Status,
    Trouble,
)
from meshnode.core.errors import UsageError
from meshnode.core.ids import NodeId, SessionId
from meshnode.core.ledger.ledger import Buckets, Diagnostics
from meshnode.core.links.liveness import MemberState
from meshnode.core.sessions.sessions import PHASE, SessionRecord, State
from meshnode.rpc.cost import answer_to_wire, query_from_wire
from meshnode.rpc.views import (
    agent_to_wire,
    coverage_to_wire,
    node_to_wire,
    session_to_wire,
    status_to_wire,
)
from meshnode.v1 import coverage_pb2, local_service_pb2

ANNA = NodeId("a" * 52)
RECORD = SessionRecord(SessionId("s"), 2**64 - 1, "coder", State.RUNNING, 100.0, 101.5)
ENDED = replace(
    RECORD,
    state=State.CLOSED,
    ended_at_s=200.0,
    end_reason="exited",
    pid=4711,
    exit_code=-1,
    signal="TERM",
    ended_by="k",
)
NOTHING_MISSING = Coverage(1, 1, None, (), 0)


def view(record=RECORD, state=None, **changes):
    return SessionView(record, ANNA, "anna", state or record.state, 102.0, **changes)


def test_a_session_says_what_is_known_and_leaves_out_what_is_not():
    session = session_to_wire(view())
    assert (session.session_id, session.node_name, session.phase) == ("s", "anna", "ACTIVE")
    assert session.created_at == "1970-01-01T00:01:40.000Z"
    assert session.last_activity == "1970-01-01T00:01:41.500Z"
    assert session.session_epoch == 2**64 - 1
    optional = ("title", "pid", "ended_at", "exit_code", "signal", "cost_usd", "model", "cwd")
    assert [name for name in optional if session.HasField(name)] == []


def test_an_ended_session_says_how_and_can_no_longer_be_commanded():
    session = session_to_wire(view(ENDED))
    assert (session.exit_code, session.signal, session.end_reason) == (-1, "TERM", "exited")
    assert session.ended_at == "1970-01-01T00:03:20.000Z"
    assert (session.can.steer, session.can.kill) == ("none", "none")
    assert not session.alive


def test_a_session_has_a_process_until_it_ends():
    assert session_to_wire(view(replace(RECORD, pid=4711))).pid == 4711
    assert not session_to_wire(view(ENDED)).HasField("pid")


def test_an_exit_code_of_zero_is_there():
    session = session_to_wire(view(replace(ENDED, exit_code=0)))
    assert session.HasField("exit_code")
    assert session.exit_code == 0


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_phase(state):
    session = session_to_wire(view(state=state))
    assert (session.state, session.phase) == (state, PHASE[state])


def test_a_session_of_an_unreachable_node_is_not_alive():
    session = session_to_wire(view(state=State.UNREACHABLE))
    assert (session.alive, session.active) == (False, False)
    assert session.can.kill == "tree"  # it may be, once its owner is heard again


def test_the_model_that_was_paid_for_stands_before_the_one_that_was_named():
    named = replace(RECORD, model="named")
    assert session_to_wire(view(named)).model == "named"
    assert session_to_wire(view(named, model="paid")).model == "paid"


@pytest.mark.parametrize(("nusd", "text"), [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5")])
def test_money_is_a_decimal_text_and_nothing_is_not_zero(nusd, text):
    session = session_to_wire(view(cost_nusd=nusd))
    assert session.HasField("cost_usd")
    assert float(session.cost_usd) == float(text)
    assert "e" not in session.cost_usd


def test_tokens_are_told_with_their_sum():
    usage = Buckets(input=1, cache_read=2, output=4)
    buckets = session_to_wire(view(usage=usage)).usage
    assert (buckets.input, buckets.cache_read, buckets.output) == (1, 2, 4)
    assert buckets.total == usage.total == 7


def test_a_member_is_told_whole():
    member = NodeView(
        node_id=ANNA,
        name="anna",
        state=MemberState.ALIVE,
        addresses=("192.0.2.1:7707",),
        epoch=3,
        version="1",
        labels={"zone": "b"},
        sessions=2,
        since_s=60.0,
        last_heard_s=None,
        links=(NodeId("b" * 52),),
        is_self=True,
        journal_generation=2**64 - 1,
    )
    node = node_to_wire(member)
    assert (node.node_id, node.name, node.state) == (ANNA, "anna", "alive")
    assert (list(node.addresses), dict(node.labels)) == (["192.0.2.1:7707"], {"zone": "b"})
    assert (node.since, node.HasField("last_heard")) == ("1970-01-01T00:01:00.000Z", False)
    assert node.self is True
    assert node.journal_generation == 2**64 - 1


@pytest.mark.parametrize(("load", "known"), [("0.5", 0.5), ("much", None), (None, None)])
def test_an_agent_tells_its_load_if_it_is_a_number(load, known):
    attributes = {} if load is None else {"load": load}
    agent = agent_to_wire(AgentView("coder", None, ANNA, "anna", "review", attributes))
    assert agent.alive
    assert (agent.load if agent.HasField("load") else None) == known
    assert not agent.HasField("session_id")


def test_coverage_names_who_is_missing():
    missing = (
        Missing("bert", MemberState.UNREACHABLE, 60.0),
        Missing("carl", MemberState.DEAD, None),
    )
    coverage = coverage_to_wire(Coverage(5, 3, 12.5, missing, 7))
    assert (coverage.nodes_known, coverage.nodes_heard, coverage.missing_more) == (5, 3, 7)
    assert coverage.oldest_s == 12.5
    assert [(one.node_name, one.state) for one in coverage.missing] == [
        ("bert", "unreachable"),
        ("carl", "dead"),
    ]
    assert coverage.missing[0].observed_at == "1970-01-01T00:01:00.000Z"
    assert not coverage.missing[1].HasField("observed_at")


def test_coverage_of_oneself_alone_has_no_age():
    assert not coverage_to_wire(NOTHING_MISSING).HasField("oldest_s")


def test_a_status_tells_troubles_and_sources():
    status = Status(
        node_id=ANNA,
        name="anna",
        mesh_id="m",
        mesh_name="lab",
        version="1",
        pid=1,
        started_at_s=60.0,
        listen="127.0.0.1:7707",
        enrolment="127.0.0.1:7708",
        nodes_alive=1,
        links=0,
        sessions=2,
        mdns="off",
        rss_bytes=1 << 40,
        role="admin",
        build="0011aabb",
        schema=12,
        troubles=(Trouble("bert", "no answer", 60.0),),
        sources=(Source("higress", "a.log", 3, "ok"),),
    )
    answer = status_to_wire(status, NOTHING_MISSING)
    assert list(answer.listen) == ["127.0.0.1:7707"]
    assert answer.rss_bytes == 1 << 40
    assert (answer.build, answer.schema) == ("0011aabb", 12)
    assert [(one.peer, one.reason, one.at) for one in answer.troubles] == [
        ("bert", "no answer", "1970-01-01T00:01:00.000Z")
    ]
    assert [(one.source, one.path, one.records) for one in answer.sources] == [
        ("higress", "a.log", 3)
    ]


def test_a_question_of_cost_without_times_is_about_all_times():
    request = local_service_pb2.GetCostRequest()
    assert query_from_wire(request, NodeId) == CostQuery((), None, None, "UTC")


def test_a_question_of_cost_with_times_is_understood():
    request = local_service_pb2.GetCostRequest(
        by=["model"], since="1970-01-01T00:01:00Z", until="1970-01-01T01:01:00+01:00", tz="UTC"
    )
    assert query_from_wire(request, NodeId) == CostQuery(("model",), 60.0, 60.0, "UTC")


def test_a_question_of_cost_with_no_time_is_the_callers_fault():
    with pytest.raises(UsageError):
        query_from_wire(local_service_pb2.GetCostRequest(since="yesterday"), NodeId)
    with pytest.raises(UsageError, match="at most 9999 groups are told apart, not 10000"):
        query_from_wire(local_service_pb2.GetCostRequest(most=10_000), NodeId)
    assert query_from_wire(local_service_pb2.GetCostRequest(most=9_999), NodeId).most == 9_999


def an_answer(cost_nusd, groups=()):
    return CostAnswer(2, Buckets(input=3), cost_nusd, groups, (), Diagnostics(5, 1), "shipped")


def test_what_nobody_priced_is_not_told_as_free():
    group = CostGroup({"model": "m"}, 1, 1, ("m",), Buckets(output=1), None)
    answer = answer_to_wire(an_answer(None, (group,)), coverage_pb2.Coverage())
    assert not answer.HasField("cost_usd")
    assert not answer.groups[0].HasField("cost_usd")
    assert dict(answer.groups[0].key) == {"model": "m"}


def test_an_answer_of_cost_is_told_whole():
    answer = answer_to_wire(an_answer(0), coverage_pb2.Coverage(nodes_known=4, nodes_heard=3))
    assert answer.HasField("cost_usd")
    assert (answer.records, answer.totals.total, answer.tz_exact) == (2, 3, True)
    assert answer.diagnostics.requests_without_usage == 1
    assert (answer.coverage.nodes_known, answer.coverage.nodes_heard) == (4, 3)
