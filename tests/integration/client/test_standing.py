"""Standing kills from a user's side: when one is left, what it says, and who takes it back."""

import grpc
import pytest
from integration.client.service import NODE_IDS, NOW_S, session

from meshnode.client.commands import standing
from meshnode.client.keys.authority import operator_id
from meshnode.client.targets.targets import Delivery, Target, Terms
from meshnode.core.control.entries import Cancel, StandingKill
from meshnode.core.errors import (
    ConflictError,
    ExpiredError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from meshnode.core.ids import b32
from meshnode.v1.order_service_pb2 import StandingOrder

TERMS = Terms()
ORDER_ID = b32(bytes(range(16)))
_FAILED = grpc.StatusCode.FAILED_PRECONDITION


def lost(agent_id="builder", **changes):
    return session(
        agent_id,
        "berta",
        **{"state": "unreachable", "phase": "RECONNECT", "alive": False} | changes,
    )


def test_who_is_known_to_be_away_is_left_an_order_at_once(mesh, service):
    service.sessions = [lost()]
    said = standing.kill_or_park(mesh, Target("builder"), Terms(3600, grace_s=9), Delivery())
    assert service.commands == []
    (entry,) = service.entries
    one = service.sessions[0]
    expected = StandingKill(one.session_id, one.session_epoch, node=one.node_id, grace_s=9)
    assert entry.body == expected
    assert (entry.issued_s, entry.expires_s) == (NOW_S, NOW_S + 3600)
    assert (said["outcome"], said["session_id"]) == ("parked", one.session_id)
    assert said["detail"] == "berta ends it when it hears of it, until 2026-11-20T01:00:00.000Z"
    assert len(said["order_id"]) == 26


def test_who_can_be_reached_is_ended_now(mesh, service):
    service.sessions, service.outcome = [session("builder")], "applied"
    said = standing.kill_or_park(mesh, Target("builder"), TERMS, Delivery())
    assert (said["outcome"], len(service.commands), service.entries) == ("applied", 1, [])


def test_who_turns_out_to_be_away_is_left_an_order(mesh, service):
    service.sessions, service.away = [session("builder", "berta")], {NODE_IDS["berta"]}
    said = standing.kill_or_park(mesh, Target("builder"), Terms(force=True), Delivery(1.0))
    sent = {command.payload for command in service.commands}  # the same, as often as it is tried
    assert (said["outcome"], len(sent)) == ("parked", 1)
    assert (service.entries[0].body.force, service.entries[0].body.grace_s) == (True, 0)


def test_a_node_that_was_revoked_is_left_no_order_that_it_never_hears_of(mesh, service):
    service.sessions, service.state_of_others = [lost()], "revoked"
    with pytest.raises(UnreachableError, match="berta was revoked") as raised:
        standing.kill_or_park(mesh, Target("builder"), TERMS, Delivery())
    assert raised.value.hint == "stop its agents on that machine"
    assert (service.commands, service.entries) == ([], [])


def test_whose_clock_calls_the_kill_expired_is_left_an_order(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(_FAILED, ExpiredError("this node's clock has shown more before"))]
    said = standing.kill_or_park(mesh, Target("builder"), TERMS, Delivery())
    assert (said["outcome"], len(service.entries)) == ("parked", 1)


def test_who_refuses_is_left_no_order(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(_FAILED, RefusedError("no"))]
    with pytest.raises(RefusedError):
        standing.kill_or_park(mesh, Target("builder"), TERMS, Delivery())
    assert service.entries == []


def test_a_kill_that_does_not_arrive_offers_to_wait(mesh, service):
    service.sessions, service.away = [session("builder", "berta")], {NODE_IDS["berta"]}
    with pytest.raises(UnreachableError) as raised:
        mesh.kill(Target("builder"))
    assert raised.value.hint.endswith("to end it when it returns, add --standing")


@pytest.mark.parametrize("expires_s", [0, -1, 7 * 86400 + 1])
def test_an_order_stands_for_a_week_at_most(mesh, service, expires_s):
    service.sessions = [lost()]
    with pytest.raises(UsageError, match="7 days"):
        standing.kill_or_park(mesh, Target("builder"), Terms(expires_s), Delivery())
    assert service.entries == []


def test_an_order_can_wait_for_whatever_started_before_it(mesh, service):
    said = standing.park_for(mesh, "docs", NODE_IDS["berta"], TERMS)
    (entry,) = service.entries
    assert entry.body == StandingKill(specialization="docs", node=NODE_IDS["berta"])
    assert said["expires_at"] == "2026-11-21T00:00:00.000Z"


def test_a_device_without_a_role_leaves_no_order(mesh, service, home):
    home.operator_key.unlink()
    service.sessions = [lost()]
    with pytest.raises(NotAuthenticatedError):
        standing.kill_or_park(mesh, Target("builder"), TERMS, Delivery())
    assert service.entries == []


# taking back


def order(service, **changes):
    said = {
        "order_id": ORDER_ID,
        "issuer": operator_id(service.home),
        "session_id": "s" * 26,
        "issued_at": "2026-11-20T00:00:00.000Z",
        "expires_at": "2026-11-21T00:00:00.000Z",
        "state": "standing",
    }
    return StandingOrder(**said | changes)


@pytest.mark.parametrize("name", [ORDER_ID, ORDER_ID[:8]])
def test_an_order_is_taken_back_for_as_long_as_it_would_stand(mesh, service, name):
    service.orders = [order(service)]
    assert standing.cancel(mesh, name)["state"] == "cancelled"
    (entry,) = service.entries
    assert entry.body == Cancel(bytes(range(16)))
    assert entry.expires_s == NOW_S + 86400


def test_an_admin_takes_back_the_order_of_another(mesh, service):
    service.orders, service.role = [order(service, issuer="0123456789abcdef")], "admin"
    assert standing.cancel(mesh, ORDER_ID)["state"] == "cancelled"


def test_another_operator_is_told_who_can(mesh, service):
    service.orders = [order(service, issuer="0123456789abcdef")]
    with pytest.raises(NotPermittedError, match="left by 0123456789abcdef"):
        standing.cancel(mesh, ORDER_ID)
    assert service.entries == []


@pytest.mark.parametrize("state", ["done", "cancelled", "void"])
def test_what_does_not_stand_is_not_taken_back(mesh, service, state):
    service.orders = [order(service, state=state)]
    with pytest.raises(ConflictError, match="nothing to take back"):
        standing.cancel(mesh, ORDER_ID)
    assert service.entries == []


def test_an_order_is_named_by_enough_of_its_id(mesh, service):
    twin = ORDER_ID[:10] + "a" * 16
    service.orders = [order(service), order(service, order_id=twin)]
    for name, error in (
        (ORDER_ID[:9], ConflictError),
        (ORDER_ID[:7], NotFoundError),
        ("nonesuch", NotFoundError),
    ):
        with pytest.raises(error):
            standing.cancel(mesh, name)
    assert service.entries == []
    assert [one["order_id"] for one in standing.orders(mesh)["orders"]] == [ORDER_ID, twin]
