"""Orders to many: one target, however hostile, changes nothing for the others."""

import io
from threading import Event, Lock

import pytest
from integration.client.service import (
    CHANCE,
    NODE_IDS,
    NODE_KEYS,
    NOW_S,
    served,
    session,
    short_home,
)

from meshnode.client.commands.fanning import AT_ONCE, fan_out
from meshnode.client.commands.standing import kill_or_park, park_for
from meshnode.client.connection.retrying import PAUSES_S
from meshnode.client.keys.authority import Scope, new_key
from meshnode.client.mesh import MeshClient
from meshnode.client.targets.targets import Delivery, Selection, Target, Terms
from meshnode.core.errors import NotPermittedError, StaleError
from session_mesh.call import Call
from session_mesh.orders.orders import Aim, asked, carry_out
from session_mesh.output.render import Streams, render

pytestmark = pytest.mark.integration


@pytest.fixture
def service():
    with short_home() as home, served(home) as service:
        service.outcome = "applied"
        yield service


@pytest.fixture
def mesh(service):
    with MeshClient(service.home, environment={}, now=lambda: NOW_S, chance=CHANCE) as mesh:
        yield mesh


def listed(mesh):
    return mesh.list_sessions(Selection())["sessions"]


def anybody(target):
    return dict.fromkeys(("session_id", "agent_id", "node_id", "node_name"), str(target))


def killed(mesh, sessions, **options):
    act = lambda one: mesh.kill(one, delivery=Delivery(2.0))  # noqa: E731 - said once
    return fan_out(sessions, act, mesh.resolve, **options)


def test_a_target_that_hangs_holds_up_no_other(mesh, service):
    service.sessions = [session("stuck", "berta"), *(session(f"a{n}") for n in range(40))]
    service.hanging = {NODE_IDS["berta"]}
    others = Event()

    def told(count):
        if count == 40:
            others.set()
            service.release.set()

    results = killed(mesh, listed(mesh), told=told)
    assert others.is_set()
    assert [one["outcome"] for one in results] == ["applied"] * 41


def test_no_more_are_under_way_than_is_said():
    lock, now, most = Lock(), 0, 0
    gate = Event()

    def act(_target):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if most == AT_ONCE:
                gate.set()
        gate.wait(10.0)
        with lock:
            now -= 1
        return {"outcome": "applied"}

    results = fan_out([Target(f"t{n}") for n in range(100)], act, anybody)
    assert most == AT_ONCE
    assert [one["target"] for one in results] == [f"t{n}" for n in range(100)]


def test_an_owner_that_is_away_is_asked_once_for_all_its_sessions(mesh, service):
    gone = {"state": "unreachable", "phase": "RECONNECT", "alive": False}
    service.sessions = [session(f"b{n}", "berta", **gone) for n in range(50)]
    service.sessions.append(session("here"))
    service.away = {NODE_IDS["berta"]}
    results = killed(mesh, listed(mesh))
    assert len({one.hash for one in service.commands}) == 2
    assert len(service.commands) <= 2 + len(PAUSES_S)  # what was certainly not sent is sent again
    assert [one["exit_code"] for one in results[:50]] == [6] * 50
    assert results[50]["outcome"] == "applied"


def test_a_forged_receipt_spoils_its_own_result_only(mesh, service):
    """berta's receipts are signed with anna's key."""
    service.sessions = [session("theirs", "berta"), session("ours")]
    service.receipt_key = NODE_KEYS["anna"]
    theirs, ours = killed(mesh, listed(mesh))
    assert (theirs["outcome"], ours["outcome"]) == ("peer", "applied")
    assert "not genuine" in theirs["detail"]
    assert "receipt" not in theirs


def test_a_receipt_for_another_target_is_nobodys(mesh, service):
    service.sessions = [session("one"), session("two")]
    service.forge = {"session": service.sessions[0].session_id}
    one, two = killed(mesh, listed(mesh))
    assert (one["outcome"], two["outcome"]) == ("applied", "peer")


def test_a_target_that_starts_anew_again_and_again_ends_its_own_order_only(mesh, service):
    service.sessions = [session("calm"), session("restless")]
    tries = []

    def act(one):
        def stale(_session):
            tries.append(1)
            raise StaleError("another start")

        if one["agent_id"] == "restless":
            return mesh._fresh(one, stale)
        return mesh.kill(one)

    calm, restless = fan_out(listed(mesh), act, mesh.resolve)
    assert (calm["outcome"], restless["outcome"]) == ("applied", "stale")
    assert len(tries) == 2, "once, and once more"


def test_a_name_that_fits_two_sessions_ends_neither(mesh, service):
    service.sessions = [session("twin"), session("twin", "berta"), session("other")]
    named = [Target("twin"), Target("other")]
    twin, other = killed(mesh, named)
    assert (twin["outcome"], other["outcome"]) == ("conflict", "applied")
    assert len(service.commands) == 1


def test_what_a_program_gets_wrong_is_not_told_as_done():
    def broken(_target):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fan_out([Target("a"), Target("b")], broken, anybody)


def test_names_that_write_to_a_terminal_are_shown_as_they_are(mesh, service, monkeypatch):
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnp"
    service.sessions = [session(evil, node_name=evil) for _ in range(12)]
    service.outcome = "applied"
    streams = Streams(io.StringIO(), io.StringIO(), err_is_terminal=False)
    call = Call(streams)
    aim = Aim(listed(mesh), mesh.list_sessions()["coverage"], Selection())
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    aim = asked(call, mesh, aim, "kill")
    code = render(carry_out(call, mesh, aim, mesh.kill), streams)
    assert code == 0
    for text in (streams.out.getvalue(), streams.err.getvalue()):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert len(service.commands) == 12


def test_a_session_key_leaves_no_orders_and_takes_none_back(mesh, service):
    gone = {"state": "unreachable", "phase": "RECONNECT", "alive": False}
    service.sessions = [session("builder", "berta", **gone)]
    scope = Scope(("kill", "read"))
    mesh.environment = {"SESSION_API_KEY": new_key(service.home, scope, 3600, NOW_S, CHANCE)["key"]}
    attempts = (
        lambda: kill_or_park(mesh, Target("builder"), Terms(), Delivery()),
        lambda: park_for(mesh, "docs", "", Terms()),
    )
    for attempt in attempts:
        with pytest.raises(NotPermittedError, match="session key"):
            attempt()
    assert (service.entries, service.commands) == ([], [])


def test_a_kill_of_all_leaves_orders_for_those_only_that_are_away(mesh, service):
    gone = {"state": "unreachable", "phase": "RECONNECT", "alive": False}
    service.sessions = [session("here"), session("there", "berta", **gone)]
    act = lambda one: kill_or_park(mesh, one, Terms(), Delivery())  # noqa: E731 - said once
    here, there = fan_out(listed(mesh), act, mesh.resolve)
    assert (here["outcome"], there["outcome"]) == ("applied", "parked")
    assert [one.body.session for one in service.entries] == [service.sessions[1].session_id]
    assert len(service.commands) == 1
