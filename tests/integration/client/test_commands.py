"""What the client signs, when it signs anew, and which receipts it believes."""

import json

import grpc
import pytest
from integration.client.service import CHANCE, GENERATION, NODE_IDS, NODE_KEYS, NOW_S, session

from meshnode.client.commands import outbox
from meshnode.client.connection.retrying import PAUSES_S
from meshnode.client.keys.authority import Scope, new_key
from meshnode.client.records.output import Following, Span
from meshnode.client.targets.targets import WAITS, Delivery, Target
from meshnode.client.targets.wishes import EndedError
from meshnode.core.commands.commands import command_from_signed
from meshnode.core.errors import (
    ConflictError,
    ExhaustedError,
    ExpiredError,
    MeshError,
    NoAnswerError,
    NotAuthenticatedError,
    NotFoundError,
    PeerError,
    StaleError,
    UnreachableError,
)
from meshnode.core.ids import b32


def test_a_steer_is_signed_for_its_session_and_its_receipt_verified(mesh, service):
    service.sessions = [session("builder", "berta")]
    said = mesh.steer(Target("builder"), message="go on", direction="north", mode="now")
    (signed,) = service.commands
    command = command_from_signed(signed)
    assert command.args == {"direction": "north", "message": "go on", "mode": "now"}
    assert (command.node, command.session) == (NODE_IDS["berta"], service.sessions[0].session_id)
    assert command.epoch == 2**63 + 5
    assert (command.issued_s, command.expires_s) == (NOW_S, NOW_S + 300)
    assert set(said) == {
        "command_id",
        "session_id",
        "node_id",
        "outcome",
        "at",
        "detail",
        "receipt",
        "receipt_verified",
    }
    assert said["command_id"] == b32(command.command_id)
    assert (said["outcome"], said["at"]) == ("delivered", "2026-11-20T00:00:00.000Z")
    assert said["receipt_verified"] is True


def test_a_kill_lives_half_a_day_and_says_what_it_found(mesh, service):
    service.sessions = [session("builder")]
    service.outcome = "applied"
    said = mesh.kill(Target("builder"), grace_s=9)
    command = command_from_signed(service.commands[0])
    assert command.args == {"force": False, "grace_s": 9}
    assert command.expires_s - command.issued_s == 43200
    assert said["processes"] == {"found": 2, "gone": 2, "survivors": []}


def test_force_leaves_no_grace(mesh, service):
    service.sessions = [session("builder")]
    mesh.kill(Target("builder"), force=True)
    assert command_from_signed(service.commands[0]).args == {"force": True, "grace_s": 0}


def test_killing_what_has_ended_changes_nothing_and_is_no_error(mesh, service):
    service.sessions = [session("builder", ended=True)]
    said = mesh.kill(Target("builder"))
    assert (said["outcome"], said["detail"]) == ("applied", "already ended")
    assert (said["receipt"], said["receipt_verified"]) == (None, False)
    assert service.commands == []


def test_steering_what_has_ended_is_a_conflict(mesh, service):
    service.sessions = [session("builder", ended=True)]
    with pytest.raises(ConflictError, match="has ended"):
        mesh.steer(Target("builder"), message="hello")
    assert service.commands == []


def test_register_goes_to_this_node_under_its_journal_generation(mesh, service):
    said = mesh.register("789", "data-analysis", {"load": "0.3"})
    command = command_from_signed(service.commands[0])
    assert (command.node, command.session, command.epoch) == (NODE_IDS["anna"], "", GENERATION)
    assert command.args == {
        "agent_id": "789",
        "specialization": "data-analysis",
        "attributes": {"load": "0.3"},
    }
    assert (said["agent_id"], said["session_id"]) == ("789", None)


def test_unregister_asks_this_node_too(mesh, service):
    said = mesh.unregister("789", "data-analysis")
    command = command_from_signed(service.commands[0])
    assert (command.node, command.action) == (NODE_IDS["anna"], "unregister")
    assert command.args == {"agent_id": "789", "specialization": "data-analysis"}
    assert (said["agent_id"], said["specialization"]) == ("789", "data-analysis")


def test_logs_are_read_with_a_signed_request(mesh, service):
    service.sessions = [session("builder", ended=True)]
    assert b"".join(mesh.logs(Target("builder"), Span(tail=5))) == b"tail 5\n\xff\n"


def followed(mesh, service, absent):
    """Follow what a session writes up to its first piece: another is to come, which is the last."""
    service.sessions = [session("builder")]
    heads = [
        json.dumps({"position": at, "lost": 0, "ended": at > 0}).encode() + b"\n" for at in (0, 3)
    ]
    service.readings = [[heads[0], b"one"], [heads[1], b"two"]]
    pieces = Following(mesh, mesh.resolve(Target("builder")), absent, lambda _: None).pieces(Span())
    assert next(pieces).output == b"one"
    return pieces


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ExhaustedError("too many readings at once"), []),
        (NoAnswerError("berta did not answer in time"), [True, False]),
    ],
)
def test_who_follows_hears_of_a_node_that_does_not_answer_and_not_of_one_that_is_busy(
    mesh, service, error, told
):
    absent = []
    pieces = followed(mesh, service, absent.append)
    service.errors = [(grpc.StatusCode.RESOURCE_EXHAUSTED, error)] * 6
    assert [piece.output for piece in pieces] == [b"two"]
    assert absent == told


def test_who_follows_waits_too_where_nobody_says_which_epoch_it_is_now(mesh, service):
    absent = []
    pieces = followed(mesh, service, absent.append)
    service.errors = [(grpc.StatusCode.FAILED_PRECONDITION, StaleError("another epoch"))]
    away = NoAnswerError("the node did not answer in time")
    service.listing_errors = [(grpc.StatusCode.DEADLINE_EXCEEDED, away)] * 6
    assert [piece.output for piece in pieces] == [b"two"]
    assert absent == [True, False]


def test_a_log_that_is_refused_is_a_mesh_error(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(grpc.StatusCode.NOT_FOUND, NotFoundError("no log", "none"))]
    with pytest.raises(NotFoundError, match="no log"):
        list(mesh.logs(Target("builder")))


@pytest.mark.parametrize(
    "forge",
    [
        {"command_id": b"x" * 16},
        {"command_hash": b"x" * 32},
        {"node": NODE_IDS["berta"]},
        {"session": "another"},
        {"mesh": "another"},
    ],
    ids=lambda forge: next(iter(forge)),
)
def test_a_receipt_about_something_else_is_refused(mesh, service, forge):
    service.sessions = [session("builder")]
    service.forge = forge
    with pytest.raises(PeerError, match="receipt is not genuine"):
        mesh.steer(Target("builder"), message="hello")


def test_a_receipt_that_another_key_signed_is_refused(mesh, service):
    service.sessions = [session("builder")]
    service.receipt_key = NODE_KEYS["berta"]
    with pytest.raises(PeerError, match="receipt is not genuine"):
        mesh.kill(Target("builder"))


def test_a_stale_command_is_signed_anew_once_for_what_is_there_now(mesh, service):
    stale = session("builder", session_epoch=1)
    service.sessions = [stale]
    service.errors = [(grpc.StatusCode.ABORTED, StaleError("an earlier start"))]
    assert mesh.steer(Target("builder"), message="hello")["outcome"] == "delivered"
    assert len(service.commands) == 1
    service.errors = [(grpc.StatusCode.ABORTED, StaleError("an earlier start"))] * 2
    with pytest.raises(StaleError):
        mesh.steer(Target("builder"), message="hello")


def test_a_retry_of_a_command_id_sends_the_very_same_command(mesh, service):
    service.sessions = [session("builder")]
    delivery = Delivery(command_id=b32(CHANCE(16)))
    said = [mesh.steer(Target("builder"), message="go", delivery=delivery) for _ in range(2)]
    first, second = service.commands
    assert first == second
    assert [one["command_id"] for one in said] == [delivery.command_id] * 2


def test_what_was_sent_before_its_owner_lost_its_journal_is_not_signed_anew(mesh, service):
    lost = (grpc.StatusCode.ABORTED, StaleError("an earlier start"))
    service.sessions = [session("builder")]
    delivery = Delivery(command_id=b32(CHANCE(16)))
    service.errors = [lost]
    mesh.steer(Target("builder"), message="go", delivery=delivery)  # none had it: signed anew
    service.sessions[0].session_epoch += 1
    service.errors = [lost]
    with pytest.raises(ConflictError, match="is not known"):
        mesh.steer(Target("builder"), message="go", delivery=delivery)
    assert len(service.commands) == 1


@pytest.mark.parametrize("action", ["steer", "kill", "suspend"])
def test_a_retry_after_the_session_has_ended_is_told_what_became_of_it(mesh, service, action):
    """The agent may have ended by that very order, and its owner knows the receipt."""
    delivery = Delivery(command_id=b32(CHANCE(16)))
    act = {
        "steer": lambda how: mesh.steer(Target("builder"), message="go", delivery=how),
        "kill": lambda how: mesh.kill(Target("builder"), delivery=how),
        "suspend": lambda how: mesh.suspend(Target("builder"), how),
    }[action]
    service.sessions = [session("builder")]
    act(delivery)
    name = service.sessions[0].session_id
    service.sessions = [session("builder", ended=True, session_id=name)]
    assert act(delivery)["receipt"]
    assert service.commands[0] == service.commands[1]
    another = Delivery(command_id=b32(CHANCE(16)))
    if action == "kill":
        assert act(another)["detail"] == "already ended"
    else:
        with pytest.raises(EndedError, match="has ended"):
            act(another)
    assert len(service.commands) == 2


@pytest.mark.parametrize("action", ["kill", "close"])
def test_a_retry_of_an_end_that_came_too_late_spares_who_has_begun_since(mesh, service, action):
    delivery = Delivery(command_id=b32(CHANCE(16)))
    end = getattr(mesh, action)
    service.sessions = [session("builder", ended=True)]
    for _ in range(2):
        assert end(Target("builder"), delivery=delivery)["detail"] == "already ended"
    service.sessions.append(session("builder"))
    with pytest.raises(ConflictError, match="ordered something else"):
        end(Target("builder"), delivery=delivery)
    assert service.commands == []
    end(Target("builder"), delivery=Delivery(command_id=b32(CHANCE(16))))
    assert len(service.commands) == 1


@pytest.mark.parametrize("flood_ended", [True, False])
def test_what_was_sent_and_what_had_ended_do_not_push_each_other_out(
    mesh, service, monkeypatch, flood_ended
):
    """Repeated, an order that was pushed out is signed anew, and one that ended nobody may."""
    monkeypatch.setattr(outbox, "COMMANDS_MAX", 2)
    sent, unsent = (Delivery(command_id=b32(CHANCE(16))) for _ in range(2))
    service.sessions = [session("builder"), session("gone", ended=True)]
    mesh.kill(Target("builder"), delivery=sent)
    mesh.kill(Target("gone"), delivery=unsent)
    for _ in range(4):
        another = Delivery(command_id=b32(CHANCE(16)))
        mesh.kill(Target("gone" if flood_ended else "builder"), delivery=another)
    if flood_ended:
        mesh.kill(Target("builder"), delivery=sent)
        assert service.commands[-1] == service.commands[0]
    else:
        service.sessions.append(session("gone"))
        with pytest.raises(ConflictError, match="ordered something else"):
            mesh.kill(Target("gone"), delivery=unsent)
    assert len(list((mesh.home.path / "outbox").iterdir())) <= 4


def test_a_command_id_that_ordered_something_else_is_a_conflict(mesh, service):
    service.sessions = [session("builder")]
    delivery = Delivery(command_id=b32(CHANCE(16)))
    mesh.steer(Target("builder"), message="go", delivery=delivery)
    with pytest.raises(ConflictError, match="ordered something else"):
        mesh.steer(Target("builder"), message="stop", delivery=delivery)


# who commands


def test_an_unanswered_command_says_how_to_repeat_it(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(grpc.StatusCode.DEADLINE_EXCEEDED, NoAnswerError("berta is silent"))]
    with pytest.raises(NoAnswerError, match="berta is silent") as raised:
        mesh.steer(Target("builder"), message="go")
    command_id = raised.value.hint.rpartition(" ")[2]
    again = mesh.steer(Target("builder"), message="go", delivery=Delivery(command_id=command_id))
    assert again["command_id"] == command_id


@pytest.mark.parametrize("said", [UnreachableError("berta is away"), ExpiredError("too late")])
def test_a_command_that_certainly_was_not_carried_out_is_not_said_to_have_been(mesh, service, said):
    service.sessions = [session("builder")]
    service.errors = [(grpc.StatusCode.DEADLINE_EXCEEDED, said)] * (1 + len(PAUSES_S))
    with pytest.raises(type(said)) as raised:
        mesh.steer(Target("builder"), message="go")
    assert (raised.value.exit_code, raised.value.hint) == (6, "")


def test_a_command_that_was_not_sent_is_sent_again_as_it_is(mesh, service):
    service.sessions = [session("builder")]
    away = (grpc.StatusCode.DEADLINE_EXCEEDED, UnreachableError("berta is away"))
    service.errors = [away] * len(PAUSES_S)
    assert mesh.steer(Target("builder"), message="go")["outcome"] == "delivered"
    assert service.errors == []


def test_what_to_wait_for_travels_beside_the_command_and_not_in_it(mesh, service):
    service.sessions = [session("builder")]
    asked = []
    for wait in WAITS:
        mesh.steer(Target("builder"), message="go", delivery=Delivery(wait=wait))
        asked.append(service.waits[-1])
    assert asked == [True, False, False]
    assert len({len(one.payload) for one in service.commands}) == 1


def test_a_home_without_a_role_cannot_command(mesh, service, home):
    home.operator_key.unlink()
    service.sessions = [session("builder")]
    with pytest.raises(NotAuthenticatedError, match="neither commands nor reads"):
        mesh.steer(Target("builder"), message="hello")
    assert mesh.list_sessions()["sessions"]


def test_a_key_from_the_environment_is_used(mesh, service, home, environment):
    made = new_key(home, Scope(("read",)), 60, NOW_S, CHANCE)
    environment["SESSION_API_KEY"] = made["key"]
    service.sessions = [session("builder")]
    with pytest.raises(MeshError, match="this key may not steer") as raised:
        mesh.steer(Target("builder"), message="hello")
    assert raised.value.exit_code == 5
