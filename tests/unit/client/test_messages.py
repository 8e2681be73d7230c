"""Protobuf as the contract's plain values."""

import json

from meshnode.client.messages import to_plain
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1.coverage_pb2 import Coverage, MissingNode
from meshnode.v1.session_pb2 import Can, Session
from meshnode.v1.signed_pb2 import Signed
from meshnode.v1.usage_pb2 import Buckets, CostGroup

CONTRACT_SESSION = [
    "session_id",
    "agent_id",
    "title",
    "node_id",
    "node_name",
    "adapter",
    "state",
    "phase",
    "alive",
    "active",
    "waiting_for",
    "specializations",
    "owner",
    "project",
    "cwd",
    "pid",
    "created_at",
    "last_activity",
    "observed_at",
    "ended_at",
    "end_reason",
    "exit_code",
    "signal",
    "ended_by",
    "message_count",
    "tool_calls",
    "model",
    "usage",
    "cost_usd",
    "labels",
    "can",
    "orders",
]


def test_a_session_has_every_field_of_the_contract_under_its_name():
    plain = to_plain(Session())
    assert set(plain) == {*CONTRACT_SESSION, "session_epoch", "session_start"}


def test_what_is_absent_is_none_and_what_is_zero_is_zero():
    plain = to_plain(Session(exit_code=0))
    assert plain["exit_code"] == 0
    assert plain["title"] is None
    assert plain["pid"] is None
    assert plain["message_count"] == 0
    assert plain["specializations"] == []
    assert plain["labels"] == {}


def test_integers_of_64_bits_stay_integers():
    plain = to_plain(Session(session_epoch=2**64 - 1, usage=Buckets(total=2**63)))
    assert plain["session_epoch"] == 2**64 - 1
    assert plain["usage"]["total"] == 2**63
    assert json.loads(json.dumps(plain)) == plain


def test_messages_and_maps_nest():
    session = Session(
        labels={"team": "core"}, specializations=["a", "b"], can=Can(steer="queue", kill="tree")
    )
    plain = to_plain(session)
    assert plain["labels"] == {"team": "core"}
    assert plain["specializations"] == ["a", "b"]
    assert plain["can"] == {"steer": "queue", "kill": "tree"}


def test_a_message_that_was_not_sent_is_a_map_of_nothing():
    plain = to_plain(Session())
    assert plain["usage"]["total"] == 0
    assert to_plain(pb.ListSessionsResponse())["coverage"]["nodes_known"] == 0


def test_coverage_reads_as_the_contract_says():
    coverage = Coverage(
        nodes_known=3, nodes_heard=2, missing=[MissingNode(node_name="berta", state="dead")]
    )
    assert to_plain(coverage) == {
        "nodes_known": 3,
        "nodes_heard": 2,
        "oldest_s": None,
        "missing": [{"node_name": "berta", "state": "dead", "observed_at": None}],
        "missing_more": 0,
    }


def test_a_cost_group_keeps_its_key_as_a_map():
    plain = to_plain(CostGroup(key={"model": "m", "day": "2026-11-20"}, models=["m"]))
    assert plain["key"] == {"model": "m", "day": "2026-11-20"}
    assert plain["cost_usd"] is None


def test_bytes_become_base64():
    assert to_plain(Signed(type="t", payload=b"\0\1"))["payload"] == "AAE="
